"""Paths between prior and crystal: straight for the cell, geodesics for centroids and orientations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from molflow_sim.flow.manifolds import rotation_interpolate, torus_interpolate
from molflow_sim.models.mol_crystal_flow.batch import P1Batch, Poses, _Movable
from molflow_sim.models.mol_crystal_flow.couplings import couple
from molflow_sim.models.mol_crystal_flow.priors import draw_prior
from molflow_sim.models.mol_crystal_flow.settings import P1Settings


@dataclass(frozen=True, eq=False)
class Velocities(_Movable):
    """Velocities of B crystals, per unit of the flow's time.

    Attributes
    ----------
    cell : Tensor, shape (B, 3, 3)
        Å.
    frac : Tensor, shape (B, M, 3)
        Fractional; mean 0 over the molecules of a crystal.
    omega : Tensor, shape (B, M, 3)
        Space-frame angular velocity in radians.
    """

    cell: Tensor
    frac: Tensor
    omega: Tensor


@dataclass(frozen=True, eq=False)
class FlowPath(_Movable):
    """Where B crystals are on their paths, and how they move there.

    Attributes
    ----------
    batch : P1Batch
        With the poses at time `t`.
    t : Tensor, shape (B,)
    velocity : Velocities
    """

    batch: P1Batch
    t: Tensor
    velocity: Velocities


def interpolate(prior: Poses, target: Poses, t: Tensor, mask: Tensor) -> tuple[Poses, Velocities]:
    """Poses at times t (B,) between coupled ends, and their velocities.

    Both ends have cells in the standard frame, so that every cell on the way is in it, too. The velocity of the
    centroids is given without its mean over the molecules (mask (B, M)): the origin of P 1 is free.
    """
    cell = prior.cell + t[:, None, None] * (target.cell - prior.cell)
    frac, velocity = torus_interpolate(prior.frac, target.frac, t[:, None, None])
    rotation, omega = rotation_interpolate(prior.rotation, target.rotation, t[:, None].expand(frac.shape[:-1]))
    velocity = without_mean(velocity, mask)
    omega = omega * mask.unsqueeze(-1)
    return Poses(cell, frac, rotation, target.chi), Velocities(target.cell - prior.cell, velocity, omega)


def make_path(batch: P1Batch, settings: P1Settings, generator: torch.Generator, t: Tensor | None = None) -> FlowPath:
    """Draw the prior and the times, couple, and interpolate; on the CPU.

    Parameters
    ----------
    batch : P1Batch
        Crystals, with any χ and in any Cartesian frame.
    settings : P1Settings
    generator : torch.Generator
    t : Tensor, shape (B,), optional
        Times; drawn uniformly from [min_time, 1 − min_time] otherwise.
    """
    batch = batch.to("cpu")
    batch = batch.with_poses(batch.poses.standard())
    dtype = batch.poses.cell.dtype
    prior = draw_prior(batch, settings, generator).to(dtype)
    prior, target = couple(prior, batch, settings)
    if t is None:
        t = settings.min_time + (1.0 - 2.0 * settings.min_time) * torch.rand(len(target.cell), generator=generator)
    t = t.to(dtype)
    poses, velocity = interpolate(prior, target, t, batch.mask)
    return FlowPath(batch.with_poses(poses), t, velocity)


def without_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """Vectors (B, M, 3) less their mean over the molecules of each crystal; 0 where there is no molecule."""
    weights = mask.unsqueeze(-1).to(vectors.dtype)
    mean = (vectors * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp_min(1.0)
    return (vectors - mean) * weights
