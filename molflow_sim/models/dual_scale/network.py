"""The networks of both scales: from points on their path to where the path ends, equivariant under rotations."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from molflow_sim.coarse.features import N_ATOM_FEATURES, N_BEAD_FEATURES, N_BOND_FEATURES
from molflow_sim.models.dual_scale.batch import PointBatch
from molflow_sim.models.dual_scale.graphs import BEADS
from molflow_sim.models.dual_scale.settings import ScaleSettings
from molflow_sim.nn.egnn import EgnnLayer
from molflow_sim.nn.mlp import mlp
from molflow_sim.nn.radial import GaussianBasis, polynomial_envelope
from molflow_sim.nn.tfn import TfnLayer

FREQUENCIES = 8
"""Of the sines and cosines of time."""


class PointNetwork(nn.Module):
    """What the linear estimate of the end leaves, in units of its expected error.

    Parameters
    ----------
    settings : ScaleSettings
    scale : str
        "beads" or "atoms".
    guided : bool
        Whether it reads a former prediction of the end.
    """

    def __init__(self, settings: ScaleSettings, scale: str, guided: bool) -> None:
        super().__init__()
        s = self.settings = settings
        self.guided = guided
        self.basis = GaussianBasis(s.radial, s.reach)
        features = N_BEAD_FEATURES if scale == BEADS else N_ATOM_FEATURES
        # Vectors of a point that are known at the start: to its anchor, and to where it was predicted to end.
        known = 2 if guided else 1
        self.node = mlp(features + 2 * FREQUENCIES + known, s.scalars, s.scalars)
        self.edge = mlp(known * s.radial + s.hops + N_BOND_FEATURES + 4, s.edge_width, s.edge_width)
        self.rest = mlp(4 * features + s.hops + N_BOND_FEATURES, s.edge_width, 1)
        self.tfn = s.network == "tfn"
        self.layers: nn.ModuleList
        if self.tfn:
            self.layers = nn.ModuleList(TfnLayer(s.scalars, s.vectors, s.edge_width) for _ in range(s.layers))
            self.vectors = nn.Linear(known, s.vectors, bias=False)
            self.gate = nn.Linear(s.scalars, s.vectors)
        else:
            self.layers = nn.ModuleList(EgnnLayer(s.scalars, s.edge_width) for _ in range(s.layers))
            self.gate = nn.Linear(s.scalars, known + 1)

    def forward(self, batch: PointBatch, x: Tensor, t: Tensor, guess: Tensor | None) -> Tensor:
        """Vectors (M, 3).

        Parameters
        ----------
        batch : PointBatch
            Whose ends are not looked at.
        x : Tensor, shape (M, 3)
            Å.
        t : Tensor, shape (M, 1)
        guess : Tensor, shape (M, 3), optional
            A prediction of the end; needed if the network is guided.
        """
        s = self.settings
        given = [(batch.anchors - x) / s.reach]
        if self.guided and guess is not None:
            left = (guess - batch.estimate(x, t)) / batch.unknown(t)
            given.append(left / (1.0 + distance(left).unsqueeze(-1)))
        v = torch.stack(given, 1)
        edges, envelope, kinds = self._edges(batch, x)
        into, out = edges
        directions = x[out] - x[into]
        lengths = [distance(directions)]
        if self.guided and guess is not None:
            lengths.append(distance(guess[out] - guess[into]))
        strain = self._strain(batch, lengths[0], batch.unknown(t))
        features = self.edge(torch.cat([*(self.basis(r) for r in lengths), kinds, strain], -1))
        known = torch.cat([batch.nodes, _fourier(t), torch.log1p(distance(v))], -1)
        h = self.node(known)
        if self.tfn:
            w = self.vectors(v.transpose(1, 2)).transpose(1, 2)
            for layer in self.layers:
                h, w = layer(h, w, directions, edges, envelope, features)
            return (self.gate(h).unsqueeze(-1) * w).sum(1)
        moving = x / s.reach
        for layer in self.layers:
            h, moving = layer(h, moving, edges, envelope, features)
        gate = self.gate(h)
        own = (gate[:, 1:].unsqueeze(-1) * v).sum(1)
        return gate[:, :1] * (moving * s.reach - x) + own

    def _strain(self, batch: PointBatch, lengths: Tensor, unknown: Tensor) -> Tensor:
        """How far pairs that bonds join are from a learned rest length (E, 2), in units of what noise may do to it.

        Bonds are known to a few hundredths of an Å, distances at early times to several: a network that reads lengths
        alone would have to turn the same length into very different corrections. 0 for pairs that no bond joins.
        """
        into, out = batch.pairs
        bonded = batch.pair_features[:, :1]
        around = torch.zeros_like(batch.nodes).index_add(0, into, batch.nodes[out] * bonded)
        ends = torch.cat([batch.nodes, around], -1)
        a, b = ends[into], ends[out]
        rest = 2.0 * nn.functional.softplus(self.rest(torch.cat([a + b, (a - b).abs(), batch.pair_features], -1)))
        noise = (unknown[into] ** 2 + unknown[out] ** 2).sqrt()
        u = ((lengths[: len(into)].unsqueeze(-1) - rest) / noise).asinh()
        strain = torch.cat([u, torch.tanh(u)], -1)
        return torch.cat([strain, strain.new_zeros(len(lengths) - len(into), 2)])

    def _edges(self, batch: PointBatch, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Edges (2, E), their weights (E,) and features (E, ...): pairs that bonds join, and nearest neighbours.

        A neighbour's weight falls to zero at the distance of the first one that is left out.
        """
        found, weights = [batch.pairs], [x.new_ones(batch.pairs.shape[1])]
        sizes = torch.bincount(batch.structure).tolist()
        with torch.no_grad():
            first = 0
            for n in sizes:
                r = torch.cdist(x[first : first + n], x[first : first + n])
                inside = (batch.pairs[0] >= first) & (batch.pairs[0] < first + n)
                r[tuple(batch.pairs[:, inside] - first)] = torch.inf
                r.fill_diagonal_(torch.inf)
                nearest, column = r.topk(min(self.settings.neighbours + 1, n), largest=False)
                limit = nearest[:, -1:].clone()
                rows = torch.arange(n, device=x.device).unsqueeze(1).expand_as(column)
                # In small structures all others are neighbours; the last column is then infinitely far.
                furthest = nearest.masked_fill(nearest.isinf(), 0.0).amax(1, True)
                limit = torch.where(limit.isfinite(), limit, 2.0 * furthest)
                weight = polynomial_envelope(nearest / limit.clamp_min(1e-6))
                kept = nearest < limit
                found.append(torch.stack([rows[kept], column[kept]]) + first)
                weights.append(weight[kept])
                first += n
        edges = torch.cat(found, 1)
        into, out = edges
        kinds = x.new_zeros(edges.shape[1], batch.pair_features.shape[1] + 2)
        kinds[: batch.pairs.shape[1], :-2] = batch.pair_features
        kinds[:, -2] = (batch.molecule[into] == batch.molecule[out]).to(x.dtype)
        kinds[:, -1] = torch.log1p(distance(batch.anchors[into] - batch.anchors[out]))
        return edges, torch.cat(weights), kinds


def distance(vectors: Tensor) -> Tensor:
    """Lengths (...) of vectors (..., 3), with a gradient where they vanish."""
    return (vectors.pow(2).sum(-1) + 1e-12).sqrt()


def _fourier(t: Tensor) -> Tensor:
    """Sines and cosines (M, 2 FREQUENCIES) of the logarithm of what is left of the path, which spans the last steps."""
    left = torch.log((1.0 - t).clamp_min(1e-4)) / math.log(1e-4)
    k = math.pi * torch.arange(1, FREQUENCIES + 1, dtype=t.dtype, device=t.device) * 0.5
    return torch.cat([torch.sin(left * k), torch.cos(left * k)], -1)
