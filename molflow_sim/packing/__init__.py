"""Random packing, the rigid press, and telling duplicates apart."""

from molflow_sim.generators.crystals import GENERATORS, Generator, make_generator
from molflow_sim.packing.packings import RigidPackings
from molflow_sim.packing.press import PressSettings, press
from molflow_sim.packing.random_packing import random_packings

__all__ = [
    "GENERATORS",
    "Generator",
    "PressSettings",
    "RigidPackings",
    "make_generator",
    "press",
    "random_packings",
]
