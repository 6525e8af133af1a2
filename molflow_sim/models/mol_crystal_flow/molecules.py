"""What to fill a cell with: species, numbers of molecules, conformers and hands of the samples.

Nothing here comes from a crystal: conformers are the molecule's own, and which copies are mirror images is drawn, as
it must be where the structure is not known.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from molflow_sim.errors import CrystalError, InputError
from molflow_sim.models.mol_crystal_flow.batch import P1Batch, Poses
from molflow_sim.models.mol_crystal_flow.data import Shape, shape_tensors
from molflow_sim.models.mol_crystal_flow.features import chemical_features

if TYPE_CHECKING:
    from molflow_sim.packing.packings import RigidPackings
    from molflow_sim.systems.crystal import MolecularCrystal
    from molflow_sim.systems.molecule import Molecule


@dataclass(frozen=True, eq=False)
class Contents:
    """The molecules of n cells.

    Attributes
    ----------
    molecules : tuple of Molecule
    conformers : tuple of ndarray (K, N, 3)
        Of each species, as generators use them (`body_conformers`).
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
    conformers: tuple[np.ndarray, ...]
    shapes: list[Shape]
    first: np.ndarray
    species: np.ndarray
    conformer: np.ndarray
    hand: np.ndarray

    def batch(self) -> P1Batch:
        """The cells with poses still to be drawn (unit cells, identity rotations)."""
        index = self.first[self.species] + self.conformer[:, self.species]
        b, z = index.shape
        chi = torch.ones(b, z, 3)
        chi[..., 2] = torch.as_tensor(self.hand, dtype=torch.float32)
        eye = torch.eye(3)
        poses = Poses(eye.repeat(b, 1, 1), torch.zeros(b, z, 3), eye.repeat(b, z, 1, 1), chi)
        used, species = np.unique(index, return_inverse=True)
        shapes = shape_tensors([self.shapes[k] for k in used])
        return P1Batch(shapes, poses, torch.as_tensor(species.reshape(b, z)), torch.ones(b, z, dtype=torch.bool))

    def orientations(self, rotation: np.ndarray) -> np.ndarray:
        """Rotations (n, Z, 3, 3) of the canonical shapes as orthogonal matrices that act on the conformers.

        They are improper for copies of the hand that the conformer does not have.
        """
        frames = [shape.frame for shape in self.shapes]
        index = self.first[self.species] + self.conformer[:, self.species]
        own = np.array([f.rotation for f in frames])[index]
        flip = np.ones((*index.shape, 3))
        flip[..., 2] = self.hand * np.array([f.hand for f in frames])[index]
        found: np.ndarray = (rotation * flip[..., None, :]) @ own.swapaxes(-1, -2)
        return found

    def select(self, rows: np.ndarray) -> Contents:
        """The cells at `rows`."""
        return replace(self, conformer=self.conformer[rows], hand=self.hand[rows])


@dataclass(frozen=True, eq=False)
class Samples:
    """n crystals in P 1 with Z molecules each.

    Attributes
    ----------
    contents : Contents
    cell : ndarray (n, 3, 3)
        Rows in Å, standard frame.
    frac : ndarray (n, Z, 3)
        Centroids.
    orientation : ndarray (n, Z, 3, 3)
        Orthogonal matrices that act on the conformers, improper for copies of the other hand.
    index : ndarray of int (n,)
        Numbers of the samples.
    """

    contents: Contents
    cell: np.ndarray
    frac: np.ndarray
    orientation: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    @property
    def finite(self) -> np.ndarray:
        """Boolean (n,): samples that are crystals at all."""
        arrays = (self.cell, self.frac, self.orientation)
        return np.all([np.isfinite(x).reshape(len(self), -1).all(1) for x in arrays], axis=0)

    def select(self, rows: np.ndarray) -> Samples:
        """The samples at `rows`."""
        arrays = (self.cell, self.frac, self.orientation, self.index)
        return Samples(self.contents.select(rows), *(x[rows] for x in arrays))

    @staticmethod
    def concatenate(parts: Sequence[Samples]) -> Samples:
        """Samples of the same contents, one after the other."""
        conformer, hand = (np.concatenate([getattr(p.contents, k) for p in parts]) for k in ("conformer", "hand"))
        contents = replace(parts[0].contents, conformer=conformer, hand=hand)
        names = ("cell", "frac", "orientation", "index")
        return Samples(contents, *(np.concatenate([getattr(p, name) for p in parts]) for name in names))

    def crystal(self, row: int, **info: Any) -> MolecularCrystal:
        """One of them; its notes tell its number and the hands of its molecules.

        Raises
        ------
        CrystalError
            If it is not finite.
        """
        from molflow_sim.symmetry import SpaceGroup
        from molflow_sim.systems.crystal import MolecularCrystal, RigidMolecule

        signs = np.where(np.linalg.det(self.orientation[row]) < 0, -1.0, 1.0)
        contents, unit = self.contents, []
        for k, s in enumerate(contents.species):
            conformer = signs[k] * contents.conformers[s][contents.conformer[row, s]]
            unit.append(RigidMolecule(int(s), conformer, self.frac[row, k], signs[k] * self.orientation[row, k], (0,)))
        info = {"sample": int(self.index[row]), "hands": contents.hand[row].tolist(), **info}
        return MolecularCrystal(contents.molecules, tuple(unit), SpaceGroup.from_name("P 1"), self.cell[row], info)

    def packings(self) -> RigidPackings:
        """Those of one species as packings, Z molecules in the asymmetric unit; ones that are not finite say so.

        Raises
        ------
        CrystalError
            If there are several species.
        """
        from molflow_sim.packing.packings import STATUS, RigidPackings
        from molflow_sim.symmetry.placements import general_placement

        if len(self.contents.molecules) > 1:
            raise CrystalError("packings hold one species, these samples several")
        n = len(self)
        packings = RigidPackings.proposed(
            self.contents.molecules[0], self.contents.conformers[0], (general_placement("P 1"),), np.zeros(n, int),
            self.contents.conformer[:, 0], self.cell, self.frac, self.orientation, self.index,
        )  # fmt: skip
        status = np.where(self.finite, packings.status, STATUS.index("not finite")).astype(np.int8)
        return replace(packings, status=status)


@lru_cache(maxsize=8)
def _shapes(molecule: Molecule) -> tuple[np.ndarray, list[Shape]]:
    """Conformers as generators use them, and their shapes."""
    from molflow_sim.packing.random_packing import body_conformers

    conformers = body_conformers(molecule)
    chemical = chemical_features(molecule.rdmol)
    return conformers, [Shape.of(molecule.numbers, c, chemical) for c in conformers]


def fill(
    molecules: Molecule | Sequence[Molecule],
    z: int | Sequence[int],
    rngs: Sequence[np.random.Generator],
    hands: str = "any",
    racemic_share: float = 0.8,
) -> Contents:
    """Choose conformers and hands.

    Parameters
    ----------
    molecules : Molecule or sequence of Molecule
        Several for a co-crystal.
    z : int or sequence of int
        Molecules of each species in the cell; one number holds for every species.
    rngs : sequence of numpy Generator
        One for each cell.
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
    if hands not in ("any", "same", "both"):
        raise InputError(f"hands must be 'any', 'same' or 'both', not {hands!r}")
    if hands == "both" and any(m.is_enantiopure for m in species):
        warnings.warn("an enantiopure molecule has one hand only; its copies keep it", stacklevel=3)
    made = [_shapes(molecule) for molecule in species]
    shapes = [shape for _, own in made for shape in own]
    first = np.cumsum([0, *(len(own) for _, own in made[:-1])])
    index = np.repeat(np.arange(len(species)), counts)
    conformer = np.array([[rng.choice(len(m.shares), p=m.shares) for m in species] for rng in rngs])
    hand = np.array([shape.frame.hand for shape in shapes])[first[index] + conformer[:, index]]
    share = {"any": racemic_share, "same": 0.0, "both": 1.0}[hands]
    for row, rng in enumerate(rngs):
        racemic = rng.random() < share
        for s, molecule in enumerate(species):
            members = np.flatnonzero(index == s)
            if racemic and not shapes[first[s] + conformer[row, s]].frame.achiral and not molecule.is_enantiopure:
                half = (len(members) + int(rng.integers(2))) // 2
                hand[row, rng.permutation(members)[:half]] *= -1
    return Contents(species, tuple(c for c, _ in made), shapes, first, index, conformer, hand)
