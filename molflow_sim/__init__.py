"""molflow-sim: molecular crystals from a molecule, with one potential behind ASE, OpenMM and torch."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("molflow-sim")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0.0.0"

# Public name -> module that defines it; loaded on first use, so that importing the package stays fast.
_PUBLIC = {
    "Molecule": "molflow_sim.systems.molecule",
    "MolecularCrystal": "molflow_sim.systems.crystal",
    "SpaceGroup": "molflow_sim.symmetry",
    "CrystalPotential": "molflow_sim.forcefield",
    "parametrize": "molflow_sim.forcefield",
    "screen": "molflow_sim.screening",
    "Landscape": "molflow_sim.screening",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
