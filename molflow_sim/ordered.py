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


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross products of vectors (..., 3); torch's own fuses multiplication and addition where the processor can."""
    return a.roll(-1, -1) * b.roll(-2, -1) - a.roll(-2, -1) * b.roll(-1, -1)


def determinant(matrix: Tensor) -> Tensor:
    """Of matrices (..., 3, 3)."""
    a, b, c = matrix.unbind(-2)
    return total(a * cross(b, c))


def inverse(matrix: Tensor) -> Tensor:
    """Of matrices (..., 3, 3); not finite where they are singular."""
    a, b, c = matrix.unbind(-2)
    columns = cross(b, c), cross(c, a), cross(a, b)
    return torch.stack(columns, -1) / total(a * columns[0])[..., None, None]
