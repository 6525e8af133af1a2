"""Which true conformer a start is to become: superposed over symmetric names and, where they count, mirror images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from molflow_sim.geometry.superposition import kabsch
from molflow_sim.models.coarsenconf.graphs import ConformerGraph
from molflow_sim.models.coarsenconf.settings import CoarsenConfSettings
from molflow_sim.models.coarsenconf.torsions import with_torsions_of


@dataclass(frozen=True, eq=False)
class Match:
    """How each of K true conformers lies best on each of S starts.

    Attributes
    ----------
    rmsd : ndarray, shape (K, S)
        Å.
    renaming : ndarray of int, shape (K, S)
        Row of the symmetries.
    hand : ndarray of int, shape (K, S)
        −1 where the true conformer's mirror image lies better (and is one of the molecule, too).
    local : ndarray, shape (K, S)
        Å, of the start with the true conformer's torsions: what bonds, angles and rings differ by.
    """

    rmsd: np.ndarray
    renaming: np.ndarray
    hand: np.ndarray
    local: np.ndarray


def match(true: np.ndarray, starts: np.ndarray, graph: ConformerGraph, mirror: bool) -> Match:
    """Superpose true conformers (K, n, 3) on starts (S, n, 3), all in Å.

    Parameters
    ----------
    true, starts : ndarray
    graph : ConformerGraph
    mirror : bool
        Whether mirror images are conformers, too.
    """
    true, starts = np.asarray(true, dtype=float), np.asarray(starts, dtype=float)  # stored in single precision
    rmsd, renaming, hand = closest(true, starts, graph.symmetries, mirror)
    local = np.empty_like(rmsd)
    for k, s in np.ndindex(*local.shape):
        end = hand[k, s] * true[k][graph.symmetries[renaming[k, s]]]
        carried = with_torsions_of(graph, starts[s], end)
        local[k, s] = np.sqrt(((superposed(end, carried) - carried) ** 2).sum(1).mean())
    return Match(rmsd, renaming, hand, local)


def closest(
    true: np.ndarray, others: np.ndarray, symmetries: np.ndarray, mirror: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RMSD in Å (K, S) of true conformers (K, n, 3) and others (S, n, 3), with the renaming and hand that give it."""
    x = true - true.mean(1, keepdims=True)
    y = others - others.mean(1, keepdims=True)
    covariance = np.einsum("kpni,snj->kspij", x[:, symmetries], y, optimize=True)
    singular = np.linalg.svd(covariance, compute_uv=False)
    sign = np.sign(np.linalg.det(covariance))
    hands = (1.0, -1.0) if mirror else (1.0,)
    sums = [singular[..., 0] + singular[..., 1] + hand * sign * singular[..., 2] for hand in hands]
    overlap = np.stack(sums, -1).reshape(*singular.shape[:2], -1)
    square = (x**2).sum((1, 2))[:, None] + (y**2).sum((1, 2)) - 2.0 * overlap.max(-1)
    renaming, turned = np.divmod(overlap.argmax(-1), len(hands))
    return np.sqrt(np.maximum(square, 0.0) / x.shape[1]), renaming, 1 - 2 * turned


def superposed(x: np.ndarray, on: np.ndarray) -> np.ndarray:
    """A conformer (n, 3) laid on another one (n, 3), which lies about its mean."""
    x = x - x.mean(0)
    return np.asarray(x @ kabsch(x, on).T)


def partner(rmsd: np.ndarray, s: CoarsenConfSettings, rng: np.random.Generator) -> tuple[int, int]:
    """A true conformer and a start to train on, by the matching of the settings, of `rmsd` (K, S) in Å."""
    count, starts = rmsd.shape
    if s.matching == "random":
        return int(rng.integers(count)), int(rng.integers(starts))
    if s.matching == "assigned":
        rows, columns = linear_sum_assignment(rmsd)
        k = int(rng.integers(len(rows)))
        return int(rows[k]), int(columns[k])
    start = drawn(rmsd.min(0), s.reach, rng)
    if s.matching == "nearest":
        return int(rmsd[:, start].argmin()), start
    return drawn(rmsd[:, start], s.softness, rng), start


def drawn(rmsd: np.ndarray, width: float, rng: np.random.Generator) -> int:
    """One of several by weights exp(−rmsd² / 2 width²)."""
    weights = np.exp((rmsd.min() ** 2 - rmsd**2) / (2.0 * width**2))
    return int(rng.choice(len(rmsd), p=weights / weights.sum()))
