"""What a run takes from a model folder: the force field, its fingerprint, and frames to start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from molflow_sim.cg.frames import BeadFrames
from molflow_sim.cg.inputs import FRAMES
from molflow_sim.cg.model import STUDENT, TEACHER, ModelFolder
from molflow_sim.errors import InputError, TrajectoryError, WeightsError
from molflow_sim.training.weights import read_card

if TYPE_CHECKING:
    from molflow_sim.cg.forcefield import ForceField

SETTLE_FORCE = 10.0
"""eV/Å: starting frames with a larger force on a bead are relaxed first."""
SETTLE_STEPS = 500
SETTLE_MOVE = 0.01
"""Å: longest move of a bead in one of these steps."""
TEACHER_FRAMES = 4096
"""Most samples drawn from a flow to start from."""


def load_forcefield(folder: Path, sha256: str | None = None) -> tuple[ForceField, tuple[str, str]]:
    """The force field of a model folder, with the folder (absolute) and the SHA-256 of its weights.

    Raises
    ------
    WeightsError
        No model there, a changed or truncated file, or weights with another SHA-256 than asked for.
    """
    folder = folder.resolve()
    found = str(read_card(folder, STUDENT)["sha256"])
    if sha256 is not None and sha256 != found:
        raise WeightsError(f"the force field in {folder} is another one (SHA-256 {found[:12]}…, not {sha256[:12]}…)")
    return ModelFolder(folder).load_student(), (str(folder), found)


def starting_positions(
    forcefield: ForceField, folder: Path | None, start: BeadFrames | None, n: int, seed: int
) -> np.ndarray:
    """Frames to start `n` copies from, shape (n, B, 3), Å, relaxed where the force field finds them strained.

    Parameters
    ----------
    folder : Path, optional
        Model folder, whose flow is sampled where `start` is not given; without a flow its frames of the fit serve.
    start : BeadFrames, optional
        Frames to choose from at random.

    Raises
    ------
    InputError
        Neither frames nor a flow to draw them from, or frames of other beads.
    TrajectoryError
        The starting frames cannot be relaxed.
    """
    rng = np.random.default_rng([seed, 1])
    if start is None and folder and (folder / FRAMES).exists() and not (folder / f"{TEACHER}.json").exists():
        start = BeadFrames.load(folder / FRAMES)
    if start is not None:
        if start.topology != forcefield.topology:
            raise InputError("the starting frames are of other beads than the force field")
        frames = np.asarray(start.positions, dtype=np.float64)
    else:
        frames = _from_teacher(folder, min(TEACHER_FRAMES, 2 * n + 16), seed)
        # The worst of a flow's samples are strained, and the force field has never seen them.
        forces = np.abs(forcefield.energy_and_forces(frames)[1]).max(axis=(1, 2))
        frames = frames[np.argsort(forces)[: max(1, len(frames) // 2)]]
    chosen = rng.choice(len(frames), n, replace=len(frames) < n)
    return settle(forcefield, np.ascontiguousarray(frames[chosen]))


def settle(forcefield: ForceField, positions: np.ndarray) -> np.ndarray:
    """Move beads down the force until none feels more than 10 eV/Å; frames that are well are not touched.

    Raises
    ------
    TrajectoryError
        Frames that stay strained, or an energy that is not finite.
    """
    x = np.array(positions, dtype=np.float64)
    for _ in range(SETTLE_STEPS):
        energies, forces = forcefield.energy_and_forces(x)
        strain = np.abs(forces).max(axis=(1, 2))
        if not (np.isfinite(strain).all() and np.isfinite(energies).all()):
            break
        bad = strain > SETTLE_FORCE
        if not bad.any():
            return x
        x[bad] += SETTLE_MOVE * forces[bad] / strain[bad, None, None]
    worst = int(np.argmax(np.where(np.isfinite(strain), strain, np.inf)))
    raise TrajectoryError(
        f"starting frame {worst} stays strained (largest force {strain[worst]:.3g} eV/Å after {SETTLE_STEPS} steps): "
        "the force field does not hold this molecule together; give other starting frames or train it longer"
    )


def _from_teacher(folder: Path | None, n: int, seed: int) -> np.ndarray:
    import torch

    if folder is None:
        raise InputError("give frames to start from (start=...): a force field in memory has no flow to draw them from")
    try:
        teacher = ModelFolder(folder).load_teacher()
    except WeightsError as error:
        raise InputError(
            f"give frames to start from (start=...): no flow can be read from {folder} ({error})"
        ) from error
    with torch.no_grad():
        x, _ = teacher.sample(n, torch.Generator().manual_seed(seed))
    frames = x.double().numpy()
    return frames[np.isfinite(frames).all(axis=(1, 2))]
