"""Fitting the teacher to frames by the variational bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from molflow_sim.cg.frames import BeadFrames
from molflow_sim.cg.teacher.flow import BeadFlow
from molflow_sim.cg.teacher.settings import TeacherSettings
from molflow_sim.training import TensorBatches, TrainSettings, train

EPOCHS = 40
LEAST_STEPS = 400
MOST_STEPS = 100_000


def teacher_training(n_frames: int) -> TrainSettings:
    """How a teacher is trained by default: epochs over the frames, with bounds on the number of steps.

    Parameters
    ----------
    n_frames : int
        Frames to fit to.

    Returns
    -------
    TrainSettings
    """
    size = 256
    steps = min(max(EPOCHS * (n_frames // size), LEAST_STEPS), MOST_STEPS)
    return TrainSettings(
        max_steps=steps, batch_size=size, learning_rate=1e-3, weight_decay=0.1, warmup_steps=100, gradient_clip=1.0,
        ema_decay=0.99, device="cpu", log_every=100,
    )  # fmt: skip


def bound_loss(flow: nn.Module, batch: Sequence[Tensor]) -> dict[str, Tensor]:
    """Negative variational bound on the mean log-density (eq. 7, less the constant entropy of η), nats per frame.

    Parameters
    ----------
    flow : BeadFlow
        Trained.
    batch : (bonds, angles, torsions, log_slope)
        From `BeadFlow.to_units`.
    """
    assert isinstance(flow, BeadFlow)
    bonds, angles, torsions, log_slope = batch
    # New augmentations at every look at a frame.
    eta = flow.draw_augmentation((len(bonds),))
    return {"loss": -(flow.unit_log_ratio(bonds, angles, torsions, eta) + log_slope).mean()}


def fit_teacher(
    frames: BeadFrames,
    settings: TeacherSettings | None = None,
    train_settings: TrainSettings | None = None,
    folder: str | Path | None = None,
    *,
    progress: bool = True,
) -> BeadFlow:
    """Train a flow on frames; no forces are needed.

    Parameters
    ----------
    frames : BeadFrames
        Equilibrium frames at one temperature.
    settings : TeacherSettings, optional
        Architecture.
    train_settings : TrainSettings, optional
        `teacher_training` by default.
    folder : path, optional
        Gets metrics and checkpoints; a killed training goes on from there.
    progress : bool
        A line now and then on stderr.

    Returns
    -------
    BeadFlow
        float32, in evaluation mode.

    Raises
    ------
    TrajectoryError
        Too few frames, or frames that cannot be used.
    MappingError
        The beads do not form one tree.
    StoreError
        The folder holds a training on other frames, with another architecture or other settings.
    TrainingError
        The loss stops being finite.
    """
    settings = settings or TeacherSettings()
    plan = train_settings or teacher_training(frames.n_frames)
    flow = BeadFlow.from_frames(frames, settings, seed=plan.seed)
    batches = TensorBatches(_units(flow, frames), plan.batch_size, plan.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        train(
            flow, bound_loss, batches, plan, folder, progress=progress,
            identity={"frames": frames.fingerprint, "flow": asdict(settings)},
        )  # fmt: skip
    return flow.eval()


@torch.no_grad()
def _units(flow: BeadFlow, frames: BeadFrames) -> tuple[Tensor, ...]:
    """Step 1 of the flow, done once; in float64, then rounded."""
    x = torch.from_numpy(np.asarray(frames.positions, dtype=np.float64))
    return tuple(u.float() for u in flow.to_units(x))
