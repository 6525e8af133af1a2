"""A tensor field network layer: messages from scalars and vectors of the sender and the direction of the edge.

Source: Thomas et al., "Tensor field networks" (2018), with e3nn. Tensor products are channel-wise ("uvu", Batzner et
al., Nat. Commun. 13, 2453 (2022)): each channel of the sender meets the spherical harmonics of the edge with weights
of its own, and a linear layer after the sum mixes the channels. A fully connected product costs ten times as much.

Vectors are even under inversion ("1e"), so that products of two vectors give a vector (their cross product) and the
network commutes with rotations, not with reflections: it can tell the hands of a molecule apart.

The product of what there is up to l = 1 is written out (`edge_messages`): on a CPU it takes half the time of the code
that e3nn generates for the same product, to which the tests hold it.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from molflow_sim.nn.egnn import gathered


class TfnLayer(nn.Module):
    """One round of messages along edges, then scalars and vectors of each node updated together.

    Parameters
    ----------
    scalars, vectors : int
        Channels of a node, of both kinds.
    edge_width : int
        Features of an edge besides its direction.
    """

    def __init__(self, scalars: int, vectors: int, edge_width: int) -> None:
        super().__init__()
        self.scalars, self.vectors = scalars, vectors
        o3 = _o3()
        sent = o3.Irreps(f"{scalars + vectors}x0e + {scalars + 2 * vectors}x1e")
        self.mix = o3.Linear(sent, o3.Irreps(f"{scalars + vectors}x0e + {vectors}x1e"))
        self.harmonics = o3.SphericalHarmonics("1e", normalize=True, normalization="component")
        self.receiver = nn.Linear(scalars, edge_width)
        self.sender = nn.Linear(scalars, edge_width, bias=False)
        self.edge = nn.Linear(edge_width, edge_width, bias=False)
        self.weights = nn.Sequential(nn.SiLU(), nn.Linear(edge_width, 2 * scalars + 3 * vectors))
        self.scalar_update = nn.Sequential(nn.SiLU(), nn.Linear(scalars, scalars))
        self.norm = nn.LayerNorm(scalars)

    def forward(
        self, h: Tensor, v: Tensor, directions: Tensor, edges: Tensor, envelope: Tensor, features: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scalars and vectors after one round.

        Parameters
        ----------
        h : Tensor, shape (M, scalars)
        v : Tensor, shape (M, vectors, 3)
        directions : Tensor, shape (E, 3)
            From receiver to sender, any length above zero.
        edges : Tensor of long, shape (2, E)
            Receivers and senders.
        envelope : Tensor, shape (E,)
            Weights of the edges.
        features : Tensor, shape (E, edge_width)
        """
        into, out = edges
        known = self.norm(h)
        weights = self.weights(self.edge(features) + self.receiver(known)[into] + self.sender(known)[out])
        weights = weights * envelope.unsqueeze(-1)
        message = edge_messages(known[out], v.movedim(-1, 0)[:, out], self.harmonics(directions), weights)
        # The mean over neighbours: sums would grow with the number of them.
        share = gathered(envelope.unsqueeze(-1), into, len(h)).clamp_min(1.0)
        s, u = (gathered(message, into, len(h)) / share).tensor_split([self.scalars + self.vectors], -1)
        u = u.unflatten(-1, (3, -1)).movedim(1, 2).flatten(1)  # e3nn keeps the components of a channel together
        s, gate, u = self.mix(torch.cat([s, u], -1)).split([self.scalars, self.vectors, 3 * self.vectors], -1)
        u = u.unflatten(-1, (self.vectors, 3)) * torch.sigmoid(gate).unsqueeze(-1)
        return h + self.scalar_update(s), v + u


def edge_messages(s: Tensor, v: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Channel-wise products of scalars (E, n) and vectors (3, E, m) with 1 and the l = 1 harmonics y (E, 3).

    Returns
    -------
    Tensor, shape (E, n + m + 3 (n + 2 m))
        Scalars s and v·y/√3, then x, y and z of the vectors s y, v and v × y/√2, each channel times its weight
        (E, 2 n + 3 m, in this order): e3nn's normalisation by component.
    """
    n, m = s.shape[-1], v.shape[-1]
    scalar, dot, along, kept, cross = weights.split([n, m, n, m, m], -1)
    x, y, z = y[:, :1], y[:, 1:2], y[:, 2:]
    vx, vy, vz = v
    dot, cross, along = dot / 3.0**0.5, cross / 2.0**0.5, along * s
    parts = [scalar * s, dot * (vx * x + vy * y + vz * z)]
    for axis, own, turned in ((x, vx, vy * z - vz * y), (y, vy, vz * x - vx * z), (z, vz, vx * y - vy * x)):
        parts += [along * axis, kept * own, cross * turned]
    return torch.cat(parts, -1)


def _o3() -> Any:
    with warnings.catch_warnings():  # e3nn compiles with torch.jit, which torch calls outdated
        warnings.simplefilter("ignore")
        from e3nn import o3

        return o3
