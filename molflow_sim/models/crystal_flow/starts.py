"""Where paths begin: random packings as the screening proposes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from molflow_sim.packing.random_packing import LENGTH_SPREAD, PACKING_COEFFICIENT
from molflow_sim.packing.tables import VAN_DER_WAALS_RADIUS

if TYPE_CHECKING:
    from molflow_sim.dataset import CrystalRecord


def random_starts(
    records: Sequence[CrystalRecord],
    free_translation: np.ndarray,
    free_rotation: np.ndarray,
    rng: np.random.Generator,
    packing_coefficient: tuple[float, float] = PACKING_COEFFICIENT,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random packings with the molecule, group and site of each record, drawn as `random_packings` draws them.

    Parameters
    ----------
    records : sequence of n CrystalRecord
        All of one molecule, conformer, group and site.
    free_translation, free_rotation : ndarray, shape (3, 3)
        Projectors of the site, from `stabiliser`.
    rng : numpy Generator
    packing_coefficient : (float, float)
        As in `random_packings`.

    Returns
    -------
    cell : (n, 3, 3) in Å, centroid : (n, 3) fractional, rotation : (n, 3, 3)
    """
    from molflow_sim.flow.priors import ANGLE_TRIES, sensible_angles
    from molflow_sim.symmetry.spacegroup import SpaceGroup, cell_matrix

    n, first = len(records), records[0]
    group = SpaceGroup.from_name(first.space_group)
    lengths, angles = np.exp(LENGTH_SPREAD * rng.normal(size=(n, 3))), sensible_angles(rng.random((n, ANGLE_TRIES, 3)))
    parameters = np.concatenate([lengths, angles], 1)
    if group.crystal_system == "monoclinic":
        parameters[:, 3:] = 90.0 + np.abs(parameters[:, 3:] - 90.0)
    shape = cell_matrix(group.constrain(parameters))
    filled = van_der_waals_volume(first.numbers, first.conformers[0]) * len(first.images[0])
    volume = filled / rng.uniform(*packing_coefficient, size=n)
    cell = shape * np.cbrt(volume / np.linalg.det(shape))[:, None, None]
    along = (rng.random((n, 3))[:, None] @ cell)[:, 0] @ free_translation.T
    # From the record's own point of the site; at a general position that is no information.
    at = np.stack([r.centroid[0] for r in records])
    home = (at[:, None] @ cell)[:, 0] @ (np.eye(3) - free_translation).T
    centroid = np.linalg.solve(np.swapaxes(cell, 1, 2), (along + home)[:, :, None])[:, :, 0]
    rotation = _turns(free_rotation, n, rng) @ np.stack([r.orientation[0] for r in records])
    return cell, np.mod(centroid, 1.0), rotation


def known_setting(record: CrystalRecord) -> bool:
    """Whether the record's space group is in a setting that random packings can be drawn in."""
    from molflow_sim.errors import SpaceGroupError
    from molflow_sim.symmetry.spacegroup import SpaceGroup

    try:
        return SpaceGroup.from_name(record.space_group).order == len(record.rotations)
    except SpaceGroupError:
        return False


def van_der_waals_volume(numbers: np.ndarray, positions: np.ndarray, spacing: float = 0.25) -> float:
    """Volume in Å³ of the union of the van der Waals spheres, on a grid; hydrogens as large as RDKit has them."""
    radius = np.array([1.2 if z == 1 else VAN_DER_WAALS_RADIUS[int(z)] for z in numbers])
    low, high = (positions - radius[:, None]).min(0), (positions + radius[:, None]).max(0)
    axes = [np.arange(a, b + spacing, spacing) for a, b in zip(low, high)]
    inside = np.zeros([len(axis) for axis in axes], bool)
    for x, r in zip(positions, radius):
        box = tuple(slice(*np.searchsorted(axis, (c - r, c + r))) for axis, c in zip(axes, x))
        a, b, c = ((axis[part] - centre) ** 2 for axis, part, centre in zip(axes, box, x))
        inside[box] |= a[:, None, None] + b[:, None] + c < r * r
    return float(inside.sum() * spacing**3)


def _turns(projector: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rotations (n, 3, 3): any, about the one free axis, or none."""
    dimension = round(float(np.trace(projector)))
    if dimension == 3:
        return Rotation.random(n, random_state=rng).as_matrix()
    if dimension == 0:
        return np.broadcast_to(np.eye(3), (n, 3, 3))
    axis = np.linalg.svd(projector)[0][:, 0]
    return Rotation.from_rotvec(rng.uniform(-np.pi, np.pi, n)[:, None] * axis).as_matrix()
