"""A generator of crystals in one file: molecules turned at random, in boxes of their own shape.

pip install examples/plugin_generator
molflow generate crystals "NC=O" --method box --option margin=0.5 -o boxes/
molflow screen "NC=O" --generator box -o screening/
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.spatial.transform import Rotation

from molflow_sim import MolecularCrystal, SpaceGroup
from molflow_sim.errors import RequestError
from molflow_sim.generators.protocol import CrystalRequest, Drawn, served
from molflow_sim.packing import body_conformers
from molflow_sim.symmetry import cell_matrix
from molflow_sim.systems.crystal import RigidMolecule


@dataclass(frozen=True)
class BoxGenerator:
    """Its fields are its options: `margin` is the room in Å that is left around the atoms."""

    kind: ClassVar[str] = "crystals/box"
    margin: float = 1.0

    def sample(self, request, n, *, seed, first_index=0):
        asked = served(request, CrystalRequest, self.kind, n)
        names = ("P 21 21 21", "P 1 21 1") if asked.space_groups == "common" else asked.space_groups
        groups = [SpaceGroup.from_name(name) for name in names]
        if asked.z_prime != 1 or (asked.molecule.is_enantiopure and not all(g.is_sohncke for g in groups)):
            raise RequestError("boxes hold one molecule (z_prime=1), and enantiopure ones stand in Sohncke groups")
        numbers = np.arange(first_index, first_index + n)
        # Candidate k follows from (seed, k) alone, whatever else is asked for.
        crystals = [self._crystal(asked.molecule, groups, np.random.default_rng([seed, int(k)])) for k in numbers]
        return Drawn(numbers, crystals, [""] * n)  # a row that fails is None with a reason

    def identity(self):
        return {"generator": "box", "margin": self.margin}

    def _crystal(self, molecule, groups, rng):
        group = groups[rng.integers(len(groups))]
        conformer = body_conformers(molecule)[rng.choice(len(molecule.shares), p=molecule.shares)]
        turn = Rotation.random(random_state=rng).as_matrix()
        lengths = np.ptp(conformer @ turn.T, axis=0) + 2.0 + self.margin
        lengths *= rng.permutation([2, 1, 1] if group.order == 2 else [2, 2, group.order / 4])
        cell = cell_matrix(group.constrain(np.array([*lengths, 90.0, 90.0, 90.0])))
        unit = RigidMolecule(0, conformer, rng.random(3), turn, tuple(range(group.order)))
        return MolecularCrystal((molecule,), (unit,), group, cell)
