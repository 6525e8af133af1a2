"""From heavy atoms that the network moved to whole conformers: hydrogens, and whether shape and stereo are kept."""

from __future__ import annotations

import numpy as np

from molflow_sim.geometry.superposition import kabsch
from molflow_sim.models.coarsenconf.graphs import ConformerGraph

STRETCH = 0.15
"""Distances over one and two bonds may differ from the start's by this share of them."""
CLOSEST = 2.2
"""Å; heavy atoms more than three bonds apart are at least this far from each other, or as far as in the start."""


def with_hydrogens(
    graph: ConformerGraph, heavy: np.ndarray, parents: np.ndarray, start: np.ndarray, moved: np.ndarray
) -> np.ndarray:
    """All atoms (N, 3) in Å: each hydrogen goes along with the surroundings of the heavy atom that it hangs on.

    Lengths and angles to it, and torsions of hydroxyl and methyl groups, stay those of the start.

    Parameters
    ----------
    graph : ConformerGraph
    heavy : ndarray of int, shape (n,)
        Heavy atoms among all.
    parents : ndarray of int, shape (N,)
        The heavy atom, among the n, that each atom is or hangs on.
    start : ndarray, shape (N, 3)
    moved : ndarray, shape (n, 3)
        The heavy atoms, moved.
    """
    out = np.empty_like(start)
    before = start[heavy]
    for k in range(graph.n):
        near = np.flatnonzero(graph.apart[k] <= 1)
        if len(near) < 3:
            near = np.flatnonzero(graph.apart[k] <= 2)
        rows = np.flatnonzero(parents == k)
        if len(rows) == 1:
            out[rows] = moved[k]
            continue
        old, new = before[near] - before[k], moved[near] - moved[k]
        rotation = kabsch(old, new)
        out[rows] = (start[rows] - before[k]) @ rotation.T + moved[k]
    return out


def parents_of(numbers: np.ndarray, bonds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heavy atoms (n,) among all, and which of them each atom is or hangs on (N,).

    Parameters
    ----------
    numbers : ndarray of int, shape (N,)
    bonds : ndarray of int, shape (nb, 2)
    """
    heavy = np.flatnonzero(numbers > 1)
    parents = np.full(len(numbers), -1)
    parents[heavy] = np.arange(len(heavy))
    for i, j in np.concatenate([bonds, bonds[:, ::-1]]):
        if numbers[i] == 1 and numbers[j] > 1:
            parents[i] = parents[j]
    return heavy, parents


def keeps_shape(graph: ConformerGraph, start: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Which conformers (S, n, 3) in Å keep bonds, angles and so rings of their starts (S, n, 3), without a clash."""
    near, far = (np.stack(np.nonzero(np.triu(chosen, 1))) for chosen in (graph.apart <= 2, graph.apart > 3))

    def distances(x: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.norm(x[:, pairs[0]] - x[:, pairs[1]], axis=-1))

    bent = np.abs(distances(moved, near) / distances(start, near) - 1.0) > STRETCH
    clash = distances(moved, far) < np.minimum(CLOSEST, distances(start, far))
    finite = np.isfinite(moved).all((1, 2))
    return np.asarray(finite & ~bent.any(1) & ~clash.any(1))
