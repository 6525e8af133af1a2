"""A stand-in for a trained crystal flow: random packings under another seed, and weights whose hash can be chosen."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from molflow_sim.errors import InputError, WeightsError
from molflow_sim.generators import crystals as generators
from molflow_sim.packing import random_packings


@dataclass
class CrystalFlow:
    card: dict[str, Any]
    folder: str | None = None

    @classmethod
    def from_pretrained(cls, folder: str | None = None) -> CrystalFlow:
        text = "packaged" if folder is None else ""
        if folder is not None:
            try:
                text = (Path(folder) / "weights").read_text()
            except OSError as error:
                raise WeightsError(f"no weights in {folder}") from error
        return cls({"sha256": text}, folder)

    def propose(self, molecule, n, *, seed, first_index=0, space_groups="common", z_prime=1, draws=1):
        return random_packings(
            molecule, n, seed=seed + 10**6, first_index=first_index, space_groups=space_groups, z_prime=z_prime
        )


@dataclass(frozen=True)
class CrystalFlowConfig:
    steps: int = 7

    @classmethod
    def from_yaml(cls, path):
        name, _, value = Path(path).read_text().strip().partition(": ")
        if name != "steps":
            raise InputError(f"{path}: unknown {name}; known are steps")
        return cls(int(value))


@dataclass
class StandIn(ModuleType):
    """The module, with the calls that were made to it."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__("molflow_sim.models.crystal_flow")
        self.CrystalFlow, self.CrystalFlowConfig = CrystalFlow, CrystalFlowConfig

    def train_crystal_flow(self, data, config, folder, *, initial=None, progress=True):
        self.calls.append((data, config, folder, initial))


@pytest.fixture
def stand_in(monkeypatch):
    """Put the stand-in where the crystal flow is imported from."""
    import molflow_sim.models

    module = StandIn()
    monkeypatch.setitem(sys.modules, "molflow_sim.models.crystal_flow", module)
    monkeypatch.setattr(molflow_sim.models, "crystal_flow", module, raising=False)
    generators._flow.cache_clear()
    yield module
    generators._flow.cache_clear()
