"""Geodesics on the flat torus and on SO(3), for flow matching of fractional coordinates and orientations.

Conventions
-----------
Fractional coordinates are points of the torus [0, 1)³; displacements are wrapped to [−½, ½). Rotations act on column
vectors, x ↦ R x. Angular velocities are named by their frame: in the *space frame* dR/dt = [ω] R, in the *body frame*
dR/dt = R [ω_b], with ω = R ω_b; everything here is in the space frame unless the name says ``body``. All functions
broadcast over leading dimensions, keep the dtype and differentiate.
"""

from __future__ import annotations

import math

import roma
import torch
from torch import Tensor


def wrap(delta: Tensor) -> Tensor:
    """Fractional differences (...) wrapped to [−½, ½): the shortest image on the flat torus."""
    return delta - torch.floor(delta + 0.5)


def torus_exp(x: Tensor, displacement: Tensor) -> Tensor:
    """The point (..., 3) in [0, 1) that `displacement` leads to from `x`."""
    moved = torch.remainder(x + displacement, 1.0)
    # A tiny negative sum is rounded up to 1 itself, which is 0.
    return torch.where(moved >= 1.0, torch.zeros_like(moved), moved)


def torus_interpolate(x0: Tensor, x1: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Geodesic on the torus: position at time `t` and its velocity.

    Parameters
    ----------
    x0, x1 : Tensor, shape (..., 3)
        Fractional coordinates, in any image.
    t : Tensor
        Times in [0, 1], broadcastable to `x0`.

    Returns
    -------
    xt : Tensor, shape (..., 3)
        In [0, 1).
    velocity : Tensor, shape (..., 3)
        Constant along the path, per unit time, fractional.
    """
    velocity = wrap(x1 - x0)
    return torus_exp(x0, t * velocity), velocity


def rotation_interpolate(rotation0: Tensor, rotation1: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Geodesic R_t = exp(t [ω]) R_0 on SO(3), the same curve as R_0 exp(t log(R_0ᵀ R_1)), and its velocity.

    Parameters
    ----------
    rotation0, rotation1 : Tensor, shape (..., 3, 3)
    t : Tensor
        Times in [0, 1], broadcastable to the leading dimensions (...).

    Returns
    -------
    rotation : Tensor, shape (..., 3, 3)
    omega : Tensor, shape (..., 3)
        **Space-frame** angular velocity in radians per unit time, dR/dt = [ω] R, constant along the path. The
        body-frame one, Rᵀ ω, is constant as well. Its norm is at most π: the shorter way round.
    """
    omega = roma.rotmat_to_rotvec(rotation1 @ rotation0.transpose(-1, -2))
    t = torch.as_tensor(t, dtype=omega.dtype, device=omega.device)
    return roma.rotvec_to_rotmat(t.unsqueeze(-1) * omega) @ rotation0, omega


def rotation_step(rotation: Tensor, omega: Tensor, dt: float | Tensor) -> Tensor:
    """exp(dt [ω]) R: one Euler step (..., 3, 3) with a space-frame angular velocity (..., 3).

    `dt` is a number or broadcasts to the leading dimensions.
    """
    if isinstance(dt, Tensor):
        dt = dt.unsqueeze(-1)
    return roma.rotvec_to_rotmat(dt * omega) @ rotation


def to_space(rotation: Tensor, omega_body: Tensor) -> Tensor:
    """Space-frame components R ω_b (..., 3) of a body-frame vector."""
    return (rotation @ omega_body.unsqueeze(-1)).squeeze(-1)


def rotation_distance(rotation0: Tensor, rotation1: Tensor) -> Tensor:
    """Angle (...) in radians, in [0, π], of the rotation between two orientations (..., 3, 3)."""
    # From the chord |R0 − R1| = √8 sin(θ/2) and the trace: accurate at small and at large angles.
    chord = torch.linalg.matrix_norm(rotation0 - rotation1) / math.sqrt(8.0)
    trace = (rotation0 * rotation1).sum((-1, -2))
    return 2.0 * torch.atan2(chord, torch.sqrt(((trace + 1.0) / 4.0).clamp_min(0.0)))
