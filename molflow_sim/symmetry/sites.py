"""Special positions: the sites of a space group that a symmetric molecule can occupy, and how it must be turned.

A molecule may sit on a point of site symmetry S if its point group contains S. Its centre may then move along
the directions that S leaves alone, and turn about the axis that S leaves alone, if there is one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from molflow_sim.symmetry.placements import Placement, images_of, placement_from_group
from molflow_sim.symmetry.spacegroup import SpaceGroup

if TYPE_CHECKING:
    from molflow_sim.systems.crystal import MolecularCrystal

_TOLERANCE = 1e-6
_NEAR = 0.2  # Å between a molecule's centre and its image by an operation of its site
_ALIKE = 0.05  # largest difference of elements of matrices that are one operation
_MAX_ORDER = 48  # groups with more operations are searched at their general position only


def _axis(matrix: np.ndarray) -> np.ndarray | None:
    """Rotation axis of det(W)·W, or None for ±identity."""
    proper = matrix * np.sign(np.linalg.det(matrix))
    if np.trace(proper) > 3.0 - 1e-4:
        return None
    values, vectors = np.linalg.eig(proper)
    axis = np.real(vectors[:, np.argmin(np.abs(values - 1.0))])
    return axis / np.linalg.norm(axis)


def _kind(matrix: np.ndarray) -> tuple[int, float]:
    """Class of an orthogonal matrix: determinant and trace."""
    return round(float(np.linalg.det(matrix))), round(float(np.trace(matrix)), 2)


def site_orientations(site: np.ndarray, molecule: np.ndarray) -> np.ndarray:
    """Rotations R with Rᵀ W R among the molecule's operations for every W of the site.

    Parameters
    ----------
    site : ndarray, shape (S, 3, 3)
        Cartesian site-symmetry operations.
    molecule : ndarray, shape (P, 3, 3)
        The molecule's operations in its body frame.

    Returns
    -------
    ndarray, shape (C, 3, 3)
        One representative per inequivalent way; where the site leaves a rotation free it is one point of the
        family. Empty if the molecule is not symmetric enough.
    """

    def accepted(rotation: np.ndarray) -> bool:
        turned = np.einsum("yx,syz,zw->sxw", rotation, site, rotation)
        gap = np.abs(turned[:, None] - molecule[None]).max((2, 3)).min(1)
        return bool(np.all(gap < _ALIKE))

    axes = [(w, a) for w in site if (a := _axis(w)) is not None]
    if not axes:
        return np.eye(3)[None] if accepted(np.eye(3)) else np.empty((0, 3, 3))
    w1, a1 = axes[0]
    second = next(((w, a) for w, a in axes[1:] if abs(a @ a1) < 0.99), None)
    found: list[np.ndarray] = []

    def choices(w: np.ndarray):
        for m in molecule:
            axis = _axis(m)
            if axis is not None and _kind(m) == _kind(w):
                yield axis
                yield -axis

    for u1 in choices(w1):
        # Without a second axis any direction across the first completes the frame.
        helper_a = np.eye(3)[np.argmin(np.abs(a1))] if second is None else second[1]
        helpers = [np.eye(3)[np.argmin(np.abs(u1))]] if second is None else list(choices(second[0]))
        for helper_u in helpers:
            if second is not None and abs(u1 @ helper_u - a1 @ helper_a) > 0.02:
                continue
            rotation = _frame(a1, helper_a) @ _frame(u1, helper_u).T
            if accepted(rotation) and not any(_equivalent(rotation, r, molecule, w1, second is None) for r in found):
                found.append(rotation)
    return np.array(found) if found else np.empty((0, 3, 3))


def _frame(first: np.ndarray, helper: np.ndarray) -> np.ndarray:
    third = np.cross(first, helper)
    third /= np.linalg.norm(third)
    return np.stack([first, np.cross(third, first), third], 1)


def _equivalent(a: np.ndarray, b: np.ndarray, molecule: np.ndarray, w: np.ndarray, free: bool) -> bool:
    """Whether two orientations differ by a proper symmetry of the molecule (or by the free rotation)."""
    proper = molecule[np.linalg.det(molecule) > 0]
    if free:
        axis = _axis(w)
        return bool(np.any(np.abs(axis @ (a @ proper @ b.T) - axis).max(-1) < 0.02))
    return bool(np.any(np.abs(a @ proper - b).max((1, 2)) < _ALIKE))


def special_placements(group: SpaceGroup, molecule: list[np.ndarray]) -> list[Placement]:
    """Special positions of `group` that the molecule can occupy with at least one of its conformers.

    Parameters
    ----------
    group : SpaceGroup
    molecule : list of ndarray, shape (P, 3, 3)
        Point-group operations of each conformer.

    Returns
    -------
    list of Placement
        Conjugate and translationally equivalent sites once.
    """
    if group.order > _MAX_ORDER or all(len(m) < 2 for m in molecule):
        return []
    placements = []
    for point, stabiliser in _sites(group.name):
        site = group.cartesian_rotations[stabiliser]
        orientations = [site_orientations(site, m) for m in molecule]
        count = max(len(o) for o in orientations)
        if count == 0:
            continue
        # Conformers without the symmetry get NaN; the others repeat their choices up to a common number.
        rows = [np.resize(o, (count, 3, 3)) if len(o) else np.full((count, 3, 3), np.nan) for o in orientations]
        # of a point of the site with no symmetry beyond it
        generic = point + group.rotations[stabiliser].mean(0) @ np.array([0.0137, 0.0219, 0.0311])
        images = _distinct_images(group, generic)
        placements.append(_placement(group, point, stabiliser, np.stack(rows), images))
    return placements


def _placement(
    group: SpaceGroup, point: np.ndarray, stabiliser: np.ndarray, orientations: np.ndarray, images: Iterable[int]
) -> Placement:
    site = group.cartesian_rotations[stabiliser]
    det = np.linalg.det(site)[:, None, None]
    return Placement(
        **images_of(group, images),
        site_centroid=point,
        translation_projector=site.mean(0),
        rotation_projector=(det * site).mean(0),
        orientations=orientations,
    )


def _distinct_images(group: SpaceGroup, point: np.ndarray) -> np.ndarray:
    images = group.rotations @ point + group.translations
    kept: list[int] = []
    for g, x in enumerate(images):
        if all(np.abs((d := x - images[k]) - np.rint(d)).max() > _TOLERANCE for k in kept):
            kept.append(g)
    return np.array(kept)


def _stabiliser(group: SpaceGroup, point: np.ndarray) -> np.ndarray:
    delta = group.rotations @ point + group.translations - point
    return np.flatnonzero(np.abs(delta - np.rint(delta)).max(1) < _TOLERANCE)


_SHIFTS = np.array(list(itertools.product((-1, 0, 1), repeat=3)))


@cache
def _sites(name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(point, indices of the stabiliser's operations), one of each class of equivalent sites of a space group.

    They are fixed points, lines and planes of single operations, and where two of them meet.
    """
    group = SpaceGroup.from_name(name)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # point, projector on the free directions, stabiliser

    def visit(matrix: np.ndarray, vector: np.ndarray) -> None:
        inverse = np.linalg.pinv(matrix)
        point = inverse @ vector
        if np.abs(matrix @ point - vector).max() > 1e-8:
            return
        free = np.eye(3) - inverse @ matrix
        stabiliser = _stabiliser(group, point + free @ np.array([0.0173, 0.0291, 0.0357]))
        if not any(len(stabiliser) == len(k) and _equivalent_sites(group, point, free, p, f) for p, f, k in found):
            found.append((np.mod(np.round(point, 9), 1.0), free, stabiliser))

    fixed: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}
    for w, t in zip(group.rotations[1:], group.translations[1:]):
        matrix = np.eye(3) - w
        inverse = np.linalg.pinv(matrix)
        for vector in t + _SHIFTS:
            point = inverse @ vector
            if np.abs(matrix @ point - vector).max() < 1e-8:
                key = (tuple(np.round(inverse @ matrix, 4).ravel()), tuple(np.round(point, 4)))
                fixed.setdefault(key, (matrix, vector))
    for matrix, vector in fixed.values():
        visit(matrix, vector)
    for (m1, v1), (m2, v2) in itertools.islice(itertools.combinations(fixed.values(), 2), 4000):
        visit(np.concatenate([m1, m2]), np.concatenate([v1, v2]))
    return [(point, stabiliser) for point, _, stabiliser in found]


def _equivalent_sites(group: SpaceGroup, p1: np.ndarray, f1: np.ndarray, p2: np.ndarray, f2: np.ndarray) -> bool:
    """Whether an operation of the group and a lattice translation carry the first site onto the second."""
    moved = group.rotations @ f1
    # Same free directions: the images of the first lie in the second's, and the dimensions agree.
    aligned = np.abs(moved - f2 @ moved).max((1, 2)) < 1e-6
    if round(np.trace(f1)) != round(np.trace(f2)) or not aligned.any():
        return False
    delta = (group.rotations @ p1 + group.translations)[aligned] - p2
    delta = (delta - np.rint(delta))[:, None] + _SHIFTS
    across = delta @ (np.eye(3) - f2).T
    return bool((np.abs(across).max(-1) < 1e-6).any())


def placement_of(crystal: MolecularCrystal) -> Placement:
    """Placement of the (first) molecule of an existing crystal, on a general or special position."""
    group, unit = crystal.space_group, crystal.asymmetric_unit[0]
    if len(unit.images) == group.order:
        return placement_from_group(group)
    point = np.asarray(unit.centroid, float)
    delta = group.rotations @ point + group.translations - point
    stabiliser = np.flatnonzero(np.linalg.norm((delta - np.rint(delta)) @ crystal.cell, axis=1) < _NEAR)
    return _placement(group, point, stabiliser, np.asarray(unit.orientation)[None, None], unit.images)
