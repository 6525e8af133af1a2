"""The training of a model on a data set: what all flows do around `train`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from molflow_sim.errors import InputError
from molflow_sim.training.batches import Batches
from molflow_sim.training.model import save_model
from molflow_sim.training.settings import TrainSettings, YamlSettings, positive
from molflow_sim.training.weights import weights_hash


@dataclass(frozen=True)
class ModelConfig(YamlSettings):
    """What decides a model's weights besides the data."""

    training: TrainSettings = field(default_factory=TrainSettings)


@dataclass(frozen=True)
class FitConfig(ModelConfig):
    """What decides the weights of a flow that learns from crystals besides the data, whatever the flow.

    Attributes
    ----------
    training : TrainSettings
    energy_scale : float
        kJ/mol per molecule: crystals are drawn with weights exp(-ΔE/energy_scale).
    experimental_share : float
        Share of the batches' crystals that come from experiment, where the data has any.
    validation_share : float
        Share of the molecules that are kept for the validation curve (and for `training.keep_best`) where there are at
        least 20 of them.
    """

    energy_scale: float = 4.0
    experimental_share: float = 0.1
    validation_share: float = 0.08

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        positive(self, "energy_scale")
        if not 0.0 <= self.experimental_share < 1.0:
            raise InputError(f"experimental_share must lie in [0, 1), got {self.experimental_share}")
        if not 0.0 <= self.validation_share < 0.5:
            raise InputError(f"validation_share must lie in [0, 0.5), got {self.validation_share}")


def begun(kind: Any, settings: Any, seed: int, initial: Any = None) -> Any:
    """A model of a kind with its first weights, or with those of `initial`; training's random numbers follow the seed.

    Parameters
    ----------
    kind : type
        A `SettingsModel`.
    settings : YamlSettings
    seed : int
    initial : Model, optional
        Of the same sizes.
    """
    torch.manual_seed(seed)
    model = kind(settings)
    if initial is not None:
        model.load_state_dict(initial.state_dict())
    return model


def fit(
    model: Any,
    batches: Batches,
    config: ModelConfig,
    folder: str | Path,
    *,
    data: Mapping[str, Any],
    identity: str,
    initial: Any = None,
    validation: Batches | None = None,
    validation_batches: int = 4,
    curves: bool = True,
    progress: bool = True,
) -> Any:
    """Train a model by its loss and leave weights and card in the folder, where a killed training goes on.

    Parameters
    ----------
    model : Model
        Changed in place, and returned.
    batches, folder, validation, validation_batches, progress
        As in `molflow_sim.training.train`.
    config : ModelConfig
        Stands in the card, and makes the training this one.
    data : mapping
        What the card says of the data.
    identity : str
        Hash of the data: with others it is another training.
    initial : Model, optional
        Whose weights the model has at the start.
    curves : bool
        Draw the metrics (`plot_curves`).

    Raises
    ------
    StoreError, TrainingError, WeightsError
        As `molflow_sim.training.train`.
    """
    from molflow_sim.training import plot_curves, train

    # What was never written has no hash in its card.
    before = None if initial is None else initial.card.get("sha256") or weights_hash(initial.state()[0])
    asked = {name: value for name, value in asdict(config).items() if name != "training"}
    result = train(
        model, lambda net, batch: net.loss(batch), batches, config.training, folder, validation=validation,
        validation_batches=validation_batches, progress=progress,
        identity={"initial": before, "data": identity, "config": asked},
    )  # fmt: skip
    kept = result.card(config.training.keep_best)
    model.card |= {"config": asdict(config), "data": dict(data), "fine-tuned from": before, **kept}
    save_model(folder, model)
    if curves:
        plot_curves(folder)
    return model
