"""From molecules with parameters to an `openmm.System`: what crystals and clusters share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from molflow_openmm.compiled import compiled_forces
from molflow_openmm.crystal.forces import electrostatic_force, exp6_force, intramolecular_forces
from molflow_sim.errors import InputError
from molflow_sim.forcefield.exp6 import GUARD_RADIUS
from molflow_sim.forcefield.parameters import MoleculeParameters, distinct_species, parametrize
from molflow_sim.forcefield.potential import SWITCH_WIDTH
from molflow_sim.systems.molecule import Molecule


def species_parameters(molecules: Sequence[Molecule], charges: str) -> list[MoleculeParameters]:
    """Parameters of every molecule of a list; stereoisomers share those of the first, as in every front end.

    Raises
    ------
    InputError, ParameterError
        See `distinct_species` and `parametrize`.
    """
    table = {m.numbers.tobytes(): parametrize(m, charges) for m in distinct_species(molecules)}
    return [table[m.numbers.tobytes()] for m in molecules]


def build_system(
    parameters: Sequence[MoleculeParameters],
    order: Sequence[tuple[int, int]],
    topology: app.Topology,
    *,
    box: np.ndarray | None,
    cutoff: float | None,
    tolerance: float,
    constraints: Any,
    hydrogen_mass: Any,
    dispersion_correction: bool,
    compiled: bool,
) -> openmm.System:
    """Masses, box, forces and constraints of a sequence of molecules.

    Parameters
    ----------
    parameters : sequence of MoleculeParameters
        Of each species.
    order : sequence of (species, first atom)
        Every molecule.
    topology : openmm.app.Topology
        Told the box.
    box : ndarray, shape (3, 3), or None
        Reduced rows, Å; None in open space.
    cutoff : float or None
        Å; None in open space.
    tolerance : float
        Of PME.
    constraints, hydrogen_mass, dispersion_correction
        As `crystalSystem` has them.
    compiled : bool
        One PythonForce on compiled loops, for platforms without a GPU, instead of OpenMM's custom forces.
    """
    system = openmm.System()
    for s, _ in order:
        for mass in parameters[s].masses.tolist():
            system.addParticle(mass)
    if box is not None:
        vectors = [openmm.Vec3(*row) for row in 0.1 * box]
        system.setDefaultPeriodicBoxVectors(*vectors)
        topology.setPeriodicBoxVectors(vectors * unit.nanometer)
    if compiled:
        forces = compiled_forces(
            parameters, order, box=box, cutoff=cutoff, tolerance=tolerance, dispersion_correction=dispersion_correction
        )
    else:
        forces = [
            *intramolecular_forces([p.mmff for p in parameters], order),
            exp6_force(
                parameters,
                order,
                cutoff=cutoff,
                switch_width=SWITCH_WIDTH,
                guard_radius=GUARD_RADIUS,
                dispersion_correction=dispersion_correction,
            ),
            electrostatic_force(parameters, order, cutoff=cutoff, tolerance=tolerance),
        ]
    for force in forces:
        system.addForce(force)
    if hydrogen_mass is not None:
        _repartition(system, topology, plain(hydrogen_mass, unit.dalton))
    if constraints is not None:
        _constrain(system, constraints, parameters, order)
    return system


def plain(value: Any, to: unit.Unit) -> float:
    """A quantity as a number in a unit; plain numbers are taken to be in it."""
    return float(value.value_in_unit(to) if unit.is_quantity(value) else value)


def pair_cutoff(value: Any) -> float:
    """A cutoff in Å from a length, or a number in nm as everywhere in OpenMM.

    Raises
    ------
    InputError
        It does not exceed the width of the switch.
    """
    cutoff = 10.0 * plain(value, unit.nanometer)
    if not cutoff > SWITCH_WIDTH:
        raise InputError(
            f"nonbondedCutoff is {cutoff / 10:g} nm; it must exceed the switch width, {SWITCH_WIDTH / 10:g} nm"
        )
    return cutoff


def _repartition(system: openmm.System, topology: app.Topology, mass: float) -> None:
    """Move mass from heavy atoms to their hydrogens, the molecule's mass kept (as OpenMM's ForceField does)."""
    if not 0.0 < mass < np.inf:  # OpenMM holds atoms without mass still
        raise InputError(f"hydrogenMass must be positive, not {mass:g}")
    for a, b in topology.bonds():
        if a.element is app.element.hydrogen:
            a, b = b, a
        if b.element is app.element.hydrogen and a.element is not app.element.hydrogen:
            moved = mass - system.getParticleMass(b.index).value_in_unit(unit.dalton)
            left = system.getParticleMass(a.index).value_in_unit(unit.dalton) - moved
            if left < mass:
                raise InputError(f"hydrogenMass {mass:g} leaves {a.element.symbol} {left:.3g} amu; choose less")
            system.setParticleMass(b.index, mass)
            system.setParticleMass(a.index, left)


def _constrain(
    system: openmm.System, constraints: Any, parameters: Sequence[MoleculeParameters], order: Sequence[tuple[int, int]]
) -> None:
    """Fix X-H bonds at MMFF94's reference lengths."""
    if constraints is not app.HBonds and str(constraints) != "HBonds":
        raise InputError(f"constraints must be None or HBonds, not {constraints}")
    for s, first in order:
        terms, numbers = parameters[s].mmff, parameters[s].numbers
        for (i, j), length in zip(terms.bonds.tolist(), terms.bond_r0.tolist()):
            if 1 in (numbers[i], numbers[j]):
                system.addConstraint(first + i, first + j, 0.1 * length)
