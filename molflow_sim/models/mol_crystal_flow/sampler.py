"""Integration of the flow: Euler steps with time-scaled velocities."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from molflow_sim.flow.manifolds import rotation_step, torus_exp
from molflow_sim.models.mol_crystal_flow.batch import P1Batch, Poses
from molflow_sim.models.mol_crystal_flow.interpolants import Velocities
from molflow_sim.models.mol_crystal_flow.settings import P1Settings

Field = Callable[[P1Batch, Tensor], Velocities]
SHORTEST = 1.0
"""Å, least diagonal entry of a cell during sampling."""


def integrate(field: Field, batch: P1Batch, settings: P1Settings, steps: int | None = None) -> P1Batch:
    """Carry a batch from the prior (its poses) to time 1.

    Parameters
    ----------
    field : callable
        Velocities at given poses and times (B,), as `P1Network`.
    batch : P1Batch
        With poses drawn from the prior.
    settings : P1Settings
        Gives the scalings s: velocities count 1 + s t times. A true velocity field leads to the end of its path in
        the time 1 − t that is left, so that no step is longer than this; the cell's velocity is not scaled.
    steps : int, optional
        Instead of ``settings.steps``.
    """
    steps = settings.steps if steps is None else steps
    times = torch.linspace(settings.min_time, 1.0, steps + 1).tolist()
    poses = batch.poses.standard()
    for now, after in pairwise(times):
        t = torch.full((len(poses.cell),), now, dtype=poses.cell.dtype, device=poses.cell.device)
        velocity = field(batch.with_poses(poses), t)
        dt = after - now
        cell = poses.cell + dt * velocity.cell
        diagonal = cell.diagonal(dim1=-2, dim2=-1)
        cell = cell + torch.diag_embed((SHORTEST - diagonal).clamp_min(0.0))
        frac = torus_exp(poses.frac, scaled_step(now, dt, settings.centroid_scale) * velocity.frac)
        turned = rotation_step(poses.rotation, velocity.omega, scaled_step(now, dt, settings.rotation_scale))
        poses = Poses(cell, frac, turned, poses.chi)
    return batch.with_poses(poses)


def scaled_step(t: float, dt: float, scale: float) -> float:
    """(1 + s t) dt, at most the time 1 − t that is left."""
    return min((1.0 + scale * t) * dt, 1.0 - t)
