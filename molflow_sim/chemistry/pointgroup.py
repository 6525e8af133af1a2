"""Point groups of molecules: the rotations and rotoreflections that map a conformer on itself.

Candidates come from the automorphisms of the bond graph: each permutation is superposed by the Kabsch algorithm once
as a proper and once as an improper rotation. Atoms that the candidate was not fitted to follow by nearest neighbours.
What survives is closed to a group, and refitting the averaged structure makes the matrices exact.
"""

from __future__ import annotations

import numpy as np
from rdkit import Chem

from molflow_sim.chemistry.bonds import automorphisms
from molflow_sim.geometry.superposition import kabsch


def point_group(
    rdmol: Chem.Mol, positions: np.ndarray, tolerance: float = 0.1, max_matches: int = 2000
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Point-group operations of a conformer about its centre of mass.

    Parameters
    ----------
    rdmol : rdkit.Chem.Mol
        The molecule, hydrogens explicit.
    positions : ndarray (N, 3)
        Å, in any position.
    tolerance : float
        Largest distance in Å between an atom's image and the atom it is mapped to.
    max_matches : int
        Automorphisms tried; operations beyond it can be missed (what is returned is a group all the same).

    Returns
    -------
    matrices : ndarray (M, 3, 3)
        Orthogonal, the identity first. For a linear molecule the finite subgroup of its principal axes.
    permutations : ndarray (M, N) of int
        ``matrices[m] @ x[i]`` lies on ``x[permutations[m, i]]``.
    symmetrised : ndarray (N, 3)
        Centred positions on which the operations act exactly.
    """
    masses = np.array([atom.GetMass() for atom in rdmol.GetAtoms()])
    x = positions - np.average(positions, axis=0, weights=masses)
    matcher = _Matcher(rdmol, x, tolerance)
    found: dict[tuple[tuple[int, ...], int], tuple[np.ndarray, float]] = {}
    for matrix in _candidates(rdmol, x, max_matches, tolerance):
        permutation = matcher.permutation(matrix)
        if permutation is None:
            continue
        improper = bool(np.linalg.det(matrix) < 0)
        if _rank(x) > 1:
            matrix = kabsch(x, x[permutation], improper)
        deviation = float(np.abs(x @ matrix.T - x[permutation]).max())
        key = (tuple(permutation.tolist()), _kind(matrix, x))
        if key not in found or deviation < found[key][1]:
            found[key] = (matrix, deviation)
    keys = _close(found, _rank(x) > 1)
    permutations = np.array([key[0] for key in keys], dtype=int)
    matrices = np.array([found[key][0] for key in keys])
    return _refine(x, matrices, permutations)


def _rank(x: np.ndarray) -> int:
    singular = np.linalg.svd(x, compute_uv=False)
    return int(np.sum(singular > max(1e-3 * singular[0], 1e-6)))


def _kind(matrix: np.ndarray, x: np.ndarray) -> int:
    """What tells two operations with one permutation apart: the determinant; for linear molecules the whole matrix."""
    if _rank(x) > 1:
        return 1 if np.linalg.det(matrix) > 0 else -1
    return hash(tuple(np.rint(matrix.ravel() * 100).astype(int).tolist()))


def _candidates(rdmol: Chem.Mol, x: np.ndarray, max_matches: int, tolerance: float) -> list[np.ndarray]:
    if _rank(x) < 2:
        axes = np.linalg.svd(x)[2] if len(x) > 1 else np.eye(3)
        signs = np.array(np.meshgrid([1, -1], [1, -1], [1, -1])).reshape(3, -1).T
        return [np.eye(3), *(axes.T @ np.diag(s.astype(float)) @ axes for s in signs[1:])]
    heavy = np.array([a.GetIdx() for a in rdmol.GetAtoms() if a.GetAtomicNum() > 1])
    # hydrogens only multiply the permutations, unless they are needed to span space
    use_heavy = len(heavy) > 2 and _rank(x[heavy] - x[heavy].mean(axis=0)) > 1
    subset = heavy if use_heavy else np.arange(len(x))
    # about the centre of mass of the whole molecule, which every operation leaves in place
    source, images = x[subset], x[subset[automorphisms(rdmol, subset, max_matches)]]
    u, _, vt = np.linalg.svd(np.swapaxes(images, 1, 2) @ source)
    handedness = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    out = [np.eye(3)[None]]
    for wanted in (1.0, -1.0):
        flipped = u.copy()
        flipped[:, :, 2] *= (wanted * handedness)[:, None]
        matrices = flipped @ vt
        misfit = np.linalg.norm(source @ np.swapaxes(matrices, 1, 2) - images, axis=-1).max(axis=1)
        # the least-squares fit need not be the best in the largest distance: keep what is near
        out.append(matrices[misfit < 2.0 * tolerance])
    return list(np.concatenate(out))


class _Matcher:
    """Finds the permutation that a matrix induces on the atoms, if it induces one."""

    def __init__(self, rdmol: Chem.Mol, x: np.ndarray, tolerance: float) -> None:
        self.x, self.tolerance = x, tolerance
        numbers = np.array([atom.GetAtomicNum() for atom in rdmol.GetAtoms()])
        self.different = numbers[:, None] != numbers[None, :]
        self.adjacency = np.asarray(Chem.GetAdjacencyMatrix(rdmol), dtype=bool)

    def permutation(self, matrix: np.ndarray) -> np.ndarray | None:
        """Image of each atom (N,), or None where an atom has none within the tolerance or the bonds do not follow."""
        image = self.x @ matrix.T
        distance = np.linalg.norm(image[:, None] - self.x[None], axis=-1)
        distance[self.different] = np.inf
        permutation = distance.argmin(axis=1)
        if distance[np.arange(len(image)), permutation].max() > self.tolerance:
            return None
        if len(np.unique(permutation)) < len(permutation):
            return None
        if not np.array_equal(self.adjacency[np.ix_(permutation, permutation)], self.adjacency):
            return None
        return permutation


def _close(found: dict, by_determinant: bool) -> list:
    """Keys of a closed subset of the operations, the identity first; the worst-fitting ones go until it is closed."""
    n = len(next(iter(found))[0])
    still = tuple(range(n))
    identity = next(key for key in found if key[0] == still and np.allclose(found[key][0], np.eye(3), atol=1e-6))
    keys = [identity, *sorted((k for k in found if k != identity), key=lambda k: (found[k][1], k))]
    if not by_determinant:
        return keys
    while True:
        present = set(keys)
        open_keys = {
            key
            for a in keys
            for b in keys
            if (tuple(a[0][i] for i in b[0]), a[1] * b[1]) not in present
            for key in (a, b)
        }
        if not open_keys:
            return keys
        keys.remove(max(open_keys, key=lambda k: (found[k][1], k)))


def _refine(x: np.ndarray, matrices: np.ndarray, permutations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average the structure over the group and refit the matrices, until both are exact."""
    linear = _rank(x) < 2
    improper = np.linalg.det(matrices) < 0
    for _ in range(50):
        y = np.mean([x[p] @ m for m, p in zip(matrices, permutations)], axis=0)
        moved = np.abs(y - x).max()
        x = y
        if not linear:
            matrices = np.array([kabsch(x, x[p], bool(i)) for p, i in zip(permutations, improper)])
        if moved < 1e-13:
            break
    return matrices, permutations, x
