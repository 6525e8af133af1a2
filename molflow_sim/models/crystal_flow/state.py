"""Batches of symmetric crystals as tensors: what the crystal flow moves, and the symmetry it moves them in."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from molflow_sim.training.batches import Movable


@dataclass(frozen=True, eq=False)
class CrystalBatch(Movable):
    """B crystals of rigid molecules, padded to N atoms and I operations; M molecules in the asymmetric unit.

    Attributes
    ----------
    numbers : Tensor of int, shape (B, N)
        Atomic numbers, 0 where padded.
    conformer : Tensor, shape (B, N, 3)
        Å, body frame, centred on the centre of mass; zero where padded.
    cell : Tensor, shape (B, 3, 3)
        Rows a, b, c in Å; a along x, b in the xy plane.
    centroid : Tensor, shape (B, M, 3)
        Fractional centres of mass.
    rotation : Tensor, shape (B, M, 3, 3)
        Orientations; atoms are at rotation @ conformer.
    frac_rot : Tensor, shape (B, I, 3, 3); frac_tran : Tensor, shape (B, I, 3); cart_rot : Tensor, shape (B, I, 3, 3)
        Operations that make the distinct copies of a molecule, the identity first.
    n_images : Tensor of int, shape (B,)
        How many of the I are meant.
    site_translation, site_rotation : Tensor, shape (B, 3, 3)
        Cartesian projectors on the displacements and turns that the site leaves free (the identity at the general
        position), and on displacements that move the crystal against its symmetry elements.
    """

    numbers: Tensor
    conformer: Tensor
    cell: Tensor
    centroid: Tensor
    rotation: Tensor
    frac_rot: Tensor
    frac_tran: Tensor
    cart_rot: Tensor
    n_images: Tensor
    site_translation: Tensor
    site_rotation: Tensor

    def __len__(self) -> int:
        return len(self.cell)

    def select(self, rows: Tensor | slice) -> CrystalBatch:
        """The crystals at `rows`."""
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def moved(self, cell: Tensor, centroid: Tensor, rotation: Tensor) -> CrystalBatch:
        """The same molecules and symmetry with another geometry."""
        return replace(self, cell=cell, centroid=centroid, rotation=rotation)

    @property
    def atom_mask(self) -> Tensor:
        """Boolean (B, N): real atoms."""
        return self.numbers > 0

    @property
    def n_atoms(self) -> Tensor:
        """Atoms of a molecule, (B,)."""
        return self.atom_mask.sum(1)

    @property
    def volume_per_molecule(self) -> Tensor:
        """Å³, (B,)."""
        return torch.linalg.det(self.cell).abs() / (self.n_images * self.centroid.shape[1])

    def positions(self) -> Tensor:
        """Cartesian positions (B, M, N, 3) in Å of the asymmetric unit."""
        centre = self.centroid @ self.cell
        return centre[:, :, None] + torch.einsum("bmxy,bny->bmnx", self.rotation, self.conformer)
