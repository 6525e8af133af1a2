"""A small landscape made by hand: formamide in P-1 and P2₁/c, energies as told."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from molflow_sim import MolecularCrystal, Molecule, SpaceGroup
from molflow_sim.screening import Landscape, LandscapeEntry
from molflow_sim.screening.landscape import Dropped, relative_energies
from molflow_sim.symmetry import cell_matrix
from molflow_sim.systems.crystal import RigidMolecule


@lru_cache(maxsize=4)
def formamide(name: str = "formamide") -> Molecule:
    return Molecule.from_smiles("NC=O", name=name)


def crystal(molecule: Molecule, group: str = "P -1", length: float = 6.0) -> MolecularCrystal:
    space_group = SpaceGroup.from_name(group)
    cell = cell_matrix(space_group.constrain(np.array([length, 1.1 * length, 1.2 * length, 95.0, 100.0, 105.0])))
    unit = RigidMolecule(
        species=0,
        conformer=molecule.conformers[0],
        centroid=np.array([0.21, 0.32, 0.17]),
        orientation=np.eye(3),
        images=tuple(range(space_group.order)),
    )
    return MolecularCrystal((molecule,), (unit,), space_group, cell, {})


def entry(crystal: MolecularCrystal, rank: int, energy: float, relative: float, **changes) -> LandscapeEntry:
    values = {
        "rank": rank, "id": f"id{rank:04d}", "crystal": crystal, "energy": energy, "relative_energy": relative,
        "potential_energy": energy, "potential_relative": relative, "press_energy": energy + 1.0, "converged": True,
        "max_force": 0.004, "residual_stress_gpa": 0.02, "n_steps": 40, "copies": rank,
    }  # fmt: skip
    return LandscapeEntry(**{**values, **changes})


def landscape(n: int = 4, name: str = "formamide", folder: Path | None = None, **changes) -> Landscape:
    molecule = formamide(name)
    energies = -3.0 + 0.01 * np.arange(n)
    relative = relative_energies(energies)
    entries = tuple(
        entry(crystal(molecule, ("P -1", "P 1 21/c 1")[i % 2], 5.5 + 0.3 * i), i + 1, float(e), float(r), **changes)
        for i, (e, r) in enumerate(zip(energies, relative))
    )
    dropped = (Dropped("id9999", "relax", "2 contacts too short", -2.5, 1.9, "P21/c"),)
    run = {"settings": {"seed": 0}, "versions": {"molflow-sim": "0"}, "timings_s": {"press": 3.5}}
    return Landscape(molecule, entries, dropped, {"press": {"candidates": 60, "ok": 54}}, run, None, folder)
