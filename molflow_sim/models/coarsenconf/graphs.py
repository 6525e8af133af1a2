"""What is fixed of a molecule: features of heavy atoms and bonds, beads between torsions, their order, symmetries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse.csgraph import shortest_path

from molflow_sim.coarse.contraction import contracted_bonds
from molflow_sim.coarse.features import N_BOND_FEATURES, PARITY_EVEN, atom_features
from molflow_sim.coarse.topology import bond_graph

if TYPE_CHECKING:
    from rdkit import Chem

MAX_SYMMETRIES = 64
"""Renamings of a molecule's atoms that are looked at."""
FAR = 4
"""Bonds from which on pairs of atoms are told apart no more."""
N_NODE_FEATURES = int(PARITY_EVEN.sum())
N_PAIR_FEATURES = FAR + N_BOND_FEATURES


@dataclass(frozen=True, eq=False)
class ConformerGraph:
    """The n heavy atoms of a molecule. Nothing tells a molecule from its mirror image: coordinates do.

    Attributes
    ----------
    nodes : ndarray, shape (n, N_NODE_FEATURES)
    bonds : ndarray of int, shape (nb, 2)
    bond_features : ndarray, shape (nb, N_BOND_FEATURES)
    owner : ndarray of int, shape (n,)
        Bead of each atom.
    symmetries : ndarray of int, shape (P, n)
        Renamings that keep the bond graph, the identity first.
    """

    nodes: np.ndarray
    bonds: np.ndarray
    bond_features: np.ndarray
    owner: np.ndarray
    symmetries: np.ndarray

    @property
    def n(self) -> int:
        """Heavy atoms."""
        return len(self.nodes)

    @property
    def n_beads(self) -> int:
        """Beads, one more than torsions in a tree."""
        return int(self.owner.max()) + 1

    @cached_property
    def apart(self) -> np.ndarray:
        """Bonds between any two atoms (n, n); large where they are not joined."""
        found = shortest_path(bond_graph(self.n, self.bonds), directed=False, unweighted=True)
        return np.nan_to_num(found, posinf=99.0).astype(int)

    @cached_property
    def pairs(self) -> np.ndarray:
        """Receivers and senders (2, n (n − 1)) of all pairs of atoms."""
        return np.stack(np.nonzero(~np.eye(self.n, dtype=bool)))

    @cached_property
    def pair_features(self) -> np.ndarray:
        """(n (n − 1), N_PAIR_FEATURES): bonds between them (1, 2, 3, more; one-hot), and of bonded ones the bond's."""
        kinds = np.zeros((self.n, self.n, N_BOND_FEATURES), np.float32)
        i, j = self.bonds.T
        kinds[i, j] = kinds[j, i] = self.bond_features
        into, out = self.pairs
        steps = np.minimum(self.apart[into, out], FAR)[:, None] == np.arange(1, FAR + 1)
        return np.concatenate([steps.astype(np.float32), kinds[into, out]], 1)

    @cached_property
    def bead_order(self) -> np.ndarray:
        """Place of each bead in the order of decoding: breadth first, from the bead with most atoms + 1.1 × degree."""
        joined = contracted_bonds(self.owner, self.n_beads, self.bonds)
        around = [sorted({int(b) for pair in joined if k in pair for b in pair} - {k}) for k in range(self.n_beads)]
        size = np.bincount(self.owner, minlength=self.n_beads)
        worth = [size[k] + 1.1 * len(around[k]) for k in range(self.n_beads)]
        queue, found = [max(range(self.n_beads), key=lambda k: (worth[k], -k))], dict[int, None]()
        while queue:
            k = queue.pop(0)
            found[k] = None
            queue += sorted(set(around[k]) - set(found) - set(queue), key=lambda b: (-worth[b], b))
        place = np.empty(self.n_beads, int)
        place[list(found)] = np.arange(self.n_beads)
        return place

    @cached_property
    def rank(self) -> np.ndarray:
        """Place (n,) of each atom's bead in that order."""
        return np.asarray(self.bead_order[self.owner])

    @cached_property
    def around(self) -> list[list[int]]:
        """Bonded atoms of each atom."""
        joined = self.apart == 1
        return [np.flatnonzero(row).tolist() for row in joined]

    @cached_property
    def torsions(self) -> np.ndarray:
        """Atoms (T, 4) of a torsion about each bond between beads, the third one on the smaller side of it."""
        cut = self.bonds[self.owner[self.bonds[:, 0]] != self.owner[self.bonds[:, 1]]].tolist()
        found = []
        for b, c in cut:
            if 2 * (self.apart[c] < self.apart[b]).sum() > self.n:
                b, c = c, b
            a, d = (next(k for k in self.around[i] if k != j) for i, j in ((b, c), (c, b)))
            found.append((a, b, c, d))
        return np.array(found, int).reshape(-1, 4)

    @cached_property
    def quadruples(self) -> np.ndarray:
        """(Q, 5): number of a torsion's bond, and the atoms of all torsions about it."""
        found = [
            (t, a, b, c, d)
            for t, (_, b, c, _) in enumerate(self.torsions.tolist())
            for a in self.around[b]
            for d in self.around[c]
            if a != c and d != b
        ]
        return np.array(found, int).reshape(-1, 5)

    @cached_property
    def sides(self) -> np.ndarray:
        """Atoms (T, n) that turn with the third atom of each torsion: all that lie nearer to it than to the second."""
        found = np.array([self.apart[c] < self.apart[b] for _, b, c, _ in self.torsions], bool)
        return found.reshape(-1, self.n)

    @cached_property
    def anchor(self) -> np.ndarray:
        """(n,): the atom of an earlier bead that an atom's bead is bonded to; the atom itself in the first bead."""
        held = np.arange(self.n)
        for i, j in np.concatenate([self.bonds, self.bonds[:, ::-1]]):
            if self.rank[j] < self.rank[i]:
                held[self.owner == self.owner[i]] = j
        return held


def conformer_graph(rdmol: Chem.Mol) -> ConformerGraph:
    """The graph of a molecule, with or without explicit hydrogens; heavy atoms in its order."""
    from molflow_sim.chemistry.bonds import automorphisms
    from molflow_sim.coarse.maps import torsion_beads

    beads = torsion_beads(rdmol)
    kept = np.flatnonzero(beads.owner >= 0)
    features = atom_features(rdmol)
    nodes = features.nodes[:, PARITY_EVEN]
    found = [p for p in automorphisms(rdmol, kept, 8 * MAX_SYMMETRIES) if np.array_equal(nodes[p], nodes)]
    identity = np.arange(len(kept))
    others = [p for p in found if not np.array_equal(p, identity)]
    symmetries = np.array([identity, *others[: MAX_SYMMETRIES - 1]])
    return ConformerGraph(nodes, features.bonds, features.bond_features, beads.owner[kept], symmetries)


def heavy_atoms(numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    """Indices of the atoms that are not hydrogen."""
    return np.flatnonzero(np.asarray(numbers) > 1)
