"""ASE front end: the crystal potential of `molflow_sim` as an ASE calculator."""

from molflow_ase.calculator import CrystalCalculator

__all__ = ["CrystalCalculator"]
