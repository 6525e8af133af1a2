"""Everything that decides a crystal flow's weights besides the data, as one YAML file."""

from __future__ import annotations

from dataclasses import dataclass, field

from molflow_sim.errors import InputError
from molflow_sim.models.crystal_flow.network import ContactSettings
from molflow_sim.models.crystal_flow.pairs import DENSE
from molflow_sim.training.fit import FitConfig
from molflow_sim.training.settings import TrainSettings, at_least


@dataclass(frozen=True)
class CrystalFlowConfig(FitConfig):
    """How a `CrystalFlow` is made; what is not named here is in `FitConfig`.

    Attributes
    ----------
    network : ContactSettings
    starts : int
        Random starts made for each crystal.
    packing_coefficient : (float, float)
        Range of (molecular volume)/(cell volume per molecule) of the random starts.
    seed : int
        Of the pairs; `training.seed` is that of weights and batches.
    """

    network: ContactSettings = field(default_factory=ContactSettings)
    training: TrainSettings = field(
        default_factory=lambda: TrainSettings(
            max_steps=12_000, batch_size=64, learning_rate=1e-3, weight_decay=1e-3, warmup_steps=200, ema_decay=0.999
        )
    )
    starts: int = 4
    packing_coefficient: tuple[float, float] = DENSE
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        super().__post_init__()
        at_least(self, 1, "starts")
        at_least(self, 0, "seed")
        if len(c := self.packing_coefficient) != 2 or not 0.0 < c[0] <= c[1] < 1.0:
            raise InputError(f"packing_coefficient must be two numbers in (0, 1), got {self.packing_coefficient}")
