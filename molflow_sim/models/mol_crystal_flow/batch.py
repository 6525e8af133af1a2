"""Batches of P 1 crystals: padded tensors of cells, poses and the shapes of the molecules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from molflow_sim.training.batches import Movable


@dataclass(frozen=True, eq=False)
class Shapes(Movable):
    """The U distinct rigid shapes of a batch, padded to N atoms.

    Attributes
    ----------
    numbers : Tensor of long, shape (U, N)
        0 where there is no atom.
    positions : Tensor, shape (U, N, 3)
        Canonical form in Å, centred on the centroid; 0 where there is no atom.
    invariants : Tensor, shape (U, 18)
        Scaled, see `features.invariants`.
    volume : Tensor, shape (U,)
        Å³ that a molecule takes in a crystal.
    symmetry : Tensor, shape (U, K, 3, 3)
        Proper rotations that map a shape on itself, filled up with identities.
    """

    numbers: Tensor
    positions: Tensor
    invariants: Tensor
    volume: Tensor
    symmetry: Tensor


@dataclass(frozen=True, eq=False)
class Poses(Movable):
    """Cells and rigid poses of B crystals with up to M molecules.

    Attributes
    ----------
    cell : Tensor, shape (B, 3, 3)
        Rows in Å.
    frac : Tensor, shape (B, M, 3)
        Centroids.
    rotation : Tensor, shape (B, M, 3, 3)
        Proper; atoms are at ``frac @ cell + rotation @ diag(chi) @ position``.
    chi : Tensor, shape (B, M, 3)
        Axis-flip states, ±1.
    """

    cell: Tensor
    frac: Tensor
    rotation: Tensor
    chi: Tensor

    @staticmethod
    def concatenate(parts: Sequence[Poses]) -> Poses:
        """The crystals of several, all of the same M."""
        return Poses(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Poses)))

    @property
    def hand(self) -> Tensor:
        """Product of the axis-flip states (B, M): +1, or −1 for a mirror image of the shape."""
        return self.chi.prod(-1)

    def standard(self) -> Poses:
        """The same crystals with χ = (1, 1, hand) and cells in the standard frame (a along x, b in the xy plane)."""
        hand = self.hand
        flip = torch.cat([self.chi[..., :2], (self.chi[..., 2] * hand).unsqueeze(-1)], -1)
        cell, turn = standard_frame(self.cell)
        rotation = turn.unsqueeze(-3) @ (self.rotation * flip.unsqueeze(-2))
        one = torch.ones_like(hand)
        return Poses(cell, self.frac, rotation, torch.stack([one, one, hand], -1))


@dataclass(frozen=True, eq=False)
class P1Batch(Movable):
    """B crystals with all that a network is told about them.

    Attributes
    ----------
    shapes : Shapes
    poses : Poses
    species : Tensor of long, shape (B, M)
        Index into `shapes`.
    mask : Tensor of bool, shape (B, M)
        False where a crystal has fewer than M molecules.
    """

    shapes: Shapes
    poses: Poses
    species: Tensor
    mask: Tensor

    @property
    def volume(self) -> Tensor:
        """Å³ (B,) that the molecules of each cell take in crystals."""
        return (self.shapes.volume[self.species] * self.mask).sum(-1)

    @property
    def group(self) -> Tensor:
        """Which molecules can stand for one another (B, M): equal for one species and hand, −1 for none."""
        kind = 2 * self.species + (self.poses.hand > 0).long()
        return torch.where(self.mask, kind, torch.full_like(kind, -1))

    def with_poses(self, poses: Poses) -> P1Batch:
        """The same molecules elsewhere."""
        return replace(self, poses=poses)

    def positions(self) -> Tensor:
        """Cartesian positions (B, M, N, 3) in Å of all atoms, molecules whole, padding at the centroid."""
        p = self.poses
        body = self.shapes.positions[self.species] * p.chi.unsqueeze(-2)
        return (p.frac @ p.cell).unsqueeze(-2) + body @ p.rotation.transpose(-1, -2)


def standard_frame(cell: Tensor) -> tuple[Tensor, Tensor]:
    """Cells (..., 3, 3) in the standard frame and the rotations (..., 3, 3) that take the old frame there.

    The first vector along x, the second in the xy plane; a left-handed cell keeps a negative last diagonal entry.
    """
    a, b = cell[..., 0, :], cell[..., 1, :]
    x = torch.nn.functional.normalize(a, dim=-1)
    z = torch.nn.functional.normalize(torch.linalg.cross(a, b), dim=-1)
    y = torch.linalg.cross(z, x)
    turn = torch.stack([x, y, z], -2)
    standard = cell @ turn.transpose(-1, -2)
    return torch.tril(standard), turn
