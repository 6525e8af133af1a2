"""OpenMM front end: the crystal potential of `molflow_sim` as an ordinary OpenMM System, and NPT runs with it."""

from molflow_openmm.simulate import SimulationSettings, simulate
from molflow_openmm.system import crystalSystem

__all__ = ["SimulationSettings", "crystalSystem", "simulate"]
