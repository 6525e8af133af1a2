"""Flow matching on pairs of packings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from molflow_sim.models.crystal_flow.path import distance, interpolate
from molflow_sim.models.crystal_flow.velocity import compiles, fused_velocity


def flow_matching_loss(network: nn.Module, batch: tuple[Any, ...]) -> dict[str, Tensor]:
    """Mean squared error of the velocity in Å² per unit time (see `path.distance`), bounded for wild pairs.

    Lipman et al. (2023), eq. 14, on the product of lattice, torus and SO(3).
    """
    start, end, quality, time = batch
    between, target = interpolate(start, end, time)
    if compiles(network, between):
        moving = fused_velocity(network, between, time, quality)
    else:
        moving = network(between, time, quality)
    error = distance(between, moving, target)
    size = distance(between, target)
    # Square roots beyond the usual size: a few long detours must not set the pace.
    scale = 30.0
    loss = torch.where(error < scale, error, 2.0 * torch.sqrt(scale * error.clamp_min(1e-6)) - scale)
    return {"loss": loss.mean(), "explained": 1.0 - error.sum() / size.sum()}
