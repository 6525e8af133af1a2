"""Batches of crystals on their paths, for training."""

from __future__ import annotations

import numpy as np
import torch

from molflow_sim.errors import TrainingError
from molflow_sim.models.mol_crystal_flow.data import P1Data
from molflow_sim.models.mol_crystal_flow.interpolants import FlowPath, make_path
from molflow_sim.models.mol_crystal_flow.settings import P1Settings


class P1Batches:
    """Batches for training, each with its noise and coupling already drawn; they depend on seed and step alone.

    Parameters
    ----------
    data : P1Data
    settings : P1Settings
    batch_size : int
    seed : int

    Raises
    ------
    TrainingError
        If there is nothing to draw from.
    """

    def __init__(self, data: P1Data, settings: P1Settings, batch_size: int, seed: int = 0) -> None:
        weights = np.asarray(data.weights, dtype=float)
        if len(weights) == 0 or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
            reason = f"; left out: {data.skipped[0][1]}" if data.skipped else ""
            raise TrainingError(f"no crystals to train on{reason}")
        self.data, self.settings, self.batch_size, self.seed = data, settings, batch_size, seed
        self._probability = weights / weights.sum()

    def batch(self, step: int) -> FlowPath:
        """Random crystals, drawn by their weights, at random times of their paths."""
        rng = np.random.default_rng([self.seed, step])
        indices = rng.choice(len(self._probability), self.batch_size, p=self._probability)
        seed = int(rng.integers(2**62))
        inverted = rng.random(self.batch_size) < 0.5 if self.settings.mirror_images else None
        batch = self.data.batch(indices, seed, inverted)
        return make_path(batch, self.settings, torch.Generator().manual_seed(seed))
