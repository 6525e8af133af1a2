"""One physical force field: exp-6 and Ewald between molecules, MMFF94 inside them."""

from __future__ import annotations

from typing import Any

from molflow_sim.forcefield.charges import CHARGE_MODELS, partial_charges
from molflow_sim.forcefield.exp6 import EXP6_TYPES, GUARD_RADIUS, exp6_parameters, exp6_types
from molflow_sim.forcefield.mmff import MMFFTerms, extract_mmff
from molflow_sim.forcefield.parameters import MoleculeParameters, parametrize

# Modules that import torch: loaded on first use.
_LAZY = {
    "CrystalPotential": "molflow_sim.forcefield.potential",
    "mmff_energies": "molflow_sim.forcefield.mmff_energy",
}

__all__ = [
    "CHARGE_MODELS",
    "EXP6_TYPES",
    "GUARD_RADIUS",
    "CrystalPotential",
    "MMFFTerms",
    "MoleculeParameters",
    "exp6_parameters",
    "exp6_types",
    "extract_mmff",
    "mmff_energies",
    "parametrize",
    "partial_charges",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
