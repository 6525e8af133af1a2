"""Molecules parted where they lie in one another, and drawn together into a sphere.

Between molecules a soft overlap alone, as in the first stage of the press: where atoms of two molecules nearly
coincide, the forces of a force field are so much larger than those of bonds that its minimiser mostly leaves them in
one another.
Time and memory for a molecule are the same in clusters of any size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from molflow_sim.forcefield import MoleculeParameters
from molflow_sim.forcefield.mmff_compiled import mmff_molecules
from molflow_sim.packing.tables import contact_distances
from molflow_sim.relax.clusters import RigidBodies, minimised, plain
from molflow_sim.systems.cluster import MolecularCluster
from molflow_sim.units import KJ_PER_MOL

STIFFNESS = 200.0 * KJ_PER_MOL
"""eV/Å², k of the overlap and of the wall."""
SKIN = 1.0
"""Å; pairs are listed anew when an atom has moved by half of it."""
GRADIENT = 0.05
"""eV/Å; largest component that is left at the end."""


class SoftOverlap:
    """MMFF94 within molecules, k (contact - r)² between atoms of two closer than free of overlap, and a wall.

    Parameters
    ----------
    cluster : MolecularCluster
        In open space.
    parameters : sequence of MoleculeParameters
        Of its species.
    radius : float
        Å, of a sphere about the origin; an atom outside has k (distance from the sphere)².
    """

    def __init__(
        self, cluster: MolecularCluster, parameters: Sequence[MoleculeParameters], radius: float = np.inf
    ) -> None:
        species = cluster.species
        firsts = np.cumsum([0, *(m.n_atoms for m in species)])
        bonds = np.concatenate([m.bonds.reshape(-1, 2) + first for m, first in zip(species, firsts)])
        self._contact = contact_distances(np.concatenate([m.numbers for m in species]), bonds)
        self._kind = np.concatenate([firsts[s] + np.arange(species[s].n_atoms) for s in cluster.order])
        self._owner, self._radius = cluster.molecule_index, radius
        self._runs = [(p.mmff, cluster.firsts[cluster.order == s]) for s, p in enumerate(parameters)]
        self._listed: np.ndarray | None = None

    def __call__(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy in eV and forces (N, 3) in eV/Å at positions (N, 3) in Å."""
        x, energy, forces = np.ascontiguousarray(positions), 0.0, np.zeros_like(positions)
        for terms, firsts in self._runs:
            own, gradient, _ = mmff_molecules(terms, x, firsts)
            energy += float(own.sum())
            forces[firsts[:, None] + np.arange(terms.n_atoms)] -= gradient
        i, j, contact = self._near(x)
        d = x[i] - x[j]
        r = np.sqrt((d * d).sum(1)).clip(1e-9)
        inside = r < contact
        i, j, d, r, contact = i[inside], j[inside], d[inside], r[inside], contact[inside]
        energy += STIFFNESS * float(((contact - r) ** 2).sum())
        push = (2.0 * STIFFNESS * (contact - r) / r)[:, None] * d
        np.add.at(forces, i, push)
        np.add.at(forces, j, -push)
        if np.isfinite(self._radius):
            far = np.linalg.norm(x, axis=1).clip(1e-9)
            out = (far - self._radius).clip(0.0)
            energy += STIFFNESS * float((out**2).sum())
            forces -= (2.0 * STIFFNESS * out / far)[:, None] * x
        return energy, forces

    def _near(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of different molecules that may overlap, and the distances at which they do not."""
        if self._listed is None or np.abs(x - self._listed).max() > 0.5 * SKIN / 3.0**0.5:
            i, j = cKDTree(x).query_pairs(self._contact.max() + SKIN, output_type="ndarray").T
            other = self._owner[i] != self._owner[j]
            i, j = i[other], j[other]
            self._listed, self._pairs = x.copy(), (i, j, self._contact[self._kind[i], self._kind[j]])
        return self._pairs


def parted(
    cluster: MolecularCluster,
    parameters: Sequence[MoleculeParameters],
    *,
    steps: int = 200,
    radius: float = np.inf,
    rigid: bool = False,
) -> MolecularCluster:
    """The cluster with its molecules in shape (MMFF94) and free of overlaps, as far as some steps go.

    Parameters
    ----------
    cluster : MolecularCluster
        In open space.
    parameters : sequence of MoleculeParameters
        Of its species.
    steps : int
        Evaluations at most, of each stage.
    radius : float
        Å, of a sphere about the origin into which the atoms are drawn.
    rigid : bool
        Move the molecules as rigid bodies first: for those that have far to go.
    """
    soft, x = SoftOverlap(cluster, parameters, radius), cluster.positions
    if rigid:
        body = RigidBodies(cluster, x)
        x = body.positions(minimised(lambda q: body.energy(q, soft), body.zero, GRADIENT, steps, steps).x)[0]
    found = minimised(lambda q: plain(q, soft), x.ravel(), GRADIENT, steps, steps)
    return cluster.with_positions(found.x.reshape(-1, 3))
