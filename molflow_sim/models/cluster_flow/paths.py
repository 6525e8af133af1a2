"""Batches on the paths of the five variants, and how each is followed when sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from molflow_sim.errors import TrainingError
from molflow_sim.flow.manifolds import rotation_interpolate
from molflow_sim.flow.placing import scattered
from molflow_sim.flow.priors import rotations
from molflow_sim.models.cluster_flow.batch import ClusterBatch, Item, collate
from molflow_sim.models.cluster_flow.couplings import couple
from molflow_sim.models.cluster_flow.data import ClusterData, ClusterRecord, Poses
from molflow_sim.models.cluster_flow.settings import ClusterFlowSettings
from molflow_sim.units import AMU_PER_A3

LATEST = 0.99
"""Latest time of training on VE's and VP's paths, whose velocities have no end there."""


def loose_start(
    body: np.ndarray, hand: np.ndarray, mass: float, settings: ClusterFlowSettings, rng: np.random.Generator
) -> Poses | None:
    """Copies of a body at random, apart from each other, in the sphere of the settings' density; None if too dense."""
    volume = AMU_PER_A3 * mass * len(hand) / settings.density
    found = scattered([h * body for h in hand], volume, rng, tolerance=settings.tolerance)
    return None if found is None else Poses(*found, hand)


def rigid_item(record: ClusterRecord, settings: ClusterFlowSettings, rng: np.random.Generator) -> Item:
    """A cluster at a random time of the way of its rigid molecules: straight for centres, geodesic for orientations."""
    start = loose_start(record.body, record.end.hand, record.mass, settings, rng)
    if start is None:
        raise TrainingError(f"{record.name}: no loose start at {settings.density:g} g/cm³; lower the density")
    turns = np.concatenate([np.eye(3)[None], rotations(rng.random((settings.turns, 3)))])
    end = couple(start, record.end, record.symmetry, turns)
    t = float(rng.random())
    ends = torch.as_tensor(start.rotation), torch.as_tensor(end.rotation)
    rotation, omega = (a.numpy() for a in rotation_interpolate(*ends, torch.tensor(t)))
    drift = end.centre - start.centre
    now = Poses(start.centre + t * drift, rotation, start.hand)
    x = now.positions(record.body)
    velocity = drift[:, None] + np.cross(omega[:, None], x - now.centre[:, None])
    return Item(record.numbers, x.reshape(-1, 3), x.reshape(-1, 3), t, velocity.reshape(-1, 3))


def atom_item(record: ClusterRecord, settings: ClusterFlowSettings, rng: np.random.Generator) -> Item:
    """A cluster at a random time of a path on which every atom goes by itself, from the data's start, as published.

    LERP goes straight from the start, with noise from 1 Å to `sigma_min`; VE and VP go from Gaussian noise and see the
    start beside; GNN-MD takes one step.
    """
    s = settings
    x0 = record.start.positions(record.body).reshape(-1, 3)
    x1 = record.end.positions(record.body).reshape(-1, 3)
    x0, x1 = x0 - x0.mean(0), x1 - x1.mean(0)
    t = float(rng.random()) * (LATEST if s.variant in ("ve", "vp") else 1.0)
    noise = rng.normal(size=x0.shape)
    if s.variant == "gnn-md":
        return Item(record.numbers, x0, x0, 0.0, x1 - x0)
    if s.variant == "lerp":
        width = 1.0 - (1.0 - s.sigma_min) * t
        return Item(record.numbers, x0 + t * (x1 - x0) + width * noise, x0, t, x1 - x0)
    mean, sigma, mean_rate, sigma_rate = diffusion(t, s)
    x = mean * x1 + sigma * noise
    return Item(record.numbers, x, x0, t, sigma_rate * noise + mean_rate * x1)


def diffusion(t: float, s: ClusterFlowSettings) -> tuple[float, float, float, float]:
    """Factor of the end, width of the noise (Å) and their rates at time t, which runs from noise (0) to data (1).

    VE: 1 and σ(1 − t), geometric. VP: α(1 − t) and √(1 − α²) times `vp_scale`, α(u) = exp(−T(u)/2),
    T(u) = β_min u + (β_max − β_min) u²/2.
    """
    u = 1.0 - t
    if s.variant == "ve":
        ratio = math.log(s.ve_max / s.ve_min)
        sigma = s.ve_min * math.exp(ratio * u)
        return 1.0, sigma, 0.0, -ratio * sigma
    total, rate = s.beta_min * u + 0.5 * (s.beta_max - s.beta_min) * u * u, s.beta_min + (s.beta_max - s.beta_min) * u
    alpha = math.exp(-0.5 * total)
    width = math.sqrt(max(1.0 - alpha * alpha, 1e-12))
    # d/dt = -d/du; dα/du = -T'α/2, d width/du = T'α²/(2 width)
    return alpha, s.vp_scale * width, 0.5 * rate * alpha, -s.vp_scale * 0.5 * rate * alpha * alpha / width


class PathBatches:
    """Batches that depend on seed and step alone.

    Parameters
    ----------
    data : ClusterData
    weights : ndarray (n,)
        Probabilities of its clusters.
    settings : ClusterFlowSettings
    batch_size, seed : int

    Raises
    ------
    TrainingError
        If there is nothing to train on.
    """

    def __init__(
        self, data: ClusterData, weights: Sequence[float] | np.ndarray, settings: ClusterFlowSettings, batch_size: int,
        seed: int = 0,
    ) -> None:  # fmt: skip
        if not len(data):
            raise TrainingError("no clusters to train on")
        self.data, self.weights, self.settings = data, np.asarray(weights), settings
        self.batch_size, self.seed = batch_size, seed

    def batch(self, step: int) -> ClusterBatch:
        """Random clusters, drawn by their weights, at random times."""
        rng = np.random.default_rng([self.seed, step])
        make = rigid_item if self.settings.variant == "rigid" else atom_item
        rows = rng.choice(len(self.data), self.batch_size, p=self.weights)
        return collate([make(self.data.records[int(k)], self.settings, rng) for k in rows])
