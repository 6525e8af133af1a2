"""Training of the cluster flow, from clusters to weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from molflow_sim.errors import InputError, TrainingError
from molflow_sim.models.cluster_flow.data import ClusterData
from molflow_sim.models.cluster_flow.model import ClusterFlow
from molflow_sim.models.cluster_flow.paths import PathBatches
from molflow_sim.models.cluster_flow.settings import ClusterFlowSettings
from molflow_sim.training.fit import ModelConfig, begun, fit
from molflow_sim.training.settings import TrainSettings, positive

VALIDATION_BATCHES = 16


@dataclass(frozen=True)
class ClusterFlowConfig(ModelConfig):
    """Everything that decides the weights of a `ClusterFlow` besides the clusters.

    Attributes
    ----------
    flow : ClusterFlowSettings
    energy_scale : float
        kJ/mol per molecule: packings of a molecule are drawn with weights exp(-ΔE/energy_scale).
    experimental_share : float
        Share of the draws that are measured crystals, where there are both.
    max_atoms : int
        Larger molecules are left out.
    """

    flow: ClusterFlowSettings = field(default_factory=ClusterFlowSettings)
    training: TrainSettings = field(
        default_factory=lambda: TrainSettings(
            max_steps=20_000, batch_size=2, learning_rate=1e-3, ema_decay=0.999, validate_every=1000
        )
    )
    energy_scale: float = 4.0
    experimental_share: float = 0.3
    max_atoms: int = 40

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        positive(self, "energy_scale", "max_atoms")
        if not 0.0 <= self.experimental_share < 1.0:
            raise InputError(f"experimental_share must lie in [0, 1), got {self.experimental_share}")


def train_cluster_flow(
    data: ClusterData,
    config: ClusterFlowConfig | None = None,
    folder: str | Path = "cluster_flow",
    *,
    initial: ClusterFlow | None = None,
    progress: bool = True,
) -> ClusterFlow:
    """Train on the clusters of the training side; a killed run goes on where its last checkpoint was.

    Parameters
    ----------
    data : ClusterData
    config : ClusterFlowConfig, optional
    folder : path
        Gets weights, card, metrics with curves, and checkpoint.
    initial : ClusterFlow, optional
        Start from these weights (fine-tuning); its settings are taken.

    Raises
    ------
    StoreError, TrainingError
        The folder holds another training, nothing can be trained on, or the loss is not finite.
    """
    config = config or ClusterFlowConfig()
    sides = {
        side: ClusterData([r for r in data.of(side).records if len(r.numbers) <= config.max_atoms], data.identity)
        for side in ("train", "validation")
    }
    train = sides["train"]
    if not len(train):
        raise TrainingError(
            f"none of {len(data)} clusters is on the side to train on and has at most {config.max_atoms} atoms"
        )
    seed = config.training.seed
    model = begun(ClusterFlow, config.flow if initial is None else initial.settings, seed, initial)
    model.card["range"] = {"max_atoms": max(len(r.numbers) for r in train.records), "molecules": train.size}

    def batches(side: str, seed: int) -> PathBatches:
        chosen = sides[side]
        weights = chosen.weights(config.energy_scale, config.experimental_share)
        return PathBatches(chosen, weights, model.settings, config.training.batch_size, seed)

    counts = {
        f"{side} {what}": int(value)
        for side, chosen in sides.items()
        for what, value in (("clusters", len(chosen)), ("molecules", len(np.unique([r.key for r in chosen.records]))))
    }
    trained: ClusterFlow = fit(
        model, batches("train", seed), config, folder, data={**counts, "identity": data.identity},
        identity=data.identity, initial=initial, progress=progress, validation_batches=VALIDATION_BATCHES,
        validation=batches("validation", seed + 1) if len(sides["validation"]) else None,
    )  # fmt: skip
    return trained
