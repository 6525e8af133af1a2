"""The contexts of a coarse-grained run: one per temperature, each with all copies of the molecule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import openmm

from molflow_openmm.cg.force import ANGSTROM_PER_NM
from molflow_openmm.cg.settings import CGSimulationSettings
from molflow_openmm.run import openmm_seed
from molflow_sim.units import BOLTZMANN, KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_openmm.cg.forcefield import CGForceField

GAS_CONSTANT = BOLTZMANN / KJ_PER_MOL
"""kJ/mol/K."""


class Replicas:
    """N copies at each of T temperatures, stepped by OpenMM and exchanged between neighbouring temperatures.

    Arrays are shaped (T, N, B, 3); positions in Å, velocities in nm/ps.

    Attributes
    ----------
    walkers : ndarray of int, shape (T, N)
        The temperature that the walker now at [t, n] began at.
    exchanges : int
        Attempts so far (each over every other pair of neighbours).
    tried, accepted : ndarray of int, shape (T − 1,)
        Of each pair of neighbours, over all copies.
    """

    def __init__(
        self,
        forcefield: CGForceField,
        settings: CGSimulationSettings,
        platform: openmm.Platform | None,
        report: int = 0,
    ) -> None:
        self.settings, self.forcefield = settings, forcefield.forcefield
        self.temperatures = np.array(settings.temperatures)
        shape = (len(self.temperatures), settings.replicas)
        self.masses = np.asarray(forcefield.beads.masses, dtype=np.float64)
        self.shape = (*shape, len(self.masses), 3)
        self.walkers = np.repeat(np.arange(shape[0])[:, None], shape[1], axis=1)
        self.exchanges = 0
        self.tried, self.accepted = np.zeros(shape[0] - 1, dtype=np.int64), np.zeros(shape[0] - 1, dtype=np.int64)
        self.contexts = []
        for k, temperature in enumerate(settings.temperatures):
            system = forcefield.createSystem(
                backend=settings.backend, replicas=settings.replicas, removeCMMotion=False, precision=settings.precision
            )
            integrator = openmm.LangevinMiddleIntegrator(
                temperature, settings.friction_per_ps, 1e-3 * settings.timestep_fs
            )
            # A run that goes on draws other numbers, decided by seed and report.
            integrator.setRandomNumberSeed(openmm_seed(settings.seed, 0, report, k))
            arguments = (system, integrator) if platform is None else (system, integrator, platform)
            self.contexts.append(openmm.Context(*arguments))

    def draw_velocities(self) -> np.ndarray:
        """Velocities of the Maxwell-Boltzmann distribution at each temperature."""
        rng = np.random.default_rng([self.settings.seed, 2])
        width = np.sqrt(GAS_CONSTANT * self.temperatures[:, None] / self.masses)  # nm/ps, as kJ/mol = amu nm²/ps²
        return width[:, None, :, None] * rng.normal(size=self.shape)

    def set(self, positions: np.ndarray, velocities: np.ndarray, only: np.ndarray | None = None) -> None:
        """Give all contexts (or those where `only` is true) their positions and velocities."""
        for k, context in enumerate(self.contexts):
            if only is None or only[k]:
                context.setPositions(positions[k].reshape(-1, 3) / ANGSTROM_PER_NM)
                context.setVelocities(velocities[k].reshape(-1, 3))

    def get(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities of all copies."""
        positions, velocities = np.empty(self.shape), np.empty(self.shape)
        for k, context in enumerate(self.contexts):
            state = context.getState(positions=True, velocities=True)
            positions[k] = state.getPositions(asNumpy=True)._value.reshape(self.shape[1:])
            velocities[k] = state.getVelocities(asNumpy=True)._value.reshape(self.shape[1:])
        return positions * ANGSTROM_PER_NM, velocities

    def state(self) -> dict[str, np.ndarray]:
        """All that a run needs to go on."""
        positions, velocities = self.get()
        counts = {name: getattr(self, name) for name in ("walkers", "exchanges", "tried", "accepted")}
        return {"positions": positions, "velocities": velocities, **counts}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what `state` gave."""
        self.set(state["positions"], state["velocities"])
        self.walkers, self.exchanges = state["walkers"], int(state["exchanges"])
        self.tried, self.accepted = state["tried"], state["accepted"]

    def frames(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions, and the kinetic temperature of each context (T,), K, all 3 N B degrees of freedom counted."""
        positions, velocities = self.get()
        kinetic = np.einsum("tnbk,b->t", velocities**2, self.masses)
        return positions, kinetic / (GAS_CONSTANT * np.prod(self.shape[1:]))

    def energies(self, positions: np.ndarray) -> np.ndarray:
        """Potential energies, shape (T, N), eV."""
        flat = np.ascontiguousarray(positions.reshape(-1, *self.shape[2:]))
        return np.asarray(self.forcefield.energy_and_forces(flat)[0]).reshape(self.shape[:2])

    def step(self, steps: int) -> None:
        """Advance every context. One after another: the Reference platform has one random generator per process."""
        for context in self.contexts:
            context.getIntegrator().step(steps)

    def exchange(self) -> None:
        """Try to exchange neighbours: pairs (0,1), (2,3), ... and (1,2), (3,4), ... in turn."""
        if len(self.contexts) == 1:
            return
        positions, velocities = self.get()
        energies = self.energies(positions)
        draws = np.random.default_rng([self.settings.seed, 3, self.exchanges]).random(self.shape[:2])
        beta = 1.0 / (BOLTZMANN * self.temperatures)
        touched = np.zeros(len(self.contexts), dtype=bool)
        for a in range(self.exchanges % 2, len(self.contexts) - 1, 2):
            b = a + 1
            exponent = (beta[a] - beta[b]) * (energies[a] - energies[b])
            swap = draws[a] < np.exp(np.minimum(exponent, 0.0))
            self.tried[a] += len(swap)
            self.accepted[a] += int(swap.sum())
            if not swap.any():
                continue
            ratio = np.sqrt(self.temperatures[b] / self.temperatures[a])
            for array, up in ((positions, 1.0), (velocities, ratio), (self.walkers, 1)):
                low, high = array[a, swap].copy(), array[b, swap].copy()
                array[a, swap], array[b, swap] = (high / up, low * up) if array is velocities else (high, low)
            touched[[a, b]] = True
        self.set(positions, velocities, touched)
        self.exchanges += 1

    def acceptance(self) -> list[float | None]:
        """Accepted share between each temperature and the next; None before any attempt."""
        return [float(y / n) if n else None for n, y in zip(self.tried, self.accepted)]
