"""Which molecule of a loose start flows to which molecule of the crystal's cluster, and how the latter is turned.

A free cluster has no frame: without this a network would learn the mean over all orientations and all labels.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from molflow_sim.geometry.superposition import kabsch
from molflow_sim.models.cluster_flow.data import Poses

ROUNDS = 3
"""Assignments and superpositions in turn, for each orientation that is tried."""


def couple(start: Poses, end: Poses, symmetry: np.ndarray, turns: np.ndarray) -> Poses:
    """The end with its molecules in the order of the start, turned as a whole so that the ways are short.

    Parameters
    ----------
    start, end : Poses
        With the same hands, in any order. Molecules of one hand can stand for one another.
    symmetry : ndarray (K, 3, 3)
        Rotations that map the body on itself: of the equivalent orientations the nearest is taken.
    turns : ndarray (T, 3, 3)
        Orientations of the whole end that are tried; each is refined.
    """
    x0 = start.centre - start.centre.mean(0)
    x1 = end.centre - end.centre.mean(0)
    best = (np.inf, np.arange(len(x0)), np.eye(3))
    for turn in turns:
        for _ in range(ROUNDS):
            order = assigned(x0, x1 @ turn.T, start.hand, end.hand)
            turn = kabsch(x1[order], x0)
        cost = float(((x0 - x1[order] @ turn.T) ** 2).sum())
        if cost < best[0] - 1e-9:
            best = (cost, order, turn)
    _, order, turn = best
    rotation = turn @ end.rotation[order]
    # R h b = R h Q b for every Q of the body's symmetry: angles of R Q R0ᵀ from their traces
    options = np.einsum("nij,kjl->nkil", rotation, symmetry)
    nearest = np.einsum("nkij,nij->nk", options, start.rotation).argmax(1)
    centre = x1[order] @ turn.T + start.centre.mean(0)
    return Poses(centre, options[np.arange(len(order)), nearest], end.hand[order])


def assigned(x0: np.ndarray, x1: np.ndarray, hand0: np.ndarray, hand1: np.ndarray) -> np.ndarray:
    """Order (n,) of the rows of x1 (n, 3) with the least squared distance to x0, hands kept."""
    cost = ((x0[:, None] - x1) ** 2).sum(-1)
    cost[hand0[:, None] != hand1] = 1e9
    return np.asarray(linear_sum_assignment(cost)[1])
