"""Paths between prior and crystal: straight for the cell, geodesics for centroids and orientations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from molflow_sim.flow.paths import rigid_path
from molflow_sim.flow.priors import log_normal_cells, rotations
from molflow_sim.models.mol_crystal_flow.batch import P1Batch, Poses
from molflow_sim.models.mol_crystal_flow.couplings import couple
from molflow_sim.models.mol_crystal_flow.settings import P1Settings
from molflow_sim.training.batches import Movable


@dataclass(frozen=True, eq=False)
class Velocities(Movable):
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
class FlowPath(Movable):
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


def draw_prior(volume: Tensor, chi: Tensor, settings: P1Settings, rng: np.random.Generator) -> Poses:
    """Random poses, on the CPU, of molecules that take volumes (B,) in Å³ and have axis-flip states χ (B, M, 3)."""
    b, m, _ = chi.shape
    wanted = volume.double().cpu().numpy() if settings.volume_prior else None
    cell = log_normal_cells(rng, settings.length_mean, settings.length_std, b, wanted, settings.volume_std)
    drawn = (cell, rng.random((b, m, 3)), rotations(rng.random((b, m, 3))))
    cells, frac, rotation = (torch.tensor(x, dtype=torch.float32) for x in drawn)
    return Poses(cells, frac, rotation, chi.cpu().float())


def interpolate(prior: Poses, target: Poses, t: Tensor, mask: Tensor) -> tuple[Poses, Velocities]:
    """Poses at times t (B,) between coupled ends in the standard frame, and their velocities.

    The velocity of the centroids is given without its mean over the molecules (mask (B, M)): the origin of P 1 is free.
    """
    state, (change, drift, omega) = rigid_path(
        (prior.cell, prior.frac, prior.rotation), (target.cell, target.frac, target.rotation), t
    )
    return Poses(*state, target.chi), Velocities(change, without_mean(drift, mask), omega * mask.unsqueeze(-1))


def make_path(batch: P1Batch, settings: P1Settings, rng: np.random.Generator, t: Tensor | None = None) -> FlowPath:
    """Draw the prior and the times, couple, and interpolate; on the CPU.

    Parameters
    ----------
    batch : P1Batch
        Crystals, with any χ and in any Cartesian frame.
    settings : P1Settings
    rng : numpy Generator
    t : Tensor, shape (B,), optional
        Times; drawn uniformly from [min_time, 1 − min_time] otherwise.
    """
    batch = batch.to("cpu")
    batch = batch.with_poses(batch.poses.standard())
    dtype = batch.poses.cell.dtype
    prior, target = couple(draw_prior(batch.volume, batch.poses.chi, settings, rng).to(dtype), batch, settings)
    if t is None:
        t = torch.tensor(rng.uniform(settings.min_time, 1.0 - settings.min_time, len(target.cell)))
    t = t.to(dtype)
    poses, velocity = interpolate(prior, target, t, batch.mask)
    return FlowPath(batch.with_poses(poses), t, velocity)


def without_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """Vectors (B, M, 3) less their mean over the molecules of each crystal; 0 where there is no molecule."""
    weights = mask.unsqueeze(-1).to(vectors.dtype)
    mean = (vectors * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp_min(1.0)
    return (vectors - mean) * weights
