"""RMSD_n for linear molecules, single atoms and molecules of at most five atoms.

oxtalign starts from superposing the two central molecules and refines each way of doing so. For CO2, acetonitrile or
neon that fixes no rotation about the axis, and for methane there are 24 ways that a look at the neighbours could rank.
So here three points start the superposition (the molecule's centre, an atom or neighbour, another one not on their
line), all such starts are ranked by how far the whole shell's atoms are from atoms of their element, and the best are
refined by a trimmed fit of the same kind. The work is bounded by counts, never by time.
"""

from __future__ import annotations

import numpy as np
from oxtalign.align import kabsch, rmsd
from oxtalign.cluster import molecule_images, nearest_shell_images
from oxtalign.model import ComparisonResult, Structure
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

_LINEAR = 0.15  # Å: root mean square distance of the atoms from their best line
_FEW = 5  # atoms compared, up to which this comparison is used for molecules that are not linear
_SIDE = {False: 0.3, True: 1.0}  # Å: tolerance on a starting triangle's sides; True: to a neighbour
_THIRDS = 4  # neighbours tried as the third point
_REFINED = 8  # starts refined
_TURN = 0.2  # largest difference of two rotations' elements for one of them to do
_REACH = 2.0  # Å: an atom of the shell farther than this from any of its element counts as this far
_WIDE = 1.5  # Å: tolerance of the first fit, as oxtalign's


def is_small(structure: Structure) -> bool:
    """Whether the structure's largest molecules are linear or have at most five compared atoms."""
    size = max((m.n_atoms for m in structure.molecules), default=0)
    largest = [m.coords for m in structure.molecules if m.n_atoms == size]
    return size <= _FEW or all(_rank(x) < 2 for x in largest)


def compare_small(
    a: Structure, b: Structure, n: int, tolerance: float, allow_inversion: bool, centrals: tuple[list[int], list[int]]
) -> ComparisonResult:
    """Match n molecules of two structures around each pair of `centrals` (Å)."""
    best = ComparisonResult(float("nan"), n, 0, "failed", message="no triangle of atoms or molecular centres agrees")
    if {m.species_key for m in a.molecules} != {m.species_key for m in b.molecules}:
        best.message = "the structures hold different molecules"
        return best
    for ia in centrals[0]:
        shell = [(a.molecules[k], shift) for k, shift in nearest_shell_images(a, ia, n)]
        starts = []
        for ib in centrals[1]:
            for sign in (1, -1) if allow_inversion else (1,):
                starts += _starts(shell, b, ib, sign, n)
        tried: list[tuple[int, np.ndarray]] = []
        for _, sign, r, t in sorted(starts, key=lambda s: s[0]):
            if any(sign == other and np.abs(r - turn).max() < _TURN for other, turn in tried):
                continue
            if len(tried) == _REFINED:
                break
            tried.append((sign, r))
            result = _fit(shell, b, sign, r, t, n, tolerance)
            if (result.n_matched, -np.nan_to_num(result.rmsd_n)) > (best.n_matched, -np.nan_to_num(best.rmsd_n)):
                best = result
    return best


def _rank(x: np.ndarray) -> int:
    """0, 1 or 2 for a point, points on a line, and others."""
    singular = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) / np.sqrt(len(x))
    return int(np.sum(singular[:2] > _LINEAR))


def _starts(shell, b: Structure, ib: int, sign: int, n: int) -> list[tuple[float, int, np.ndarray, np.ndarray]]:
    """Rigid motions (misfit in Å, sign, R, t) that bring three points of B onto three points of A."""
    molecule, shift = shell[0]
    other = b.molecules[ib]
    if molecule.species_key != other.species_key:
        return []
    centres, base, offset = molecule_images(b, n, contact=True)
    origin, target = molecule.centroid + shift, sign * other.centroid
    reach = max(np.linalg.norm(m.coords + s - origin, axis=1).max() for m, s in shell) + _REACH
    near = np.flatnonzero(np.linalg.norm(centres - other.centroid, axis=1) < reach + 3.0)
    neighbours_a = np.array([m.centroid + s for m, s in shell[1:]]) - origin
    neighbours_b = sign * centres[near] - target
    neighbours_b = neighbours_b[np.linalg.norm(neighbours_b, axis=1) > 0.1]
    atoms_a, atoms_b = molecule.coords + shift - origin, sign * other.coords - target
    rank = _rank(atoms_a)
    frames = []
    first_a, first_b = (atoms_a, atoms_b) if rank else (neighbours_a, neighbours_b)
    i = int(np.argmax(np.linalg.norm(atoms_a, axis=1))) if rank else 0
    second_a, second_b = (atoms_a, atoms_b) if rank == 2 else (neighbours_a, neighbours_b)
    heights = np.linalg.norm(np.cross(second_a, first_a[i]), axis=1) / np.linalg.norm(first_a[i])
    order = np.argsort(-heights) if rank == 2 else np.flatnonzero(heights > 1.5)
    for j in order[: 1 if rank == 2 else _THIRDS]:
        one = _alike(first_a[i], first_b, _SIDE[rank == 0])
        two = _alike(second_a[j], second_b, _SIDE[rank < 2])
        if rank:
            one &= np.array(other.elements) == molecule.elements[i]
        if rank == 2:
            two &= np.array(other.elements) == molecule.elements[j]
        apart = np.abs(cdist(first_b, second_b) - np.linalg.norm(first_a[i] - second_a[j]))
        p, q = np.nonzero((apart < _SIDE[rank < 2]) & one[:, None] & two[None, :])
        frames.append(_frame(first_a[i][None], second_a[j][None]).swapaxes(1, 2) @ _frame(first_b[p], second_b[q]))
    turns = np.concatenate(frames) if frames else np.empty((0, 3, 3))
    turns = turns[np.isfinite(turns).all(axis=(1, 2))]
    if not len(turns):
        return []
    codes = {e: 100.0 * k for k, e in enumerate(sorted({e for m in b.molecules for e in m.elements}))}
    cloud = [sign * (b.molecules[base[k]].coords + offset[k]) - target for k in near]
    labels = [codes[e] for k in near for e in b.molecules[base[k]].elements]
    tree = cKDTree(np.column_stack([np.concatenate(cloud), labels]))
    x = np.concatenate([m.coords + s - origin for m, s in shell])
    points = np.empty((len(turns), len(x), 4))
    points[..., :3] = x @ turns
    points[..., 3] = [codes[e] for m, _ in shell for e in m.elements]
    misfit = np.minimum(tree.query(points, distance_upper_bound=_REACH)[0], _REACH)
    return [
        (float(score), sign, turn, origin - turn @ target)
        for score, turn in zip(np.sqrt(np.mean(misfit**2, axis=1)), turns)
    ]


def _alike(point: np.ndarray, points: np.ndarray, side: float) -> np.ndarray:
    return np.abs(np.linalg.norm(points, axis=1) - np.linalg.norm(point)) < side


def _frame(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Right-handed orthonormal frames (S, 3, 3), rows, of vectors x and y (S, 3)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        e = x / np.linalg.norm(x, axis=1, keepdims=True)
        f = y - np.sum(y * e, axis=1, keepdims=True) * e
        f = f / np.linalg.norm(f, axis=1, keepdims=True)
    return np.stack([e, f, np.cross(e, f)], axis=1)


def _fit(shell, b: Structure, sign: int, rotation, shift, n: int, tolerance: float) -> ComparisonResult:
    """Alternate assignment of molecules and fit over those within the tolerance, as oxtalign does."""
    centres, base, offset = molecule_images(b, n, contact=True)
    shell_centres = np.array([m.centroid + s for m, s in shell])
    limits = [max(_WIDE, tolerance), *[tolerance] * 7]
    previous = np.inf
    result = ComparisonResult(float("nan"), n, 0, "failed")
    for limit in limits:
        moved = sign * centres @ rotation.T + shift
        near = np.flatnonzero(np.sum((moved - shell_centres[0]) ** 2, axis=1) < (_reach(shell_centres) + limit) ** 2)
        cost = cdist(shell_centres, moved[near])
        xa, yb = [], []
        for i, j in zip(*linear_sum_assignment(np.minimum(cost, 10.0 * limit))):
            molecule, s = shell[i]
            other, k = b.molecules[base[near[j]]], near[j]
            if cost[i, j] >= limit or molecule.species_key != other.species_key:
                continue
            target, source = molecule.coords + s, sign * (other.coords + offset[k])
            source = source[_correspondence(molecule.elements, target, other.elements, source @ rotation.T + shift)]
            if rmsd(source @ rotation.T + shift, target) < limit:
                xa.append(target)
                yb.append(source)
        if not xa:
            return result
        x, y = np.concatenate(xa), np.concatenate(yb)
        value = rmsd(y @ rotation.T + shift, x)
        if limit == tolerance:
            result = ComparisonResult(value, n, len(xa), "full" if len(xa) == n else "partial", inverted=sign < 0)
            if abs(previous - value) < 1e-6:
                break
        previous = value
        if _rank(x) == 2:
            rotation, shift = kabsch(y, x)
    return result


def _reach(centres: np.ndarray) -> float:
    return float(np.linalg.norm(centres - centres[0], axis=1).max())


def _correspondence(elements_a, xa, elements_b, xb) -> np.ndarray:
    cost = cdist(xa, xb) ** 2
    cost[np.array(elements_a)[:, None] != np.array(elements_b)[None, :]] = 1e6
    return linear_sum_assignment(cost)[1]
