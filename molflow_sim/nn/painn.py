"""PaiNN: scalars and vectors of points, exchanged along edges; equivariant to rotations and reflections.

Source: Schütt, Unke, Gastegger, "Equivariant message passing for the prediction of tensorial properties and molecular
spectra" (2021). Messages fall to zero at a cutoff. What a layer reads is normalised (scalars by their spread, vectors
where they are long), and sums over neighbours are divided by a constant, so that crowded points do not run away.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from molflow_sim.nn.mlp import mlp


class PaiNNLayer(nn.Module):
    """A round of messages between points, then an update of each by itself.

    Parameters
    ----------
    width : int
        Scalars, and vectors, of a point.
    edge_width : int
        Features of an edge: functions of its length.
    neighbours : float
        About how many senders a point has; sums of messages are divided by its square root.
    """

    def __init__(self, width: int, edge_width: int, neighbours: float = 16.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.sent = mlp(width, width, 3 * width)
        self.filter = nn.Linear(edge_width, 3 * width)
        self.mix = nn.Linear(width, 2 * width, bias=False)
        self.update = mlp(2 * width, width, 3 * width)
        self._scale = neighbours**-0.5

    def forward(
        self, s: Tensor, v: Tensor, edges: Tensor, features: Tensor, envelope: Tensor, directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scalars and vectors after the layer.

        Parameters
        ----------
        s : Tensor, shape (n, width)
        v : Tensor, shape (n, 3, width)
        edges : Tensor of long, shape (2, E)
            Receivers and senders.
        features : Tensor, shape (E, edge_width)
        envelope : Tensor, shape (E,)
            Weights of the edges, 0 at the cutoff.
        directions : Tensor, shape (E, 3)
            Unit vectors from senders to receivers.
        """
        into, out = edges
        message = self.sent(self.norm(s))[out] * self.filter(features) * (self._scale * envelope.unsqueeze(-1))
        to_scalar, along_vector, along_edge = message.chunk(3, -1)
        moved = _shortened(v)[out] * along_vector.unsqueeze(1) + directions.unsqueeze(-1) * along_edge.unsqueeze(1)
        s = s.index_add(0, into, to_scalar)
        v = v.index_add(0, into, moved)
        one, two = self.mix(_shortened(v)).chunk(2, -1)
        # the root of a sum of squares has no slope at zero, where vectors start
        length = torch.sqrt((two * two).sum(1) + 1e-8)
        own, product, scale = self.update(torch.cat([self.norm(s), length], -1)).chunk(3, -1)
        return s + own + product * (one * two).sum(1), v + scale.unsqueeze(1) * one


def _shortened(v: Tensor) -> Tensor:
    """Vectors (n, 3, width) of points, divided by their typical length where that exceeds 1."""
    return v * torch.rsqrt(1.0 + (v * v).sum(1, keepdim=True).mean(-1, keepdim=True))
