"""Paths of rigid molecules in a cell: straight for the cell, geodesics for centres and orientations."""

from __future__ import annotations

from torch import Tensor

from molflow_sim.flow.manifolds import rotation_interpolate, torus_interpolate

State = tuple[Tensor, Tensor, Tensor]


def rigid_path(start: State, end: State, t: Tensor) -> tuple[State, State]:
    """Cell, centres and orientations between two ends, and their velocities.

    Parameters
    ----------
    start, end : (Tensor, Tensor, Tensor)
        Cells (B, 3, 3), fractional centres (B, M, 3) and orientations (B, M, 3, 3). Where both cells are in the
        standard frame, so is every cell between them.
    t : Tensor, shape (B,)
        Times in [0, 1].

    Returns
    -------
    state, velocity : (Tensor, Tensor, Tensor)
        L_t = L_0 + t (L_1 − L_0); s_t along the shortest way on the torus; R_t = exp(t [ω]) R_0. The velocities are
        L_1 − L_0, the fractional displacement (B, M, 3) and the space-frame ω (B, M, 3), all constant along the path.
    """
    change = end[0] - start[0]
    cell = start[0] + t[:, None, None] * change
    centre, drift = torus_interpolate(start[1], end[1], t[:, None, None])
    rotation, omega = rotation_interpolate(start[2], end[2], t[:, None])
    return (cell, centre, rotation), (change, drift, omega)
