"""Torsion angles."""

from __future__ import annotations

import numpy as np
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


def torsion_angles(positions: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """As `dihedral_angle`, in double precision, of atoms that are named.

    Parameters
    ----------
    positions : ndarray, shape (..., N, 3)
    atoms : ndarray of int, shape (4,) or (T, 4)

    Returns
    -------
    ndarray, shape (...) or (..., T)
    """
    x, named = np.asarray(positions, dtype=float), np.asarray(atoms, dtype=int)
    i, j, k, l = (x[..., named[..., n], :] for n in range(4))
    axis = k - j
    first, second = np.cross(j - i, axis), np.cross(axis, l - k)
    sine = np.linalg.norm(axis, axis=-1) * np.einsum("...x,...x->...", j - i, second)
    return np.arctan2(sine, np.einsum("...x,...x->...", first, second))
