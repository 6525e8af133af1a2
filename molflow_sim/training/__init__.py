"""Training of networks: settings, deterministic batches, and one loop with resumable checkpoints."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Loaded on first use: Lightning takes seconds to import.
_PUBLIC = {
    "Batches": "batches",
    "TensorBatches": "batches",
    "TrainResult": "loop",
    "TrainSettings": "settings",
    "YamlSettings": "settings",
    "plot_curves": "curves",
    "train": "loop",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"molflow_sim.training.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
