"""`crystalSystem`: a molecular crystal as (topology, system, positions), ready for an OpenMM Simulation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import ase
import numpy as np
import openmm
from openmm import app, unit

from molflow_openmm.crystal.box import (
    SHRINK_ROOM,
    check_supercell,
    largest_cutoff,
    reduced_box,
    repeat,
    smallest_supercell,
)
from molflow_openmm.system import build_system, pair_cutoff, species_parameters
from molflow_sim.errors import InputError
from molflow_sim.forcefield.parameters import MoleculeParameters
from molflow_sim.systems.crystal import MolecularCrystal
from molflow_sim.systems.openmm_topology import openmm_topology


@dataclass(frozen=True, eq=False)
class CrystalBox:
    """A supercell laid out for OpenMM, in Å.

    Attributes
    ----------
    crystal : MolecularCrystal
        The crystal it was built from.
    supercell : tuple of int
        Repeats along a, b, c.
    cell : ndarray, shape (3, 3)
        Supercell rows (repeats times the unit cell's), not reduced.
    numbers : ndarray of int, shape (n,)
        Atomic numbers.
    positions : ndarray, shape (n, 3)
        Cartesian positions with whole molecules.
    order : tuple of (species, first atom)
        Every molecule, in order.
    """

    crystal: MolecularCrystal
    supercell: tuple[int, int, int]
    cell: np.ndarray
    numbers: np.ndarray
    positions: np.ndarray
    order: tuple[tuple[int, int], ...]


def crystalSystem(
    crystal: MolecularCrystal | ase.Atoms | str | PathLike[str],
    supercell: Sequence[int] | None = None,
    charges: str = "mmff94",
    *,
    nonbondedCutoff: Any = 1.5 * unit.nanometer,
    ewaldErrorTolerance: float = 5e-4,
    constraints: Any = None,
    hydrogenMass: Any = None,
    dispersionCorrection: bool = False,
    parameters: Sequence[MoleculeParameters] | None = None,
    compiled: bool = False,
) -> tuple[app.Topology, openmm.System, unit.Quantity]:
    """Build an OpenMM System of a molecular crystal with the potential of `molflow_sim.CrystalPotential`.

    The energy of the System is that of `CrystalPotential` at the same cutoff times the number of unit cells, up to
    the accuracy of PME (`ewaldErrorTolerance`). Only stock OpenMM forces are used unless `compiled`, so the System can
    be serialised and extended like any other.

    Parameters
    ----------
    crystal : MolecularCrystal, ase.Atoms, CIF path or CIF text
        The crystal; ASE atoms are read with `MolecularCrystal.from_ase`.
    supercell : three ints, optional
        Repeats along a, b, c. Default: the smallest in which the cutoff is exact, with room for a barostat to
        shrink the box by 6 %.
    charges : str
        Charge model, see `molflow_sim.forcefield.parametrize`.
    nonbondedCutoff : length
        Cutoff of exp-6 and of the real-space Ewald sum; a plain number is in nm, as everywhere in OpenMM.
    ewaldErrorTolerance : float
        OpenMM's tolerance for PME (its plain Ewald sum is for rectangular boxes only, so it is not offered).
    constraints : None or app.HBonds
        Keep bonds to hydrogen at MMFF94's reference length, for longer time steps.
    hydrogenMass : mass, optional
        Repartition mass to hydrogens from their neighbours (plain number: amu).
    dispersionCorrection : bool
        Add OpenMM's isotropic long-range correction of exp-6. It is not part of `CrystalPotential`.
    parameters : sequence of MoleculeParameters, optional
        Parameters of each species, instead of assigning them with `charges`.
    compiled : bool
        One PythonForce on compiled loops and the reciprocal sum, for platforms without a GPU, where it is several
        times as fast. It is serialised by pickling, so that its XML opens only where this package is installed.

    Returns
    -------
    topology : openmm.app.Topology
        One residue per molecule; box vectors set.
    system : openmm.System
        Forces "exp-6" (group 1), "electrostatics" (group 2) and the MMFF94 terms (group 0); `compiled`: the PythonForce
        (group 1) and "reciprocal sum" (group 2).
    positions : Quantity, shape (n, 3)
        Positions with whole molecules.

    Raises
    ------
    InputError
        A supercell too small for the cutoff, or an unknown option.
    CrystalError, ParameterError
        The crystal cannot be read or parametrised.

    Examples
    --------
    >>> topology, system, positions = crystalSystem("aspirin.cif", supercell=(3, 4, 3))   # doctest: +SKIP
    >>> system.addForce(openmm.MonteCarloFlexibleBarostat(1 * unit.bar, 300 * unit.kelvin))   # doctest: +SKIP
    """
    crystal = as_crystal(crystal)
    cutoff = pair_cutoff(nonbondedCutoff)
    box = crystal_box(crystal, supercell, cutoff)
    if parameters is None:
        parameters = species_parameters(crystal.molecules, charges)
    topology = openmm_topology(crystal.molecules, [s for s, _ in box.order])
    system = build_system(
        parameters, box.order, topology, box=reduced_box(box.cell), cutoff=cutoff, tolerance=ewaldErrorTolerance,
        constraints=constraints, hydrogen_mass=hydrogenMass, dispersion_correction=dispersionCorrection,
        compiled=compiled,
    )  # fmt: skip
    return topology, system, unit.Quantity(0.1 * box.positions, unit.nanometer)


def as_crystal(crystal: MolecularCrystal | ase.Atoms | str | PathLike[str]) -> MolecularCrystal:
    """A MolecularCrystal from itself, ASE atoms, a CIF path or CIF text."""
    if isinstance(crystal, MolecularCrystal):
        return crystal
    if isinstance(crystal, str | PathLike):
        return MolecularCrystal.from_cif(crystal if isinstance(crystal, str) else Path(crystal))
    if isinstance(crystal, ase.Atoms):
        return MolecularCrystal.from_ase(crystal)
    raise InputError(f"a crystal must be a MolecularCrystal, ASE atoms or a CIF, not {type(crystal).__name__}")


def crystal_box(crystal: MolecularCrystal, supercell: Sequence[int] | None, cutoff: float) -> CrystalBox:
    """Repeat the unit cell so that `cutoff` (Å) is exact; see `crystalSystem`.

    Raises
    ------
    InputError
        The supercell asked for is too small; the message names the smallest, and the largest cutoff that would do.
    """
    numbers, positions, _, species = crystal.unit_cell()
    cell = np.asarray(crystal.cell)
    longest = extent(crystal)
    smallest = smallest_supercell(cell, cutoff, longest)
    roomy = smallest_supercell(SHRINK_ROOM * cell, cutoff, longest)
    counts = roomy if supercell is None else check_supercell(supercell)
    fits = largest_cutoff(cell, counts, longest)
    if fits < cutoff - 1e-9:
        raise InputError(
            f"supercell {commas(counts)} is too small for a cutoff of {cutoff:.4g} Å: use at least "
            f"{commas(smallest)}, or a cutoff of at most {np.floor(10 * fits) / 10:.1f} Å"
        )
    sizes = [crystal.molecules[s].n_atoms for s in species]
    firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(int)
    n_cells, n = int(np.prod(counts)), len(numbers)
    order = tuple((int(s), g * n + int(f)) for g in range(n_cells) for s, f in zip(species, firsts))
    big, all_positions = repeat(cell, positions, counts)
    return CrystalBox(crystal, counts, big, np.tile(numbers, n_cells), all_positions, order)


def extent(crystal: MolecularCrystal) -> float:
    """Longest distance between two atoms of one molecule, Å."""
    return max(
        float(np.linalg.norm(r.conformer[:, None] - r.conformer[None], axis=-1).max()) for r in crystal.asymmetric_unit
    )


def commas(counts: Iterable[int]) -> str:
    """``3,2,2``."""
    return ",".join(str(int(n)) for n in counts)
