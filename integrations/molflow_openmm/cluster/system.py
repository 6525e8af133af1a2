"""`clusterSystem`: a cluster of molecules as (topology, system, positions), ready for an OpenMM Simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openmm
from ase.cell import Cell
from openmm import app, unit

from molflow_openmm.crystal.box import reduced_box
from molflow_openmm.system import build_system, pair_cutoff, species_parameters
from molflow_sim.errors import InputError
from molflow_sim.forcefield.parameters import MoleculeParameters
from molflow_sim.systems.cluster import MolecularCluster
from molflow_sim.systems.openmm_topology import openmm_topology


def clusterSystem(
    cluster: MolecularCluster,
    charges: str = "mmff94",
    *,
    nonbondedCutoff: Any = 1.0 * unit.nanometer,
    ewaldErrorTolerance: float = 5e-4,
    constraints: Any = None,
    hydrogenMass: Any = None,
    dispersionCorrection: bool = False,
    parameters: Sequence[MoleculeParameters] | None = None,
    compiled: bool = False,
) -> tuple[app.Topology, openmm.System, unit.Quantity]:
    """Build an OpenMM System of a cluster, with the potential that `crystalSystem` has.

    In open space all pairs of atoms count, with plain Coulomb; in a periodic box the cutoff and PME are those of a
    crystal.

    Parameters
    ----------
    cluster : MolecularCluster
        Open or in a periodic box of any shape.
    charges : str
        Charge model, see `molflow_sim.forcefield.parametrize`.
    nonbondedCutoff : length
        Of exp-6 and the real-space Ewald sum in a box; a plain number is in nm. Ignored in open space.
    ewaldErrorTolerance, constraints, hydrogenMass, dispersionCorrection
        As `crystalSystem`.
    parameters : sequence of MoleculeParameters, optional
        Of each species, instead of assigning them with `charges`.
    compiled : bool
        As `crystalSystem`. It sums all images, so that the box may be smaller than twice the cutoff.

    Returns
    -------
    topology : openmm.app.Topology
        One residue per molecule.
    system : openmm.System
    positions : Quantity, shape (n, 3)
        Positions with whole molecules; turned with the box where its first vector did not lie along x.

    Raises
    ------
    InputError
        A box too small for the cutoff, or an unknown option.
    ParameterError, UnsupportedElementError
        A molecule without parameters.
    """
    parameters = species_parameters(cluster.species, charges) if parameters is None else parameters
    order = list(zip(cluster.order.tolist(), cluster.firsts.tolist()))
    topology = openmm_topology(cluster.species, cluster.order.tolist())
    positions, box, cutoff = cluster.positions, None, None
    if cluster.cell is not None:
        cutoff = pair_cutoff(nonbondedCutoff)
        cell, turn = standard_frame(cluster.cell)
        box, positions = reduced_box(cell), positions @ turn
        width = float(np.diag(box).min())
        if not compiled and width < 2.0 * cutoff:
            raise InputError(
                f"a box {width:.1f} Å wide holds a cutoff of at most {width / 2:.1f} Å, not {cutoff:g} Å; "
                "compiled=True has no such limit (on platforms without a GPU)"
            )
    system = build_system(
        parameters, order, topology, box=box, cutoff=cutoff, tolerance=ewaldErrorTolerance, constraints=constraints,
        hydrogen_mass=hydrogenMass, dispersion_correction=dispersionCorrection, compiled=compiled,
    )  # fmt: skip
    return topology, system, unit.Quantity(0.1 * positions, unit.nanometer)


def standard_frame(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A box turned so that a lies along x and b in the xy plane, as OpenMM wants it.

    Parameters
    ----------
    cell : ndarray, shape (3, 3)
        Rows, Å.

    Returns
    -------
    cell : ndarray, shape (3, 3)
        Lower triangular, positive diagonal.
    turn : ndarray, shape (3, 3)
        Orthogonal; ``x @ turn`` turns positions with the box (a left-handed box is mirrored by choosing -c).
    """
    cell = np.array(cell, dtype=float)
    if np.linalg.det(cell) < 0.0:
        cell[2] *= -1.0  # the same lattice
    lower, turn = Cell(cell).standard_form()
    return lower.array, turn.T
