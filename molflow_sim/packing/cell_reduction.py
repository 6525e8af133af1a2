"""Short, nearly orthogonal cells for pressed packings: the same lattice, described conventionally.

Triclinic cells are Niggli-reduced; monoclinic ones are reduced in the plane across the unique axis, changing the
setting where that takes it (P 21/c to P 21/n, C 2/c to I 2/a ...). Other systems have nothing to reduce.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache

import numpy as np

from molflow_sim.errors import CrystalError
from molflow_sim.packing.packings import RigidPackings
from molflow_sim.symmetry.placements import COMMON_SPACE_GROUPS, Placement, general_placement, images_of
from molflow_sim.symmetry.reduction import reduced_basis
from molflow_sim.symmetry.spacegroup import SpaceGroup, cell_matrix, cell_parameters


def reduce_cells(packings: RigidPackings) -> RigidPackings:
    """The same packings with reduced cells; packings whose reduction has no standard setting stay as they are."""
    placements = list(packings.placements)
    known = {_key(p): k for k, p in enumerate(placements)}
    placement = packings.placement.copy()
    cell, centroid, rotation = packings.cell.copy(), packings.centroid.copy(), packings.rotation.copy()
    for i in range(len(packings)):
        place = placements[placement[i]]
        found = _best_setting(place, cell[i])
        if found is None:
            continue
        change, (name, images) = found
        new = general_placement(name) if place.is_general else _moved(place, name, images, change)
        key = _key(new)
        if key not in known:
            known[key] = len(placements)
            placements.append(new)
        rows = change @ cell[i]
        standard = cell_matrix(SpaceGroup.from_name(name).constrain(cell_parameters(rows)))
        turn = (np.linalg.inv(rows) @ standard).T  # takes the old Cartesian frame to the new standard one
        cell[i], placement[i] = standard, known[key]
        centroid[i] = np.mod(centroid[i] @ np.linalg.inv(change), 1.0)
        rotation[i] = turn @ rotation[i]
    return replace(
        packings, placements=tuple(placements), placement=placement, cell=cell, centroid=centroid, rotation=rotation
    )


def _key(place: Placement) -> tuple:
    return (
        place.space_group, place.images, tuple(np.round(place.site_centroid, 6)),
        tuple(np.round(place.rotation_projector, 3).ravel()),
    )  # fmt: skip


def _change_of_basis(place: Placement, cell: np.ndarray) -> np.ndarray | None:
    """Integer matrix P of the reduced basis, rows P @ cell, right-handed; None where nothing is to be done."""
    if not np.isfinite(cell).all() or np.linalg.det(cell) < 1e-3:
        return None
    if place.crystal_system == "triclinic":
        try:
            return reduced_basis(cell).astype(int)
        except CrystalError:
            return None
    if place.crystal_system == "monoclinic" and place.unique_axis == "b":
        return _reduce_plane(cell)
    return None


# Exchange of a and c (b reversed, to stay right-handed).
_SWAP = np.array([[0, 0, 1], [0, -1, 0], [1, 0, 0]])
_USUAL = frozenset(name for settings in COMMON_SPACE_GROUPS for name in settings)


def _best_setting(place: Placement, cell: np.ndarray) -> tuple[np.ndarray, tuple] | None:
    """Reduced basis and its (setting, images), the usual settings first; None to leave the cell alone."""
    change = _change_of_basis(place, cell)
    if change is None:
        return None
    options = [change] if place.crystal_system == "triclinic" else [change, _SWAP @ change]
    found = [(c, t) for c in options if (t := _transformed(place.space_group, place.images, tuple(map(tuple, c))))]
    found.sort(key=lambda option: option[1][0] not in _USUAL)  # stable: otherwise the unswapped one
    if not found or np.array_equal(found[0][0], np.eye(3)):
        return None
    return found[0]


def _reduce_plane(cell: np.ndarray) -> np.ndarray:
    """Gauss reduction of a and c with b kept, β made obtuse."""
    change = np.eye(3, dtype=int)
    for _ in range(50):
        a, c = (change @ cell)[[0, 2]]
        long, short = (2, 0) if c @ c >= a @ a else (0, 2)
        rows = change @ cell
        shift = int(np.rint(rows[long] @ rows[short] / (rows[short] @ rows[short])))
        if shift == 0:
            break
        change[long] -= shift * change[short]
    rows = change @ cell
    if rows[0] @ rows[2] > 1e-9:
        change[[1, 2]] *= -1
    return change


@lru_cache(maxsize=4096)
def _transformed(name: str, images: tuple[int, ...], change: tuple) -> tuple[str, tuple[int, ...]] | None:
    """Setting whose operations are those of `name` in the new basis, and the indices its images get there."""
    group = SpaceGroup.from_name(name)
    q = np.linalg.inv(np.array(change)).T
    rotations = np.rint(q @ group.rotations @ np.linalg.inv(q)).astype(int)
    translations = group.translations @ q.T
    for candidate in _settings(group.number, group.unique_axis):
        if candidate.order != group.order:
            continue
        index = []
        for w, t in zip(rotations, translations):
            delta = candidate.translations - t
            hit = (candidate.rotations == w).all((1, 2)) & (np.abs(delta - np.rint(delta)).max(1) < 1e-6)
            if not hit.any():
                break
            index.append(int(np.flatnonzero(hit)[0]))
        else:
            return candidate.name, tuple(index[g] for g in images)
    return None


@cache
def _settings(number: int, unique_axis: str) -> tuple[SpaceGroup, ...]:
    import gemmi

    names = [sg.xhm() for sg in gemmi.spacegroup_table() if sg.number == number and not sg.xhm().endswith(":R")]
    groups = [SpaceGroup.from_name(name) for name in names]
    return tuple(g for g in groups if g.unique_axis == unique_axis)


def _moved(place: Placement, name: str, images: tuple[int, ...], change: np.ndarray) -> Placement:
    """A special position in the new basis.

    Its projectors stay: the unique axis keeps its direction up to the sign, and inversion centres have no direction.
    """
    centroid = np.mod(np.round(place.site_centroid @ np.linalg.inv(change), 9), 1.0)
    return replace(place, **images_of(SpaceGroup.from_name(name), images), site_centroid=centroid)
