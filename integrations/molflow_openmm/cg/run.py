"""The files of a coarse-grained run while it goes on: frames, log, walkers and checkpoints that fit together.

Frames and rows are appended, the checkpoint is written whole or not at all after them; on carrying on, whatever was
appended after the last checkpoint is cut off.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from openmm import app, unit

from molflow_openmm.cg.force import ANGSTROM_PER_NM
from molflow_openmm.cg.replicas import Replicas
from molflow_openmm.cg.settings import CGSimulationSettings
from molflow_openmm.cg.topology import bead_topology
from molflow_sim.cg.simulation import dcd_name
from molflow_sim.cg.whole import bond_lengths
from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.errors import NonFiniteError, StoreError, TrajectoryError
from molflow_sim.io.dcd import append_dcd, start_dcd, truncate_dcd, truncate_log
from molflow_sim.runs.files import write_bytes_atomically
from molflow_sim.runs.store import pack_arrays, unpack_arrays
from molflow_sim.units import KJ_PER_MOL

BOND_RANGE = (0.5, 1.5)
"""Shortest and longest physical bond, in units of its mean length at the start."""
_LOG = '#"Step","Time (ps)","Bath (K)","Potential Energy (kJ/mole)","Temperature (K)","Accepted (%)","Speed (ns/day)"'


def centred(positions: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Positions (..., B, 3) with the centre of mass of the beads at the origin."""
    return positions - np.einsum("...bk,b->...k", positions, masses / masses.sum())[..., None, :]


def check_frames(
    positions: np.ndarray, bonds: np.ndarray, limits: np.ndarray, where: Sequence[str], labels: Sequence[str]
) -> None:
    """Check positions (n, B, 3), Å, of several copies: finite, and every bond within its limits (2, nb).

    Raises
    ------
    NonFiniteError, TrajectoryError
        Otherwise; it says which copy (`where`) and which bond (`labels`).
    """
    bad = ~np.isfinite(positions).all(axis=(1, 2))
    if bad.any():
        raise NonFiniteError(f"{where[int(np.argmax(bad))]}: positions are not finite; use a shorter time step")
    lengths = bond_lengths(positions, bonds)
    outside = (lengths < limits[0]) | (lengths > limits[1])
    if outside.any():
        n, b = (int(k) for k in np.argwhere(outside)[0])
        raise TrajectoryError(
            f"{where[n]}: bond {labels[b]} is {lengths[n, b]:.2f} Å long; between {limits[0, b]:.2f} and "
            f"{limits[1, b]:.2f} Å is physical"
        )


class RunFiles:
    """Writes the files of one run; see the module."""

    def __init__(self, folder: Path, beads: BeadTopology, settings: CGSimulationSettings) -> None:
        self.folder, self.beads, self.settings = folder, beads, settings
        self.trajectories = [folder / dcd_name(t) for t in settings.temperatures]
        self.has_walkers = len(settings.temperatures) > 1
        self._frames: list[np.ndarray] = []
        self._log: list[str] = []
        self._walkers: list[str] = []

    def begin(self, positions: np.ndarray) -> None:
        """Start every file anew; positions (B, 3), Å, of one copy go into ``topology.pdb``."""
        text = io.StringIO()
        at = unit.Quantity(positions / ANGSTROM_PER_NM, unit.nanometer)
        app.PDBFile.writeFile(bead_topology(self.beads), at, text, keepIds=True)
        write_bytes_atomically(self.folder / "topology.pdb", text.getvalue().encode())
        for path in self.trajectories:
            start_dcd(path, self.beads.n_beads, self.settings.timestep_fs, self.settings.report_steps)
        (self.folder / "log.csv").write_text(_LOG + "\n")
        if self.has_walkers:
            names = [f'"{t:g} K copy {n}"' for t in self.settings.temperatures for n in range(self.settings.replicas)]
            (self.folder / "walkers.csv").write_text(",".join(['#"Step"', *names]) + "\n")

    def report(self, number: int, replicas: Replicas, positions: np.ndarray, kinetic: np.ndarray, speed: float) -> None:
        """Keep one report for the next checkpoint.

        Parameters
        ----------
        positions : ndarray, shape (T, N, B, 3)
            Å.
        kinetic : ndarray, shape (T,)
            K.
        speed : float
            ns/day of each copy.
        """
        step = number * self.settings.report_steps
        energies = replicas.energies(positions).mean(axis=1) / KJ_PER_MOL
        accepted = [*replicas.acceptance(), None]
        for t, energy, temperature, share in zip(self.settings.temperatures, energies, kinetic, accepted):
            percent = "" if share is None else f"{100 * share:.2f}"
            picoseconds = step * self.settings.timestep_fs * 1e-3
            self._log.append(f"{step},{picoseconds:.6g},{t:g},{energy:.6f},{temperature:.3f},{percent},{speed:.4g}")
        if self.has_walkers:
            self._walkers.append(",".join(map(str, [step, *replicas.walkers.ravel().tolist()])))
        self._frames.append(centred(positions, self.beads.masses).astype(np.float32))

    def checkpoint(self, number: int, replicas: Replicas, bonds: np.ndarray) -> None:
        """Append what was kept, then say in ``state.npz`` that the run has come this far."""
        for k, path in enumerate(self.trajectories):
            append_dcd(path, np.concatenate([frames[k] for frames in self._frames]))
        _append(self.folder / "log.csv", self._log)
        if self.has_walkers:
            _append(self.folder / "walkers.csv", self._walkers)
        self._frames, self._log, self._walkers = [], [], []
        state = {**replicas.state(), "report": number, "bonds": bonds}
        write_bytes_atomically(self.folder / "state.npz", pack_arrays(state))

    def carry_on(self) -> dict[str, np.ndarray]:
        """Read the checkpoint and cut the other files back to it.

        Raises
        ------
        StoreError
            The checkpoint or one of the files is damaged.
        """
        path = self.folder / "state.npz"
        try:
            state = unpack_arrays(path.read_bytes())
            report = int(state["report"])
        except Exception as error:  # zip, zlib and header errors are of many kinds
            raise StoreError(f"{path} cannot be read ({error}); use --overwrite") from error
        try:
            for trajectory in self.trajectories:
                truncate_dcd(trajectory, report * self.settings.replicas)
            truncate_log(self.folder / "log.csv", report * self.settings.report_steps)
            if self.has_walkers:
                truncate_log(self.folder / "walkers.csv", report * self.settings.report_steps)
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.folder} is damaged ({error}); use --overwrite") from error
        return state


def _append(path: Path, rows: list[str]) -> None:
    with open(path, "a") as file:
        file.write("".join(row + "\n" for row in rows))
