"""Functions of a distance that networks read, and the envelope that takes messages to zero at a cutoff."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def polynomial_envelope(u: Tensor) -> Tensor:
    """(1 − u²)² for u < 1 and 0 beyond: 1 with no slope at 0, 0 with no slope at 1."""
    return (1.0 - u.clamp_max(1.0) ** 2) ** 2


class GaussianBasis(nn.Module):
    """Gaussians whose centres lie closer together at short distances, where lengths of bonds must be told apart.

    Parameters
    ----------
    size : int
        Number of functions, at least 2.
    cutoff : float
        Å, centre of the last one; beyond, all fall off to zero.
    """

    centres: Tensor
    rates: Tensor

    def __init__(self, size: int, cutoff: float) -> None:
        super().__init__()
        # Centres even in √r; each Gaussian is as wide as the gap to the next centre.
        edges = torch.linspace(0.0, cutoff**0.5, size + 1, dtype=torch.float64) ** 2
        self.register_buffer("centres", edges[1:].float(), persistent=False)
        self.register_buffer("rates", edges.diff().reciprocal().float(), persistent=False)

    def forward(self, r: Tensor) -> Tensor:
        """Distances (...) in Å to features (..., size)."""
        u = (r.unsqueeze(-1) - self.centres.to(r)) * self.rates.to(r)
        return torch.exp(-0.5 * u * u)
