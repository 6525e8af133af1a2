"""Clusters at one scale as tensors, somewhere on their paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molflow_sim.models.dual_scale.graphs import ClusterPrior, ClusterScale
from molflow_sim.training.batches import Movable


@dataclass(frozen=True, eq=False)
class PointBatch(Movable):
    """The points of several clusters one after another, M in all.

    Attributes
    ----------
    nodes : Tensor, shape (M, F)
    structure : Tensor of long, shape (M,)
    molecule : Tensor of long, shape (M,)
        Numbered through the batch.
    pairs : Tensor of long, shape (2, P)
        Receivers and senders that bonds join.
    pair_features : Tensor, shape (P, Fp)
    anchors, mean : Tensor, shape (M, 3)
        Å; what a point belongs to (its bead, or the origin), and the mean of its prior.
    variance : Tensor, shape (M,)
        Å², of a coordinate under the prior.
    start, end : Tensor, shape (M, 3)
        Ends of the path in Å; the end is the start where it is not known.
    t : Tensor, shape (S,)
        Time of each structure.
    guided : Tensor of bool, shape ()
        Whether the network is to be given a prediction of its own, in training.
    """

    nodes: Tensor
    structure: Tensor
    molecule: Tensor
    pairs: Tensor
    pair_features: Tensor
    anchors: Tensor
    mean: Tensor
    variance: Tensor
    start: Tensor
    end: Tensor
    t: Tensor
    guided: Tensor

    @property
    def time(self) -> Tensor:
        """(M, 1), of each point."""
        return self.t[self.structure].unsqueeze(-1)

    @property
    def position(self) -> Tensor:
        """Positions (M, 3) on the path, (1 − t) x₀ + t x₁."""
        return torch.lerp(self.start, self.end, self.time)

    def share(self, t: Tensor) -> Tensor:
        """Factor on x_t − mean that gives the best linear estimate of x₁ − mean, if x₁ spreads as its prior does."""
        return t / (t * t + (1.0 - t) ** 2)

    def unknown(self, t: Tensor) -> Tensor:
        """Å (M, 1), what that estimate is then off by."""
        return (self.variance.unsqueeze(-1) / (t * t + (1.0 - t) ** 2)).sqrt() * (1.0 - t)

    def estimate(self, x: Tensor, t: Tensor) -> Tensor:
        """The best linear estimate (M, 3) of the end."""
        return self.mean + self.share(t) * (x - self.mean)


@dataclass(frozen=True, eq=False)
class Item:
    """One structure for a batch: its graph and prior, both ends, anchors and time."""

    scale: ClusterScale
    prior: ClusterPrior
    anchors: np.ndarray
    start: np.ndarray
    end: np.ndarray
    t: float


def collate(items: Sequence[Item], guided: bool = False, dtype: torch.dtype = torch.float32) -> PointBatch:
    """A batch of structures, which may have any sizes."""
    sizes = [item.scale.n for item in items]
    firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    molecules = np.concatenate([[0], np.cumsum([len(item.scale.order) for item in items])[:-1]])

    def floats(rows: Sequence[Any]) -> Tensor:
        return torch.as_tensor(np.concatenate(rows), dtype=dtype)

    return PointBatch(
        nodes=floats([i.scale.nodes for i in items]),
        structure=torch.as_tensor(np.repeat(np.arange(len(items)), sizes)),
        molecule=torch.as_tensor(np.concatenate([i.scale.molecule + m for i, m in zip(items, molecules)])),
        pairs=torch.as_tensor(np.concatenate([i.scale.pairs + f for i, f in zip(items, firsts)], 1)),
        pair_features=floats([i.scale.pair_features for i in items]),
        anchors=floats([i.anchors for i in items]),
        mean=floats([i.prior.mean(i.anchors) for i in items]),
        variance=floats([i.prior.variance for i in items]),
        start=floats([i.start for i in items]),
        end=floats([i.end for i in items]),
        t=torch.tensor([i.t for i in items], dtype=dtype),
        guided=torch.tensor(guided),
    )
