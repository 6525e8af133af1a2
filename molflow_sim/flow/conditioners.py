"""Networks that turn some coordinates into the parameters of a map of others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from zuko.nn import MLP


def periodic_features(turns: Tensor, harmonics: int = 1) -> Tensor:
    """Features of circular coordinates that do not see the seam.

    Parameters
    ----------
    turns : Tensor, shape (..., D)
        Coordinates in periods.
    harmonics : int
        Highest multiple of the angle.

    Returns
    -------
    Tensor, shape (..., 2·harmonics·D)
        Cosines, then sines, of 2πk·turns for k = 1, ..., harmonics.
    """
    multiples = torch.arange(1, harmonics + 1, dtype=turns.dtype, device=turns.device)
    angles = (2.0 * math.pi * multiples * turns.unsqueeze(-1)).flatten(-2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Conditioner(nn.Module):
    """A dense SiLU network from features to raw parameters; constant parameters where there are no features.

    Parameters
    ----------
    n_features, n_outputs : int
        Sizes of input and output.
    hidden : sequence of int
        Sizes of the hidden layers.
    initial_scale : float
        Factor on the last layer's initial weights and biases, so that the flow starts near the identity.
    """

    def __init__(self, n_features: int, n_outputs: int, hidden: Sequence[int], initial_scale: float = 0.1) -> None:
        super().__init__()
        self.n_outputs = n_outputs
        self.network: MLP | None = None
        if n_features:
            self.network = MLP(n_features, n_outputs, hidden, activation=nn.SiLU)
            with torch.no_grad():
                for parameter in self.network[-1].parameters():
                    parameter *= initial_scale
        else:
            self.constant = nn.Parameter(torch.zeros(n_outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Raw parameters, shape (..., n_outputs), of features, shape (..., n_features)."""
        if self.network is None:
            return self.constant.expand(*features.shape[:-1], self.n_outputs)
        output: Tensor = self.network(features)
        return output
