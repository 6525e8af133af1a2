"""Flows that generate molecular crystals, symmetric and all-atom; the published P1 model is in `p1`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "ContactNetwork": "network",
    "ContactSettings": "network",
    "CrystalBatch": "state",
    "CrystalFlow": "model",
    "CrystalFlowConfig": "config",
    "PairBatches": "pairs",
    "PairSet": "pairs",
    "make_pairs": "pairs",
    "train_crystal_flow": "train",
    "train_on_pairs": "train",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"molflow_sim.models.crystal_flow.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
