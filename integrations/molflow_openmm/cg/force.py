"""The coarse-grained force field as an `openmm.PythonForce`, with little between OpenMM and the compiled kernel."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
from openmm import unit

from molflow_openmm.cg.model import load_forcefield
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.cg.forcefield import ForceField

ANGSTROM_PER_NM = 10.0
"""Å in a nanometre."""
_ENERGY = 1.0 / KJ_PER_MOL
_FORCE = ANGSTROM_PER_NM / KJ_PER_MOL


def _positions_by_units(state: openmm.State, kind: int, out: np.ndarray) -> None:
    out[...] = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer).reshape(out.shape)


# What getPositions calls itself; attaching units to the array costs 8 to 10 µs, as much as the whole force field.
_read_positions = getattr(openmm._openmm, "State__getVectorAsNumpy", _positions_by_units)
_POSITIONS = int(openmm.State.Positions)


class BeadForce:
    """The function of a `PythonForce`: a State's positions to energy (kJ/mol) and forces (kJ/mol/nm).

    It pickles as the model folder, its SHA-256 and the number of copies; unpickling loads the folder again. So
    the XML of a System that holds one names a folder, and reading it imports this package and unpickles.

    Parameters
    ----------
    forcefield : ForceField
        Evaluated by its `energy_and_forces`.
    replicas : int
        Copies of the molecule, evaluated as one batch that do not see each other.
    origin : tuple of str, optional
        Folder and SHA-256 that it was loaded from; without it the force works but does not pickle.

    Raises
    ------
    pickle.PicklingError
        On pickling a force field that was not loaded from a folder.
    """

    def __init__(self, forcefield: ForceField, replicas: int = 1, origin: tuple[str, str] | None = None) -> None:
        self.forcefield, self.replicas, self.origin = forcefield, replicas, origin
        self._evaluate = forcefield.energy_and_forces
        self._shape = (replicas, forcefield.topology.n_beads, 3)
        self._flat = (replicas * forcefield.topology.n_beads, 3)

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        """Energy of all copies together, and the forces, shape (replicas × B, 3), in OpenMM's units."""
        # A new array each time: contexts in several threads may share this object.
        x = np.empty(self._shape)
        _read_positions(state, _POSITIONS, x)
        x *= ANGSTROM_PER_NM
        energies, forces = self._evaluate(x)
        energy = energies[0] if self.replicas == 1 else energies.sum()
        return float(energy) * _ENERGY, forces.reshape(self._flat) * _FORCE

    def __reduce__(self) -> tuple[Any, ...]:
        if self.origin is None:
            raise pickle.PicklingError(
                "this force field was not loaded from a model folder; save it there and use CGForceField.load(folder)"
            )
        return rebuild, (*self.origin, self.replicas)


def rebuild(folder: str, sha256: str, replicas: int) -> BeadForce:
    """The force of a model folder, checked to be the one that was pickled.

    Raises
    ------
    WeightsError
        The folder is gone, damaged, or holds another model than then.
    """
    forcefield, origin = load_forcefield(Path(folder), sha256)
    return BeadForce(forcefield, replicas, origin)


def python_force(function: BeadForce, particles: list[int] | None = None) -> openmm.PythonForce:
    """A non-periodic `openmm.PythonForce` of the function, on all particles or some."""
    force = openmm.PythonForce(function, {}, particles or [])
    force.setUsesPeriodicBoundaryConditions(False)
    force.setName("molflow-cg")
    return force
