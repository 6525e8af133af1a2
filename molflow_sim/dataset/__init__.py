"""Data sets of low-energy crystal packings: made with the project's own search, read with NumPy alone."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Loaded on first use: machines that train read data sets without any chemistry library.
_PUBLIC = {
    "build_crystal_dataset": "build",
    "BuildSummary": "build",
    "DatasetSettings": "settings",
    "CrystalDataset": "reader",
    "CrystalRecord": "reader",
    "TrainingSource": "sources",
    "training_source": "sources",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"molflow_sim.dataset.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
