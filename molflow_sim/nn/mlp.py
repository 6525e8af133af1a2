"""The small dense network that stands everywhere between features."""

from __future__ import annotations

from torch import nn


def mlp(inside: int, hidden: int, out: int) -> nn.Sequential:
    """Two linear layers with SiLU between."""
    return nn.Sequential(nn.Linear(inside, hidden), nn.SiLU(), nn.Linear(hidden, out))
