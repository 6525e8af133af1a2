"""Vector neurons: networks on lists of vectors that commute with rotations and reflections.

Source: Deng et al., "Vector neurons: a general framework for SO(3)-equivariant networks" (2021). A layer mixes channels
without a bias; its nonlinearity cuts off what points against a direction that is itself a mix of the channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SLOPE = 0.2
"""What is left of a part that points against the direction."""
_TINY = 1e-6


class VectorMLP(nn.Module):
    """Two layers of vector neurons.

    Parameters
    ----------
    inside, hidden, out : int
        Channels.
    """

    def __init__(self, inside: int, hidden: int, out: int) -> None:
        super().__init__()
        self.first = nn.Linear(inside, hidden, bias=False)
        self.direction = nn.Linear(inside, hidden, bias=False)
        self.second = nn.Linear(hidden, out, bias=False)

    def forward(self, v: Tensor) -> Tensor:
        """Vectors (..., 3, inside) to vectors (..., 3, out)."""
        q, k = self.first(v), self.direction(v)
        along = (q * k).sum(-2, keepdim=True).clamp_max(0.0) / ((k * k).sum(-2, keepdim=True) + _TINY)
        return self.second(q - (1.0 - SLOPE) * along * k)  # type: ignore[no-any-return]


def lengths(v: Tensor) -> Tensor:
    """Lengths (..., F) of vectors (..., 3, F); the slope at zero is finite."""
    return torch.sqrt((v * v).sum(-2) + _TINY)
