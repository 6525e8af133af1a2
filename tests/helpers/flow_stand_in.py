"""A stand-in for a trained crystal flow: random packings under another seed, and weights whose hash can be chosen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from molflow_sim.errors import WeightsError
from molflow_sim.packing import random_packings
from molflow_sim.training.settings import TrainSettings, YamlSettings
from molflow_sim.training.weights import save_weights


@dataclass(frozen=True)
class FlowGenerator:
    kind: ClassVar[str] = "crystals/flow"
    weights: str | None = None
    draws: int = 3

    def sample(self, request, n, *, seed, first_index=0):
        return random_packings(
            request.molecule, n, seed=seed + 10**6, first_index=first_index, space_groups=request.space_groups,
            z_prime=request.z_prime,
        )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        try:
            text = "packaged" if self.weights is None else (Path(self.weights) / "weights").read_text()
        except OSError as error:
            raise WeightsError(f"no weights in {self.weights}") from error
        return {"generator": "flow", "weights": text, "draws": self.draws}


@dataclass(frozen=True)
class Config(YamlSettings):
    starts: int = 7
    training: TrainSettings = TrainSettings()  # noqa: RUF009
    seed: int = 0


@dataclass
class CrystalFlow:
    card: dict[str, Any]
    kind: ClassVar[str] = "crystal-flow"
    config: ClassVar[type] = Config
    calls: ClassVar[list[tuple[Any, ...]]] = []

    @staticmethod
    def trainer(data, config, folder, *, initial=None, progress=True):
        CrystalFlow.calls.append((data, config, folder, initial))

    @classmethod
    def from_state(cls, tensors, card):
        return cls(dict(card))


def weights_of(folder: Path, kind: str = "crystal-flow") -> Path:
    """A folder with weights of a kind."""
    save_weights(folder, kind.replace("-", "_"), {"x": torch.ones(1)}, {"kind": kind, "data": "mine"})
    return folder
