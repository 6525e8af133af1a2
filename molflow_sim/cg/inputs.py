"""What goes into a model folder and what is taken from it: frames of trajectories, and the record of the fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molflow_sim.errors import InputError, TrajectoryError, WeightsError
from molflow_sim.runs.folder import read_run

if TYPE_CHECKING:
    from molflow_sim.cg.frames import BeadFrames

FRAMES = "frames.npz"
"""The mapped frames of the fit, in the model folder."""


def load_frames(
    trajectory: str | Path | Sequence[str | Path],
    topology: str | Path | None = None,
    beads: str | None = None,
    temperature: float | None = None,
    stride: int = 1,
) -> BeadFrames:
    """Bead frames from a trajectory, or from an .npz file that `BeadFrames.save` wrote.

    Parameters
    ----------
    trajectory : path or sequence of paths
        Anything MDTraj reads, or one .npz file of bead frames (then only `stride` counts, and a `temperature` that is
        given has to be the file's).
    topology, beads, temperature, stride
        As in `molflow_sim.cg.read_frames`.

    Returns
    -------
    BeadFrames

    Raises
    ------
    TrajectoryError, MappingError
        As `read_frames` and `BeadFrames.load`; a trajectory without beads.
    """
    from molflow_sim.cg.frames import BeadFrames, read_frames

    paths = [Path(p) for p in ([trajectory] if isinstance(trajectory, (str, Path)) else trajectory)]
    if is_npz(paths):
        frames = BeadFrames.load(paths[0])
        if temperature is not None and abs(temperature - frames.temperature) > 1e-6:
            raise TrajectoryError(f"{paths[0]} holds frames at {frames.temperature:g} K, not {temperature:g} K")
        if stride < 1:
            raise TrajectoryError(f"a stride of {stride}: it must be 1 or more")
        return frames.every(stride)
    if beads is None:
        raise InputError("no beads are given: a selection ('name CA'), atom indices, 'backbone' or 'calpha'")
    return read_frames([str(p) for p in paths], topology, beads, temperature, stride)


def check_model(folder: Path) -> dict[str, Any]:
    """The record of the fit that filled a model folder.

    Raises
    ------
    WeightsError
        No folder, no model in it, or a fit that has not ended.
    """
    if not (folder / "fit.json").exists():
        raise WeightsError(f"{folder} holds no model; make one with: molflow cg fit ... -o {folder}")
    record = read_run(folder, "fit")
    if record.get("status") != "done":
        raise WeightsError(f"the fit in {folder} has not ended; give the same molflow cg fit command again")
    return record


def is_npz(reference: str | Path | Sequence[str | Path]) -> bool:
    """Whether a reference is one .npz file of bead frames, and no trajectory."""
    paths = [reference] if isinstance(reference, (str, Path)) else list(reference)
    return len(paths) == 1 and Path(paths[0]).suffix == ".npz"
