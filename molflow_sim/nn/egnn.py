"""An E(n)-equivariant graph layer: messages from distances, coordinates moved along the edges.

Source: Satorras, Hoogeboom, Welling, "E(n) equivariant graph neural networks" (2021), eqs. 3-6, with a smooth cutoff.
It commutes with reflections as well, so that a network of such layers cannot prefer one hand of its output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from molflow_sim.nn.mlp import mlp


class EgnnLayer(nn.Module):
    """One round of messages along edges, moving features and coordinates.

    Parameters
    ----------
    width : int
        Features of a node.
    edge_width : int
        Features of an edge besides its length; 0 for none.
    """

    def __init__(self, width: int, edge_width: int = 0) -> None:
        super().__init__()
        # The messages' first layer, written as a sum: most of its work is then done once a node, not once an edge.
        self.receiver = nn.Linear(width, width)
        self.sender = nn.Linear(width, width, bias=False)
        self.squared = nn.Linear(1, width, bias=False)
        self.edge = nn.Linear(edge_width, width, bias=False) if edge_width else None
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.gate = nn.Linear(width, 1)
        self.shift = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1, bias=False))
        self.update = mlp(2 * width, width, width)

    def forward(
        self, h: Tensor, x: Tensor, edges: Tensor, envelope: Tensor, features: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features and coordinates after one round.

        Parameters
        ----------
        h : Tensor, shape (M, width)
        x : Tensor, shape (M, 3)
            In units of the cutoff.
        edges : Tensor of long, shape (2, E)
            Receivers and senders.
        envelope : Tensor, shape (E,)
            Weights of the edges.
        features : Tensor, shape (E, edge_width), optional
        """
        into, out = edges
        delta = x[into] - x[out]
        squared = delta.pow(2).sum(-1, keepdim=True)
        weight = envelope.unsqueeze(-1)
        known = self.receiver(h)[into] + self.sender(h)[out] + self.squared(squared)
        if self.edge is not None:
            known = known + self.edge(features)
        message = self.message(known)
        message = message * torch.sigmoid(self.gate(message)) * weight
        step = gathered(delta * torch.tanh(self.shift(message)) * weight, into, len(x))
        neighbours = gathered(weight, into, len(x)).clamp_min(1.0)
        h = h + self.update(torch.cat([h, gathered(message, into, len(x)) / neighbours.sqrt()], -1))
        return h, x + step / neighbours


def gathered(values: Tensor, into: Tensor, n: int) -> Tensor:
    """Sums (n, ...) of what arrives at each node, values (E, ...) by their receivers (E,)."""
    return values.new_zeros(n, *values.shape[1:]).index_add(0, into, values)
