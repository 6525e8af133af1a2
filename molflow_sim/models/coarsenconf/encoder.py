"""The encoder: fine-grained, pooling and coarse-grained modules (Appendix E of the paper).

An encoder turns one conformer into features of atoms and beads and into vectors of beads. The start is encoded by
itself; the true conformer reads the start's features in every layer, never the other way round, so that the prior, made
of the start alone, is told nothing of the truth. All of it commutes with rotations and reflections and does not see
translations: positions are taken about their mean, and nothing but lengths and vectors between points is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from molflow_sim.models.coarsenconf.batch import Layout, PairBatch
from molflow_sim.models.coarsenconf.graphs import N_NODE_FEATURES, N_PAIR_FEATURES
from molflow_sim.models.coarsenconf.settings import CoarsenConfSettings
from molflow_sim.nn.attention import DirectedAttention
from molflow_sim.nn.egnn import EgnnLayer, gathered
from molflow_sim.nn.mlp import mlp
from molflow_sim.nn.radial import GaussianBasis, polynomial_envelope
from molflow_sim.nn.vector import VectorMLP, lengths


@dataclass(frozen=True, eq=False)
class Encoded:
    """What the encoder makes of a conformer.

    Attributes
    ----------
    atoms, beads : list of Tensor
        Features (M, D) and (N, D) before the first layer and after each.
    vectors : Tensor, shape (N, 3, F)
    """

    atoms: list[Tensor]
    beads: list[Tensor]
    vectors: Tensor


class FineModule(nn.Module):
    """Eq. 5: messages along edges of one conformer, and attention to the atoms of another one."""

    def __init__(self, s: CoarsenConfSettings) -> None:
        super().__init__()
        self.messages = EgnnLayer(s.width, N_PAIR_FEATURES + s.radial)
        self.attention = DirectedAttention(s.width, s.heads)
        self.norm = nn.LayerNorm(s.width)
        self.out = nn.Sequential(nn.Linear(2 * s.width, s.width), nn.Dropout(s.dropout))
        self._cutoff = s.cutoff

    def forward(
        self,
        h: Tensor,
        x: Tensor,
        edges: tuple[Tensor, Tensor, Tensor],
        atoms: Layout,
        first: Tensor,
        read: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Features (M, D), to be mixed with the former ones, and coordinates (M, 3) after a layer."""
        pairs, envelope, features = edges
        new, moved = self.messages(self.norm(h), x / self._cutoff, pairs, envelope, features)
        if read is not None:
            there = atoms.there
            allowed = there.unsqueeze(1) & there.unsqueeze(2)
            new = new + atoms.flat(self.attention(atoms.padded(new), atoms.padded(read), allowed))
        return self.out(torch.cat([new, first], -1)), moved * self._cutoff


class PoolingModule(nn.Module):
    """Eq. 6: from atoms to their beads, on a graph of both; and vectors of beads from where their atoms lie."""

    def __init__(self, s: CoarsenConfSettings) -> None:
        super().__init__()
        self.messages = EgnnLayer(s.width)
        self.norm = nn.LayerNorm(s.width)
        self.channels = nn.Linear(s.width, s.channels, bias=False)
        self._cutoff = s.cutoff

    def forward(self, h: Tensor, x: Tensor, beads: Tensor, places: Tensor, members: Layout) -> tuple[Tensor, ...]:
        """Features (N, D), positions (N, 3) and further vectors (N, 3, F) of the beads."""
        m = len(h)
        edges = torch.stack([members.group + m, torch.arange(m, device=h.device)])
        both = self.norm(torch.cat([h, beads]))
        features, moved = self.messages(both, torch.cat([x, places]) / self._cutoff, edges, both.new_ones(m))
        arms = (x - places[members.group]).unsqueeze(-1) * self.channels(both[:m]).unsqueeze(1)
        return features[m:], moved[m:] * self._cutoff, members.mean(arms / self._cutoff)


class CoarseModule(nn.Module):
    """Eqs. 7 and 8: features and vectors of beads mixed, exchanged by a point convolution, and read from the other."""

    def __init__(self, s: CoarsenConfSettings) -> None:
        super().__init__()
        d, f = s.width, s.channels
        self.norm = nn.LayerNorm(d)
        self.vectors = nn.ModuleList([VectorMLP(f, f, f) for _ in range(3)])
        self.scalars = mlp(d + f, d, d)
        self.along = mlp(d + f, d, f)
        self.gate = mlp(d, d, f)
        self.basis = GaussianBasis(s.radial, s.bead_cutoff)
        self.kernel = nn.Linear(s.radial, d + 2 * f)
        self.attention = DirectedAttention(d, s.heads)
        self.update = nn.Sequential(mlp(3 * d, d, d), nn.Dropout(s.dropout))
        self.update_vectors = VectorMLP(2 * f, f, f)
        self._split = [d, f, f]

    def forward(
        self, h: Tensor, v: Tensor, x: Tensor, pairs: Tensor, beads: Layout, cutoff: float, read: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features (N, D) and vectors (N, 3, F), to be mixed with the former ones."""
        h = self.norm(h)
        first, second, third = (layer(v) for layer in self.vectors)
        scalars = self.scalars(torch.cat([h, lengths(first)], -1))
        along = self.along(torch.cat([h, lengths(second)], -1))
        mixed = self.gate(h).unsqueeze(1) * third
        into, out = pairs
        delta = x[into] - x[out]
        r = torch.sqrt((delta * delta).sum(-1) + 1e-8)
        envelope = polynomial_envelope(r / cutoff).unsqueeze(-1)
        one, two, three = (self.kernel(self.basis(r)) * envelope).split(self._split, -1)
        heard = gathered(one * scalars[out], into, len(h))
        arrow = (delta / cutoff).unsqueeze(-1) * (three * along[out]).unsqueeze(1)
        vectors = gathered(two.unsqueeze(1) * mixed[out] + arrow, into, len(h))
        told = torch.zeros_like(h)
        if read is not None:
            there = beads.there
            allowed = there.unsqueeze(1) & there.unsqueeze(2)
            told = beads.flat(self.attention(beads.padded(h), beads.padded(read), allowed))
        return self.update(torch.cat([h, heard, told], -1)), self.update_vectors(torch.cat([v, vectors], -1))


class Encoder(nn.Module):
    """Layers of the three modules.

    Parameters
    ----------
    settings : CoarsenConfSettings
    """

    def __init__(self, settings: CoarsenConfSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.embed = nn.Linear(N_NODE_FEATURES + 1, s.width)
        self.embed_bead = nn.Linear(s.width, s.width)
        self.basis = GaussianBasis(s.radial, s.cutoff)
        count = 1 if s.share_layers else s.encoder_layers
        self.fine = nn.ModuleList([FineModule(s) for _ in range(count)])
        self.pooling = nn.ModuleList([PoolingModule(s) for _ in range(count)])
        self.coarse = nn.ModuleList([CoarseModule(s) for _ in range(count)])

    def forward(self, batch: PairBatch, positions: Tensor, read: Encoded | None = None) -> Encoded:
        """Encode conformers.

        Parameters
        ----------
        batch : PairBatch
        positions : Tensor, shape (M, 3)
            Å.
        read : Encoded, optional
            The start, where a true conformer is encoded.
        """
        s = self.settings
        x = first_x = positions - batch.atoms.mean(positions)[batch.atoms.group]
        h = first_h = self.embed(batch.nodes)
        edges = edges_of(batch, x, self.basis, s.cutoff)
        places = batch.members.mean(x)
        beads = first_beads = self.embed_bead(batch.members.mean(h))
        vectors = x.new_zeros(len(places), 3, s.channels)
        atoms_kept, beads_kept = [h], [beads]
        for layer in range(s.encoder_layers):
            k = 0 if s.share_layers else layer
            told = None if read is None else read.atoms[layer]
            new, moved = self.fine[k](h, x, edges, batch.atoms, first_h, told)
            h = (1.0 - s.feature_mix) * h + s.feature_mix * new
            x = s.start_mix * first_x + (1.0 - s.start_mix) * x + (moved - x)
            pooled, places, arms = self.pooling[k](h, x, beads, places, batch.members)
            told = None if read is None else read.beads[layer]
            new, turned = self.coarse[k](
                pooled, vectors + arms, places, batch.bead_pairs, batch.beads, s.bead_cutoff, told
            )
            beads = (1.0 - s.feature_mix) * (pooled + first_beads) + s.feature_mix * new
            vectors = (1.0 - s.feature_mix) * (vectors + arms) + s.feature_mix * turned
            atoms_kept.append(h)
            beads_kept.append(beads)
        return Encoded(atoms_kept, beads_kept, vectors)


def edges_of(batch: PairBatch, x: Tensor, basis: nn.Module, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (2, E) within a few bonds or the cutoff, their weights (E,) and features (E, ...) at positions (M, 3)."""
    into, out = batch.pairs
    r = torch.sqrt(((x[into] - x[out]) ** 2).sum(-1) + 1e-8)
    kept = batch.within | (r < cutoff)
    r = r[kept]
    envelope = torch.where(batch.within[kept], torch.ones_like(r), polynomial_envelope(r / cutoff))
    return batch.pairs[:, kept], envelope, torch.cat([batch.pair_features[kept], basis(r)], -1)
