"""The published P 1 flow of rigid molecules in a cell: data, network, training and sampling.

Source: MolCrystalFlow (arXiv:2602.16020). Training needs torch, roma, NumPy and SciPy alone; RDKit is used only for
the features of molecules not seen before.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "MolCrystalFlowP1": "model",
    "P1Batch": "batch",
    "P1Batches": "batches",
    "P1Crystal": "data",
    "P1Data": "data",
    "P1Settings": "settings",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"molflow_sim.models.mol_crystal_flow.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
