"""What a coarse-grained run leaves behind: one DCD file per temperature, and how to read it."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molflow_openmm.dcd import dcd_layout, frame_type
from molflow_sim.cg.frames import BeadFrames
from molflow_sim.cg.topology import BeadTopology
from molflow_sim.errors import InputError, NonFiniteError, StoreError, TrajectoryError


@dataclass(frozen=True)
class CGSimulation:
    """A finished run of `simulate_cg`.

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
        """
        path = self.folder / dcd_name(self._temperature(temperature))
        first = int(np.floor(discard_ps / self.report_every_ps + 1e-9))
        if not 0 <= first < self.reports:
            raise InputError(
                f"discarding {discard_ps:g} ps leaves nothing of {self.reports * self.report_every_ps:g} ps"
            )
        frames = read_positions(path).reshape(-1, self.replicas, self.topology.n_beads, 3)
        return np.ascontiguousarray(frames[first : self.reports].swapaxes(0, 1))

    def samples(self, temperature: float | None = None, discard_ps: float = 0.0) -> BeadFrames:
        """The same as `BeadFrames`, one copy after another, for reports and fits.

        Raises
        ------
        InputError
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
        rows = np.loadtxt(self.folder / "walkers.csv", delimiter=",", skiprows=1, dtype=np.int64, ndmin=2)
        return rows[: self.reports, 1:].reshape(shape).astype(np.int16)

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


def start_dcd(path: Path, n_beads: int, timestep_fs: float, interval: int) -> None:
    """Write the head of a DCD file without a box and without frames (CHARMM flavour, as OpenMM's).

    Parameters
    ----------
    interval : int
        Steps between frames.
    """
    # The header counts time in AKMA units, 0.0488882 ps.
    head = struct.pack("<i4s9if", 84, b"CORD", 0, interval, interval, 0, 0, 0, 0, 0, 0, 1e-3 * timestep_fs / 0.04888821)
    head += struct.pack("<13i", 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 84, 164, 2)
    comments = (b"molflow-sim: coarse-grained frames, all copies of one time after another", b"positions in Angstrom")
    head += b"".join(text.ljust(80) for text in comments)
    path.write_bytes(head + struct.pack("<4i", 164, 4, n_beads, 4))


def append_dcd(path: Path, positions: np.ndarray) -> None:
    """Append frames to such a file.

    Parameters
    ----------
    positions : ndarray, shape (F, B, 3)
        Å.
    """
    layout = dcd_layout(path)
    frames = np.zeros(len(positions), dtype=frame_type(layout))
    for axis, name in enumerate("xyz"):
        frames[name] = positions[:, :, axis]
        frames[f"_{name}0"] = frames[f"_{name}1"] = 4 * layout.n_atoms
    with open(path, "r+b") as file:
        file.seek(layout.start + layout.n_frames * layout.frame)
        file.write(frames.tobytes())
        file.seek(8)
        file.write(struct.pack("<i", layout.n_frames + len(positions)))


def read_positions(path: Path) -> np.ndarray:
    """All frames of such a file, shape (F, B, 3), Å, float32.

    Raises
    ------
    StoreError
        No such file, or another kind.
    """
    layout = dcd_layout(path)
    data = np.memmap(path, dtype=frame_type(layout), mode="r", offset=layout.start, shape=(layout.n_frames,))
    return np.stack([data[k] for k in "xyz"], axis=-1)


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
    lengths = np.linalg.norm(positions[:, bonds[:, 0]] - positions[:, bonds[:, 1]], axis=-1)
    outside = (lengths < limits[0]) | (lengths > limits[1])
    if outside.any():
        n, b = (int(k) for k in np.argwhere(outside)[0])
        raise TrajectoryError(
            f"{where[n]}: bond {labels[b]} is {lengths[n, b]:.2f} Å long; between {limits[0, b]:.2f} and "
            f"{limits[1, b]:.2f} Å is physical"
        )
