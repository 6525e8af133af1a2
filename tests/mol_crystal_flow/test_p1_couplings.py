"""Couplings pair the right molecules in the right direction, and paths have the velocities they claim."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from p1_examples import TINY, data, random_state, same_crystal

from molflow_sim.flow.manifolds import rotation_distance, rotation_step, wrap
from molflow_sim.models.mol_crystal_flow import P1Batch, P1Settings
from molflow_sim.models.mol_crystal_flow.batch import Poses
from molflow_sim.models.mol_crystal_flow.couplings import assign, couple
from molflow_sim.models.mol_crystal_flow.interpolants import draw_prior, interpolate, make_path

F64 = torch.float64
seeds = st.integers(0, 10_000)


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _prior(batch: P1Batch, chosen: P1Settings = TINY, seed: int = 0) -> Poses:
    return draw_prior(batch.volume, batch.poses.chi, chosen, _rng(seed))


@given(seed=seeds, size=st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_trap_2_the_assignment_is_the_cheapest_permutation_and_not_its_inverse(seed, size):
    cost = np.random.default_rng(seed).random((size, size))
    source = assign(cost, np.zeros(size, dtype=int))
    rows = np.arange(size)
    least = min(cost[rows, list(p)].sum() for p in permutations(range(size)))
    assert cost[rows, source].sum() == pytest.approx(least)


def test_trap_2_a_ring_of_three_is_undone_the_right_way_round():
    """Targets are the prior moved around a ring: the inverse permutation would leave long paths."""
    target = torch.tensor([[0.1, 0.1, 0.1], [0.4, 0.4, 0.4], [0.8, 0.8, 0.8], [0.6, 0.1, 0.1]])
    ring = [2, 0, 1, 3]
    prior = target[ring]
    cost = (wrap(target[:, None] - prior[None]) ** 2).sum(-1).numpy()
    source = assign(cost, np.zeros(4, dtype=int))
    assert torch.equal(prior[torch.as_tensor(source)], target)
    inverse = np.argsort(source)
    assert not torch.equal(prior[torch.as_tensor(inverse)], target)


def test_molecules_are_exchanged_inside_their_group_only():
    cost = np.array([[9.0, 9, 0, 0], [9, 9, 0, 0], [0, 0, 9, 9], [0, 0, 9, 9]])
    assert set(assign(cost, np.array([0, 0, 1, 1]))[:2]) == {0, 1}
    assert set(assign(cost, np.array([0, 0, 1, 1]))[2:]) == {2, 3}
    assert assign(cost, np.array([0, 0, -1, -1]))[2:].tolist() == [2, 3]


@given(seed=seeds, align=st.booleans())
@settings(max_examples=6, deadline=None)
def test_coupling_never_changes_the_crystal_and_only_reorders_the_prior(seed, align):
    batch = data().batch([0, 2, 4], inverted=[False, True, False])
    chosen = P1Settings(align_origin=align)
    prior = _prior(batch, chosen, seed)
    moved, target = couple(prior, batch, chosen)
    for k in range(3):
        assert same_crystal(batch, batch.with_poses(target), tolerance=0.02, k=k)
        real = batch.mask[k]
        for before, after in ((prior.frac, moved.frac), (prior.rotation, moved.rotation)):
            rows = {tuple(np.round(x.flatten().tolist(), 5)) for x in before[k][real]}
            assert rows == {tuple(np.round(x.flatten().tolist(), 5)) for x in after[k][real]}
    assert torch.allclose(torch.linalg.det(target.rotation), torch.ones(()), atol=1e-4)


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_coupled_paths_are_shorter_and_groups_are_kept(seed):
    batch = data().batch([1, 3, 4])
    prior = _prior(batch, TINY, seed)
    real = batch.mask

    def lengths(chosen: P1Settings) -> tuple[float, float]:
        start, end = couple(prior, batch, chosen)
        turn = rotation_distance(start.rotation, end.rotation)[real].pow(2).sum()
        return float(wrap(end.frac - start.frac)[real].pow(2).sum()), float(turn)

    plain, transported, aligned = (
        lengths(P1Settings(optimal_transport=ot, align_origin=al)) for ot, al in ((0, 0), (1, 0), (1, 1))
    )
    assert transported[0] <= plain[0] + 1e-5 and transported[1] <= plain[1] + 1e-4
    assert aligned[1] == pytest.approx(transported[1], rel=1e-4)
    # A prior molecule never goes to one of the other hand: aspirin's cell holds two of each.
    hand = batch.poses.hand[2]
    start, _ = couple(prior, batch, TINY)
    for h in (-1.0, 1.0):
        before = prior.rotation[2][hand == h].flatten(1)
        after = start.rotation[2][hand == h].flatten(1)
        assert torch.cdist(before, after).min(1).values.max() < 1e-5


def test_a_symmetric_molecule_takes_the_shorter_of_its_equivalent_turns():
    """Acetonitrile about its threefold axis: no path turns further than it has to."""
    batch = data().batch([2])
    symmetry = batch.shapes.symmetry[0]
    assert len(symmetry) == 3
    prior = _prior(batch, TINY, 1)
    prior = Poses(prior.cell, prior.frac, batch.poses.rotation @ symmetry[1], prior.chi)
    start, end = couple(prior, batch, TINY)
    assert rotation_distance(start.rotation, end.rotation).max() < 1e-3
    assert same_crystal(batch, batch.with_poses(end), tolerance=0.02)


@given(seed=seeds, t=st.floats(0.05, 0.95))
@settings(max_examples=20, deadline=None)
def test_velocities_of_the_path_are_its_derivatives(seed, t):
    batch = random_state(seed)
    prior = _prior(batch, TINY, seed).to(F64)
    h = 1e-5
    times = [torch.full((3,), x, dtype=F64) for x in (t - h, t, t + h)]
    (before, _), (now, velocity), (after, _) = (interpolate(prior, batch.poses, x, batch.mask) for x in times)
    mask = batch.mask[..., None]
    assert torch.allclose((after.cell - before.cell) / (2 * h), velocity.cell, atol=1e-7)
    moving = wrap(after.frac - before.frac) / (2 * h) * mask
    common = moving.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
    assert torch.allclose((moving - common) * mask, velocity.frac, atol=1e-7)
    stepped = rotation_step(now.rotation, velocity.omega, h)
    assert ((stepped - after.rotation).abs().amax((-1, -2)) * batch.mask).max() < 1e-8


def test_the_path_ends_at_the_crystal():
    batch = data().batch([0, 3, 4])
    path = make_path(batch, TINY, _rng(0), t=torch.ones(3))
    assert all(same_crystal(batch, path.batch, tolerance=0.02, k=k) for k in range(3))
    assert torch.allclose(path.batch.poses.cell, batch.poses.cell, atol=1e-5)


def test_padding_moves_nowhere():
    path = make_path(data().batch([0, 2]), TINY, _rng(0))
    empty = ~path.batch.mask
    assert empty.any()
    assert path.velocity.omega[empty].abs().max() == 0 and path.velocity.frac[empty].abs().max() == 0
