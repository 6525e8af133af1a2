"""RMSD_n for linear molecules and single atoms, whose own superposition leaves the rotation of the packing open.

oxtalign starts from superposing the two central molecules. For CO2, acetonitrile or neon that fixes no rotation about
the axis, so here a central molecule and two of its neighbours start the superposition instead; the trimmed fit that
follows is the same in kind.
"""

from __future__ import annotations

import numpy as np
from oxtalign.cluster import molecule_images, nearest_shell_images
from oxtalign.model import ComparisonResult, Structure
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

_LINEAR = 0.15  # Å: root mean square distance of the atoms from their best line
_SIDE = 0.8  # Å: tolerance on the sides of the triangle of centres that starts a superposition
_MAX_SEEDS = 40


def is_linear(structure: Structure) -> bool:
    """Whether the structure's largest molecules have all compared atoms on one line."""
    size = max((m.n_atoms for m in structure.molecules), default=0)
    largest = [m.coords - m.coords.mean(axis=0) for m in structure.molecules if m.n_atoms == size]
    return all(x.shape[0] < 3 or np.linalg.svd(x, compute_uv=False)[1] < _LINEAR * np.sqrt(len(x)) for x in largest)


def compare_linear(
    a: Structure, b: Structure, n: int, tolerance: float, allow_inversion: bool, max_central: int = 8
) -> ComparisonResult:
    """Match n molecules of two structures, started from triangles of molecular centres (Å)."""
    best = ComparisonResult(float("nan"), n, 0, "failed", message="no triangle of molecular centres agrees")
    if {m.species_key for m in a.molecules} != {m.species_key for m in b.molecules}:
        best.message = "the structures hold different molecules"
        return best
    centres, base, offset = molecule_images(b, n, contact=True)
    for ia in range(min(len(a.molecules), max_central)):
        shell = [(a.molecules[k], shift) for k, shift in nearest_shell_images(a, ia, n)]
        shell_centres = np.array([m.centroid + s for m, s in shell])
        for sign in (1, -1) if allow_inversion else (1,):
            seeds = []
            for ib in range(min(len(b.molecules), max_central)):
                seeds += _seeds(shell_centres, sign * centres, sign * b.molecules[ib].centroid)
            for _, rotation, shift in sorted(seeds, key=lambda s: s[0])[:_MAX_SEEDS]:
                result = _fit(shell, shell_centres, b, centres, base, offset, sign, rotation, shift, n, tolerance)
                if (result.n_matched, -np.nan_to_num(result.rmsd_n)) > (best.n_matched, -np.nan_to_num(best.rmsd_n)):
                    best = result
            if best.n_matched == n and best.rmsd_n < 1e-3:
                return best
        if best.n_matched == n:
            break
    return best


def _seeds(shell: np.ndarray, images: np.ndarray, centre: np.ndarray) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Rigid motions that bring B's centre and two neighbours onto A's, with the misfit of the whole shell (Å)."""
    from_centre = shell - shell[0]
    length = np.linalg.norm(from_centre, axis=1)
    first = int(np.argmin(np.where(length > 1e-6, length, np.inf)))
    sine = np.linalg.norm(np.cross(from_centre, from_centre[first]), axis=1) / (length * length[first] + 1e-9)
    second = int(np.argmin(np.where(sine > 0.5, length, np.inf)))
    side = np.linalg.norm(shell[first] - shell[second])
    distance = np.linalg.norm(images - centre, axis=1)
    near = images[distance < 2.0 * length.max() + 6.0]
    seeds = []
    for p in np.flatnonzero(np.abs(distance - length[first]) < _SIDE):
        for q in np.flatnonzero(np.abs(distance - length[second]) < _SIDE):
            if p == q or abs(np.linalg.norm(images[p] - images[q]) - side) > _SIDE:
                continue
            r, t = _kabsch(np.array([centre, images[p], images[q]]), shell[[0, first, second]])
            seeds.append((float(np.sqrt(np.mean(cdist(shell, near @ r.T + t).min(axis=1) ** 2))), r, t))
    return seeds


def _fit(shell, shell_centres, b, centres, base, offset, sign, rotation, shift, n, tolerance) -> ComparisonResult:
    """Alternate assignment of molecules and fit over those within the tolerance, as oxtalign does."""
    previous = np.inf
    result = ComparisonResult(float("nan"), n, 0, "failed")
    for _ in range(12):
        moved = sign * centres @ rotation.T + shift
        near = np.flatnonzero(np.min(cdist(shell_centres, moved), axis=0) < tolerance)
        rows, columns = linear_sum_assignment(cdist(shell_centres, moved[near]))
        xa, xb, raw = [], [], []
        for i, j in zip(rows, near[columns]):
            molecule, s = shell[i]
            other = b.molecules[base[j]]
            if molecule.species_key != other.species_key:
                continue
            target = molecule.coords + s
            source = sign * (other.coords + offset[j])
            y = source @ rotation.T + shift
            order = _correspondence(molecule.elements, target, other.elements, y)
            if np.sqrt(np.mean(np.sum((y[order] - target) ** 2, axis=1))) < tolerance:
                xa.append(target)
                xb.append(y[order])
                raw.append(source[order])
        if not xa:
            return result
        rmsd = float(np.sqrt(np.mean(np.sum((np.concatenate(xa) - np.concatenate(xb)) ** 2, axis=1))))
        result = ComparisonResult(rmsd, n, len(xa), "full" if len(xa) == n else "partial", inverted=sign < 0)
        if len(xa) < 3 or abs(previous - rmsd) < 1e-6:
            break
        previous = rmsd
        rotation, shift = _kabsch(np.concatenate(raw), np.concatenate(xa))
    return result


def _correspondence(elements_a, xa, elements_b, xb) -> np.ndarray:
    cost = cdist(xa, xb) ** 2
    cost[np.array(elements_a)[:, None] != np.array(elements_b)[None, :]] = 1e6
    return linear_sum_assignment(cost)[1]


def _kabsch(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Proper rotation R and translation t with p Rᵀ + t nearest to q."""
    cp, cq = p.mean(axis=0), q.mean(axis=0)
    u, _, vt = np.linalg.svd((p - cp).T @ (q - cq))
    d = np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T)) or 1.0])
    r = vt.T @ d @ u.T
    return r, cq - r @ cp
