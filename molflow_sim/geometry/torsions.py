"""Torsion angles."""

from __future__ import annotations

import torch
from torch import Tensor


def dihedral_angle(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Torsion a-b-c-d in radians, [−π, π], positive clockwise seen along b→c (IUPAC).

    Parameters
    ----------
    a, b, c, d : Tensor, shape (..., 3)

    Returns
    -------
    Tensor, shape (...)
    """
    axis = c - b
    first, second = torch.linalg.cross(b - a, axis), torch.linalg.cross(axis, d - c)
    sine = axis.norm(dim=-1) * ((b - a) * second).sum(dim=-1)
    return torch.atan2(sine, (first * second).sum(dim=-1))
