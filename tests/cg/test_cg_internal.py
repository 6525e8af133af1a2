"""Internal coordinates: standard for chains, complete for trees, and exact in their volume change."""

import math

import mdtraj
import numpy as np
import pytest
import torch
from bead_examples import random_internal, tree, trees
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refuses

from molflow_sim.cg import InternalCoordinates
from molflow_sim.coarse import BeadTopology
from molflow_sim.errors import MappingError, NonFiniteError

torch.set_num_threads(1)
seeds = st.integers(0, 2**32 - 1)
STAR = tree([0, 0, 0])


def random_positions(n: int, seed: int, frames: int = 4) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=(frames, n, 3)) * 2.0)


def test_a_chain_gets_the_usual_bonds_angles_and_dihedrals():
    chain = InternalCoordinates(tree([0, 1, 2, 3]))
    assert chain.bonds.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert chain.angles.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert chain.torsions.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]] and not chain.is_improper.any()


def test_a_branch_is_turned_against_the_first_bead_of_the_fork():
    # 0-1-2 with 3 and 4 both on 2, where 3 goes on to 5: the longer branch comes first.
    branch = InternalCoordinates(tree([0, 1, 2, 2, 3]))
    assert branch.order.tolist() == [0, 1, 2, 3, 5, 4]
    assert branch.torsions.tolist() == [[0, 1, 2, 3], [1, 2, 3, 5], [3, 1, 2, 4]]
    assert branch.is_improper.tolist() == [False, False, True]


@given(trees(smallest=2), seeds)
def test_positions_are_rebuilt_up_to_rigid_motion_and_never_mirrored(topology, seed):
    internal = InternalCoordinates(topology)
    x = random_positions(topology.n_beads, seed)
    bonds, angles, torsions, log_det = internal.to_internal(x)
    y, log_det_back = internal.to_cartesian(bonds, angles, torsions)
    assert torch.allclose(torch.cdist(x, x), torch.cdist(y, y), atol=1e-7)
    assert torch.allclose(log_det, log_det_back, atol=1e-6)
    if topology.n_beads > 3:  # the same handedness: signed volumes, not only distances
        u, v, w, m = (z[:, 1:4] - z[:, :1] for z in (x, x, y, y))
        assert torch.allclose(torch.linalg.det(u), torch.linalg.det(w), atol=1e-6)
        assert torch.allclose(torch.linalg.det(v), torch.linalg.det(m), atol=1e-6)


@given(trees(), seeds)
@settings(max_examples=40, deadline=None)
def test_the_log_determinant_is_that_of_the_full_jacobian(topology, seed):
    internal = InternalCoordinates(topology)
    n = topology.n_beads
    bonds, angles, torsions = (q[0] for q in random_internal(topology, seed, frames=1))
    q = torch.cat([bonds, angles, torsions])

    def place(parameters):  # internal coordinates, then three small rotations and three translations
        turn, shift, inner = parameters[:3], parameters[3:6], parameters[6:]
        x, _ = internal.to_cartesian(inner[: n - 1], inner[n - 1 : 2 * n - 3], inner[2 * n - 3 :])
        return (x + torch.linalg.cross(turn.expand_as(x), x) + shift).reshape(-1)

    jacobian = torch.autograd.functional.jacobian(place, torch.cat([q.new_zeros(6), q]))
    _, expected = torch.linalg.slogdet(jacobian)
    _, log_det = internal.to_cartesian(bonds, angles, torsions)
    assert log_det.item() == pytest.approx(expected.item(), abs=1e-9)


@given(trees(), seeds)
@settings(max_examples=25, deadline=None)
def test_forces_through_the_coordinates_are_minus_the_slope_of_the_energy(topology, seed):
    internal = InternalCoordinates(topology)
    x, _ = internal.to_cartesian(*random_internal(topology, seed, frames=1))

    def energy(x):
        bonds, angles, torsions, log_det = internal.to_internal(x)
        return (
            (bonds - 1.5).square().sum(-1) + angles.cos().sum(-1) + (torsions.sin() + torsions.cos()).sum(-1) + log_det
        )

    x.requires_grad_(True)
    (slope,) = torch.autograd.grad(energy(x).sum(), x)
    direction = torch.tensor(np.random.default_rng(seed).normal(size=x.shape))
    direction /= direction.norm()
    with torch.no_grad():
        h = 1e-5  # fourth order, so that the quotient itself is good to 1e-9
        e = [energy(x + k * h * direction).item() for k in (-2, -1, 1, 2)]
    quotient = (e[0] - 8 * e[1] + 8 * e[2] - e[3]) / (12 * h)
    assert (slope * direction).sum().item() == pytest.approx(quotient, rel=1e-6, abs=1e-7 * slope.norm().item())


@pytest.mark.parametrize("topology", [tree([0, 1, 2, 3]), STAR, tree([0, 1, 1, 2])], ids=["chain", "star", "branch"])
def test_both_directions_are_differentiable_twice(topology):
    internal = InternalCoordinates(topology)
    q = tuple(v.requires_grad_(True) for v in random_internal(topology, 3, frames=2))
    assert torch.autograd.gradcheck(internal.to_cartesian, q)
    assert torch.autograd.gradgradcheck(internal.to_cartesian, q)
    x = internal.to_cartesian(*q)[0].detach().requires_grad_(True)
    assert torch.autograd.gradcheck(internal.to_internal, x)
    assert torch.autograd.gradgradcheck(internal.to_internal, x)


@given(seeds)
def test_torsions_have_the_sign_that_mdtraj_gives_them(seed):
    topology = tree([0, 1, 2, 2, 3])
    x = random_positions(6, seed)
    internal = InternalCoordinates(topology)
    trajectory = mdtraj.Trajectory(x.numpy(), topology.to_mdtraj())
    expected = mdtraj.compute_dihedrals(trajectory, internal.torsions)
    difference = internal.to_internal(x)[2].numpy() - expected
    assert np.abs(np.exp(1j * difference) - 1).max() < 1e-3  # mdtraj computes in float32


@given(trees(smallest=4), seeds)
def test_a_mirror_image_has_every_torsion_reversed(topology, seed):
    internal = InternalCoordinates(topology)
    x = random_positions(topology.n_beads, seed)
    bonds, angles, torsions, log_det = internal.to_internal(x)
    mirrored = internal.to_internal(x * torch.tensor([1.0, 1.0, -1.0]))
    assert torch.allclose(bonds, mirrored[0]) and torch.allclose(angles, mirrored[1], atol=1e-6)
    assert torch.allclose(torch.exp(1j * torsions), torch.exp(-1j * mirrored[2]), atol=1e-6)
    assert torch.allclose(log_det, mirrored[3])


@given(trees(), seeds)
def test_internal_coordinates_do_not_see_rotation_and_translation(topology, seed):
    internal = InternalCoordinates(topology)
    x = random_positions(topology.n_beads, seed)
    rotation = torch.linalg.qr(random_positions(3, seed + 1, 1)[0])[0]
    rotation = rotation * torch.linalg.det(rotation)
    moved = internal.to_internal(x @ rotation + 7.0)
    for a, b in zip(internal.to_internal(x), moved):
        assert torch.allclose(torch.exp(1j * a), torch.exp(1j * b), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_precision_and_leading_dimensions_are_kept(dtype, shape):
    internal = InternalCoordinates(STAR)
    x = torch.randn(*shape, 4, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    *q, log_det = internal.to_internal(x)
    y, _ = internal.to_cartesian(*q)
    assert [v.shape for v in q] == [(*shape, 3), (*shape, 2), (*shape, 1)] and log_det.shape == shape
    assert y.shape == x.shape and {v.dtype for v in (*q, log_det, y)} == {dtype}


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("near", [0.0, math.pi])
def test_nearly_straight_angles_stay_accurate(gap, near):
    internal = InternalCoordinates(tree([0, 1, 2]))
    angle = near + (gap if near == 0.0 else -gap)
    given_values = ([[1.0, 1.1, 1.2]], [[angle, 1.7]], [[0.4]])
    x, log_det = internal.to_cartesian(*(torch.tensor(v, dtype=torch.float64) for v in given_values))
    _, angles, torsions, back = internal.to_internal(x)
    assert angles[0, 0].item() == pytest.approx(angle, abs=1e-9 * max(gap / 1e-6, 1))
    assert math.sin(angles[0, 0].item()) == pytest.approx(gap, rel=1e-3)
    assert torsions.item() == pytest.approx(0.4, abs=1e-7)
    assert back.item() == pytest.approx(log_det.item(), abs=1e-6)


def test_beads_in_a_line_or_at_one_point_and_nan_are_errors_that_name_them():
    internal = InternalCoordinates(tree([0, 1, 2]))
    x = random_positions(4, 0, frames=3)
    x[1, 2] = 2 * x[1, 1] - x[1, 0]
    refuses(NonFiniteError, r"frame 1: beads CG1-B0, CG1-B1, CG1-B2 lie in a line", internal.to_internal, x)
    assert internal.to_internal(x, check=False)[3][1] < -30  # a density of zero, not a number that looks fine
    x = random_positions(4, 0)
    x[2, 3] = x[2, 2]
    refuses(NonFiniteError, "frame 2: beads CG1-B2, CG1-B3 lie at one point", internal.to_internal, x)
    x[0, 0, 0] = math.nan
    refuses(NonFiniteError, "frame 0", internal.to_internal, x)


@pytest.mark.parametrize(
    "bond, angle", [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (1.0, math.pi), (1.0, 4.0), (1.0, math.nan)]
)
def test_values_outside_the_coordinates_ranges_are_refused(bond, angle):
    internal = InternalCoordinates(tree([0, 1]))
    with pytest.raises(NonFiniteError, match="frame 0"):
        internal.to_cartesian(torch.tensor([[bond, 1.0]]), torch.tensor([[angle]]), torch.zeros(1, 0))


@pytest.mark.parametrize(
    "bonds, message",
    [([(0, 1), (2, 3)], "2 parts"), ([(0, 1), (1, 2), (0, 2), (2, 3)], r"ring \(CG1-B0, CG1-B1, CG1-B2\)")],
)
def test_only_trees_have_internal_coordinates(bonds, message):
    with pytest.raises(MappingError, match=message):
        InternalCoordinates(BeadTopology(("B0", "B1", "B2", "B3"), np.ones(4), np.array(bonds)))
