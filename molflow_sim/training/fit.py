"""The training of a model on a data set: what all flows do around `train`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from molflow_sim.errors import InputError
from molflow_sim.training.batches import Batches
from molflow_sim.training.model import save_model
from molflow_sim.training.settings import TrainSettings, YamlSettings


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
        if self.energy_scale <= 0.0 or not 0.0 <= self.experimental_share < 1.0:
            raise InputError("energy_scale must be positive and experimental_share in [0, 1)")
        if not 0.0 <= self.validation_share < 0.5:
            raise InputError(f"validation_share must lie in [0, 0.5), got {self.validation_share}")


def fit(
    model: Any,
    batches: Batches,
    config: ModelConfig,
    folder: str | Path,
    *,
    data: Mapping[str, Any],
    identity: Mapping[str, Any],
    initial: Any = None,
    validation: Batches | None = None,
    validation_batches: int = 4,
    progress: bool = True,
) -> Any:
    """Train a model by its loss and leave weights and card in the folder, where a killed training goes on.

    Parameters
    ----------
    model : Model
        Changed in place, and returned.
    batches, folder, identity, validation, validation_batches, progress
        As in `molflow_sim.training.train`.
    config : ModelConfig
        Stands in the card.
    data : mapping
        What the card says of the data.
    initial : Model, optional
        Whose weights the model has at the start.

    Raises
    ------
    StoreError, TrainingError, WeightsError
        As `molflow_sim.training.train`.
    """
    from molflow_sim.training import train

    before = None if initial is None else initial.card.get("sha256")
    result = train(
        model, lambda net, batch: net.loss(batch), batches, config.training, folder, validation=validation,
        validation_batches=validation_batches, identity={"initial": before, **identity}, progress=progress,
    )  # fmt: skip
    kept = result.card(config.training.keep_best)
    model.card |= {"config": asdict(config), "data": dict(data), "fine-tuned from": before, **kept}
    save_model(folder, model)
    return model
