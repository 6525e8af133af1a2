"""OpenMM front end: crystals and coarse-grained molecules of `molflow_sim` as ordinary Systems, and runs of them."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from molflow_openmm.cg.forcefield import CGForceField
    from molflow_openmm.cg.samples import CGSimulation
    from molflow_openmm.cg.simulate import simulate_cg
    from molflow_openmm.cg.topology import bead_topology
    from molflow_openmm.cg.torch import export_torchscript
    from molflow_openmm.crystal.settings import SimulationSettings
    from molflow_openmm.crystal.simulate import simulate
    from molflow_openmm.crystal.system import crystalSystem

__all__ = [
    "CGForceField",
    "CGSimulation",
    "SimulationSettings",
    "bead_topology",
    "crystalSystem",
    "export_torchscript",
    "simulate",
    "simulate_cg",
]

# Loaded on first use: openmm-ml imports this package wherever it is installed, whatever its user is going to do.
_PUBLIC = {
    "CGForceField": "cg.forcefield",
    "CGSimulation": "cg.samples",
    "SimulationSettings": "crystal.settings",
    "bead_topology": "cg.topology",
    "crystalSystem": "crystal.system",
    "export_torchscript": "cg.torch",
    "simulate_cg": "cg.simulate",
}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Package(ModuleType):
    """Keeps the function `simulate` under that name: importing the module of the same name would put it there."""

    def _get(self) -> Any:
        return import_module("molflow_openmm.crystal.simulate").simulate

    def _ignore(self, module: Any) -> None:
        pass

    simulate = property(_get, _ignore)


if not TYPE_CHECKING:
    sys.modules[__name__].__class__ = _Package
