"""Molecules made whole across a periodic box, and the check that they are."""

from __future__ import annotations

import numpy as np
from scipy.sparse.csgraph import breadth_first_order, connected_components

from molflow_sim.coarse.topology import BeadTopology, bond_graph
from molflow_sim.errors import TrajectoryError

LONGEST_ATOM_BOND = 3.0
"""Å. Covalent bonds stay below this (Cs-I apart); anything longer is a broken molecule or a wrong topology."""
LONGEST_LINK = 2.4
"""Å. Bonds from residue to residue (C-N 1.3, O3'-P 1.6, S-S 2.1) stay below this, and touching ends above."""


def make_whole(positions: np.ndarray, cell: np.ndarray, bonds: np.ndarray) -> np.ndarray:
    """Shift atoms by lattice vectors so that every bond is the shortest of its images.

    Walks each connected part from its first atom along the bonds. An unbroken molecule comes back unchanged, to the
    last bit. Bonds must be shorter than half the box.

    Parameters
    ----------
    positions : ndarray, shape (F, N, 3)
        Å.
    cell : ndarray, shape (F, 3, 3)
        Box vectors of each frame in rows, Å.
    bonds : ndarray of int, shape (nb, 2)
        Bonded pairs.

    Returns
    -------
    ndarray, shape (F, N, 3)
    """
    walk = _spanning_walk(positions.shape[1], bonds)
    if not len(walk):
        return positions
    step = positions[:, walk[:, 1]] - positions[:, walk[:, 0]]
    images = -np.rint(step @ np.linalg.inv(cell))
    broken = np.flatnonzero(images.any(axis=(1, 2)))
    if not len(broken):
        return positions
    counts = np.zeros((len(broken), positions.shape[1], 3))
    for n, (parent, child) in enumerate(walk):
        counts[:, child] = counts[:, parent] + images[broken, n]
    whole = positions.copy()
    whole[broken] += counts @ cell[broken]
    return whole


def _spanning_walk(n_atoms: int, bonds: np.ndarray) -> np.ndarray:
    """(parent, child) pairs that reach every bonded atom once, parents first."""
    graph = bond_graph(n_atoms, np.asarray(bonds, dtype=np.int64).reshape(-1, 2))
    walk = [np.zeros((0, 2), dtype=np.int64)]
    for start in np.unique(connected_components(graph, directed=False)[1], return_index=True)[1]:
        order, parent = breadth_first_order(graph, start, directed=False)
        walk.append(np.stack([parent[order[1:]], order[1:]], axis=1))
    return np.concatenate(walk)


def bond_lengths(positions: np.ndarray, bonds: np.ndarray) -> np.ndarray:
    """Length of each bond in each frame, shape (F, nb), float64, in the unit of the positions."""
    i, j = np.asarray(bonds).reshape(-1, 2).T
    return np.linalg.norm(positions[:, i].astype(np.float64) - positions[:, j], axis=-1)


def check_bonds(positions: np.ndarray, topology: BeadTopology) -> None:
    """Raise where a bond between beads is far longer than it usually is, or has no length.

    Far longer means more than twice its median over the frames plus 2 Å: wide enough for Cα-Cα and for groups, and
    passed by no molecule that is cut by a box.

    Parameters
    ----------
    positions : ndarray, shape (F, B, 3)
        Å.
    topology : BeadTopology
        The beads.

    Raises
    ------
    TrajectoryError
        Names the first such frame and the two beads.
    """
    if not len(topology.bonds) or not len(positions):
        return
    lengths = bond_lengths(positions, topology.bonds)
    limit = 2.0 * np.median(lengths, axis=0) + 2.0
    for bad, what in (
        (lengths > limit, "are far apart: a molecule broken across a periodic box? Make molecules whole first"),
        (lengths < 1e-3, "lie at one point"),
    ):
        if bad.any():
            frame, bond = np.argwhere(bad)[0]
            i, j = topology.bonds[bond]
            raise TrajectoryError(
                f"frame {frame}: the bonded beads {topology.label(int(i))} and {topology.label(int(j))} "
                f"({lengths[frame, bond]:.2f} Å) {what}"
            )
