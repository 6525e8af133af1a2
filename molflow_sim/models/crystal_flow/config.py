"""Everything that decides a crystal flow's weights besides the data, as one YAML file."""

from __future__ import annotations

from dataclasses import dataclass, field

from molflow_sim.errors import InputError
from molflow_sim.models.crystal_flow.network import ContactSettings
from molflow_sim.models.crystal_flow.pairs import DENSE
from molflow_sim.training.settings import TrainSettings, YamlSettings

COUPLINGS = ("transport", "basin")


@dataclass(frozen=True)
class CrystalFlowConfig(YamlSettings):
    """How a `CrystalFlow` is made.

    Attributes
    ----------
    network : ContactSettings
    training : TrainSettings
    starts : int
        Random starts made for each crystal.
    energy_scale : float
        kJ/mol per molecule: crystals are drawn with weights exp(-ΔE/energy_scale).
    experimental_share : float
        Share of the batches' crystals that come from experiment, where the data has any.
    coupling : str
        Which start belongs to which crystal: "transport", the assignment that moves things least, or "basin", the
        minimum that the press finds from the start (which takes the molecules of the data alone, and presses anew).
    packing_coefficient : (float, float)
        Range of (molecular volume)/(cell volume per molecule) of the random starts.
    validation_share : float
        Share of the molecules that `train_crystal_flow` keeps for the validation curve (and for `training.keep_best`)
        where there are at least 20 of them.
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
    energy_scale: float = 4.0
    experimental_share: float = 0.1
    coupling: str = COUPLINGS[0]
    packing_coefficient: tuple[float, float] = DENSE
    validation_share: float = 0.08
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        if self.starts < 1 or self.energy_scale <= 0.0 or not 0.0 <= self.experimental_share < 1.0:
            raise InputError("starts must be at least 1, energy_scale positive and experimental_share in [0, 1)")
        if self.coupling not in COUPLINGS:
            raise InputError(f"the coupling is one of {', '.join(COUPLINGS)}, not {self.coupling!r}")
        if not 0.0 <= self.validation_share < 0.5:
            raise InputError(f"validation_share must lie in [0, 0.5), got {self.validation_share}")
        if (
            len(self.packing_coefficient) != 2
            or not 0.0 < self.packing_coefficient[0] <= self.packing_coefficient[1] < 1.0
        ):
            raise InputError(f"packing_coefficient must be two numbers in (0, 1), got {self.packing_coefficient}")
