"""Langevin dynamics of replicas in NumPy: what the density baseline samples itself with.

Simulations are OpenMM's business (`molflow_openmm.simulate_cg`); this needs nothing but a force field.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from molflow_sim.units import BOLTZMANN

FORCE_TO_ACCELERATION = 9.648533212331e-3
"""(eV/Å)/amu in Å/fs²."""

Forces = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Langevin:
    """BAOAB integration of independent replicas (Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34).

    Parameters
    ----------
    energy_and_forces : callable
        As `ForceField.energy_and_forces`.
    positions : ndarray, shape (R, B, 3)
        Å, where the replicas start.
    masses : ndarray, shape (B,)
        amu.
    temperature : float
        K.
    time_step, friction : float
        fs and 1/fs; a friction of zero is velocity Verlet.
    seed : int

    Attributes
    ----------
    positions, velocities, energies : ndarray
        Å, Å/fs, eV; of the last step.
    """

    def __init__(
        self,
        energy_and_forces: Forces,
        positions: np.ndarray,
        masses: np.ndarray,
        temperature: float,
        time_step: float = 2.0,
        friction: float = 1e-3,
        seed: int = 0,
    ) -> None:
        self.energy_and_forces = energy_and_forces
        self.time_step = time_step
        self._rng = np.random.default_rng(seed)
        self._inverse = FORCE_TO_ACCELERATION / np.asarray(masses, float)[:, None]
        self._width = np.sqrt(BOLTZMANN * temperature * self._inverse)
        self._keep = float(np.exp(-friction * time_step))
        self.positions = np.array(positions, dtype=np.float64)
        self.velocities = self._width * self._rng.normal(size=self.positions.shape)
        self.energies, self._forces = energy_and_forces(self.positions)

    def run(self, steps: int) -> None:
        """Advance all replicas.

        Raises
        ------
        NonFiniteError
            A replica blew up.
        """
        half = 0.5 * self.time_step
        noise = np.sqrt(1.0 - self._keep**2) * self._width
        x, v = self.positions, self.velocities
        for _ in range(steps):
            v += half * self._inverse * self._forces
            if self._keep < 1.0:
                x += half * v
                v *= self._keep
                v += noise * self._rng.standard_normal(v.shape)
                x += half * v
            else:
                x += self.time_step * v
            self.energies, self._forces = self.energy_and_forces(x)
            v += half * self._inverse * self._forces
