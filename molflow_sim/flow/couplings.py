"""Which end of a path belongs to which start: like molecules exchanged, symmetric atoms renamed, the whole turned.

A cluster in open space has no frame and its like molecules have no names. A network that learns the end of a path from
its middle would learn a mean over all of them; ends close to their starts leave it little to average (as ET-Flow
aligns, Hassan et al. 2024).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from molflow_sim.geometry.superposition import kabsch

ROUNDS = 3
"""Times that exchange and rotation follow one another; each can only bring the ends closer."""


def align_clusters(
    end: np.ndarray,
    start: np.ndarray,
    species: np.ndarray,
    symmetries: Sequence[np.ndarray],
    *,
    exchange: bool = True,
    rotate: bool = True,
) -> np.ndarray:
    """The same cluster as `end`, named and turned so that it lies close to `start`.

    Parameters
    ----------
    end, start : ndarray, shape (N, 3)
        Molecules one after another; rotations are about the origin.
    species : ndarray of int, shape (m,)
        Of every molecule.
    symmetries : sequence of ndarray of int, shape (A, n)
        For each species its renamings, the identity among them: point i gets the place of point ``row[i]``.
    exchange : bool
        Let molecules of one species change places.
    rotate : bool
        Turn the whole cluster.

    Returns
    -------
    ndarray, shape (N, 3)
    """
    sizes = np.array([symmetries[s].shape[1] for s in species])
    firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    found = np.asarray(end)
    for _ in range(ROUNDS if rotate else 1):
        named = np.empty_like(found)
        for kind in np.unique(species):
            rows = firsts[species == kind][:, None] + np.arange(symmetries[kind].shape[1])
            named[rows] = _named(found[rows], start[rows], symmetries[kind], exchange)
        found = named @ kabsch(named, start).T if rotate else named
    return found


def _named(end: np.ndarray, start: np.ndarray, symmetries: np.ndarray, exchange: bool) -> np.ndarray:
    """Molecules (m, n, 3) of one species in the order and with the names that bring them closest to their starts."""
    m = len(end)
    if not exchange and len(symmetries) == 1:
        return end
    # Sums of squares do not change with the order, so the closest has the largest inner product.
    renamed = end[:, symmetries]
    closeness = np.tensordot(start.reshape(m, -1), renamed.reshape(m, len(symmetries), -1), (1, 2))
    best = closeness.max(2)
    order = linear_sum_assignment(best, maximize=True)[1] if exchange else np.arange(m)
    names = closeness[np.arange(m), order].argmax(1)
    return renamed[order, names]
