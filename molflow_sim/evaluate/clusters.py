"""How like two clusters of one molecule are, and how well the molecules of one keep apart.

Packing matching (PM) is what Liu et al. (CrystalFlow, 2024) publish: the root mean square difference of all distances,
labels as they are. It is saturated: the true packing with its molecules in another order scores about what published
models do. Judge by `matched_rmsd`, by contacts, and by the energy after relaxation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist

from molflow_sim.geometry.superposition import kabsch

CORE = 8
"""Molecules of 17 that must match for a cluster to have a crystal's core."""
CORE_RMSD = 1.0
"""Å up to which they do."""
FAR = 4.0
"""Å; molecules further off than this do not match, and do not disturb the assignment of those that do."""
SEPARATED = 0.5
"""Å between the closest atoms of two molecules from which AssembleFlow counts them as separated."""


def packing_matching(true: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """PM of atoms and of centres in Å, as published.

    Parameters
    ----------
    true, predicted : ndarray (n, N, 3)
        Atoms of n molecules, in the same order. Centres are means over the atoms.

    Returns
    -------
    atom, centre : float
        √(mean((D − D')²)) over all entries of the distance matrices, zeros of the diagonal included.
    """

    def difference(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(2.0 * ((pdist(a) - pdist(b)) ** 2).sum() / len(a) ** 2))

    return difference(true.reshape(-1, 3), predicted.reshape(-1, 3)), difference(true.mean(1), predicted.mean(1))


def matched_rmsd(
    true: np.ndarray, predicted: np.ndarray, renamings: np.ndarray | None = None, molecules: int | None = None
) -> float:
    """RMSD in Å of the molecules that match best, whatever they are called.

    Each predicted molecule is laid on the middle one of the true cluster; molecules are then assigned (Hungarian), the
    best are superposed together and assigned again. Mirror images count.

    Parameters
    ----------
    true, predicted : ndarray (n, N, 3)
        Å, the middle molecule of the true cluster first. Leave hydrogens out where X-rays placed them.
    renamings : ndarray (P, N) of int, optional
        Orders of a molecule's atoms that are the same molecule, the identity among them.
    molecules : int, optional
        How many must match; all of them if not given.
    """
    n = len(true)
    count = n if molecules is None else min(molecules, n)
    names = np.arange(true.shape[1])[None] if renamings is None else np.asarray(renamings)
    best = np.inf
    for hand in (1.0, -1.0):
        moving = hand * predicted
        for molecule in range(n):
            for name in names:
                source, target = moving[molecule], true[0][name]
                turn = kabsch(source - source.mean(0), target - target.mean(0))
                x = (moving - source.mean(0)) @ turn.T + target.mean(0)
                best = min(best, _refined(true, x, names, count))
    return best


def _refined(true: np.ndarray, x: np.ndarray, names: np.ndarray, count: int) -> float:
    """RMSD of the best `count` molecules after superposing them together, twice."""
    laid, target = x, true
    for _ in range(2):
        # mean squared distance of molecule i to j, by the best naming
        options = ((x[:, None, None] - true[:, names][None]) ** 2).sum(-1).mean(-1)
        naming, cost = options.argmin(-1), options.min(-1)
        rows, columns = linear_sum_assignment(np.minimum(cost, FAR**2))
        chosen = np.argsort(cost[rows, columns])[:count]
        i, j = rows[chosen], columns[chosen]
        target = true[j[:, None], names[naming[i, j]]].reshape(-1, 3)
        source = x[i].reshape(-1, 3)
        turn = kabsch(source - source.mean(0), target - target.mean(0))
        x = (x - source.mean(0)) @ turn.T + target.mean(0)
        laid = x[i].reshape(-1, 3)
    return float(np.sqrt(((laid - target) ** 2).sum(1).mean()))


@dataclass(frozen=True)
class Contacts:
    """How the molecules of a cluster keep apart.

    Attributes
    ----------
    collision_published : float
        Share of all ordered pairs of atoms, bonded ones and the diagonal included, that are closer than their summed
        covalent radii.
    separation_published : float
        Share of the pairs of molecules whose closest atoms are more than `SEPARATED` Å apart.
    collision : float
        Share of the pairs of molecules with atoms closer than their summed covalent radii.
    closest : float
        Å, between atoms of different molecules.
    """

    collision_published: float
    separation_published: float
    collision: float
    closest: float


def contacts(numbers: np.ndarray, molecules: Sequence[np.ndarray] | np.ndarray) -> Contacts:
    """Contacts of n molecules (n, N, 3) in Å of one species with atomic numbers (N,), in open space."""
    x = np.asarray(molecules)
    n, size = x.shape[:2]
    radii = covalent_radii[np.asarray(numbers)]
    limit = radii[:, None] + radii
    distance = cdist(x.reshape(-1, 3), x.reshape(-1, 3)).reshape(n, size, n, size).transpose(0, 2, 1, 3)
    pairs = np.triu_indices(n, 1)
    between = distance[pairs]
    return Contacts(
        collision_published=float((distance < limit).mean()),
        separation_published=float((between.min((1, 2)) > SEPARATED).mean()),
        collision=float((between < limit).any((1, 2)).mean()),
        closest=float(between.min()),
    )
