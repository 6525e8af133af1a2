"""The decoder: aggregated attention from bead latents to atoms, then refinement (Appendix G of the paper).

Both ways of decoding share the network. In one pass all atoms move together. Bead after bead, an atom hears of its own
bead as it moves and of earlier beads as they were placed: the truth in training (teacher forcing), what was decoded in
sampling. An earlier atom's place is never changed by a later one, so that all beads are trained at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from molflow_sim.models.coarsenconf.batch import Layout, PairBatch
from molflow_sim.models.coarsenconf.encoder import Encoded, edges_of
from molflow_sim.models.coarsenconf.graphs import N_PAIR_FEATURES
from molflow_sim.models.coarsenconf.settings import CoarsenConfSettings
from molflow_sim.models.coarsenconf.turning import Turning
from molflow_sim.nn.attention import DirectedAttention
from molflow_sim.nn.egnn import EgnnLayer
from molflow_sim.nn.mlp import mlp
from molflow_sim.nn.radial import GaussianBasis
from molflow_sim.nn.vector import VectorMLP, lengths

SMALL = 0.05
"""Factor on the first weights of all that moves atoms, so that training begins near the starts."""


class ChannelSelection(nn.Module):
    """Aggregated attention: each atom mixes the F latent vectors of its bead into one of its own.

    An atom's query comes from its features, a channel's key from what the channel is, how long its vector is and how
    far the atom lies along it. A second mix, linear in the atom's place about the bead's centre, lets a bead turn as a
    whole, which no vector that atoms share can.

    Parameters
    ----------
    settings : CoarsenConfSettings
    """

    def __init__(self, settings: CoarsenConfSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.values = VectorMLP(s.channels, s.channels, s.channels)
        self.axes = VectorMLP(s.channels, s.channels, s.channels)
        self.query = nn.Linear(s.width, 3 * s.heads * s.heads, bias=False)
        self.channel = nn.Parameter(torch.randn(s.channels, s.heads, s.heads))
        self.sign = nn.Linear(s.width, s.heads)
        self.turn = nn.Linear(s.width, s.channels)
        self.told = mlp(s.width + 2 * s.channels, s.width, s.width)
        self.scale = nn.Parameter(torch.full((2,), SMALL))

    def forward(self, batch: PairBatch, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Features (M, D) and displacements (M, 3) in Å of atoms.

        Parameters
        ----------
        batch : PairBatch
        h : Tensor, shape (M, D)
            Of the atoms of the start.
        z : Tensor, shape (N, 3, F)
            Latents of beads.
        """
        s, bead = self.settings, batch.members.group
        arm = (batch.start - batch.members.mean(batch.start)[bead]) / s.cutoff
        values, axes = self.values(z), self.axes(z)
        size = lengths(values)[bead]
        along = (arm.unsqueeze(-1) * axes[bead]).sum(1)
        plain, long, outer = self.query(h).view(-1, 3, s.heads, s.heads).unbind(1)
        # (M, heads, F): the query's three parts meet the channel itself, its length, and the atom's place along it
        met = torch.einsum("mhk,fhk->mhf", plain, self.channel) / s.heads**0.5
        met = met + long.mean(-1, keepdim=True) * size.unsqueeze(1) + outer.mean(-1, keepdim=True) * along.unsqueeze(1)
        weight = (torch.softmax(met, -1) * torch.tanh(self.sign(h)).unsqueeze(-1)).sum(1)
        mixed = (values[bead] * weight.unsqueeze(1)).sum(-1)
        turned = (values[bead] * (along * torch.tanh(self.turn(h))).unsqueeze(1)).sum(-1)
        told = self.told(torch.cat([h, size, along], -1))
        return h + told, (self.scale[0] * mixed + self.scale[1] * turned) * s.cutoff


@dataclass(frozen=True, eq=False)
class Scene:
    """What does not change from layer to layer of the decoder.

    Attributes
    ----------
    pairs : Tensor of long, shape (2, E)
        Receivers and senders; atoms that were placed come after the M that move.
    envelope : Tensor, shape (E,)
    features : Tensor, shape (E, ...)
    first : Tensor, shape (M, D)
        Features before the first layer.
    reference : Tensor, shape (M, 3)
        Å, where the distortion begins.
    centre : Tensor, shape (M or 1, 3)
        Mean place of the atoms of earlier beads.
    placed : Tensor, shape (M, 3), or None
    allowed : Tensor of bool, shape (S, m, m), or None
        Which atoms of earlier beads an atom may read.
    """

    pairs: Tensor
    envelope: Tensor
    features: Tensor
    first: Tensor
    reference: Tensor
    centre: Tensor
    placed: Tensor | None = None
    allowed: Tensor | None = None


class DecoderLayer(nn.Module):
    """Eq. 10: features mixed with where earlier beads lie, messages, attention to those beads, a step of the atoms."""

    def __init__(self, s: CoarsenConfSettings) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(s.width)
        self.mix = mlp(s.width + 1, s.width, s.width)
        self.basis = GaussianBasis(s.radial, s.cutoff)
        self.messages = EgnnLayer(s.width, N_PAIR_FEATURES + 2 * s.radial + 2)
        self.attention = DirectedAttention(s.width, s.heads) if s.decoder == "autoregressive" else None
        self.out = nn.Sequential(nn.Linear(2 * s.width, s.width), nn.Dropout(s.dropout))
        with torch.no_grad():
            for weight in self.messages.shift[-1].parameters():
                weight.mul_(SMALL)
        self._cutoff = s.cutoff

    def forward(self, h: Tensor, x: Tensor, scene: Scene, atoms: Layout) -> tuple[Tensor, Tensor]:
        """Features (M, D) and coordinates (M, 3) in Å after the layer."""
        m, origin, points = len(h), scene.reference, x
        distance = ((x - scene.centre) ** 2).sum(-1, keepdim=True) / (4.0 * self._cutoff**2)
        nodes = mixed = h + self.mix(torch.cat([self.norm(h), distance], -1))
        if scene.placed is not None:
            nodes, points = torch.cat([mixed, scene.first]), torch.cat([x, scene.placed])
            origin = torch.cat([origin, scene.placed])
        known = torch.cat([scene.features, *self._lengths(points, origin, *scene.pairs)], -1)
        new, moved = self.messages(nodes, points / self._cutoff, scene.pairs, scene.envelope, known)
        new = new[:m]
        if self.attention is not None and scene.allowed is not None:
            read = self.attention(atoms.padded(mixed), atoms.padded(scene.first), scene.allowed)
            new = new + atoms.flat(read)
        h = 0.5 * (h + self.out(torch.cat([new, scene.first], -1)))
        return h, x + self._cutoff * moved[:m] - points[:m]

    def _lengths(self, x: Tensor, reference: Tensor, into: Tensor, out: Tensor) -> list[Tensor]:
        """What eq. 10c knows of a pair: how far apart it is, and how far the receiver is from both references."""
        here = torch.sqrt(((x[into] - x[out]) ** 2).sum(-1) + 1e-8)
        across = torch.sqrt(((x[into] - reference[out]) ** 2).sum(-1) + 1e-8)
        own = ((x[into] - reference[into]) ** 2).sum(-1)
        return [self.basis(here), torch.stack([own, across - here], -1)]


class Decoder(nn.Module):
    """Latents and a start to coordinates.

    Parameters
    ----------
    settings : CoarsenConfSettings
    """

    def __init__(self, settings: CoarsenConfSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.selection = ChannelSelection(s)
        self.turning = Turning(s) if s.turns else None
        self.basis = GaussianBasis(s.radial, s.cutoff)
        self.layers = nn.ModuleList([DecoderLayer(s) for _ in range(s.decoder_layers)])

    def forward(self, batch: PairBatch, start: Encoded, z: Tensor, placed: Tensor | None = None) -> Tensor:
        """Coordinates (M, 3) in Å.

        Parameters
        ----------
        batch : PairBatch
        start : Encoded
        z : Tensor, shape (N, 3, F)
        placed : Tensor, shape (M, 3), optional
            The true conformer on the start, in training bead by bead. Without it the decoder goes by its own beads.
        """
        h, shift = self.selection(batch, start.atoms[-1], z)
        if self.turning is not None:
            batch = replace(batch, start=self.turning(batch, h, z))
        if self.settings.decoder == "one-pass":
            return self._moved(batch, shift, self._scene(batch, h))
        if placed is not None:
            return self._moved(batch, shift, self._scene_of_beads(batch, h, placed))
        placed = batch.start
        for k in range(int(batch.rank.max()) + 1):
            here = (batch.rank == k).unsqueeze(-1)
            placed = torch.where(here, self._moved(batch, shift, self._scene_of_beads(batch, h, placed)), placed)
        return placed

    def _moved(self, batch: PairBatch, shift: Tensor, scene: Scene) -> Tensor:
        h, x = scene.first, scene.reference + shift
        for layer in self.layers:
            h, x = layer(h, x, scene, batch.atoms)
        return x

    def _scene(self, batch: PairBatch, h: Tensor) -> Scene:
        """All atoms at once: they look at the middle of the start, the origin."""
        edges = edges_of(batch, batch.start, self.basis, self.settings.cutoff)
        return Scene(*edges, h, batch.start, batch.start.new_zeros(1, 3))

    def _scene_of_beads(self, batch: PairBatch, h: Tensor, placed: Tensor) -> Scene:
        """Each bead given where the earlier ones were placed."""
        whole, atoms = self._scene(batch, h), batch.atoms
        into, out = whole.pairs
        # a bead hangs on the atom of an earlier bead, wherever that was placed
        moved = (placed - batch.start)[batch.anchor]
        reference = batch.start + torch.where((batch.rank > 0).unsqueeze(-1), moved, 0.0)
        rank = atoms.padded(batch.rank)
        allowed = (rank.unsqueeze(1) < rank.unsqueeze(2)) & atoms.there.unsqueeze(1)
        count = allowed.sum(-1, keepdim=True).clamp_min(1)
        centre = atoms.flat(allowed.to(placed) @ atoms.padded(placed) / count)
        kept = batch.rank[out] <= batch.rank[into]
        into, out = into[kept], out[kept]
        out = torch.where(batch.rank[out] < batch.rank[into], out + len(h), out)
        return Scene(
            torch.stack([into, out]), whole.envelope[kept], whole.features[kept], h, reference, centre, placed, allowed
        )
