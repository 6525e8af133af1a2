"""A network that sees contacts: atoms pass messages across molecules, and their pushes move rigid bodies and cell.

Scalars travel along intramolecular and intermolecular pairs (continuous filters of the distance, as in SchNet);
a last layer gives every intermolecular pair a force along its line. Forces on a molecule are summed to a force and
a torque, and over all pairs to a virial, as in rigid-body mechanics; these are read as the velocities of centroid,
orientation and cell. All of it is equivariant to rotations and reflections by construction, and independent of the
origin, of the lattice translation a molecule is given in, of the order of atoms and of the conformer's frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from molflow_sim.models.crystal_flow.graph import Edges, intermolecular_edges, intramolecular_edges
from molflow_sim.models.crystal_flow.state import CrystalBatch
from molflow_sim.ordered import product, total
from molflow_sim.training.settings import YamlSettings, at_least, positive

ELEMENTS = (1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53)
"""Atomic numbers with an embedding of their own."""


@dataclass(frozen=True)
class ContactSettings(YamlSettings):
    """Size of a `ContactNetwork`.

    Attributes
    ----------
    width : int
        Scalars of an atom.
    inner_layers, outer_layers : int
        Rounds of messages within molecules, and between them.
    inner_cutoff, outer_cutoff : float
        Å.
    radial : int
        Radial functions.
    """

    width: int = 64
    inner_layers: int = 2
    outer_layers: int = 2
    inner_cutoff: float = 4.0
    outer_cutoff: float = 5.5
    radial: int = 20

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        at_least(self, 1, "width", "radial")
        at_least(self, 0, "inner_layers", "outer_layers")
        positive(self, "inner_cutoff", "outer_cutoff")


class Velocity(NamedTuple):
    """How a crystal moves per unit of flow time.

    centre : (B, M, 3) Å, space frame, relative to the strained crystal; turn : (B, M, 3) rad, space frame, relative to
    the strained crystal; strain : (B, 3, 3) symmetric, of the cell.
    """

    centre: Tensor
    turn: Tensor
    strain: Tensor


class ContactNetwork(nn.Module):
    """Velocity field of rigid molecules in a symmetric crystal, from contacts between atoms.

    Parameters
    ----------
    settings : ContactSettings
    """

    element: Tensor

    def __init__(self, settings: ContactSettings) -> None:
        super().__init__()
        self.settings = settings
        w, k = settings.width, settings.radial
        table = torch.zeros(128, dtype=torch.long)
        for place, z in enumerate(ELEMENTS):
            table[z] = place + 1
        self.register_buffer("element", table, persistent=False)
        self.embed = nn.Embedding(len(ELEMENTS) + 1, w)
        self.inner = nn.ModuleList([_Messages(w, k) for _ in range(settings.inner_layers)])
        self.context = nn.Sequential(_Linear(_CONTEXT, w), _SiLU(), _Linear(w, w))
        self.outer = nn.ModuleList([_Messages(w, k) for _ in range(settings.outer_layers)])
        self.pool = nn.ModuleList([_Linear(w, w) for _ in range(settings.outer_layers)])
        self.force = _Force(w, k, 3)

    def forward(self, batch: CrystalBatch, time: Tensor, excess: Tensor) -> Velocity:
        """Velocities of all crystals.

        Parameters
        ----------
        batch : CrystalBatch
        time : Tensor, shape (B,)
            In [0, 1].
        excess : Tensor, shape (B,)
            Energy above the molecule's lowest packing to aim for, in units of 10 kJ/mol per molecule.
        """
        m, n = batch.centroid.shape[1], batch.numbers.shape[1]
        s = self.settings
        h = self.molecules(batch).reshape(len(batch), m * n, -1) + self.conditioning(batch, time, excess)
        edges = intermolecular_edges(batch, s.outer_cutoff)
        radial = radial_functions(edges.distance, s.outer_cutoff, s.radial)
        return self.moved_by(
            batch,
            h,
            lambda layer, sent: layer.summed(sent, edges, radial),
            lambda receive, send: self._pushed(batch, edges, self.force(receive, send, edges, radial)),
        )

    def moved_by(self, batch: CrystalBatch, h: Tensor, sums: MessageSums, pushes: PushSums) -> Velocity:
        """Velocities from atoms' scalars h (B, M · N, width), by whatever does the sums over pairs.

        Parameters
        ----------
        batch : CrystalBatch
        h : Tensor
            What atoms are by their own molecule, conditioned on their crystal.
        sums : callable
            Of a layer and what atoms send (A, width): what comes in at each atom (A, width).
        pushes : callable
            Of the two ends' parts of the pushes (A, width): forces and torques (B · M, 3), virials (B, 3, 3).
        """
        for layer, pool in zip(cast("Iterable[_Messages]", self.outer), self.pool):
            h = layer.updated(h, sums(layer, layer.sent(h).flatten(0, 1)).reshape(h.shape))
            h = h + pool(mean_of_atoms(batch, h))
        receive, send = self.force.ends(h)
        return rigid_velocity(batch, *pushes(receive.flatten(0, 1), send.flatten(0, 1)))

    def molecules(self, batch: CrystalBatch) -> Tensor:
        """Scalars (B · M · N, width) of atoms by what their own molecule is; cell and packing play no part."""
        b, m, n = len(batch), batch.centroid.shape[1], batch.numbers.shape[1]
        s = self.settings
        h = self.embed(self.element[batch.numbers])[:, None].expand(b, m, n, -1).reshape(b * m * n, -1)
        inner = intramolecular_edges(batch, s.inner_cutoff)
        radial = radial_functions(inner.distance, s.inner_cutoff, s.radial)
        for layer in self.inner:
            h = layer(h, inner, radial)
        return h

    def conditioning(self, batch: CrystalBatch, time: Tensor, excess: Tensor) -> Tensor:
        """What is added to all atoms of a crystal (B, 1, width) for its time, its aim and its symmetry."""
        found: Tensor = self.context(_context(batch, time, excess)[:, None])
        return found

    def _pushed(self, batch: CrystalBatch, edges: Edges, push: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Forces, torques and virials from the pushes (E, 3 channels) along the pairs."""
        b, m, n = len(batch), batch.centroid.shape[1], batch.numbers.shape[1]
        line = edges.vector / edges.distance[:, None]
        molecule = edges.receiver // n
        arm = arms(batch).reshape(-1, 3)[edges.receiver]
        zero = line.new_zeros(b * m, 3)
        force = zero.index_add(0, molecule, push[:, :1] * line)
        torque = zero.index_add(0, molecule, torch.linalg.cross(arm, push[:, 1:2] * line))
        flat = (push[:, 2:] * line)[:, :, None] * edges.vector[:, None, :]
        virial = line.new_zeros(b, 9).index_add(0, molecule // m, flat.reshape(-1, 9)).reshape(b, 3, 3)
        return force, torque, virial


def arms(batch: CrystalBatch) -> Tensor:
    """Atoms (B, M, N, 3) from the centre of their molecule in Å, space frame."""
    return product(batch.conformer[:, None], batch.rotation.mT)


def mean_of_atoms(batch: CrystalBatch, h: Tensor) -> Tensor:
    """Means (B, 1, width) of the scalars h (B, M · N, width) over the atoms of a crystal."""
    m = batch.centroid.shape[1]
    share = batch.atom_mask.to(h.dtype) / (batch.n_atoms * m)[:, None]
    return torch.bmm(share.repeat(1, m)[:, None], h)


def rigid_velocity(batch: CrystalBatch, force: Tensor, torque: Tensor, virial: Tensor) -> Velocity:
    """Velocities from forces and torques (B · M, 3) on molecules and virials (B, 3, 3), within the symmetry."""
    b, m = batch.centroid.shape[:2]
    count = batch.n_atoms.to(batch.cell.dtype)
    size = (total(batch.conformer.square().flatten(1)) / count).clamp_min(0.25)
    centre = force.reshape(b, m, 3) / count[:, None, None]
    turn = torque.reshape(b, m, 3) / (count * size)[:, None, None]
    strain = virial / (count * m)[:, None, None] / 10.0
    return project(batch, Velocity(centre, turn, 0.5 * (strain + strain.transpose(1, 2))))


def project(batch: CrystalBatch, velocity: Velocity) -> Velocity:
    """Keep what changes the structure within its symmetry.

    The strain is averaged over the operations, displacement and turn keep the site's free axes, and the common
    displacement along a polar axis, which only moves the origin, is taken off.
    """
    ok = (torch.arange(batch.cart_rot.shape[1], device=batch.cell.device) < batch.n_images[:, None]).to(batch.cell)
    share = (ok / ok.sum(1, keepdim=True))[:, None, None]
    images = product(product(batch.cart_rot, velocity.strain[:, None]), batch.cart_rot.mT)
    strain = total(images.movedim(1, -1) * share)
    polar = total(batch.cart_rot.movedim(1, -1) * share)
    centre = product(velocity.centre, batch.site_translation.mT)
    centre = centre - product((total(centre.mT) / centre.shape[1])[:, None], polar.mT)
    return Velocity(centre, product(velocity.turn, batch.site_rotation.mT), strain)


_CONTEXT = 12


def _context(batch: CrystalBatch, time: Tensor, excess: Tensor) -> Tensor:
    """Conditioning of every atom on its crystal (B, _CONTEXT)."""
    dtype = batch.cell.dtype
    count = batch.n_atoms.to(dtype)
    angle = math.pi * time[:, None] * torch.tensor([1.0, 2.0, 4.0], device=time.device, dtype=dtype)
    share = (batch.numbers == 1).sum(1) / count
    # Improper operations, twofold axes and translations alone tell the families of groups apart.
    ok = (torch.arange(batch.cart_rot.shape[1], device=time.device) < batch.n_images[:, None]).to(dtype)
    trace = batch.cart_rot.diagonal(dim1=-2, dim2=-1).sum(-1)
    kinds = [((trace - value).abs() < 0.1).to(dtype).mul(ok).sum(1) / ok.sum(1) for value in (-3.0, -1.0, 1.0)]
    parts = [
        angle.sin(),
        angle[:, :2].cos(),
        excess[:, None],
        (batch.volume_per_molecule / count / 10.0 - 1.0)[:, None],
        (count / 20.0 - 1.0)[:, None],
        share[:, None],
        torch.stack(kinds, 1),
    ]
    return torch.cat(parts, 1)


def radial_functions(distance: Tensor, cutoff: float, k: int) -> Tensor:
    """Gaussians (E, k) on [0.5 Å, cutoff], times a cosine that ends them smoothly."""
    centre = torch.linspace(0.5, cutoff, k, device=distance.device, dtype=distance.dtype)
    width = (cutoff - 0.5) / k
    fade = 0.5 * (1.0 + torch.cos(math.pi * (distance / cutoff).clamp(max=1.0)))
    return torch.exp(-0.5 * ((distance[:, None] - centre) / width) ** 2) * fade[:, None]


class _Linear(nn.Linear):
    """A linear layer that, sampling, multiplies crystal by crystal: BLAS chooses its kernels by the number of rows."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 3 or torch.is_grad_enabled():
            return super().forward(x)
        out = torch.bmm(x, self.weight.T.expand(len(x), -1, -1))
        return out if self.bias is None else out + self.bias


def _silu(x: Tensor) -> Tensor:
    # torch's own rounds differently in the odd elements at the end of a batch
    return torch.nn.functional.silu(x) if torch.is_grad_enabled() else x / (1.0 + torch.exp(-x))


class _SiLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _silu(x)


class _Messages(nn.Module):
    """One round: neighbours' scalars times filters of the distance, gated by the receiver."""

    def __init__(self, width: int, radial: int) -> None:
        super().__init__()
        self.send, self.filter = _Linear(width, width), nn.Linear(radial, width, bias=False)
        self.update = nn.Sequential(_Linear(2 * width, width), _SiLU(), _Linear(width, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, h: Tensor, edges: Edges, radial: Tensor) -> Tensor:
        return self.updated(h, self.summed(self.sent(h), edges, radial))

    def summed(self, sent: Tensor, edges: Edges, radial: Tensor) -> Tensor:
        """What comes in at each atom of what the others send."""
        message = sent[edges.sender] * self.filter(radial)
        return torch.zeros_like(sent).index_add(0, edges.receiver, message)

    def sent(self, h: Tensor) -> Tensor:
        """What atoms send."""
        return _silu(self.send(self.norm(h)))

    def updated(self, h: Tensor, incoming: Tensor) -> Tensor:
        """Scalars when `incoming` has come in."""
        new: Tensor = h + self.update(torch.cat([h, 0.3 * incoming], -1))
        return new


class _Force(nn.Module):
    """Pushes (E, channels) along the pairs, from both atoms and their distance."""

    def __init__(self, width: int, radial: int, channels: int) -> None:
        super().__init__()
        self.receive, self.send = _Linear(width, width), _Linear(width, width, bias=False)
        self.filter = nn.Linear(radial, width, bias=False)
        self.out = nn.Linear(width, channels, bias=False)
        self.fade = nn.Linear(radial, width, bias=False)
        nn.init.normal_(self.out.weight, std=0.1 / math.sqrt(width))
        self.norm = nn.LayerNorm(width)

    def forward(self, receive: Tensor, send: Tensor, edges: Edges, radial: Tensor) -> Tensor:
        mixed = receive[edges.receiver] + send[edges.sender] + self.filter(radial)
        # The second factor vanishes at the cutoff, so that no pair appears with a jump.
        return self.out(_silu(mixed) * self.fade(radial))

    def ends(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The receiver's and the sender's part of what a push depends on, of every atom."""
        h = self.norm(h)
        return self.receive(h), self.send(h)


MessageSums = Callable[[_Messages, Tensor], Tensor]
PushSums = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
