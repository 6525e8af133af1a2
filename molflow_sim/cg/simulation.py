"""What a coarse-grained run leaves behind: one DCD file per temperature, a log, and how to read them.

Whatever engine made it: `molflow_openmm.simulate_cg` writes such folders, reports read them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molflow_sim.cg.frames import BeadFrames
from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.errors import InputError, StoreError
from molflow_sim.io.dcd import read_positions


@dataclass(frozen=True)
class CGSimulation:
    """A finished run of `molflow_openmm.simulate_cg`.

    Attributes
    ----------
    folder : Path
        Where its files are.
    topology : BeadTopology
        The B beads.
    temperatures : tuple of float
        K.
    replicas : int
        Copies per temperature, N.
    reports : int
        Frames per copy, R.
    report_every_ps : float
        Time between them, ps.
    acceptance : tuple of float
        Share of exchanges that were accepted between each temperature and the next.
    summary : mapping
        The content of ``summary.json``.
    """

    folder: Path
    topology: BeadTopology
    temperatures: tuple[float, ...]
    replicas: int
    reports: int
    report_every_ps: float
    acceptance: tuple[float, ...]
    summary: Mapping[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> CGSimulation:
        """Read a finished run.

        Raises
        ------
        StoreError
            The folder holds none.
        """
        folder = Path(folder)
        try:
            summary = json.loads((folder / "summary.json").read_text())
            return cls(
                folder,
                BeadTopology.from_json(json.dumps(summary["topology"])),
                tuple(summary["settings"]["temperatures"]),
                summary["settings"]["replicas"],
                summary["reports"],
                summary["report_every_ps"],
                tuple(summary["acceptance"]),
                summary,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{folder} holds no finished coarse-grained simulation ({error})") from error

    def positions(self, temperature: float | None = None, discard_ps: float = 0.0) -> np.ndarray:
        """Frames at one temperature, shape (N, R, B, 3), Å, float32: copy, time, bead.

        Each frame has its centre of mass at the origin. With several temperatures a copy's frames are those of the
        walker that was at this temperature, so they jump at each exchange; see `walkers`.

        Parameters
        ----------
        temperature : float, optional
            K. Default: the lowest.
        discard_ps : float
            Leave out the frames up to this time.

        Raises
        ------
        InputError
            No such temperature, or all frames left out.
        StoreError
            The file of frames is missing or not all there.
        """
        path = self.folder / dcd_name(self._temperature(temperature))
        first = int(np.floor(discard_ps / self.report_every_ps + 1e-9))
        if not 0 <= first < self.reports:
            raise InputError(
                f"discarding {discard_ps:g} ps leaves nothing of {self.reports * self.report_every_ps:g} ps"
            )
        frames, shape = read_positions(path), (self.reports * self.replicas, self.topology.n_beads, 3)
        if len(frames) < shape[0] or frames.shape[1:] != shape[1:]:
            raise StoreError(f"{path} holds frames of shape {frames.shape}, not of {shape}: it was changed or cut off")
        frames = frames[: shape[0]].reshape(self.reports, self.replicas, *shape[1:])
        return np.ascontiguousarray(frames[first:].swapaxes(0, 1))

    def samples(self, temperature: float | None = None, discard_ps: float = 0.0) -> BeadFrames:
        """The same as `BeadFrames`, one copy after another, for reports and fits.

        Raises
        ------
        InputError, StoreError
            As `positions`.
        """
        kelvin = self._temperature(temperature)
        positions = self.positions(kelvin, discard_ps)
        lengths = (positions.shape[1],) * self.replicas if len(self.temperatures) == 1 else ()
        flat = positions.reshape(-1, self.topology.n_beads, 3)
        return BeadFrames.from_arrays(
            flat, self.topology, kelvin, source=f"{self.folder.name} {kelvin:g} K", lengths=lengths
        )

    def walkers(self) -> np.ndarray:
        """Which walker was where: shape (R, T, N); walker w of copy n began at temperature w.

        All 0 where there is one temperature.
        """
        shape = (self.reports, len(self.temperatures), self.replicas)
        if len(self.temperatures) == 1:
            return np.zeros(shape, dtype=np.int16)
        return self._table("walkers.csv")[: self.reports, 1:].reshape(shape).astype(np.int16)

    def kinetic_temperatures(self) -> list[tuple[float, float]]:
        """Bath and mean kinetic temperature (K) of the copies, for each temperature of the run, from its log.

        A kinetic temperature well above the bath's means that the time step is too long for the force field: what was
        sampled is not its ensemble.
        """
        rows = self._table("log.csv", (2, 4))
        return [(float(bath), float(rows[rows[:, 0] == bath, 1].mean())) for bath in np.unique(rows[:, 0])]

    def _table(self, name: str, columns: tuple[int, ...] | None = None) -> np.ndarray:
        try:
            table = np.loadtxt(self.folder / name, delimiter=",", skiprows=1, usecols=columns, ndmin=2)
            if len(table) < self.reports:
                raise ValueError(f"{len(table)} rows of at least {self.reports}")
            return table
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.folder / name} cannot be read: {error}") from error

    def _temperature(self, temperature: float | None) -> float:
        if temperature is None:
            return self.temperatures[0]
        nearest = min(self.temperatures, key=lambda t: abs(t - temperature))
        if abs(nearest - temperature) > 0.05:
            raise InputError(
                f"no frames at {temperature:g} K; there are {', '.join(f'{t:g}' for t in self.temperatures)} K"
            )
        return nearest


def dcd_name(temperature: float) -> str:
    """File name of the frames at a temperature, such as ``300K.dcd``."""
    return f"{temperature:.2f}".rstrip("0").rstrip(".") + "K.dcd"
