"""Rings that are speared: a bond of another molecule passes through the ring, which no dynamics undoes."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.spatial import cKDTree

from molflow_sim.systems.cluster import MolecularCluster

LONGEST_BOND = 3.0
"""Å; no bond between supported elements is longer."""


def speared_rings(cluster: MolecularCluster) -> list[tuple[tuple[int, ...], tuple[int, int]]]:
    """Rings with a bond of another molecule, or of a periodic image, through them.

    The rings are RDKit's smallest ones. A ring's surface is the fan of triangles between its bonds and its centre; a
    bond spears it where its straight line crosses a triangle.

    Returns
    -------
    list of (atoms of the ring, (atom, atom) of the bond)
    """
    rings = [
        first + np.array(ring)
        for s, first in zip(cluster.order, cluster.firsts)
        for ring in cluster.species[s].rdmol.GetRingInfo().AtomRings()
    ]
    if not rings:
        return []
    x, bonds, molecule = cluster.positions, cluster.bonds, cluster.molecule_index
    ring_centres = np.array([x[ring].mean(0) for ring in rings])
    reach = max(np.linalg.norm(x[ring] - c, axis=1).max() for ring, c in zip(rings, ring_centres)) + LONGEST_BOND / 2
    shifts, middles = _images(x[bonds].mean(1), ring_centres, cluster.cell, reach)
    near = cKDTree(ring_centres).query_ball_tree(cKDTree(middles[:, :3]), reach)
    found = []
    for ring, centre, candidates in zip(rings, ring_centres, near):
        bond = middles[candidates, 3].astype(int)
        shift = shifts[candidates]
        other = (molecule[bonds[bond, 0]] != molecule[ring[0]]) | shift.any(1)
        bond, shift = bond[other], shift[other]
        move = np.zeros_like(shift) if cluster.cell is None else shift @ cluster.cell
        corners = x[ring]
        crossed = _crosses(x[bonds[bond, 0]] + move, x[bonds[bond, 1]] + move, corners, np.roll(corners, -1, 0), centre)
        found += [(tuple(ring.tolist()), (int(bonds[b, 0]), int(bonds[b, 1]))) for b in bond[crossed]]
    return found


def _images(
    middles: np.ndarray, centres: np.ndarray, cell: np.ndarray | None, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Lattice shifts (m, 3) and middles with their bonds' numbers (m, 4), of all images within reach of the centres."""
    numbered = np.column_stack([middles, np.arange(len(middles))])
    if cell is None:
        return np.zeros((len(middles), 3)), numbered
    inverse = np.linalg.inv(cell)
    low, high = (centres @ inverse).min(0), (centres @ inverse).max(0)
    margin = reach * np.linalg.norm(inverse, axis=0)
    fractional = middles @ inverse
    span = [
        range(int(np.floor(l - m - f.max())), int(np.ceil(h + m - f.min())) + 1)
        for l, h, m, f in zip(low, high, margin, fractional.T)
    ]
    shifts, rows = [], []
    for shift in product(*span):
        inside = np.all((fractional + shift >= low - margin) & (fractional + shift <= high + margin), axis=1)
        moved = numbered[inside]
        moved[:, :3] += np.array(shift) @ cell
        rows.append(moved)
        shifts.append(np.tile(np.array(shift, dtype=float), (inside.sum(), 1)))
    return np.concatenate(shifts), np.concatenate(rows)


def _crosses(start: np.ndarray, end: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Which segments (m, 3) cross a triangle a, b (k, 3), c (3,); T. Möller & B. Trumbore, JGT 2, 21 (1997)."""
    direction = (end - start)[:, None]
    one, two = a - c, b - c
    across = np.cross(direction, two)
    determinant = np.einsum("mkj,kj->mk", across, one)
    with np.errstate(divide="ignore", invalid="ignore"):
        offset = start[:, None] - c
        u = np.einsum("mkj,mkj->mk", across, np.broadcast_to(offset, across.shape)) / determinant
        q = np.cross(offset, one)
        v = np.einsum("mkj,mkj->mk", np.broadcast_to(direction, q.shape), q) / determinant
        t = np.einsum("mkj,kj->mk", q, two) / determinant
    inside = (u >= 0) & (v >= 0) & (u + v <= 1) & (t >= 0) & (t <= 1)
    return np.any(inside & (np.abs(determinant) > 1e-12), axis=1)
