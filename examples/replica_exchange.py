"""How do I run resumable all-atom replica exchange in OpenMM? The part that the examples share.

Replicas take turns in one context, so any platform will do and one is enough; after each interval neighbours on the
temperature ladder may swap. A run is cut into blocks. Each block is seeded anew and its frames are a file of their
own, so that a run that was killed carries on from its last whole block to the same result.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from molflow_sim.runs.files import atomic_path
from molflow_sim.units import BOLTZMANN, KJ_PER_MOL

BLOCK_PS = 500.0
"""Length of a block at most, ps."""
BLOCK_FRAMES = 250
"""Frames in a block at most."""


@dataclass(frozen=True, kw_only=True)
class ReplicaSettings:
    """One all-atom run.

    Attributes
    ----------
    temperatures : tuple of float
        Replica temperatures in K, rising; the frames are the first one's. One temperature is plain dynamics.
    interval_ps, timestep_fs, friction_ps : float
        Between frames (and exchanges) in ps; integration step in fs; Langevin friction in 1/ps.
    equilibration_ps : float
        Left out at the start, per replica.
    seed : int
        Same seed, same versions: same frames.
    """

    temperatures: tuple[float, ...]
    interval_ps: float = 2.0
    timestep_fs: float = 2.0
    friction_ps: float = 1.0
    equilibration_ps: float = 100.0
    seed: int = 2024


@dataclass(frozen=True)
class Molecule:
    """What to simulate.

    Attributes
    ----------
    topology : openmm.app.Topology
        All atoms, solvent included.
    starts : sequence of ndarray, shape (atoms, 3)
        Where each replica starts, nm.
    system : openmm.System
        Its forces.
    solute : list of int
        The atoms whose frames are kept.
    """

    topology: app.Topology
    starts: Sequence[np.ndarray]
    system: openmm.System
    solute: list[int]


class ReplicaExchange:
    """Replicas that take turns in one context, seeded anew for each block: a block depends on its start only."""

    def __init__(self, molecule: Molecule, settings: ReplicaSettings, platform: str | None = None) -> None:
        self.settings, self.system, self.solute = settings, molecule.system, molecule.solute
        self.periodic = self.system.usesPeriodicBoundaryConditions()
        self.barostats = [f for f in self.system.getForces() if isinstance(f, openmm.MonteCarloBarostat)]
        step = settings.timestep_fs * 1e-3
        self.integrator = openmm.LangevinMiddleIntegrator(settings.temperatures[0], settings.friction_ps, step)
        chosen = (openmm.Platform.getPlatformByName(platform),) if platform else ()
        self.context = openmm.Context(self.system, self.integrator, *chosen)
        n = len(settings.temperatures)
        self.positions, self.velocities, self.boxes = ([np.empty(0)] * n for _ in range(3))
        for replica, temperature in enumerate(settings.temperatures):
            self.context.setPositions(molecule.starts[replica])
            openmm.LocalEnergyMinimizer.minimize(self.context, 10.0, 200)
            self.context.setVelocitiesToTemperature(temperature, settings.seed + replica)
            self._store(replica)
        self.rng = np.random.default_rng()
        self.exchanges = np.zeros(2, dtype=int)

    def _store(self, replica: int) -> float:
        state = self.context.getState(getPositions=True, getVelocities=True, getEnergy=True)
        self.positions[replica] = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        self.velocities[replica] = state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)
        self.boxes[replica] = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
        return state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * KJ_PER_MOL

    def block(self, number: int, n_frames: int) -> np.ndarray:
        """Run one block and return the frames of the lowest temperature, (n_frames, atoms, 3) in nm."""
        self.rng = np.random.default_rng([self.settings.seed, number])
        for seeded in (self.integrator, *self.barostats):
            seeded.setRandomNumberSeed(int(self.rng.integers(1, 2**31 - 1)))
        self.context.reinitialize()
        return np.stack([self._advance() for _ in range(n_frames)])

    def _advance(self) -> np.ndarray:
        steps = round(self.settings.interval_ps * 1e3 / self.settings.timestep_fs)
        temperatures, energies = self.settings.temperatures, []
        for replica, temperature in enumerate(temperatures):
            self.integrator.setTemperature(temperature)
            if self.periodic:
                self.context.setPeriodicBoxVectors(*self.boxes[replica])
            if self.barostats:
                self.context.setParameter(openmm.MonteCarloBarostat.Temperature(), temperature)
            self.context.setPositions(self.positions[replica])
            self.context.setVelocities(self.velocities[replica])
            self.integrator.step(steps)
            energies.append(self._store(replica))
        frame = self.positions[0][self.solute]
        first = int(self.rng.integers(2))
        for low in range(first, len(temperatures) - 1, 2):
            beta = [1.0 / (BOLTZMANN * t) for t in temperatures[low : low + 2]]
            log_accept = (beta[0] - beta[1]) * (energies[low] - energies[low + 1])
            accepted = np.log(self.rng.random()) < log_accept
            self.exchanges += (accepted, 1)
            if accepted:
                self._swap(low, low + 1)
        return frame

    def _swap(self, a: int, b: int) -> None:
        ratio = np.sqrt(self.settings.temperatures[b] / self.settings.temperatures[a])
        self.positions[a], self.positions[b] = self.positions[b], self.positions[a]
        self.velocities[a], self.velocities[b] = self.velocities[b] / ratio, self.velocities[a] * ratio
        self.boxes[a], self.boxes[b] = self.boxes[b], self.boxes[a]

    def state(self) -> dict[str, np.ndarray]:
        """What the next block depends on, and the count of exchanges."""
        stacked = {name: np.array(getattr(self, name)) for name in ("positions", "velocities", "boxes")}
        return {**stacked, "exchanges": self.exchanges}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self.positions, self.velocities, self.boxes = (list(state[k]) for k in ("positions", "velocities", "boxes"))
        self.exchanges = state["exchanges"]


def run_replicas(
    folder: Path,
    ns: float,
    settings: ReplicaSettings,
    build: Callable[[], Molecule],
    platform: str | None = None,
) -> tuple[Path, Path]:
    """Run, or carry on, and write the solute's trajectory at the lowest temperature.

    Parameters
    ----------
    folder : Path
        Holds the state of the run (``state.npz``), its blocks, ``md.pdb`` and ``md.trr``.
    ns : float
        Length at the lowest temperature after equilibration; more than before extends a run.
    settings : ReplicaSettings
        A run with other settings is refused.
    build : callable
        Gives the molecule.
    platform : str, optional
        OpenMM's platform; by default the fastest there is.

    Returns
    -------
    trajectory, topology : Path
    """
    import mdtraj

    wanted = max(1, round(1e3 * ns / settings.interval_ps))
    state, described = folder / "state.npz", json.dumps(asdict(settings))
    molecule = build()
    dynamics = ReplicaExchange(molecule, settings, platform)
    n_skip = round(settings.equilibration_ps / settings.interval_ps)
    n_block = max(1, min(BLOCK_FRAMES, round(BLOCK_PS / settings.interval_ps)))
    block = 0
    if state.is_file():
        with np.load(state) as saved:
            if str(saved["settings"]) != described:
                raise SystemExit(f"{folder} holds a run with other settings; choose another folder")
            block = int(saved["block"])
            dynamics.restore({name: saved[name] for name in saved.files})
        print(f"carrying on from frame {block * n_block}", flush=True)
    elif n_skip:
        dynamics.block(0, n_skip)
        dynamics.exchanges[:] = 0
    start, first = time.time(), block
    while block * n_block < wanted:
        block += 1
        with atomic_path(_frames(folder, block)) as path:
            np.save(path, dynamics.block(block, n_block).astype(np.float32))
        with atomic_path(state) as path:  # after the frames: a block without its frames would be lost
            np.savez(path, settings=described, block=block, **dynamics.state())
        done, seconds = (block - first) * n_block * settings.interval_ps * 1e-3, time.time() - start
        left = max(0, wanted - block * n_block) * settings.interval_ps * 1e-3 / done * seconds
        rate = done * len(settings.temperatures) / seconds * 86400
        print(
            f"{block * n_block * settings.interval_ps * 1e-3:.4g} of {ns:g} ns, {left:.0f} s left, {rate:.0f} ns/day "
            f"over all replicas, {dynamics.exchanges[0]} of {dynamics.exchanges[1]} exchanges accepted",
            flush=True,
        )
    frames = np.concatenate([np.load(_frames(folder, n)) for n in range(1, block + 1)])
    topology = mdtraj.Topology.from_openmm(molecule.topology).subset(molecule.solute)
    trajectory = mdtraj.Trajectory(frames[:wanted], topology, time=settings.interval_ps * np.arange(1, wanted + 1))
    with atomic_path(folder / "md.pdb") as path:
        trajectory[0].save_pdb(str(path))
    with atomic_path(folder / "md.trr") as path:
        trajectory.save_trr(str(path))
    return folder / "md.trr", folder / "md.pdb"


def _frames(folder: Path, block: int) -> Path:
    return folder / "blocks" / f"{block:06d}.npy"
