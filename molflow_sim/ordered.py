"""Sums and products of small matrices in a fixed order, so that no row's rounding depends on the others.

BLAS kernels and torch's reductions choose their way by the shape of the whole batch; what goes through these functions
comes out the same bit for bit whatever stands in the other rows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def total(x: Tensor) -> Tensor:
    """Sum over the last axis, one term after the other."""
    return x.cumsum(-1)[..., -1]


def product(a: Tensor, b: Tensor) -> Tensor:
    """Matrices (..., i, j) times matrices (..., j, k)."""
    return total(a.unsqueeze(-2) * b.mT.unsqueeze(-3))


def applied(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrices (..., i, j) times vectors (..., j)."""
    return total(matrix * vector.unsqueeze(-2))


def determinant(matrix: Tensor) -> Tensor:
    """Of matrices (..., 3, 3)."""
    a, b, c = matrix.unbind(-2)
    return total(a * torch.linalg.cross(b, c))


def inverse(matrix: Tensor) -> Tensor:
    """Of matrices (..., 3, 3); not finite where they are singular."""
    a, b, c = matrix.unbind(-2)
    columns = torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)
    return torch.stack(columns, -1) / total(a * columns[0])[..., None, None]
