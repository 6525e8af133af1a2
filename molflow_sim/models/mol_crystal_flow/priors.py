"""Where the paths start: log-normal cell lengths, angles uniform in 60-120°, uniform centroids, Haar rotations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from molflow_sim.flow.manifolds import haar
from molflow_sim.models.mol_crystal_flow.batch import P1Batch, Poses
from molflow_sim.models.mol_crystal_flow.settings import P1Settings

ANGLES = (60.0, 120.0)
"""Degrees."""
FLATTEST = 0.3
"""Least volume of the unit parallelepiped with the drawn angles; flatter ones are drawn again."""


def prior_cells(volume: Tensor, settings: P1Settings, generator: torch.Generator) -> Tensor:
    """Random cells (B, 3, 3) in the standard frame, Å.

    Parameters
    ----------
    volume : Tensor, shape (B,)
        Å³ that the molecules take; the cells are scaled to it (with a spread) if `settings.volume_prior`.
    settings : P1Settings
    generator : torch.Generator
        On the CPU.
    """
    b = len(volume)
    mean, std = torch.tensor(settings.length_mean), torch.tensor(settings.length_std)
    lengths = torch.exp(mean + std * torch.randn(b, 3, generator=generator))
    angles = torch.empty(b, 3)
    todo = torch.ones(b, dtype=torch.bool)
    while todo.any():
        low, high = ANGLES
        draw = low + (high - low) * torch.rand(b, 3, generator=generator)
        angles = torch.where(todo[:, None], draw, angles)
        todo = unit_volume(angles) < FLATTEST
    cells = cell_matrix(lengths, angles)
    noise = torch.randn(b, generator=generator)
    if settings.volume_prior:
        wanted = volume.cpu().float() * torch.exp(settings.volume_std * noise)
        # The lengths set the shape, the molecules the size.
        cells = cells * (wanted / torch.linalg.det(cells)).pow(1.0 / 3.0)[:, None, None]
    return cells


def draw_prior(batch: P1Batch, settings: P1Settings, generator: torch.Generator) -> Poses:
    """Random poses for the molecules of a batch, on the CPU; species and χ are the batch's own."""
    b, m = batch.mask.shape
    cell = prior_cells(batch.volume, settings, generator)
    frac = torch.rand(b, m, 3, generator=generator)
    rotation = haar((b, m), generator, torch.float32)
    return Poses(cell, frac, rotation, batch.poses.chi.cpu())


def unit_volume(angles: Tensor) -> Tensor:
    """Volume (...) of the parallelepiped with unit edges and the given angles (..., 3) in degrees; 0 if impossible."""
    c = torch.cos(angles * (math.pi / 180.0))
    return (1.0 + 2.0 * c.prod(-1) - (c**2).sum(-1)).clamp_min(0.0).sqrt()


def cell_matrix(lengths: Tensor, angles: Tensor) -> Tensor:
    """Rows (..., 3, 3) of cells in the standard frame from lengths in Å and angles in degrees."""
    alpha, beta, gamma = torch.cos(angles * (math.pi / 180.0)).unbind(-1)
    sin_gamma = torch.sqrt(1.0 - gamma**2)
    zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
    rows = [
        torch.stack([one, zero, zero], -1),
        torch.stack([gamma, sin_gamma, zero], -1),
        torch.stack([beta, (alpha - beta * gamma) / sin_gamma, unit_volume(angles) / sin_gamma], -1),
    ]
    return torch.stack(rows, -2) * lengths.unsqueeze(-1)
