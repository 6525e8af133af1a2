"""The compiled evaluation: the same function as the torch model, safe with threads, and it conserves energy."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from bead_examples import fake_frames, tree
from refusals import refuses
from test_cg_student import student

from molflow_sim.cg import CGNet, CGNetSettings
from molflow_sim.cg.frames import BeadFrames
from molflow_sim.cg.student.fused import FusedCGNet
from molflow_sim.cg.student.langevin import Langevin
from molflow_sim.coarse import backbone_topology
from molflow_sim.errors import InputError, NonFiniteError
from molflow_sim.units import BOLTZMANN


def by_torch(net: CGNet, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = torch.from_numpy(positions).requires_grad_(True)
    energy = net.energy(x)
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    return energy.detach().numpy(), -gradient.numpy()


def frames_of(net: CGNet, n: int, seed: int = 0) -> np.ndarray:
    """Frames like those of the fit, and some far from them."""
    x = fake_frames(max(n, 2), seed, net.topology).positions[:n].astype(np.float64)
    return x + np.random.default_rng(seed).normal(size=x.shape) * np.linspace(0.0, 0.15, n)[:, None, None]


@pytest.mark.parametrize("replicas", [1, 2, 9, 16, 37, 100])
def test_energies_and_forces_are_those_of_torch(replicas):
    net = student(fake_frames(), CGNetSettings(width=40, depth=4), gain=1.5)
    x = frames_of(net, replicas)
    energy, forces = net.energy_and_forces(x)
    expected, slope = by_torch(net, x)
    assert np.abs(energy - expected).max() <= 1e-10 * np.abs(expected).max()
    assert np.abs(forces - slope).max() <= 1e-9 * np.abs(slope).max()


@pytest.mark.parametrize(
    ("topology", "width", "depth"),
    [(tree([0]), 8, 1), (tree([0, 1]), 5, 2), (tree([0, 0, 0]), 33, 3), (tree([0, 1, 1, 3, 3, 2, 0]), 17, 2)],
    ids=["pair", "three", "star", "branched"],
)
@pytest.mark.parametrize("replicas", [1, 16])
def test_any_tree_and_any_width_will_do(topology, width, depth, replicas):
    net = student(_jittered(topology), CGNetSettings(width=width, depth=depth))
    x = _jittered(topology).positions[:replicas].astype(np.float64)
    energy, forces = net.energy_and_forces(x)
    expected, slope = by_torch(net, x)
    assert np.allclose(energy, expected, rtol=1e-10, atol=1e-12)
    assert np.allclose(forces, slope, rtol=0, atol=1e-9 * np.abs(slope).max())


def _jittered(topology):
    rng = np.random.default_rng(1)
    one = fake_frames(1, 3, topology).positions if topology.n_beads > 2 else np.array([[[0.0, 0, 0], [1.4, 0, 0]]])
    return BeadFrames.from_arrays(one + 0.04 * rng.normal(size=(200, topology.n_beads, 3)), topology, 300.0)


def test_a_replica_does_not_depend_on_its_place_or_its_company():
    net = student(fake_frames())
    x = frames_of(net, 50)
    energy, forces = net.energy_and_forces(x)
    order = np.random.default_rng(0).permutation(50)
    shuffled = net.energy_and_forces(x[order])
    assert np.allclose(shuffled[0], energy[order], rtol=1e-13) and np.allclose(shuffled[1], forces[order], atol=1e-12)
    alone = [net.energy_and_forces(one[None]) for one in x]
    assert np.allclose(np.concatenate([a[0] for a in alone]), energy, rtol=1e-12)


def test_single_precision_is_offered_and_close():
    net = student(fake_frames())
    x = frames_of(net, 70)
    energy, forces = FusedCGNet(net, "single")(x)
    expected, slope = by_torch(net, x)
    assert np.abs(energy - expected).max() <= 1e-5
    assert 0.0 < np.abs(forces - slope).max() <= 1e-5 * np.abs(slope).max()
    assert np.array_equal(net.with_precision("single").energy_and_forces(x)[0], energy)
    assert np.allclose(net.with_precision("double").energy_and_forces(x)[0], expected, rtol=1e-12)
    with pytest.raises(InputError):
        net.with_precision("half")


def test_a_network_in_double_precision_loses_nothing():
    net = student(fake_frames())
    net.mlp.double()
    for layer in net.mlp.layers:
        layer.weight.data *= 1.0 + 1e-9 * torch.rand_like(layer.weight)
    x = frames_of(net, 1)
    energy, _ = FusedCGNet(net)(x)
    assert abs(energy[0] - by_torch(net, x)[0][0]) <= 1e-12 * abs(energy[0])


def test_several_threads_may_call_at_once():
    net = student(fake_frames())
    x = [frames_of(net, 40, seed) for seed in range(8)]
    expected = [net.energy_and_forces(one) for one in x]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for found, known in zip(pool.map(net.energy_and_forces, x), expected):
                assert np.array_equal(found[0], known[0]) and np.array_equal(found[1], known[1])


def test_more_torch_threads_give_the_same_numbers():
    net = student(fake_frames())
    x = frames_of(net, 130)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = net.energy_and_forces(x)
        torch.set_num_threads(2)
        two = net.energy_and_forces(x)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])


@pytest.mark.parametrize("replicas", [1, 16, 40])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_positions_that_are_not_finite_are_an_error_that_names_the_replica(replicas, bad):
    net = student(fake_frames())
    x = frames_of(net, replicas)
    x[replicas - 1, 3, 1] = bad
    refuses(NonFiniteError, f"replica {replicas - 1} ", net.energy_and_forces, x)


def test_beads_at_one_point_and_other_shapes_are_refused_and_no_replicas_give_no_energies():
    net = student(fake_frames())
    x = frames_of(net, 3)
    x[1, 2] = x[1, 0]
    refuses(NonFiniteError, "replica 1 ", net.energy_and_forces, x)
    for shape in ((5, 3), (2, 4, 3), (2, 5, 2)):
        refuses(InputError, "shape", net.energy_and_forces, np.zeros(shape))
    energy, forces = student(fake_frames()).energy_and_forces(np.zeros((0, 5, 3)))
    assert energy.shape == (0,) and forces.shape == (0, 5, 3)


def test_new_weights_are_seen_after_training():
    net = student(fake_frames())
    x = frames_of(net, 4)
    old = net.energy_and_forces(x)[0]
    net.train()
    net.mlp.output.bias.data += 1.0
    net.fold()
    assert np.allclose(net.energy_and_forces(x)[0] - old, net.kT, rtol=1e-6)


def modified_energy(run: Langevin, step: float = 1e-3) -> np.ndarray:
    """The energy that velocity Verlet conserves to fourth order in the time step, per replica, eV.

    H + Δt²/12 vᵀ(∇²V)v - Δt²/24 Fᵀ M⁻¹ F (Hairer, Lubich and Wanner, Geometric Numerical Integration, ch. IX): a drift
    shows in it long before it does in H, which the integrator makes oscillate.
    """
    x, v, h = run.positions, run.velocities, run.time_step
    there, back = (run.energy_and_forces(x + s * v)[1] for s in (step, -step))
    curvature = -(v * (there - back)).sum(axis=(1, 2)) / (2.0 * step)
    square = (run._forces**2 * run._inverse).sum(axis=(1, 2))
    return run.energies + 0.5 * (v**2 / run._inverse).sum(axis=(1, 2)) + h * h * (curvature / 12.0 - square / 24.0)


@pytest.mark.parametrize("topology", [backbone_topology(), tree([0, 1, 1, 3])], ids=["chain", "branched"])
def test_energy_is_conserved_without_a_thermostat(topology):
    """Velocity Verlet in short steps, looked at through the energy that it conserves to fourth order.

    At 1 fs the oscillation of the energy hides a drift of this size for nanoseconds; at 0.25 fs it is 256 times
    smaller, and forces that are no gradient would drift all the same.
    """
    net = student(_jittered(topology), CGNetSettings(width=16, depth=2))
    x = _jittered(topology).positions[:64].astype(np.float64)
    run = Langevin(net.energy_and_forces, x, np.full(topology.n_beads, 13.0), 300.0, time_step=0.25, friction=0.0)
    run.run(1000)
    energies = []
    for _ in range(400):
        run.run(40)
        energies.append(modified_energy(run))
    time = 10e-6 * np.arange(len(energies))
    in_kT = np.array(energies) / (BOLTZMANN * 300.0 * (3 * topology.n_beads - 6))
    slope = np.polyfit(time, in_kT, 1)[0]
    error = slope.std() / np.sqrt(len(slope))
    assert error < 1e-5 and abs(slope.mean()) < 1e-5 + 3 * error
