"""The potential behind `openmm.PythonForce`, for platforms without a GPU.

OpenMM's own custom forces evaluate their expressions a pair at a time; the compiled loops of
`molflow_sim.forcefield.dynamics` do the same pairs ten times as fast. What is left to OpenMM is the reciprocal sum: a
NonbondedForce whose direct space is switched off and whose PME is told the splitting that the loops use.

A PythonForce is stored by pickling: an XML file of such a System opens only where this package is installed. For an XML
that stands alone, and for GPUs, build the System of custom forces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import openmm

from molflow_openmm.crystal.forces import EV, charges_force, named
from molflow_sim.forcefield.dynamics import DynamicsPotential
from molflow_sim.forcefield.pairs_single import MOST_SPLITTING
from molflow_sim.forcefield.parameters import MoleculeParameters

NAME = "compiled exp-6, real space and MMFF94"

IDLE_CUTOFF = 0.3
"""nm; OpenMM keeps a neighbour list even without direct space: short, but not so short that its cells are many."""


def without_gpu(platform: openmm.Platform | None) -> bool:
    """Whether a platform (None: the fastest there is) computes on the processor."""
    if platform is None:
        all_of_them = [openmm.Platform.getPlatform(i) for i in range(openmm.Platform.getNumPlatforms())]
        platform = max(all_of_them, key=lambda p: p.getSpeed())
    return platform.getName() in ("CPU", "Reference")


class Compiled:
    """What the PythonForce calls: OpenMM's units outside, eV and Å inside."""

    def __init__(self, potential: DynamicsPotential) -> None:
        self.potential = potential

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        """Energy in kJ/mol and forces (n, 3) in kJ/mol/nm."""
        positions = 10.0 * state.getPositions(asNumpy=True)._value
        cell = 10.0 * state.getPeriodicBoxVectors(asNumpy=True)._value if self.potential.periodic else None
        energy, forces = self.potential(positions, cell)
        return EV * energy, 10.0 * EV * forces


def compiled_forces(
    species: Sequence[MoleculeParameters],
    order: Sequence[tuple[int, int]],
    *,
    box: np.ndarray | None,
    cutoff: float | None,
    tolerance: float = 5e-4,
    dispersion_correction: bool = False,
) -> list[openmm.Force]:
    """Everything between and within the molecules as a PythonForce, and the reciprocal sum as a NonbondedForce.

    Parameters
    ----------
    species : sequence of MoleculeParameters
        Parameters of each species.
    order : sequence of (species, first atom)
        Every molecule of the box.
    box : ndarray, shape (3, 3), or None
        Reduced box vectors, Å; None for a droplet, which has plain Coulomb and no cutoff.
    cutoff : float or None
        Å; None for a droplet.
    tolerance : float
        OpenMM's PME error tolerance: it fixes splitting and grid as OpenMM itself would, but for a splitting of at
        most 3 over the cutoff.
    dispersion_correction : bool
        Isotropic long-range correction of exp-6.

    Returns
    -------
    list of openmm.Force
    """
    if box is None or cutoff is None:
        forces = [_python(DynamicsPotential(species, [s for s, _ in order], cutoff=None), periodic=False)]
    else:
        alpha = min(math.sqrt(-math.log(2.0 * tolerance)), MOST_SPLITTING) / cutoff
        potential = DynamicsPotential(
            species, [s for s, _ in order], cutoff=cutoff, alpha=alpha, dispersion_correction=dispersion_correction
        )
        forces = [_python(potential, periodic=True), _reciprocal(species, order, box, alpha, tolerance)]
    return [*forces, _molecules(species, order)]


def _python(potential: DynamicsPotential, periodic: bool) -> openmm.Force:
    force = openmm.PythonForce(Compiled(potential))
    force.setUsesPeriodicBoundaryConditions(periodic)
    return named(force, NAME, "exp-6")


def _molecules(species: Sequence[MoleculeParameters], order: Sequence[tuple[int, int]]) -> openmm.Force:
    """Bonds without strength: from bonds OpenMM learns the molecules, which barostats move and boxes wrap as wholes."""
    force = openmm.HarmonicBondForce()
    for kind, first in order:
        for i, j in species[kind].mmff.bonds.tolist():
            force.addBond(first + i, first + j, 0.0, 0.0)
    return named(force, "bonds of molecules", "intramolecular")


def _reciprocal(
    species: Sequence[MoleculeParameters],
    order: Sequence[tuple[int, int]],
    box: np.ndarray,
    alpha: float,
    tolerance: float,
) -> openmm.Force:
    """PME's reciprocal part and self energy; pairs of one molecule are taken out by the compiled loop."""
    force = charges_force(species, order)
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    force.setIncludeDirectSpace(False)
    force.setCutoffDistance(IDLE_CUTOFF)
    force.setPMEParameters(10.0 * alpha, *(_grid(alpha * width, tolerance) for width in np.diag(box)))
    return named(force, "reciprocal sum", "electrostatics")


def _grid(width: float, tolerance: float) -> int:
    """OpenMM's number of mesh points along an edge of α·edge = `width`, rounded up to what FFTs like."""
    n = max(6, math.ceil(2.0 * width / (3.0 * tolerance**0.2)))
    while not _smooth(n):
        n += 1
    return n


def _smooth(n: int) -> bool:
    for prime in (2, 3, 5, 7):
        while n % prime == 0:
            n //= prime
    return n == 1
