"""Random packing, the rigid press, and telling duplicates apart."""

from molflow_sim.packing.packings import RigidPackings
from molflow_sim.packing.press import PressSettings, press
from molflow_sim.packing.random_packing import body_conformers, random_packings

__all__ = ["PressSettings", "RigidPackings", "body_conformers", "press", "random_packings"]
