"""ASE front end: the crystal potential and the coarse-grained models of `molflow_sim` as ASE calculators."""

from molflow_ase.calculator import CrystalCalculator
from molflow_ase.cg import CGCalculator, FlowCalculator, bead_atoms
from molflow_ase.cluster import ClusterCalculator

__all__ = ["CGCalculator", "ClusterCalculator", "CrystalCalculator", "FlowCalculator", "bead_atoms"]
