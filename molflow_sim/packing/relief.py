"""Overlaps of generated packings removed in a few steps, without a force field: geometry alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from molflow_sim.errors import InputError
from molflow_sim.packing.lattice_energy import LatticeEnergy
from molflow_sim.packing.minimize import Stage, minimise
from molflow_sim.packing.neighbours import Geometry
from molflow_sim.packing.packings import OVERLAP_FREE, RigidPackings
from molflow_sim.packing.tables import PressTables
from molflow_sim.threads import one_torch_thread
from molflow_sim.units import KJ_PER_MOL

RELIEF_PRESSURE = 0.8
"""kJ/mol/Å³: balances the overlaps at about the density of crystals."""
RELIEF_EVALUATIONS = 40
CRYSTAL_PACKING_COEFFICIENT = 0.72
"""Mean of (molecular volume)/(cell volume per molecule) over organic crystals; the standard deviation is 0.04."""


def relieve(packings: RigidPackings, evaluations: int = RELIEF_EVALUATIONS) -> RigidPackings:
    """Part overlapping molecules by the press's soft overlap energy, and bring the cells to a density.

    Symmetry and special positions are kept. A few dozen evaluations are no minimisation: the packings stay about where
    they are but for the overlaps. Takes about a millisecond a packing of twenty atoms. The cells are scaled to
    `CRYSTAL_PACKING_COEFFICIENT` before and after: the volume that the pressure alone gives differs by a tenth and more
    from that of crystals.

    Parameters
    ----------
    packings : RigidPackings
    evaluations : int
        Evaluations of the soft overlap, under a pressure that balances it near the density of crystals; 0 changes
        nothing.

    Returns
    -------
    RigidPackings
        In the same order, with the status ``overlap-free``, which spares them the press's first stage; one whose
        numbers fail is returned as it came.

    Raises
    ------
    InputError
        If `evaluations` is negative.
    """
    if evaluations < 0:
        raise InputError(f"evaluations must not be negative, got {evaluations}")
    if evaluations == 0 or len(packings) == 0:
        return packings
    return _scaled(_parted(_scaled(packings), evaluations))


def _scaled(packings: RigidPackings) -> RigidPackings:
    """Cells scaled to `CRYSTAL_PACKING_COEFFICIENT`, centres and molecules with them."""
    wanted = packings.z * packings.molecule.volume / CRYSTAL_PACKING_COEFFICIENT
    factor = np.cbrt(wanted / packings.volume)
    return replace(packings, cell=packings.cell * factor[:, None, None])


def _parted(packings: RigidPackings, evaluations: int) -> RigidPackings:
    molecule, nothing = packings.molecule, np.zeros(packings.molecule.n_atoms)
    tables = PressTables(
        molecule.numbers, packings.conformers, nothing, nothing, nothing, nothing, molecule.bonds, packings.placements
    )
    energy = LatticeEnergy(tables, "auto")
    reach = 2.0 * tables.radius + float(tables.contact.max()) + 1.0
    stage = Stage(True, RELIEF_PRESSURE * KJ_PER_MOL, reach, evaluations, 0.02, 10)
    with one_torch_thread():
        moved, *_ = minimise(energy, Geometry.of(packings), stage)
    cell, centroid, rotation = moved.cell.numpy(), np.mod(moved.centroid.numpy(), 1.0), moved.rotation.numpy()
    good = np.isfinite(cell).all((1, 2)) & np.isfinite(centroid).all((1, 2)) & np.isfinite(rotation).all((1, 2, 3))
    return replace(
        packings,
        cell=np.where(good[:, None, None], cell, packings.cell),
        centroid=np.where(good[:, None, None], centroid, packings.centroid),
        rotation=np.where(good[:, None, None, None], rotation, packings.rotation),
        status=np.where(good, OVERLAP_FREE, packings.status).astype(np.int8),
    )
