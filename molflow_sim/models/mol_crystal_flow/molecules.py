"""What to fill a cell with: species, numbers of molecules, conformers and hands of the samples.

Nothing here comes from a crystal: conformers are the molecule's own, and which copies are mirror images is drawn, as
it must be where the structure is not known.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from molflow_sim.errors import InputError
from molflow_sim.models.mol_crystal_flow.batch import P1Batch, Poses
from molflow_sim.models.mol_crystal_flow.data import Shape, shape_tensors
from molflow_sim.models.mol_crystal_flow.features import chemical_features
from molflow_sim.models.mol_crystal_flow.frames import MIRROR
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.systems.crystal import MolecularCrystal
    from molflow_sim.systems.molecule import Molecule

CONFORMER_SCALE = 5.0
"""kJ/mol; conformers are drawn with probability exp(-ΔE / scale)."""


@dataclass(frozen=True, eq=False)
class Contents:
    """The molecules of n cells.

    Attributes
    ----------
    molecules : tuple of Molecule
    shapes : list of Shape
        Of every conformer of every species.
    first : ndarray of int (S,)
        Index of each species' first shape.
    species : ndarray of int (Z,)
        Of each molecule in the cell.
    conformer : ndarray of int (n, S)
        Chosen for each species.
    hand : ndarray of int (n, Z)
        ±1.
    """

    molecules: tuple[Molecule, ...]
    shapes: list[Shape]
    first: np.ndarray
    species: np.ndarray
    conformer: np.ndarray
    hand: np.ndarray

    def shape_index(self) -> np.ndarray:
        """Index into `shapes` (n, Z)."""
        return self.first[self.species] + self.conformer[:, self.species]

    def batch(self, rows: np.ndarray) -> P1Batch:
        """Samples `rows` with poses still to be drawn (unit cells, identity rotations)."""
        index = self.shape_index()[rows]
        b, z = index.shape
        chi = torch.ones(b, z, 3)
        chi[..., 2] = torch.as_tensor(self.hand[rows], dtype=torch.float32)
        eye = torch.eye(3)
        poses = Poses(eye.repeat(b, 1, 1), torch.zeros(b, z, 3), eye.repeat(b, z, 1, 1), chi)
        used, species = np.unique(index, return_inverse=True)
        shapes = shape_tensors([self.shapes[k] for k in used])
        return P1Batch(shapes, poses, torch.as_tensor(species.reshape(b, z)), torch.ones(b, z, dtype=torch.bool))

    def crystal(
        self, row: int, cell: np.ndarray, frac: np.ndarray, rotation: np.ndarray, info: Any
    ) -> MolecularCrystal:
        """One sample in P 1; rotations (Z, 3, 3) act on the canonical shapes."""
        from molflow_sim.symmetry import SpaceGroup
        from molflow_sim.systems.crystal import MolecularCrystal, RigidMolecule

        unit = []
        for k, s in enumerate(self.species):
            frame = self.shapes[self.first[s] + self.conformer[row, s]].frame
            conformer = self.molecules[s].conformers[self.conformer[row, s]]
            if self.hand[row, k] != frame.hand:
                conformer = conformer @ frame.rotation @ MIRROR @ frame.rotation.T
            unit.append(RigidMolecule(int(s), conformer, frac[k], rotation[k] @ frame.rotation.T, (0,)))
        return MolecularCrystal(self.molecules, tuple(unit), SpaceGroup.from_name("P 1"), cell, info)


def fill(
    molecules: Molecule | Sequence[Molecule],
    z: int | Sequence[int],
    n: int,
    rng: np.random.Generator,
    hands: str = "any",
    racemic_share: float = 0.8,
) -> Contents:
    """Choose conformers and hands for n cells.

    Parameters
    ----------
    molecules : Molecule or sequence of Molecule
        Several for a co-crystal.
    z : int or sequence of int
        Molecules of each species in the cell; one number holds for every species.
    n : int
    rng : numpy Generator
    hands : {"any", "same", "both"}
        Whether copies may be mirror images: "both" makes one half of every species so, "same" none, and "any" draws
        between the two with `racemic_share`. Shapes equal to their mirror image have no hand, and an enantiopure
        molecule (`Molecule.is_enantiopure`) keeps its own whatever is said.
    racemic_share : float

    Raises
    ------
    InputError
        If numbers do not fit or `hands` is unknown.
    """
    species = tuple(molecules) if isinstance(molecules, Sequence) else (molecules,)
    counts = [z] * len(species) if isinstance(z, int | np.integer) else list(z)
    if not species or len(counts) != len(species) or any(int(c) != c or c < 1 for c in counts):
        raise InputError(f"z must give at least one molecule for each of the {len(species)} species, got {z!r}")
    if n < 1:
        raise InputError(f"the number of samples must be at least 1, got {n}")
    if hands not in ("any", "same", "both"):
        raise InputError(f"hands must be 'any', 'same' or 'both', not {hands!r}")
    if hands == "both" and any(m.is_enantiopure for m in species):
        warnings.warn("an enantiopure molecule has one hand only; its copies keep it", stacklevel=3)
    shapes: list[Shape] = []
    first = []
    conformer = np.empty((n, len(species)), dtype=int)
    for s, molecule in enumerate(species):
        first.append(len(shapes))
        chemical = chemical_features(molecule.rdmol)
        shapes += [Shape.of(molecule.numbers, c, chemical) for c in molecule.conformers]
        conformer[:, s] = rng.choice(len(molecule.conformers), n, p=_conformer_shares(molecule))
    index = np.repeat(np.arange(len(species)), counts)
    contents = Contents(species, shapes, np.array(first), index, conformer, np.ones((n, len(index)), dtype=int))
    share = {"any": racemic_share, "same": 0.0, "both": 1.0}[hands]
    for row in range(n):
        racemic = rng.random() < share
        for s, molecule in enumerate(species):
            frame = shapes[first[s] + conformer[row, s]].frame
            members = np.flatnonzero(index == s)
            contents.hand[row, members] = frame.hand
            if racemic and not frame.achiral and not molecule.is_enantiopure:
                half = (len(members) + int(rng.integers(2))) // 2
                contents.hand[row, rng.permutation(members)[:half]] *= -1
    return contents


def _conformer_shares(molecule: Molecule) -> np.ndarray:
    energies = molecule.energies
    if not np.isfinite(energies).all():
        return np.full(len(energies), 1.0 / len(energies))
    shares = np.exp(-(energies - energies.min()) / (CONFORMER_SCALE * KJ_PER_MOL))
    return shares / shares.sum()
