"""What is fixed of a cluster at either scale: features, bonds, pairs within a few bonds, interchangeable names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse.csgraph import shortest_path

from molflow_sim.coarse.features import N_BOND_FEATURES, GraphFeatures, atom_features, bead_features
from molflow_sim.coarse.maps import bead_map
from molflow_sim.coarse.topology import bond_graph
from molflow_sim.errors import InputError
from molflow_sim.flow.priors import PointPrior
from molflow_sim.models.dual_scale.settings import DualScaleSettings, ScaleSettings

if TYPE_CHECKING:
    from rdkit import Chem

MAX_SYMMETRIES = 64
"""Renamings of a molecule's atoms that are looked at."""
BEADS, ATOMS = "beads", "atoms"


@dataclass(frozen=True, eq=False)
class ScaleGraph:
    """The n points of one molecule, or of a cluster, at one scale.

    Attributes
    ----------
    features : GraphFeatures
    pairs : ndarray of int, shape (2, P)
        Receivers and senders of all points within `ScaleSettings.hops` bonds, in both directions.
    pair_features : ndarray, shape (P, hops + N_BOND_FEATURES)
        Bonds between them (one-hot); type of the bond, zeros for others.
    symmetries : ndarray of int, shape (A, n)
        Renamings that keep all features, the identity first.
    """

    features: GraphFeatures
    pairs: np.ndarray
    pair_features: np.ndarray
    symmetries: np.ndarray

    @property
    def n(self) -> int:
        """Number of points."""
        return len(self.features.nodes)

    @classmethod
    def build(cls, features: GraphFeatures, symmetries: np.ndarray, hops: int) -> ScaleGraph:
        """From features; of the symmetries those stay that keep them."""
        n = len(features.nodes)
        apart = shortest_path(bond_graph(n, features.bonds), directed=False, unweighted=True)
        into, out = np.nonzero((apart > 0) & (apart <= hops))
        kinds = np.zeros((n, n, N_BOND_FEATURES), np.float32)
        i, j = features.bonds.T
        kinds[i, j] = kinds[j, i] = features.bond_features
        steps = (apart[into, out][:, None] == np.arange(1, hops + 1)).astype(np.float32)
        kept = [
            p
            for p in symmetries
            if np.array_equal(features.nodes[p], features.nodes) and np.array_equal(kinds[p][:, p], kinds)
        ]
        return cls(features, np.stack([into, out]), np.concatenate([steps, kinds[into, out]], 1), np.array(kept))


class MoleculeGraphs:
    """Both scales of one molecule.

    Parameters
    ----------
    rdmol : rdkit.Chem.Mol
        Hydrogens explicit.
    settings : DualScaleSettings

    Raises
    ------
    MappingError
        A map that is not made for the molecule.
    """

    def __init__(self, rdmol: Chem.Mol, settings: DualScaleSettings) -> None:
        from molflow_sim.chemistry.bonds import automorphisms

        self.settings = settings
        beads = bead_map(rdmol, settings.mapping)
        self.heavy = np.flatnonzero(beads.owner >= 0)
        self.owner = beads.owner[self.heavy]
        known = automorphisms(rdmol, self.heavy, MAX_SYMMETRIES)
        nodes = atom_features(rdmol)
        atoms = ScaleGraph.build(nodes, known, settings.atoms.hops)
        # A renaming of atoms is one of beads where it takes whole beads to whole beads.
        onto: dict[tuple[int, ...], None] = {}
        still = []
        for p in atoms.symmetries:
            images = [set(self.owner[p[self.owner == b]]) for b in range(beads.n_beads)]
            if all(len(image) == 1 for image in images):
                moved = tuple(int(next(iter(image))) for image in images)
                onto.setdefault(moved)
                if moved == tuple(range(beads.n_beads)):
                    still.append(p)
        if settings.scales == "dual":
            # Atoms stay in the beads that they were placed by.
            atoms = ScaleGraph(atoms.features, atoms.pairs, atoms.pair_features, np.array(still))
        self.atoms = atoms
        self.beads = ScaleGraph.build(bead_features(nodes, beads), np.array(list(onto)), settings.beads.hops)

    def scale(self, name: str) -> ScaleGraph:
        """Of "beads" or "atoms"."""
        return self.beads if name == BEADS else self.atoms

    def mean_positions(self, atoms: np.ndarray) -> np.ndarray:
        """Beads (..., B, 3) of heavy atoms (..., n, 3)."""
        shares = (self.owner[None, :] == np.arange(self.beads.n)[:, None]).astype(float)
        return (shares / shares.sum(1, keepdims=True)) @ atoms


class ClusterGraph:
    """Molecules one after another, heavy atoms only.

    Parameters
    ----------
    molecules : sequence of MoleculeGraphs
        The species.
    order : sequence of int
        Species of every molecule.
    """

    def __init__(self, molecules: Sequence[MoleculeGraphs], order: Sequence[int] | np.ndarray) -> None:
        self.molecules, self.order = tuple(molecules), np.asarray(order, int)
        if not len(self.order):
            raise InputError("a cluster needs at least one molecule")
        self.settings = self.molecules[0].settings
        self._scales: dict[str, ClusterScale] = {}

    def scale(self, name: str) -> ClusterScale:
        """Of "beads" or "atoms"."""
        if name not in self._scales:
            self._scales[name] = ClusterScale([m.scale(name) for m in self.molecules], self.order)
        return self._scales[name]

    @cached_property
    def owner(self) -> np.ndarray:
        """Bead of every heavy atom of the cluster."""
        firsts = self.scale(BEADS).firsts
        return np.concatenate([self.molecules[s].owner + first for s, first in zip(self.order, firsts)])

    def bead_positions(self, atoms: np.ndarray) -> np.ndarray:
        """Beads (..., B, 3) of heavy atoms (..., N, 3)."""
        scale = self.scale(ATOMS)
        return np.concatenate(
            [
                self.molecules[s].mean_positions(atoms[..., first : first + self.molecules[s].atoms.n, :])
                for s, first in zip(self.order, scale.firsts)
            ],
            axis=-2,
        )


class ClusterScale:
    """The N points of a cluster at one scale."""

    def __init__(self, graphs: Sequence[ScaleGraph], order: np.ndarray) -> None:
        self.graphs, self.order = list(graphs), order
        chosen = [graphs[s] for s in order]
        sizes = np.array([g.n for g in chosen])
        self.firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self.n = int(sizes.sum())
        self.nodes = np.concatenate([g.features.nodes for g in chosen])
        self.molecule = np.repeat(np.arange(len(order)), sizes)
        self.pairs = np.concatenate([g.pairs + first for g, first in zip(chosen, self.firsts)], 1)
        self.pair_features = np.concatenate([g.pair_features for g in chosen])
        self.bonds = np.concatenate([g.features.bonds + first for g, first in zip(chosen, self.firsts)])

    @property
    def symmetries(self) -> list[np.ndarray]:
        """Renamings of each species."""
        return [g.symmetries for g in self.graphs]

    def prior(self, settings: ScaleSettings, anchored: bool) -> ClusterPrior:
        """Where this scale's points start."""
        made = []
        for g in self.graphs:
            # Without anchors σ is the spread of a molecule's centre under springs, not of each of its points.
            sigma = settings.sigma
            springs = settings.prior == "harmonic"
            if springs and not anchored:
                sigma *= g.n**0.5
            made.append(PointPrior(g.n, g.features.bonds, sigma, settings.bond_length if springs else 0.0))
        return ClusterPrior([made[s] for s in self.order])


class ClusterPrior:
    """The priors of molecules one after another."""

    def __init__(self, parts: Sequence[PointPrior]) -> None:
        self.parts = list(parts)
        self._ends = np.cumsum([p.n for p in parts])[:-1]
        self.variance = np.concatenate([p.variance for p in parts])

    def mean(self, anchors: np.ndarray) -> np.ndarray:
        """(N, 3) for anchors (N, 3)."""
        return self._each(lambda prior, rows: prior.mean(rows), np.split(anchors, self._ends))

    def noise(self, rng: np.random.Generator) -> np.ndarray:
        """Deviations (N, 3) from the mean."""
        return self._each(lambda prior, _: prior.noise(rng), [None] * len(self.parts))

    def _each(self, make: Any, rows: Sequence[Any]) -> np.ndarray:
        return np.concatenate([make(p, r) for p, r in zip(self.parts, rows)])
