"""Ends of paths brought close to their starts, and springs as a prior."""

import numpy as np
import pytest
from frame_examples import small_turn

from molflow_sim.flow.couplings import align_clusters
from molflow_sim.flow.priors import PointPrior

RING = np.array([np.roll(np.arange(4), k) for k in range(4)])
NONE = np.arange(4)[None]


def test_what_was_renamed_exchanged_and_turned_is_found_again():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(5, 4, 3)) + 5.0 * rng.normal(size=(5, 1, 3))
    start -= start.reshape(-1, 3).mean(0)
    turned = start @ small_turn(rng).T
    end = np.stack([turned[k][RING[rng.integers(4)]] for k in rng.permutation(5)])
    found = align_clusters(end.reshape(-1, 3), start.reshape(-1, 3), np.zeros(5, int), [RING])
    assert np.allclose(found, start.reshape(-1, 3))


def test_unlike_molecules_are_not_exchanged_and_options_switch_off():
    rng = np.random.default_rng(1)
    start = rng.normal(size=(3 * 4, 3))
    end = np.roll(start.reshape(3, 4, 3), 1, 0).reshape(-1, 3)
    kinds = np.array([0, 1, 2])
    alone = align_clusters(end, start, kinds, [NONE] * 3, rotate=False)
    assert np.array_equal(alone, end)
    assert np.array_equal(align_clusters(end, start, kinds * 0, [NONE], exchange=False, rotate=False), end)
    assert np.allclose(align_clusters(end, start, kinds * 0, [NONE], rotate=False), start)


@pytest.mark.parametrize("seed", range(5))
def test_alignment_never_takes_ends_further_away(seed):
    rng = np.random.default_rng(seed)
    start, end = rng.normal(size=(2, 20, 3))
    start -= start.mean(0)
    end -= end.mean(0)
    found = align_clusters(end, start, np.zeros(5, int), [RING])
    assert ((found - start) ** 2).sum() <= ((end - start) ** 2).sum() + 1e-9


def test_springs_have_the_distribution_that_they_say():
    bonds = np.array([[0, 1], [1, 2], [2, 3]])
    prior = PointPrior(4, bonds, sigma=3.0, bond_length=1.5)
    rng = np.random.default_rng(0)
    x = prior.noise(rng, (20_000,))
    covariance = np.einsum("fix,fjx->ij", x, x) / (3 * len(x))
    k = 3.0 / 1.5**2
    laplacian = np.array([[1, -1, 0, 0], [-1, 2, -1, 0], [0, -1, 2, -1], [0, 0, -1, 1]])
    expected = np.linalg.inv(k * laplacian + np.eye(4) / 9.0)
    assert np.allclose(covariance, expected, atol=0.15)
    assert np.allclose(prior.variance, np.diag(expected))
    lengths = np.sqrt(((x[:, 0] - x[:, 1]) ** 2).sum(-1).mean())
    assert lengths == pytest.approx(1.5, rel=0.05)


def test_anchored_springs_pull_neighbours_to_one_another_and_keep_a_common_anchor():
    prior = PointPrior(3, np.array([[0, 1], [1, 2]]), sigma=1.0, bond_length=1.5)
    anchors = np.array([[0.0, 0, 0], [0, 0, 0], [4.0, 0, 0]])
    mean = prior.mean(anchors)
    assert 0 < mean[0, 0] < mean[1, 0] < mean[2, 0] < 4.0
    assert np.allclose(prior.mean(np.ones((3, 3))), 1.0)
    assert np.array_equal(PointPrior(3, np.zeros((0, 2), int), 2.0, 1.5).mean(anchors), anchors)
