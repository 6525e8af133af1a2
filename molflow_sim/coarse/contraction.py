"""Bonds between beads from the bonds between atoms: the molecular graph with the atoms left out contracted."""

from __future__ import annotations

import numpy as np
from networkx.utils import UnionFind


def contracted_bonds(owner: np.ndarray, n_beads: int, atom_bonds: np.ndarray) -> np.ndarray:
    """Bonds between beads.

    Every bond between atoms of two beads is one between the beads, even where that closes a ring. Parts that are then
    still apart are joined as a minimum spanning tree, where the length between two beads is the number of bonds
    on the shortest path through atoms of no bead; ties go to the lower bead numbers. So an atom left out that three
    beads hang on makes a branch and not a ring.

    Parameters
    ----------
    owner : ndarray of int, shape (N,)
        Bead of each atom, −1 for none.
    n_beads : int
        Number of beads, B.
    atom_bonds : ndarray of int, shape (nb, 2)
        Bonded atoms.

    Returns
    -------
    ndarray of int, shape (m, 2)
        Bonded beads, each pair once; a tree where the atoms' graph allows one.
    """
    around: list[list[int]] = [[] for _ in owner]
    for i, j in atom_bonds.tolist():
        around[i].append(j)
        around[j].append(i)
    bonds = {
        (min(a, b), max(a, b)) for a, b in owner[atom_bonds].reshape(-1, 2).tolist() if a != b and a >= 0 and b >= 0
    }
    joined = UnionFind(range(n_beads))
    for a, b in bonds:
        joined.union(a, b)
    paths = {(length, min(a, b), max(a, b)) for a in range(n_beads) for b, length in _reached(a, owner, around).items()}
    for _, a, b in sorted(paths):
        if joined[a] != joined[b]:
            joined.union(a, b)
            bonds.add((a, b))
    return np.array(sorted(bonds), dtype=np.int64).reshape(-1, 2)


def _reached(bead: int, owner: np.ndarray, around: list[list[int]]) -> dict[int, int]:
    """Beads next to this one through atoms of no bead, with the number of bonds between."""
    found: dict[int, int] = {}
    shell = np.flatnonzero(owner == bead).tolist()
    seen = set(shell)
    length = 0
    while shell:
        length += 1
        following = []
        for i in shell:
            for j in around[i]:
                if j in seen:
                    continue
                other = int(owner[j])
                if other >= 0:
                    if other != bead:
                        found.setdefault(other, length)
                else:
                    seen.add(j)
                    following.append(j)
        shell = following
    return found
