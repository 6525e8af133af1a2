"""Batches of clusters: all their atoms in one row, with the graph that a network reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from molflow_sim.training.batches import Movable


@dataclass(frozen=True, eq=False)
class ClusterBatch(Movable):
    """B clusters of M molecules and n atoms in all.

    Attributes
    ----------
    numbers : Tensor of long (n,)
    molecule : Tensor of long (n,)
        Molecule of each atom, numbered through the batch.
    cluster : Tensor of long (M,)
        Cluster of each molecule.
    position : Tensor (n, 3)
        Å, at the times of the path.
    start : Tensor (n, 3)
        Where the path began.
    time : Tensor (B,)
    velocity : Tensor (n, 3)
        Of the path, Å per unit time.
    """

    numbers: Tensor
    molecule: Tensor
    cluster: Tensor
    position: Tensor
    start: Tensor
    time: Tensor
    velocity: Tensor

    @property
    def owner(self) -> Tensor:
        """Cluster of each atom (n,)."""
        return self.cluster[self.molecule]


@dataclass(frozen=True, eq=False)
class Item:
    """One cluster on its path: atoms (n, 3) of m molecules of N atoms, one after another."""

    numbers: np.ndarray
    position: np.ndarray
    start: np.ndarray
    time: float
    velocity: np.ndarray


def collate(items: Sequence[Item]) -> ClusterBatch:
    """A batch, in single precision."""
    molecules = [len(i.position) // len(i.numbers) for i in items]
    sizes = np.concatenate([[len(i.numbers)] * m for i, m in zip(items, molecules)])

    def joined(name: str) -> Tensor:
        return torch.as_tensor(np.concatenate([getattr(i, name) for i in items]), dtype=torch.float32)

    return ClusterBatch(
        torch.as_tensor(np.concatenate([np.tile(i.numbers, m) for i, m in zip(items, molecules)])).long(),
        torch.as_tensor(np.repeat(np.arange(len(sizes)), sizes)),
        torch.as_tensor(np.repeat(np.arange(len(items)), molecules)),
        joined("position"),
        joined("start"),
        torch.tensor([i.time for i in items], dtype=torch.float32),
        joined("velocity"),
    )


def near_pairs(x: Tensor, group: Tensor, cutoff: float) -> Tensor:
    """Receivers and senders (2, E) of points (n, 3) within `cutoff` Å of each other, in the same group (sorted)."""
    points, groups = x.detach().cpu().double().numpy(), group.cpu().numpy()
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    found = [
        cKDTree(points[a:b]).query_pairs(cutoff, output_type="ndarray") + a
        for a, b in zip(starts, [*starts[1:], len(points)])
    ]
    half = np.concatenate(found).reshape(-1, 2)
    half = half[np.lexsort(half.T[::-1])]
    return torch.as_tensor(np.concatenate([half, half[:, ::-1]]).T.copy(), device=x.device)
