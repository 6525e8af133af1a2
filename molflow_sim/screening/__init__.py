"""Screening: from a molecule to a ranked landscape of crystal structures."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Loaded on first use: the command line must answer --help at once.
_PUBLIC = {
    "screen": "pipeline",
    "Landscape": "landscape",
    "LandscapeEntry": "landscape",
    "ReferenceMatch": "landscape",
    "ScreenSettings": "settings",
    "Stages": "stages",
    "Store": "store",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"molflow_sim.screening.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
