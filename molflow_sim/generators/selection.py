"""Which n of many conformers stand best for all of them.

The pool is a sample of where conformers may be. Those chosen are to leave the rest of it near one of them: the greedy
choice for Σ_i w_i max_j exp(-d_ij²/s²), which is submodular, so that it comes within 1 - 1/e of the best (G. L.
Nemhauser, L. A. Wolsey, M. L. Fisher, Math. Program. 14, 265 (1978)). RMSDs are over heavy atoms and the ways in which
the molecule maps on itself.
"""

from __future__ import annotations

import numpy as np
from rdkit import Chem

from molflow_sim.chemistry.bonds import automorphisms
from molflow_sim.geometry.rmsd import rmsd_matrix

SCALE = 0.75
"""Å; s above."""
MAX_MAPPINGS = 24
"""Ways to map the molecule on itself that are tried at most."""


def heavy_atom_distances(rdmol: Chem.Mol, positions: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """RMSD (K, L) in Å between conformers (K, N, 3) and others (L, N, 3), or among themselves.

    Over heavy atoms; over all where there are fewer than three.
    """
    heavy = np.array([a.GetIdx() for a in rdmol.GetAtoms() if a.GetAtomicNum() > 1])
    atoms = heavy if len(heavy) > 2 else np.arange(rdmol.GetNumAtoms())
    second = None if others is None else others[:, atoms]
    return rmsd_matrix(positions[:, atoms], second, automorphisms(rdmol, atoms, max_matches=MAX_MAPPINGS))


def covering(
    distances: np.ndarray, n: int, weights: np.ndarray | None = None, *, scale: float = SCALE, first: int = 0
) -> np.ndarray:
    """Numbers of the n conformers that cover the pool, in the order in which they are chosen.

    Parameters
    ----------
    distances : ndarray (K, K)
        Å.
    n : int
    weights : ndarray (K,), optional
        Of the pool; equal if not given.
    scale : float
        Å.
    first : int
        So many of the first are chosen in any case.

    Returns
    -------
    ndarray (min(n, K),) of int
    """
    near = np.exp(-np.square(distances / scale)).astype(np.float32)
    weights = np.ones(len(near), np.float32) if weights is None else np.asarray(weights, dtype=np.float32)
    best, chosen = np.zeros(len(near), np.float32), np.zeros(0, dtype=int)
    for k in range(min(n, len(near))):
        gain = weights @ np.maximum(near - best[:, None], 0.0)
        gain[chosen] = -1.0
        chosen = np.append(chosen, k if k < first else int(gain.argmax()))
        best = np.maximum(best, near[:, chosen[-1]])
    return chosen


def distinct(distances: np.ndarray, tolerance: float) -> list[int]:
    """Numbers of conformers, in order, that are further than `tolerance` Å from all that were kept before."""
    kept: list[int] = []
    for k in range(len(distances)):
        if not kept or distances[k, kept].min() > tolerance:
            kept.append(k)
    return kept
