"""The many descriptions of one crystal, and the one nearest to a given start.

A crystal in a given setting of its space group can be written down with any symmetry copy of the molecule in the
asymmetric unit, from any equivalent origin, and with the molecule turned by its own proper symmetry. Paths to a
description far away would teach a flow detours, so the nearest is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from molflow_sim.dataset import CrystalRecord

HALVES = np.array(np.meshgrid([0.0, 0.5], [0.0, 0.5], [0.0, 0.5], indexing="ij")).reshape(3, 8).T


def origin_shifts(rotations: np.ndarray, translations: np.ndarray) -> np.ndarray:
    """Shifts (S, 3) by half cells that map the operations on themselves (part of the Euclidean normaliser).

    Parameters
    ----------
    rotations : ndarray of int, shape (G, 3, 3); translations : ndarray, shape (G, 3)
        All operations of the group, centring included.
    """
    known = {_key(w, t) for w, t in zip(rotations, translations)}
    kept = [
        p
        for p in HALVES
        # x -> x + p takes (W, w) to (W, w + (1 - W) p).
        if all(_key(w, t + p - w @ p) in known for w, t in zip(rotations, translations))
    ]
    return np.array(kept)


def polar_directions(cartesian_rotations: np.ndarray) -> np.ndarray:
    """Projector (3, 3) on the directions that all operations leave alone: there the origin is free."""
    return np.asarray(cartesian_rotations, dtype=float).mean(0)


def stabiliser(record: CrystalRecord, tolerance: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Projectors (3, 3) on the displacements and on the turns that the molecule's site leaves free (Cartesian).

    The operations that leave the molecule's centre where it is, within `tolerance` Å up to lattice translations.
    """
    if len(record.images[0]) == len(record.rotations):
        return np.eye(3), np.eye(3)
    moved = record.rotations @ record.centroid[0] + record.translations - record.centroid[0]
    off = (moved - np.round(moved)) @ record.cell
    ops = record.cartesian_rotations[np.linalg.norm(off, axis=1) < tolerance]
    return ops.mean(0), (np.linalg.det(ops)[:, None, None] * ops).mean(0)


def molecule_turns(numbers: np.ndarray, conformer: np.ndarray, tolerance: float = 0.2) -> np.ndarray:
    """Proper rotations (P, 3, 3) that map a conformer on itself within `tolerance` Å, the identity first.

    Turns of order 2 to 6 about the axes of inertia (and, where these are arbitrary, about lines through atoms), and the
    products of those.
    """
    x = conformer - conformer.mean(0)
    moments, columns = np.linalg.eigh(x.T @ x)
    axes = columns.T
    if np.diff(moments).min() < 0.02 * moments.max():
        # Two axes of inertia are arbitrary here; those of the symmetry then pass through atoms, or follow by products.
        far = x[np.linalg.norm(x, axis=1) > 0.5]
        axes = np.concatenate([axes, far / np.linalg.norm(far, axis=1, keepdims=True)])
    found = [np.eye(3)]
    for axis in axes:
        for order in (2, 3, 4, 5, 6):
            for power in range(1, order):
                turn = _turn(axis, 2.0 * np.pi * power / order)
                if not any(np.abs(turn - known).max() < 1e-3 for known in found) and _maps(numbers, x, turn, tolerance):
                    found.append(turn)
    for a in list(found):
        for b in list(found):
            if not any(np.abs(a @ b - known).max() < 0.05 for known in found) and len(found) < 24:
                found.append(a @ b)
    return np.array(found)


def equivalents(record: CrystalRecord, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All descriptions of a crystal with one molecule in the asymmetric unit: centroids (V, 3), rotations (V, 3, 3).

    Copies made by improper operations would be of the other hand and are left out, as are other choices of cell.
    """
    shifts = origin_shifts(record.rotations, record.translations)
    proper = np.flatnonzero(np.linalg.det(record.cartesian_rotations) > 0)
    centres = record.rotations[proper] @ record.centroid[0] + record.translations[proper]
    rotations = record.cartesian_rotations[proper] @ record.orientation[0]
    c = (centres[:, None, None] + shifts[None, :, None]).repeat(len(turns), 2)
    r = (rotations[:, None, None] @ turns[None, None]).repeat(len(shifts), 1)
    return np.mod(c.reshape(-1, 3), 1.0), r.reshape(-1, 3, 3)


def nearest(
    centroid: np.ndarray,
    rotation: np.ndarray,
    cell: np.ndarray,
    choices: tuple[np.ndarray, np.ndarray],
    polar: np.ndarray,
    gyration: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of n starts the nearest of V descriptions.

    Parameters
    ----------
    centroid : ndarray, shape (n, 3); rotation : ndarray, shape (n, 3, 3); cell : ndarray, shape (n, 3, 3)
        The starts.
    choices : (V, 3) and (V, 3, 3)
        From `equivalents`.
    polar : ndarray, shape (3, 3)
        From `polar_directions`: displacements along these count nothing, and are removed from the answer.
    gyration : float
        Å.

    Returns
    -------
    centroid : (n, 3), rotation : (n, 3, 3), cost : (n,) in Å²
    """
    delta = choices[0][None] - centroid[:, None]
    delta -= np.round(delta)
    away = delta @ cell
    away -= away @ polar.T
    trace = np.einsum("nij,vij->nv", rotation, choices[1])
    angle = np.arccos(np.clip(0.5 * (trace - 1.0), -1.0, 1.0))
    cost = (away**2).sum(-1) + (gyration * angle) ** 2
    best = cost.argmin(1)
    rows = np.arange(len(centroid))
    shift = np.linalg.solve(np.swapaxes(cell, 1, 2), away[rows, best][:, :, None])[:, :, 0]
    return centroid + shift, choices[1][best], cost[rows, best]


def _key(rotation: np.ndarray, translation: np.ndarray) -> tuple[int, ...]:
    return (*np.round(rotation).astype(int).ravel(), *(np.round(24 * translation).astype(int) % 24))


def _turn(axis: np.ndarray, angle: float) -> np.ndarray:
    cross = np.cross(np.eye(3), axis).T
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)


def _maps(numbers: np.ndarray, x: np.ndarray, turn: np.ndarray, tolerance: float) -> bool:
    away = np.linalg.norm((x @ turn.T)[:, None] - x[None], axis=-1)
    away[numbers[:, None] != numbers[None]] = np.inf
    match = away.argmin(1)
    return bool(away[np.arange(len(x)), match].max() < tolerance and len(set(match.tolist())) == len(x))
