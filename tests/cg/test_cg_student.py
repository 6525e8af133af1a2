"""The student network: invariances, handedness, forces, bounds, and the prior that holds the molecule together."""

import math

import numpy as np
import pytest
import torch
from bead_examples import fake_frames, tree
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refuses

from molflow_sim.cg import BeadFrames, CGNet, CGNetSettings, InternalCoordinates
from molflow_sim.cg.student.features import features_and_jacobian
from molflow_sim.cg.student.prior import PriorSettings
from molflow_sim.coarse import BeadTopology, backbone_topology
from molflow_sim.errors import InputError, MappingError, TrajectoryError
from molflow_sim.testing import validate_network
from molflow_sim.units import BOLTZMANN

SMALL = CGNetSettings(width=24, depth=3)
STAR = tree([0, 0, 0])
BRANCHED = tree([0, 1, 1, 3, 3])


def student(frames: BeadFrames, network: CGNetSettings = SMALL, seed: int = 0, gain: float = 1.0) -> CGNet:
    """An untrained network with weights that matter."""
    net = CGNet.from_data(frames.positions, frames.topology, frames.temperature, network, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in net.mlp.layers:
        layer.bias.data += 0.3 * torch.randn(layer.bias.shape, generator=generator)
        layer.weight.data *= gain
    return net.fold()


def double(frames: BeadFrames, n: int = 8) -> torch.Tensor:
    return torch.from_numpy(frames.positions[:n].astype(np.float64))


@pytest.mark.parametrize("seed", range(3))
def test_energies_pass_the_conformance_kit(seed):
    frames = fake_frames(topology=BRANCHED, seed=seed)
    net, x = student(frames), double(frames)
    validate_network(lambda arrays: {"energy": net.energy(arrays["x"])}, {"x": x}, vectors=["x"], shifted=["x"])


@pytest.mark.parametrize("topology", [backbone_topology(), BRANCHED], ids=["chain", "branched"])
def test_the_mirror_image_has_another_energy(topology):
    frames = fake_frames(topology=topology)
    net, x = student(frames), double(frames)
    mirror = x * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    assert ((net.energy(x) - net.energy(mirror)).abs() > 1e-4).all()


def test_the_handedness_of_a_branch_without_torsions_is_seen():
    rng = np.random.default_rng(0)
    x = np.array([[0.0, 0, 0.4], [1.4, 0, 0], [-0.7, 1.2, 0], [-0.7, -1.2, 0]]) + 0.05 * rng.normal(size=(200, 4, 3))
    net = student(BeadFrames.from_arrays(x, STAR, 300.0))
    y = torch.from_numpy(x[:8])
    assert ((net.energy(y) - net.energy(y * torch.tensor([1.0, 1.0, -1.0]))).abs() > 1e-4).all()


@pytest.mark.parametrize("topology", [backbone_topology(), BRANCHED, STAR], ids=["chain", "branched", "star"])
def test_forces_are_minus_the_gradient_by_finite_differences(topology):
    frames = fake_frames(topology=topology)
    net, x = student(frames), double(frames, 3).requires_grad_(True)
    (gradient,) = torch.autograd.grad(net.energy(x).sum(), x)
    step = 1e-4
    flat = x.detach().reshape(3, -1)
    eye = torch.eye(flat.shape[1], dtype=torch.float64) * step

    def energies(k: int) -> torch.Tensor:
        return net.energy((flat[:, None, :] + k * eye).reshape(-1, topology.n_beads, 3)).reshape(3, -1)

    # Fourth order, so that the difference's own error is out of the way.
    numeric = (8 * (energies(1) - energies(-1)) - (energies(2) - energies(-2))) / (12 * step)
    assert (numeric - gradient.reshape(3, -1)).abs().max() <= 1e-6 * gradient.abs().max()


def test_energy_and_force_are_continuous_where_a_torsion_passes_pi():
    topology = backbone_topology()
    net = student(fake_frames())
    to_cartesian = InternalCoordinates(topology).to_cartesian
    turn = torch.tensor([[math.pi - 1e-7, -1.0], [-math.pi + 1e-7, -1.0]], dtype=torch.float64)
    x, _ = to_cartesian(torch.full((2, 4), 1.45).double(), torch.full((2, 3), 2.0).double(), turn)
    energy, forces = net.energy_and_forces(x.numpy())
    assert abs(energy[0] - energy[1]) < 1e-6
    spread = [np.sort(np.linalg.norm(f, axis=1)) for f in forces]
    assert np.abs(spread[0] - spread[1]).max() < 1e-4


def test_forces_stay_bounded_when_three_beads_come_into_a_line():
    net = student(fake_frames())
    x = double(fake_frames(), 1).numpy()
    x[0, 2] = x[0, 1] + 1.45 * (x[0, 1] - x[0, 0]) / np.linalg.norm(x[0, 1] - x[0, 0]) + 1e-6
    _, forces = net.energy_and_forces(x)
    angle_k = float(net.prior.angle_k.max())
    assert np.abs(forces).max() < 10 * angle_k * math.pi


def test_the_jacobian_of_the_features_is_that_of_autograd():
    frames = fake_frames(topology=BRANCHED)
    net, x = student(frames), double(frames, 2)
    values, jacobian = features_and_jacobian(net.geometry, x)
    expected = torch.stack([torch.autograd.functional.jacobian(lambda y: net.geometry(y).features, y) for y in x])
    assert torch.allclose(values, net.geometry(x).features)
    assert torch.allclose(jacobian, expected.flatten(-2), atol=1e-12)


def test_features_of_the_fitted_frames_are_z_scored_and_the_stiff_ones_damped():
    frames = fake_frames()
    net = student(frames, CGNetSettings(width=8, depth=2, stiff_scale=0.1))
    z = (net.geometry(double(frames, 400)).features - net.mean) * net.scale
    expected = torch.ones(z.shape[1], dtype=torch.float64)
    expected[[0, 1, 4, 5, 7, 8, 9, 10, 11, 12]] = 0.1  # all but the pairs 0-3, 0-4, 1-4 and the torsions
    assert torch.allclose(z.mean(0), torch.zeros(z.shape[1], dtype=torch.float64), atol=1e-9)
    assert torch.allclose(z.std(0, unbiased=False), expected, atol=1e-6)


def test_weights_of_the_frames_count_in_the_statistics():
    frames = fake_frames()
    w = np.zeros(400)
    w[:100] = 2.0
    some = CGNet.from_data(frames.positions[:100], frames.topology, 300.0, SMALL)
    weighted = CGNet.from_data(frames.positions, frames.topology, 300.0, SMALL, weights=w)
    assert torch.allclose(some.mean, weighted.mean) and torch.allclose(some.prior.bond_k, weighted.prior.bond_k)


@given(st.floats(0.2, 20.0), st.integers(0, 100))
@settings(max_examples=15, deadline=None)
def test_every_layer_keeps_the_bound_after_folding_and_so_does_the_slope(gain, seed):
    bound = 2.0
    net = student(fake_frames(seed=seed), CGNetSettings(width=16, depth=3, lipschitz=bound), seed, gain)
    for layer in net.mlp.layers:
        assert float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2)) <= bound
    z = 3.0 * torch.randn(256, net.index.n_features, dtype=torch.float64)
    _, slope = net.mlp.with_gradient(z)
    assert float(slope.detach().norm(dim=1).max()) <= bound * (1 + bound) ** 2 * bound


def test_the_bound_acts_in_training_and_evaluation_before_it_is_folded():
    net = student(fake_frames(), CGNetSettings(width=16, depth=3, lipschitz=1.0))
    net.mlp.train()
    for layer in net.mlp.layers:
        layer.weight.data *= 10.0
    for _ in range(200):
        weights = net.mlp.effective(torch.float64)
    assert all(float(torch.linalg.matrix_norm(w.detach(), 2)) < 1.02 for w, _ in weights)
    z = torch.randn(8, net.index.n_features, dtype=torch.float64)
    before = net.mlp.eval()(z)
    assert torch.allclose(before, net.fold().mlp(z), atol=1e-5)


def test_the_written_gradient_of_the_network_is_that_of_autograd():
    net = student(fake_frames())
    z = torch.randn(16, net.index.n_features, dtype=torch.float64, requires_grad=True)
    y, slope = net.mlp.with_gradient(z)
    (expected,) = torch.autograd.grad(net.mlp(z).sum(), z)
    assert torch.allclose(y, net.mlp(z)) and torch.allclose(slope, expected)


def test_bonds_and_angles_are_as_stiff_as_the_data_say():
    frames = fake_frames(4000)
    net = student(frames)
    kT = BOLTZMANN * 300.0
    assert torch.allclose(net.prior.bond_r, torch.tensor(1.45, dtype=torch.float64), atol=0.005)
    assert torch.allclose(net.prior.bond_k, torch.tensor(kT / 0.03**2, dtype=torch.float64), rtol=0.1)
    assert torch.allclose(net.prior.angle_theta, torch.tensor(2.0, dtype=torch.float64), atol=0.01)
    assert torch.allclose(net.prior.angle_k, torch.tensor(kT / 0.05**2, dtype=torch.float64), rtol=0.1)


def test_stretched_bonds_and_crushed_beads_cost_far_more_than_500_kelvin_can_pay():
    frames = fake_frames()
    net = student(frames, gain=30.0)
    x = double(frames, 1)
    ground = float(net.energy(double(frames)).mean())
    hot = BOLTZMANN * 500.0
    stretched = x.clone()
    stretched[0, 0] += 1.5 * (x[0, 0] - x[0, 1])
    folded = x.clone()
    folded[0, 4] = x[0, 0] + 0.3
    for strained in (stretched, folded):
        assert float(net.energy(strained)) - ground > 100 * hot


def test_repulsion_is_one_kT_at_the_least_distance_of_the_data():
    frames = fake_frames()
    net = CGNet.from_data(frames.positions, frames.topology, 300.0, CGNetSettings(prior=PriorSettings(quantile=0.0)))
    least = torch.cdist(double(frames, 400), double(frames, 400))[:, 0, 4].min()
    pair = (net.index.pairs[net.prior.repelling] == [0, 4]).all(1)
    assert torch.allclose(net.prior.sigma[torch.from_numpy(pair)], least)


def test_constrained_bonds_are_named_and_settings_and_topologies_that_cannot_work_refused():
    frames = fake_frames()
    rigid = frames.positions.astype(np.float64)
    bond = rigid[:, 1] - rigid[:, 0]
    rigid[:, 0] = rigid[:, 1] - 1.5 * bond / np.linalg.norm(bond, axis=1, keepdims=True)
    refuses(TrajectoryError, "bond 0 hardly changes", CGNet.from_data, rigid, frames.topology, 300.0, SMALL)
    for settings_of, wrong in (
        (CGNetSettings, {"width": 0}),
        (CGNetSettings, {"precision": "half"}),
        (CGNetSettings, {"stiff_scale": 0.0}),
        (PriorSettings, {"quantile": 0.7}),
    ):
        refuses(InputError, next(iter(wrong)), settings_of, **wrong)
    with pytest.raises(MappingError):
        CGNet(BeadTopology(("A", "B"), np.ones(2), np.zeros((0, 2))), 300.0, SMALL)
