"""Torsions that the decoder turns before it moves atoms one by one.

Not in the paper, which learns torsions through coordinates alone. There an atom far from a bond must be moved by a
network that hears of the bond over many steps; here the bond's own surroundings say by how much it turns, and all
beyond it follows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from molflow_sim.geometry.torsions import dihedral_angle
from molflow_sim.models.coarsenconf.batch import PairBatch
from molflow_sim.models.coarsenconf.losses import laid_on
from molflow_sim.models.coarsenconf.settings import CoarsenConfSettings
from molflow_sim.nn.vector import VectorMLP

ORDER = 6
"""Multiples of a torsion whose sines the angle is made of."""


class Turning(nn.Module):
    """Angles by which the torsions of a start turn, and the start after it.

    An angle must change sign in the mirror image. It is a sum of sines of (multiples of) all torsions about the bond,
    as the slope of a torsional potential is, and of a triple product of the bond with the latents of its two beads; the
    factors are invariant.

    Parameters
    ----------
    settings : CoarsenConfSettings
    """

    multiples: Tensor

    def __init__(self, settings: CoarsenConfSettings) -> None:
        super().__init__()
        s = settings
        self.outer, self.inner = nn.Linear(s.width, s.width), nn.Linear(s.width, s.width)
        self.factors = nn.Sequential(nn.SiLU(), nn.Linear(s.width, s.width), nn.SiLU(), nn.Linear(s.width, ORDER))
        self.axes = VectorMLP(s.channels, s.channels, s.channels)
        self.own, self.other = nn.Linear(s.width, s.channels), nn.Linear(s.width, s.channels)
        self.scale = nn.Parameter(torch.full((2,), 0.05))
        self.register_buffer("multiples", torch.arange(1.0, ORDER + 1.0), persistent=False)

    def angles(self, batch: PairBatch, h: Tensor, z: Tensor) -> Tensor:
        """Radians (T,), between −π and π, from features (M, D) of atoms and latents (N, 3, F) of beads."""
        which, a, b, c, d = batch.quadruples
        x = batch.start
        angle = dihedral_angle(x[a], x[b], x[c], x[d]).unsqueeze(-1) * self.multiples
        known = self.outer(h[a] + h[d]) + self.inner(h[b] + h[c])
        sines = (self.factors(known) * torch.sin(angle)).sum(-1)
        count = torch.bincount(which, minlength=batch.torsions.shape[1]).clamp_min(1)
        turned = sines.new_zeros(len(count)).index_add(0, which, sines) / count
        _, b, c, _ = batch.torsions
        bond = torch.nn.functional.normalize(x[c] - x[b], dim=-1)
        v, bead = self.axes(z), batch.members.group
        known = h[b] + h[c]
        first = (v[bead[b]] * self.own(known).unsqueeze(1)).sum(-1) - (v[bead[c]] * self.own(known).unsqueeze(1)).sum(
            -1
        )
        second = ((v[bead[b]] + v[bead[c]]) * self.other(known).unsqueeze(1)).sum(-1)
        drawn = (torch.linalg.cross(bond, first) * second).sum(-1)
        return torch.pi * torch.tanh(self.scale[0] * turned + self.scale[1] * drawn)

    def forward(self, batch: PairBatch, h: Tensor, z: Tensor) -> Tensor:
        """The start (M, 3) in Å with its torsions turned, laid on what it was."""
        if not batch.torsions.shape[1]:
            return batch.start
        x = turned(batch, batch.start, self.angles(batch, h, z))
        return laid_on(x, batch.start, batch.atoms)


def turned(batch: PairBatch, positions: Tensor, angles: Tensor) -> Tensor:
    """Conformers (M, 3) with every torsion turned by an angle (T,) in radians; bonds and angles stay.

    One torsion of each molecule after another; where a molecule has no more, it turns by nothing.
    """
    atoms, table = batch.atoms, batch.turning.table
    x = atoms.padded(positions)
    rows = torch.arange(len(x), device=x.device)
    angles = torch.cat([angles, angles.new_zeros(1)])
    sides = torch.cat([batch.sides, batch.sides.new_zeros(1, batch.sides.shape[1])])
    place = torch.cat([atoms.place[batch.torsions[1:3]], atoms.place.new_tensor([[0], [1]])], 1)
    for torsion in table.unbind(1):
        origin, end = (x[rows, place[k][torsion]].unsqueeze(1) for k in (0, 1))
        axis = torch.nn.functional.normalize(end - origin, dim=-1)
        cosine, sine = (f(angles[torsion]).view(-1, 1, 1) for f in (torch.cos, torch.sin))
        arm = x - origin
        along = (arm * axis).sum(-1, keepdim=True) * axis
        moved = origin + along + cosine * (arm - along) + sine * torch.linalg.cross(axis.expand_as(arm), arm)
        x = torch.where(sides[torsion].unsqueeze(-1), moved, x)
    return atoms.flat(x)
