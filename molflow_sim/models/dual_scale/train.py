"""Training of the dual-scale flow, from frames of a simulation to weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from molflow_sim.errors import TrainingError
from molflow_sim.models.dual_scale.data import TRAIN, VALIDATION, ClusterFrames
from molflow_sim.models.dual_scale.model import DualScale
from molflow_sim.models.dual_scale.paths import PathBatches, prepare, with_data
from molflow_sim.models.dual_scale.settings import DualScaleSettings
from molflow_sim.runs.files import sha256
from molflow_sim.training.fit import ModelConfig, begun, fit
from molflow_sim.training.settings import TrainSettings, at_least

VALIDATION_BATCHES = 8


@dataclass(frozen=True)
class DualScaleConfig(ModelConfig):
    """Everything that decides the weights of a `DualScale` besides the frames.

    Attributes
    ----------
    flow : DualScaleSettings
        Spreads and bond lengths that are 0 are taken from the frames.
    training : TrainSettings
        Its batch size is that of the atoms.
    bead_batch : int
        Clusters of a step on the scale of beads, where a cluster costs little.
    """

    flow: DualScaleSettings = field(default_factory=DualScaleSettings)
    training: TrainSettings = field(
        default_factory=lambda: TrainSettings(
            max_steps=20_000, batch_size=1, learning_rate=2e-3, warmup_steps=100, ema_decay=0.999, validate_every=1000
        )
    )
    bead_batch: int = 2

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        at_least(self, 1, "bead_batch")


def train_dual_scale(
    data: Sequence[ClusterFrames],
    config: DualScaleConfig | None = None,
    folder: str | Path = "dual_scale",
    *,
    initial: DualScale | None = None,
    progress: bool = True,
) -> DualScale:
    """Train on frames; a killed run goes on where its last checkpoint was.

    Parameters
    ----------
    data : sequence of ClusterFrames
        Their training side is trained on, the validation side looked at.
    config : DualScaleConfig, optional
    folder : path
        Gets weights, card, metrics with curves and the checkpoint.
    initial : DualScale, optional
        Start from these weights (fine-tuning); its settings are taken.
    progress : bool

    Raises
    ------
    StoreError
        If the folder holds a training with other settings, frames or initial weights.
    TrainingError
        If no frame is for training, or the loss is not finite.
    """
    config = config or DualScaleConfig()
    flow = config.flow if initial is None else initial.settings
    frames = prepare(data, flow, TRAIN)
    if not frames:
        raise TrainingError("no frames to train on")
    settings = with_data(flow, frames)
    size, seed = config.training.batch_size, config.training.seed
    model = begun(DualScale, settings, seed, initial)
    model.remember_range([f.graph for f in frames])
    aside = prepare(data, settings, VALIDATION)
    identity = sha256("".join(d.identity for d in data).encode())
    trained: DualScale = fit(
        model,
        PathBatches(frames, settings, size, config.bead_batch, seed),
        config,
        folder,
        data={
            "frames": sum(len(f.atoms) for f in frames),
            "systems": [f"{d.order.tolist().count(k)} x {s}" for d in data for k, s in enumerate(d.smiles)],
            "identity": identity,
        },
        identity=identity,
        initial=initial,
        validation=PathBatches(aside, settings, size, config.bead_batch, seed + 1) if aside else None,
        validation_batches=VALIDATION_BATCHES,
        progress=progress,
    )
    return trained
