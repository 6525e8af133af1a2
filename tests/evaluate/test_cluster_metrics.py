"""Metrics of clusters: what is the same scores zero whatever it is called; contacts are those between molecules."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from molflow_sim.evaluate.clusters import CORE, contacts, matched_rmsd, packing_matching

RNG = np.random.default_rng(0)
BODY = np.array([[0.0, 0, 0], [1.2, 0, 0], [1.8, 1.1, 0], [2.0, 1.3, 1.2]])
NUMBERS = np.array([6, 6, 8, 1])


def cluster(n: int = 9, spacing: float = 5.0) -> np.ndarray:
    """Molecules (n, 4, 3) on a distorted grid, turned at random; the middle one first."""
    grid = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    grid = grid[np.argsort(np.linalg.norm(grid, axis=1), kind="stable")][:n]
    turns = Rotation.random(n, random_state=1).as_matrix()
    centres = spacing * grid + np.random.default_rng(2).normal(scale=0.3, size=(n, 3))
    return np.einsum("nij,kj->nki", turns, BODY - BODY.mean(0)) + centres[:, None]


def test_packing_matching_is_the_difference_of_distances_with_labels_as_they_are():
    x = cluster()
    turn = Rotation.random(random_state=3).as_matrix()
    assert packing_matching(x, x @ turn.T + 7.0) == pytest.approx((0.0, 0.0), abs=1e-9)
    assert packing_matching(x, -x) == pytest.approx((0.0, 0.0), abs=1e-9)
    atom, centre = packing_matching(x, x[RNG.permutation(len(x))])
    assert atom > 1.0 and centre > 1.0, "the truth with other labels is no match"
    two = np.array([[[0.0, 0, 0]], [[3.0, 0, 0]]])
    assert packing_matching(two, 2.0 * two)[0] == pytest.approx(3.0 / np.sqrt(2.0))


def test_a_match_does_not_depend_on_labels_place_or_hand():
    x = cluster()
    turn = Rotation.random(random_state=4).as_matrix()
    for hand in (1.0, -1.0):
        other = (hand * x[RNG.permutation(len(x))]) @ turn.T + [3.0, -2.0, 1.0]
        assert matched_rmsd(x, other) == pytest.approx(0.0, abs=1e-6)
    noisy = x + 0.2 * RNG.normal(size=x.shape)
    assert 0.2 < matched_rmsd(x, noisy) < 0.45
    assert matched_rmsd(x, 1.4 * x) > 1.0


def test_a_core_matches_where_the_rest_does_not():
    x = cluster(12)
    other = x.copy()
    other[CORE:] += 6.0 * RNG.normal(size=(len(x) - CORE, 1, 3))
    assert matched_rmsd(x, other, molecules=CORE) < 1e-6 < matched_rmsd(x, other)


def test_atoms_that_are_alike_may_change_names():
    x = cluster()
    swapped = x.copy()
    swapped[3] = swapped[3][[0, 1, 3, 2]]
    names = np.array([[0, 1, 2, 3], [0, 1, 3, 2]])
    assert matched_rmsd(x, swapped, names) < 1e-6 < matched_rmsd(x, swapped)


def test_contacts_between_molecules_are_told_from_bonds():
    x = cluster()
    apart = contacts(NUMBERS, x)
    assert apart.separation_published == 1.0 and apart.collision == 0.0 and apart.closest > 1.5
    bonds_and_diagonal = 2 * 3 + 4  # of every molecule
    assert apart.collision_published == pytest.approx(len(x) * bonds_and_diagonal / (4 * len(x)) ** 2, rel=0.35)
    x[1] = x[0] + 0.1
    touching = contacts(NUMBERS, x)
    pairs = len(x) * (len(x) - 1) / 2
    assert touching.collision == pytest.approx(1 / pairs) and touching.closest == pytest.approx(0.1 * 3**0.5)
    assert touching.separation_published == pytest.approx(1 - 1 / pairs)
