"""How close a crystal as generated lies to another, setting, origin and order of molecules left aside.

The press brings rigid molecules home from 20°, 0.6 Å and 6 % in 87 to 100 of 100 cases; `close` asks for that.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from rdkit import Chem
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation

from molflow_sim.chemistry.bonds import skeleton
from molflow_sim.evaluate.fingerprint import reduce_lattice
from molflow_sim.symmetry.spacegroup import cell_parameters

ROTATION = 20.0
"""Degrees that each molecule may be turned."""
SHIFT = 0.6
"""Å that each molecule's centre may be off, the common shift removed."""
STRAIN = 0.06
"""Relative error that each axis of the reduced primitive cell may have."""
ANGLE = 6.0
"""Degrees that each of its angles may be off."""
CONFORMER = 0.5
"""Å, RMSD of the atoms without hydrogen: with conformers further apart no pose counts as close."""

_COMBINATIONS = np.array([n for n in product(range(-2, 3), repeat=3) if any(n)])


@dataclass(frozen=True, eq=False)
class Poses:
    """A crystal of one species as poses of one body in a primitive cell.

    Attributes
    ----------
    cell : ndarray, shape (3, 3)
        Reduced primitive cell, rows in Å.
    centres : ndarray, shape (n, 3)
        Cartesian centres of mass in Å of the n molecules of that cell.
    turns : ndarray, shape (n, 3, 3)
        Orthogonal matrices (mirror images included) that turn the body into each molecule.
    body : ndarray, shape (N, 3)
        Å.
    rdmol : rdkit.Chem.Mol
    """

    cell: np.ndarray
    centres: np.ndarray
    turns: np.ndarray
    body: np.ndarray
    rdmol: Chem.Mol

    @cached_property
    def volume(self) -> float:
        """Å³ per molecule."""
        return float(abs(np.linalg.det(self.cell)) / len(self.centres))


def poses(crystal: Any) -> Poses:
    """Poses of a `MolecularCrystal` with one molecule in the asymmetric unit."""
    (unit,) = crystal.asymmetric_unit
    group, images = crystal.space_group, list(unit.images)
    cell = np.asarray(crystal.cell)
    centred = np.all(group.rotations == np.eye(3, dtype=int), axis=(1, 2))
    primitive = reduce_lattice(_primitive(group.translations[centred]) @ cell)
    centres = (group.rotations[images] @ np.asarray(unit.centroid) + group.translations[images]) @ cell
    turns = group.cartesian_rotations[images] @ np.asarray(unit.orientation)
    fractional = centres @ np.linalg.inv(primitive)
    kept: list[int] = []
    for i in range(len(images)):
        apart = fractional[i] - fractional[kept]
        same = np.all(np.abs(apart - np.rint(apart)) < 1e-4, axis=1)
        if not np.any(same):
            kept.append(i)
    return Poses(primitive, centres[kept], turns[kept], np.asarray(unit.conformer), crystal.molecules[0].rdmol)


def body_turns(a: Poses, b: Poses) -> np.ndarray:
    """Orthogonal matrices (k, 3, 3) that lay the body of a on the body of b, over all ways to map their atoms.

    Mirror images are tried as well; fits worse than `CONFORMER` are left out.
    """
    heavy = np.array([atom.GetAtomicNum() > 1 for atom in a.rdmol.GetAtoms()])
    if heavy.sum() < 3:
        heavy[:] = True
    x = a.body[heavy] - a.body[heavy].mean(axis=0)
    matches = skeleton(b.rdmol).GetSubstructMatches(skeleton(a.rdmol), uniquify=False, maxMatches=500)
    found = []
    for match in {tuple(np.array(m)[heavy]) for m in matches}:
        y = b.body[list(match)]
        y = y - y.mean(axis=0)
        u, _, vt = np.linalg.svd(x.T @ y)
        for hand in (1.0, -1.0):
            turn = vt.T @ np.diag([1.0, 1.0, hand * np.sign(np.linalg.det(vt.T @ u.T))]) @ u.T
            if np.sqrt(np.mean(np.sum((x @ turn.T - y) ** 2, axis=1))) < CONFORMER:
                found.append(turn)
    length, width = np.linalg.svd(x)[1][:2]
    if width < 0.05 * length:  # a linear molecule: turns about its axis change nothing
        axis = np.linalg.svd(b.body[heavy] - b.body[heavy].mean(axis=0))[2][0]
        spins = Rotation.from_rotvec(np.linspace(0.0, 2.0 * np.pi, 36, endpoint=False)[:, None] * axis).as_matrix()
        found = [spin @ turn for turn in found for spin in spins]
    return np.array(found).reshape(-1, 3, 3)


def close(a: Poses, b: Poses, turns: np.ndarray | None = None) -> bool:
    """Whether crystal a lies within the limits above of crystal b.

    Parameters
    ----------
    a, b : Poses
    turns : ndarray, optional
        `body_turns(a, b)`, where they are known.
    """
    n = len(b.centres)
    if len(a.centres) != n or not (1 - STRAIN) ** 3 < a.volume / b.volume < (1 + STRAIN) ** 3:
        return False
    turns = body_turns(a, b) if turns is None else turns
    if not len(turns):
        return False
    goal = b.centres @ np.linalg.inv(b.cell)
    for basis in _bases(a.cell, b.cell):
        u, _, vt = np.linalg.svd(basis.T @ b.cell)
        frame = (u @ vt).T  # turns a's basis into b's as nearly as a rotation (or a mirror image) can
        start = a.centres @ np.linalg.inv(basis)
        # off[k, j]: smallest turn between molecule k of b and molecule j of a, over the maps of their atoms.
        own = frame @ a.turns[:, None] @ np.swapaxes(turns, 1, 2)  # (n, maps, 3, 3)
        trace = np.einsum("jmab,kab->kjm", own, b.turns)
        proper = np.linalg.det(own)[None] * np.linalg.det(b.turns)[:, None, None] > 0
        off = np.degrees(np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0)))
        fits = np.where(proper, off, 180.0).min(axis=2) <= ROTATION
        if fits.any(axis=1).all() and _centres_agree(start, goal, b.cell, fits):
            return True
    return False


def _centres_agree(start: np.ndarray, goal: np.ndarray, cell: np.ndarray, fits: np.ndarray) -> bool:
    for first in np.flatnonzero(fits[0]):
        apart = start[None] - start[first] - (goal[:, None] - goal[0])  # (k, j)
        apart = (apart - np.rint(apart)) @ cell
        distance = np.where(fits, np.linalg.norm(apart, axis=-1), 1e3)
        rows, columns = linear_sum_assignment(distance)
        moved = apart[rows, columns]
        if distance[rows, columns].max() < 2 * SHIFT and (
            np.linalg.norm(moved - moved.mean(axis=0), axis=1).max() <= SHIFT
        ):
            return True
    return False


def _bases(cell: np.ndarray, goal: np.ndarray) -> Iterator[np.ndarray]:
    """Bases of the lattice of `cell` whose lengths and angles are within the limits of those of `goal`."""
    vectors = _COMBINATIONS @ cell
    lengths, wanted = np.linalg.norm(vectors, axis=1), cell_parameters(goal)
    near = [np.flatnonzero(np.abs(lengths / w - 1.0) <= STRAIN) for w in wanted[:3]]
    for i in near[0]:
        for j in near[1]:
            if abs(_degrees(vectors[i], vectors[j]) - wanted[5]) > ANGLE:
                continue
            for k in near[2]:
                if (
                    abs(_degrees(vectors[i], vectors[k]) - wanted[4]) <= ANGLE
                    and abs(_degrees(vectors[j], vectors[k]) - wanted[3]) <= ANGLE
                    and abs(round(np.linalg.det(_COMBINATIONS[[i, j, k]]))) == 1
                ):
                    yield vectors[[i, j, k]]


def _degrees(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))))


def _primitive(translations: np.ndarray) -> np.ndarray:
    """Primitive basis (3, 3) in cell units of the lattice that the centring translations and the cell generate."""
    scale = 12  # of which 2, 3 and 4, the denominators of centrings, are divisors
    rows = np.concatenate([scale * np.eye(3), scale * translations]).round().astype(int).tolist()
    basis = []
    for axis in range(3):  # Euclid's algorithm on each column in turn
        while True:
            rows.sort(key=lambda r: (r[axis] == 0, abs(r[axis])))
            pivot = rows[0]
            if all(r[axis] == 0 for r in rows[1:]):
                break
            for r in rows[1:]:
                q = r[axis] // pivot[axis]
                r[:] = [x - q * p for x, p in zip(r, pivot)]
        basis.append(pivot)
        rows = rows[1:]
    return np.array(basis) / scale
