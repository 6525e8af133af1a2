"""An energy in one file: Lennard-Jones between the atoms of different molecules, by van der Waals radii.

pip install examples/plugin_energy
molflow screen "NC=O" --energy contacts -o screening/
"""

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.data import vdw_radii
from ase.neighborlist import neighbor_list

DEPTH = 0.004
"""eV, of every pair."""


class Contacts(Calculator):
    """An ASE calculator; `arrays["molecule"]` of the structure says which molecule an atom belongs to."""

    implemented_properties = ("energy",)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        i, j, distance, shift = neighbor_list("ijdS", atoms, 9.0)
        molecule = atoms.arrays["molecule"]
        own = (molecule[i] == molecule[j]) & (shift == 0).all(1)
        radius = np.nan_to_num(vdw_radii[atoms.numbers], nan=1.5)
        x = ((radius[i] + radius[j]) / distance)[~own] ** 6
        self.results["energy"] = 0.5 * DEPTH * float((x * x - 2.0 * x).sum())


def contacts():
    """What the entry point names: a function that gives the calculator."""
    return Contacts()
