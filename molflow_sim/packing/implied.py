"""The crystal that a cluster of like molecules implies: the space group, cell and pose whose copies lie nearest to it.

Any two molecules of a crystal with one independent molecule are related by an operation of its space group. So the
relative orientations show the point group and its axes. An operation with rotation part W that takes a molecule to
another at a distance d makes (1 + W) d a translation of the lattice; like-oriented molecules are d itself apart.
Every group gets the cells of these translations, every cell the pose that fits best in closed form. The likeliest is
taken: deviations are normal, as wide as they are found, and groups have their shares beforehand. An axis longer than
the cluster shows by screw axes and glide planes along it only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from scipy.spatial.transform import Rotation

from molflow_sim.flow.priors import rotations
from molflow_sim.geometry.superposition import kabsch
from molflow_sim.packing.relief import CRYSTAL_PACKING_COEFFICIENT
from molflow_sim.symmetry.placements import Placement
from molflow_sim.symmetry.spacegroup import SpaceGroup, cell_matrix, cell_parameters

VOLUMES = (0.85, 1.2)
"""Volumes per molecule that are tried, over that at the mean packing coefficient of crystals."""
SHORTEST = 3.0
"""Å, of a lattice vector."""
VECTORS, CELLS = 14, 6
"""Translations along an axis (or across it) that are combined, and cells whose pose is fitted."""
ALIKE = 0.12
"""Translations that differ by less are one; in cube roots of the volume per molecule."""
EXACT = 0.05
"""Å: smaller misfits are none; among such crystals the commoner group is taken."""
FRAMES = 600
"""Orientations of the axes from which the search for the best begins."""
STEPS = (0.0, 0.25, 0.12, 0.06, 0.03, 0.015, 0.008, 0.004)
"""rad, by which the best orientations are then varied."""
_SLOTS = {
    "triclinic": np.ones((3, 3)),
    "monoclinic": np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]]),
    "orthorhombic": np.eye(3),
}
"""Components that each cell vector may have."""


@dataclass(frozen=True, eq=False)
class Implied:
    """A crystal fitted to a cluster.

    Attributes
    ----------
    space_group : str
    cell : ndarray (3, 3)
        Rows in Å, standard frame.
    centroid : ndarray (3,)
        Fractional.
    rotation : ndarray (3, 3)
        Orientation of the body; improper for its other hand.
    misfit : float
        Å: root mean square, over the molecules, of how far their centres are off and of the arcs by which they are
        turned off at the radius of gyration.
    """

    space_group: str
    cell: np.ndarray
    centroid: np.ndarray
    rotation: np.ndarray
    misfit: float


def implied_crystal(
    body: np.ndarray,
    molecules: np.ndarray,
    symmetry: np.ndarray,
    volume: float,
    placements: Sequence[Placement],
    shares: np.ndarray,
) -> Implied | None:
    """The likeliest crystal with one independent molecule in a general position that a cluster is a piece of.

    Parameters
    ----------
    body : ndarray (N, 3)
        The rigid shape in Å, about its centre of mass.
    molecules : ndarray (n, N, 3)
        Å, its copies, of either hand, in any order.
    symmetry : ndarray (K, 3, 3)
        Rotations and rotoreflections that map the body on itself, the identity first.
    volume : float
        Van der Waals volume of a molecule in Å³.
    placements : sequence of Placement
        Where to look: the general positions of triclinic, monoclinic and orthorhombic groups among them, whose
        operations change signs along the axes only. A molecule on a special position is found in a subgroup.
    shares : ndarray (P,)
        Of the placements; those of a group are added.

    Returns
    -------
    Implied or None
        None where the translations make no cell of a sensible volume.
    """
    centres, turns = _poses(body, molecules)
    size, gyration = volume / CRYSTAL_PACKING_COEFFICIENT, float(np.sqrt((body**2).sum(1).mean()))

    def unlikely(squared: float, share: float) -> float:
        return 0.5 * len(molecules) * float(np.log(max(squared, EXACT**2))) - float(np.log(share))

    best: tuple[float, float, SpaceGroup, np.ndarray, np.ndarray, np.ndarray] | None = None
    for signs, groups in _by_point_group(placements, shares).items():
        frame, own, turn, angles = _frame(np.array(signs, dtype=float), turns, symmetry)
        turned = gyration**2 * float((angles**2).mean())
        cells: dict[int, list[np.ndarray]] = {}
        for group, share in groups:
            if best is not None and unlikely(turned, share) >= best[0]:
                continue
            if group.order not in cells:
                cells[group.order] = _cells(_translations(centres @ frame, own), group, size)
            for axes in _namings(group):
                named = frame[:, axes] * [np.linalg.det(frame[:, axes]), 1.0, 1.0]
                for cell in cells[group.order]:
                    rows = cell[axes][:, axes]
                    squared, centroid = _posed(centres @ named, own[:, axes], rows, group)
                    score = unlikely(squared + turned, share)
                    if best is None or score < best[0]:
                        best = (score, squared + turned, group, rows, centroid, named.T @ turn)
    if best is None:
        return None
    _, squared, group, rows, centroid, turn = best
    standard = cell_matrix(group.constrain(cell_parameters(rows)))
    u, _, vt = np.linalg.svd((np.linalg.inv(rows) @ standard).T)
    return Implied(group.name, standard, np.mod(centroid, 1.0), u @ vt @ turn, float(np.sqrt(squared)))


def _by_point_group(placements: Sequence[Placement], shares: np.ndarray) -> dict[tuple, list[tuple[SpaceGroup, float]]]:
    """Groups whose operations are changes of sign, with their shares, by these changes, the identity first."""
    found: dict[tuple, list[tuple[SpaceGroup, float]]] = {}
    for name in dict.fromkeys(p.space_group for p in placements):
        group = SpaceGroup.from_name(name)
        share = float(sum(s for s, p in zip(shares, placements) if p.space_group == name))
        changes = np.diagonal(group.rotations, 0, 1, 2)
        if group.crystal_system in _SLOTS and (np.abs(changes) == 1).all():
            signs = tuple(sorted(set(map(tuple, changes.tolist())), reverse=True))
            found.setdefault(signs, []).append((group, share))
    return found


def _namings(group: SpaceGroup) -> list[list[int]]:
    """Ways to name the axes that keep the operations' changes of sign."""
    if group.crystal_system != "orthorhombic":
        return [[0, 1, 2]]
    changes = np.diagonal(group.rotations, 0, 1, 2)
    same = set(map(tuple, changes.tolist()))
    return [list(p) for p in permutations(range(3)) if set(map(tuple, changes[:, p].tolist())) == same]


def _poses(body: np.ndarray, molecules: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the body's origin is (n, 3), and how it is turned (n, 3, 3), the middle molecule first."""
    middle = body.mean(0)
    flat, rest = body - middle, molecules - molecules.mean(1, keepdims=True)
    turns = np.empty((len(molecules), 3, 3))
    for k, x in enumerate(rest):
        hands = [kabsch(flat, x, improper) for improper in (False, True)]
        turns[k] = min(hands, key=lambda m: round(float(((flat @ m.T - x) ** 2).sum()), 3))
    centres = molecules.mean(1) - turns @ middle
    order = np.argsort(np.linalg.norm(centres - centres.mean(0), axis=1), kind="stable")
    return centres[order], turns[order]


def _frame(
    signs: np.ndarray, turns: np.ndarray, symmetry: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The axes along which changes of sign (m, 3) relate orientations best.

    Returns
    -------
    frame : ndarray (3, 3)
        The axes as columns.
    own : ndarray (n, 3)
        Changes of sign that take the first molecule to each.
    turn : ndarray (3, 3)
        Orientation of the molecule of the identity.
    angles : ndarray (n,)
        rad, by which molecules are off.
    """
    n, turn = len(turns), turns[0]
    same = turns[:, None] @ symmetry  # (n, K, 3, 3)
    frames = np.eye(3)[None]
    if (signs != signs[:, :1]).any():
        frames = rotations(np.random.default_rng(0).random((FRAMES, 3)))
    for width in STEPS:
        if width and len(frames) > 1:
            steps = Rotation.from_rotvec(width * np.random.default_rng(1).normal(size=(40, 3))).as_matrix()
            frames = np.concatenate([frames, (steps @ frames[:, None]).reshape(-1, 3, 3)])
        relative = same @ turn.T
        along = np.einsum("fxa,fpxa->fpa", frames, relative.reshape(1, -1, 3, 3) @ frames[:, None])
        traces = (along @ signs.T).reshape(len(frames), n, -1)  # of what each operation leaves, by symmetry
        frames = frames[np.argsort(-traces.max(2).sum(1), kind="stable")[:6]]
        traces = traces[traces.max(2).sum(1).argmax()]
        by, kind = np.divmod(traces.argmax(1), len(signs))
        back = np.einsum("xa,na,ya->nxy", frames[0], signs[kind], frames[0])
        u, _, vt = np.linalg.svd((back @ same[np.arange(n), by]).sum(0))
        turn = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt) * np.linalg.det(turn))]) @ vt
    return frames[0], signs[kind], turn, np.arccos(np.clip(0.5 * (traces.max(1) - 1.0), -1.0, 1.0))


def _translations(places: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Lattice vectors (T, 3) that pairs of molecules show, up to their sign."""
    i, j = np.triu_indices(len(places), 1)
    apart, relation = places[j] - places[i], own[i] * own[j]
    vectors = np.where((relation > 0).all(1)[:, None], apart, (1.0 + relation) * apart)
    return vectors[np.linalg.norm(vectors, axis=1) > SHORTEST]


def _cells(vectors: np.ndarray, group: SpaceGroup, size: float) -> list[np.ndarray]:
    """Cells (3, 3) with the shape and centring of a group's, the likeliest first, of which vectors are translations."""
    centring = group.translations[(group.rotations == np.eye(3, dtype=int)).all((1, 2))]
    slots = _SLOTS[group.crystal_system]
    known = vectors if len(centring) == 1 else np.concatenate([vectors, 2.0 * vectors])
    lists = [_different(known * slot, ALIKE * size ** (1 / 3)) for slot in slots]
    index = np.stack(np.meshgrid(*(np.arange(len(x)) for x in lists), indexing="ij"), -1).reshape(-1, 3)
    if group.crystal_system == "triclinic":
        index = index[(np.diff(index) > 0).all(1)]
    cells = np.stack([x[index[:, k]] for k, x in enumerate(lists)], 1)
    volume = np.linalg.det(cells)
    fits = (np.abs(volume) > VOLUMES[0] * group.order * size) & (np.abs(volume) < VOLUMES[1] * group.order * size)
    cells = cells[fits] * np.sign(volume[fits])[:, None, None] ** [[1], [0], [0]]
    if not len(cells):
        return []
    whole = (vectors @ np.linalg.inv(cells))[:, None] - centring[:, None]
    off = (((whole - np.rint(whole)) @ cells[:, None]) ** 2).sum(-1).min(1).mean(-1)
    # skewed descriptions of a lattice fit as well as short ones
    order = np.lexsort([np.linalg.norm(cells, axis=2).sum(1).round(3), off.round(3)])
    return [_refined(cells[k], vectors, centring) * slots for k in order[:CELLS]]


def _different(vectors: np.ndarray, width: float) -> np.ndarray:
    """Means of vectors that lie within `width` of each other, up to their sign; the shortest first."""
    length = np.linalg.norm(vectors, axis=1)
    vectors = vectors[np.argsort(length.round(6), kind="stable")[(length <= SHORTEST).sum() :]]
    kept: list[np.ndarray] = []
    while len(vectors) and len(kept) < VECTORS:
        alike = vectors * np.where(vectors @ vectors[0] < 0.0, -1.0, 1.0)[:, None]
        near = np.linalg.norm(alike - vectors[0], axis=1) < width
        kept.append(alike[near].mean(0))
        vectors = vectors[~near]
    return np.array(kept).reshape(-1, 3)


def _refined(cell: np.ndarray, vectors: np.ndarray, centring: np.ndarray) -> np.ndarray:
    """The cell of which those vectors that fit at all are translations with least squares."""
    whole = (vectors @ np.linalg.inv(cell))[:, None] - centring
    off = (((whole - np.rint(whole)) @ cell) ** 2).sum(-1)
    pick, near = off.argmin(1), off.min(1) < 4.0 * np.median(off.min(1)) + 0.01
    counts = np.rint(whole[np.arange(len(pick)), pick]) + centring[pick]
    fitted = np.linalg.lstsq(counts[near], vectors[near], rcond=None)[0]
    return fitted if abs(np.linalg.det(fitted) / np.linalg.det(cell) - 1.0) < 0.2 else cell


def _posed(places: np.ndarray, own: np.ndarray, cell: np.ndarray, group: SpaceGroup) -> tuple[float, np.ndarray]:
    """Mean square distance in Å² of centres from those of the best crystal, and its centroid, fractional."""
    fractional = places @ np.linalg.inv(cell)
    changes = np.diagonal(group.rotations, 0, 1, 2)
    shift = np.stack([group.translations[(changes == s).all(1)] for s in own])  # (n, centring, 3)
    # a centring may move any fraction by a half: then phases are of twice the fractions, and halves are tried
    fold = 1 if shift.shape[1] == 1 else 2
    phase = np.exp(2j * np.pi * fold * (fractional - shift[:, 0]))
    plus, minus = (np.angle(np.where(side, phase, 0.0).sum(0)) / (2.0 * np.pi * fold) for side in (own > 0, own < 0))
    halves = np.array(list(product((0.0, 0.5)[:fold], repeat=6))).reshape(-1, 2, 3)
    up, down = plus + halves[:, 0], minus + halves[:, 1]  # centroid + origin, -centroid + origin
    centroid, origin = 0.5 * (up - down), 0.5 * (up + down)
    gap = fractional - own * centroid[:, None] - origin[:, None] - shift.transpose(1, 0, 2)[:, None]
    gap = (gap - np.rint(gap)) @ cell  # (centring, halves, n, 3)
    nearest = (gap**2).sum(-1).argmin(0)
    gap = np.take_along_axis(gap, nearest[None, ..., None], 0)[0]
    squared = ((gap - gap.mean(1, keepdims=True)) ** 2).sum(-1).mean(-1)
    return float(squared.min()), centroid[squared.argmin()]
