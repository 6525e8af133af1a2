"""Frames of a coarse-grained molecule, as read from trajectories: what every fit starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from molflow_sim.cg.whole import bond_lengths, check_bonds
from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.errors import TrajectoryError
from molflow_sim.runs.files import sha256, write_bytes_atomically
from molflow_sim.runs.store import pack_arrays, unpack_arrays
from molflow_sim.units import BOLTZMANN, KCAL_PER_MOL, KJ_PER_MOL

if TYPE_CHECKING:
    import mdtraj

    from molflow_sim.cg.mapping import BeadMapping

_FORCE_UNITS = {"eV/A": 1.0, "kcal/mol/A": KCAL_PER_MOL, "kJ/mol/nm": KJ_PER_MOL / 10.0}
_KIND = "molflow-bead-frames-1"


@dataclass(frozen=True, eq=False)
class BeadFrames:
    """Positions of the beads of one molecule in F frames at one temperature.

    Parameters
    ----------
    positions : ndarray, shape (F, B, 3)
        Å, float32 or float64, molecules whole.
    topology : BeadTopology
        The B beads.
    temperature : float
        K, the temperature of the ensemble that the frames come from.
    forces : ndarray, shape (F, B, 3), or None
        Mapped forces in eV/Å, where the trajectory had any.
    source : str
        Where the frames come from, for reports.
    lengths : tuple of int
        Frames in each continuous stretch of time, in order; empty where the frames are no time series.

    Raises
    ------
    TrajectoryError
        Shapes that do not fit, a NaN (the frame is named), a temperature that is missing or not positive.
    """

    positions: np.ndarray
    topology: BeadTopology
    temperature: float
    forces: np.ndarray | None = None
    source: str = ""
    lengths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("positions", "forces"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _checked(name, value, self.topology))
        if self.forces is not None and self.forces.shape != self.positions.shape:
            raise TrajectoryError(f"{len(self.positions)} frames of positions but {len(self.forces)} of forces")
        object.__setattr__(self, "temperature", _temperature(self.temperature))
        if self.lengths and sum(self.lengths) != self.n_frames:
            raise TrajectoryError(f"stretches of {self.lengths} frames do not add up to {self.n_frames}")

    @classmethod
    def from_arrays(
        cls,
        positions: np.ndarray,
        topology: BeadTopology,
        temperature: float,
        forces: np.ndarray | None = None,
        force_unit: Literal["eV/A", "kcal/mol/A", "kJ/mol/nm"] = "eV/A",
        source: str = "",
        lengths: Sequence[int] = (),
    ) -> BeadFrames:
        """Frames from arrays that are mapped to beads already.

        Parameters
        ----------
        positions : ndarray, shape (F, B, 3)
            Å.
        topology : BeadTopology
            The B beads.
        temperature : float
            K.
        forces : ndarray, shape (F, B, 3), or None
            In `force_unit`.
        force_unit : str
            "eV/A", "kcal/mol/A" or "kJ/mol/nm".
        source, lengths
            As in the class.

        Raises
        ------
        TrajectoryError
            As in the class, or an unknown unit.
        """
        if force_unit not in _FORCE_UNITS:
            raise TrajectoryError(f"unknown unit of force {force_unit!r}: use one of {', '.join(_FORCE_UNITS)}")
        if forces is not None:
            given = np.asarray(forces)
            forces = (given * _FORCE_UNITS[force_unit]).astype(given.dtype if given.dtype.kind == "f" else np.float64)
        return cls(np.asarray(positions), topology, temperature, forces, source, tuple(int(n) for n in lengths))

    @property
    def n_frames(self) -> int:
        """Number of frames, F."""
        return len(self.positions)

    def __len__(self) -> int:
        return self.n_frames

    @property
    def kT(self) -> float:
        """Boltzmann's constant times the temperature, eV."""
        return BOLTZMANN * self.temperature

    @property
    def fingerprint(self) -> str:
        """SHA-256 over positions, forces, temperature and topology."""
        parts = [np.ascontiguousarray(self.positions).tobytes(), self.topology.to_json().encode()]
        parts += [repr(self.temperature).encode()]
        parts += [np.ascontiguousarray(self.forces).tobytes()] if self.forces is not None else []
        return sha256(b"\0".join(parts))

    def validate(self, min_frames: int = 100) -> BeadFrames:
        """Check that a model can be fitted to these frames.

        Parameters
        ----------
        min_frames : int
            Fewest frames allowed.

        Returns
        -------
        BeadFrames
            The frames themselves.

        Raises
        ------
        MappingError
            The beads do not form one tree.
        TrajectoryError
            Too few frames, frames that are all the same, a molecule broken across a periodic box (a bond far longer
            than it usually is) or bonded beads at one point; the frame is named.
        """
        self.topology.require_tree()
        if self.n_frames < min_frames:
            raise TrajectoryError(f"{self.n_frames} frames are too few to fit to: at least {min_frames} are needed")
        check_bonds(self.positions, self.topology)
        if (
            self.n_frames > 1
            and self.topology.n_beads > 1
            and not np.ptp(bond_lengths(self.positions, self.topology.bonds), axis=0).any()
        ):
            raise TrajectoryError("all frames have the same bond lengths: is this a single structure repeated?")
        return self

    def take(self, n: int) -> BeadFrames:
        """`n` frames spread evenly over all of them (all where n is as large).

        Raises
        ------
        TrajectoryError
            n is not between 1 and the number of frames.
        """
        if not 1 <= n <= self.n_frames:
            raise TrajectoryError(f"cannot take {n} of {self.n_frames} frames")
        return self if n == self.n_frames else self[np.arange(n) * self.n_frames // n]

    def every(self, stride: int) -> BeadFrames:
        """Every stride-th frame of each stretch of time, from its first."""
        stretches = np.split(np.arange(self.n_frames), np.cumsum(self.lengths)[:-1]) if self.lengths else []
        kept = [rows[::stride] for rows in stretches]
        return replace(self[np.concatenate(kept)], lengths=tuple(map(len, kept))) if kept else self[::stride]

    def __getitem__(self, index: np.ndarray | slice) -> BeadFrames:
        forces = None if self.forces is None else self.forces[index]
        return replace(self, positions=self.positions[index], forces=forces, lengths=())

    def save(self, path: str | Path) -> Path:
        """Write the frames as one compressed .npz without pickles (whole or not at all)."""
        content = {
            "kind": np.array(_KIND),
            "positions": self.positions,
            "temperature": np.array(self.temperature),
            "topology": np.array(self.topology.to_json()),
            "source": np.array(self.source),
            "lengths": np.array(self.lengths, dtype=np.int64),
        }
        if self.forces is not None:
            content["forces"] = self.forces
        path = Path(path)
        write_bytes_atomically(path, pack_arrays(content))
        return path

    @classmethod
    def load(cls, path: str | Path) -> BeadFrames:
        """Read what `save` wrote.

        Raises
        ------
        TrajectoryError
            A file that is missing, damaged or not of this kind.
        MappingError
            A topology in it that is none.
        """
        path = Path(path)
        if not path.is_file():
            raise TrajectoryError(f"{path}: no such file")
        try:
            arrays = unpack_arrays(path)
            if str(arrays["kind"]) != _KIND:
                raise TrajectoryError(f"{path}: not a file of bead frames of this version")
            return cls(
                arrays["positions"], BeadTopology.from_json(str(arrays["topology"])), float(arrays["temperature"]),
                arrays.get("forces"), str(arrays["source"]), tuple(arrays["lengths"].tolist()),
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrajectoryError(f"{path}: not a file of bead frames, or damaged ({error})") from error


def read_frames(
    trajectory: str | Path | Sequence[str | Path],
    topology: str | Path | mdtraj.Topology | None,
    beads: str | BeadMapping,
    temperature: float | None,
    stride: int = 1,
) -> BeadFrames:
    """Read trajectories and map every frame to beads.

    Parameters
    ----------
    trajectory : path or sequence of paths
        One or more files in any format that MDTraj reads.
    topology : path, mdtraj.Topology or None
        File with the atoms (PDB, GRO, PSF, ...); None where the trajectory holds them itself (PDB, HDF5).
    beads : str or BeadMapping
        A mapping, or text for `mapping.parse_beads`: a preset, an MDTraj selection or a list of atom indices.
    temperature : float
        K. Asked for because no trajectory format keeps it.
    stride : int
        Read every stride-th frame.

    Returns
    -------
    BeadFrames
        float32 positions in Å, molecules made whole through their bonds where the trajectory has a periodic box.

    Raises
    ------
    TrajectoryError
        No such file, a trajectory that does not fit the topology, NaN or a molecule that stays broken (the frame is
        named), no frames, a missing temperature.
    MappingError
        A mapping that selects nothing, does not fit the topology, or whose beads do not form one tree.
    """
    from molflow_sim.cg.reading import mapped_trajectory

    kelvin = _temperature(temperature)
    paths = [Path(p) for p in ([trajectory] if isinstance(trajectory, (str, Path)) else trajectory)]
    positions, mapping = mapped_trajectory(paths, topology, beads, stride)
    source = ", ".join(p.name for p in paths)
    return BeadFrames(
        np.concatenate(positions), mapping.topology, kelvin, source=source, lengths=tuple(len(p) for p in positions)
    )


def _checked(name: str, value: np.ndarray, topology: BeadTopology) -> np.ndarray:
    value = np.asarray(value)
    if value.dtype not in (np.float32, np.float64):
        value = value.astype(np.float64)
    if value.ndim != 3 or value.shape[1:] != (topology.n_beads, 3):
        raise TrajectoryError(f"{name} of shape {value.shape}: expected (frames, {topology.n_beads}, 3)")
    if not len(value):
        raise TrajectoryError("no frames")
    bad = ~np.isfinite(value).all(axis=(1, 2))
    if bad.any():
        raise TrajectoryError(f"frame {int(np.argmax(bad))}: {name} are not finite ({int(bad.sum())} such frames)")
    return value


def _temperature(value: float | None) -> float:
    if value is None:
        raise TrajectoryError("the temperature is missing: give the one the trajectory was run at, in K")
    if not (np.isfinite(value) and value > 0):
        raise TrajectoryError(f"the temperature is {value} K: it must be above zero")
    return float(value)
