"""Training of CoarsenConf, from pairs to weights."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from molflow_sim.errors import InputError, TrainingError
from molflow_sim.models.coarsenconf.batch import PairBatches
from molflow_sim.models.coarsenconf.data import PairData
from molflow_sim.models.coarsenconf.model import CoarsenConf
from molflow_sim.models.coarsenconf.settings import CoarsenConfSettings
from molflow_sim.training.fit import ModelConfig, begun, fit
from molflow_sim.training.settings import TrainSettings

VALIDATION_BATCHES = 8


@dataclass(frozen=True)
class CoarsenConfConfig(ModelConfig):
    """Everything that decides the weights of a `CoarsenConf` besides the conformers.

    Attributes
    ----------
    conf : CoarsenConfSettings
    max_atoms : int
        Molecules of more heavy atoms are left out.
    share : float
        Train on this share of the molecules, drawn at random, to see what more data gives; a larger share holds a
        smaller one. 1 for all.
    """

    conf: CoarsenConfSettings = field(default_factory=CoarsenConfSettings)
    training: TrainSettings = field(
        default_factory=lambda: TrainSettings(
            max_steps=15_000, batch_size=24, learning_rate=1e-3, weight_decay=0.01, ema_decay=0.999,
            validate_every=500,
        )
    )  # fmt: skip
    max_atoms: int = 50
    share: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        if self.max_atoms < 3 or not 0.0 < self.share <= 1.0:
            raise InputError("max_atoms must be at least 3 and share in (0, 1]")


def train_coarsenconf(
    data: PairData,
    config: CoarsenConfConfig | None = None,
    folder: str | Path = "coarsenconf",
    *,
    initial: CoarsenConf | None = None,
    progress: bool = True,
) -> CoarsenConf:
    """Train on the molecules of the training side; a killed run goes on where its last checkpoint was.

    Parameters
    ----------
    data : PairData
    config : CoarsenConfConfig, optional
    folder : path
        Gets weights, card, metrics with curves, and checkpoint.
    initial : CoarsenConf, optional
        Start from these weights (fine-tuning); its settings are taken, weights of the loss at their ends.

    Raises
    ------
    StoreError, TrainingError
        The folder holds another training, nothing can be trained on, or the loss is not finite.
    """
    config = config or CoarsenConfConfig()
    sides = {
        side: [r for r in data.of(side).records if r.graph.n <= config.max_atoms] for side in ("train", "validation")
    }
    if config.share < 1.0:
        order = np.random.default_rng(0).permutation(len(sides["train"]))
        sides["train"] = [sides["train"][k] for k in order[: max(1, round(config.share * len(order)))]]
    train = sides["train"]
    if not train:
        raise TrainingError(
            f"none of {len(data)} molecules is on the side to train on and has at most {config.max_atoms} heavy atoms"
        )
    seed, settings = config.training.seed, config.conf
    if initial is not None:
        s = initial.settings
        settings = replace(s, kl=replace(s.kl, steps=0), distance=replace(s.distance, steps=0))
    model = begun(CoarsenConf, settings, seed, initial)
    model.card["range"] = {
        "max_heavy_atoms": max(r.graph.n for r in train),
        "max_beads": max(r.graph.n_beads for r in train),
    }
    size, last = config.training.batch_size, config.training.max_steps
    validation = PairBatches(sides["validation"], model.settings, size, seed + 1, fixed=last)
    trained: CoarsenConf = fit(
        model, PairBatches(train, model.settings, size, seed), config, folder,
        data={
            **{f"{side} molecules": len(records) for side, records in sides.items()},
            **{f"{side} conformers": sum(len(r.true) for r in records) for side, records in sides.items()},
            "identity": data.identity,
        },
        identity=data.identity, initial=initial, validation=validation if sides["validation"] else None,
        validation_batches=VALIDATION_BATCHES, progress=progress,
    )  # fmt: skip
    return trained
