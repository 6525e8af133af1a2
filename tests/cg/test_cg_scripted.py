"""The CGnet with its forces written out in torch operations, against the model it was made from."""

import numpy as np
import pytest
import torch
from bead_examples import chain
from cg_examples import backbone_frames, group_topology, small_net
from molflow_openmm import CGForceField, export_torchscript
from molflow_openmm.cg.torch import script
from refusals import refuses
from torch import nn

from molflow_sim.cg.student.cgnet import CGNet, CGNetSettings
from molflow_sim.cg.student.prior import PriorSettings
from molflow_sim.cg.student.scripted import ScriptedCGNet
from molflow_sim.errors import InputError
from molflow_sim.units import KJ_PER_MOL

TOLERANCE = {"double": 1e-10, "single": 1e-5}


def reference(net: CGNet, x: np.ndarray) -> tuple[float, np.ndarray]:
    """Total energy (eV) and forces (eV/Å) by autograd."""
    positions = torch.tensor(x, requires_grad=True)
    energy = net.energy(positions).sum()
    return energy.item(), -torch.autograd.grad(energy, positions)[0].numpy()


def worst(energy: float, forces: np.ndarray, net: CGNet, x: np.ndarray) -> float:
    """Largest relative deviation of energy and forces from the model's."""
    expected, expected_forces = reference(net, x)
    force = np.abs(forces.reshape(x.shape) - expected_forces).max() / np.abs(expected_forces).max()
    return max(abs(energy / expected - 1.0), force)


@pytest.fixture(scope="module")
def net(frames):
    return small_net(frames)


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("replicas", [1, 4])
@pytest.mark.parametrize("topology", [chain(4), chain(7), group_topology()], ids=["four", "seven", "branched"])
def test_energy_and_forces_are_those_of_the_model(topology, replicas, precision):
    data = backbone_frames(topology=topology)
    settings = CGNetSettings(width=24, depth=2, lipschitz=0.7, prior=PriorSettings(min_separation=2, exponent=8))
    net = CGNet.from_data(data.positions, topology, 300.0, settings)
    with torch.no_grad():
        net.mlp.output.bias.fill_(0.3)
        net.mlp.hidden[1].bias.normal_()
    module = ScriptedCGNet(net, replicas, precision)
    for start in (0, 50):
        x = data.positions[start : start + replicas]
        energy, forces = module(torch.from_numpy(x.reshape(-1, 3)))
        assert worst(energy.item(), forces.numpy(), net, x) < TOLERANCE[precision]


@pytest.mark.parametrize("n", [2, 3])
def test_molecules_without_torsions_or_angles_work(n):
    x = np.cumsum(np.random.default_rng(1).normal(1.0, 0.1, (100, n, 3)) * [[1.0, 0.3, -0.2]], axis=1)
    x[:, -1, 1] += 0.8
    net = CGNet.from_data(x, chain(n), 300.0, CGNetSettings(width=8, depth=1))
    energy, forces = ScriptedCGNet(net, 2, "double")(torch.from_numpy(x[:2].reshape(-1, 3)))
    assert worst(energy.item(), forces.numpy(), net, x[:2]) < 1e-10


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("forces", [True, False], ids=["energy and forces", "energy"])
@pytest.mark.parametrize("replicas", [1, 3])
def test_compiled_module_gives_the_same_call_after_call(frames, net, replicas, forces, precision):
    # TorchScript rewrites a module after its first calls, and TorchForce's positions require gradients.
    module = script(net, replicas, precision, forces=forces)
    for k in range(6):
        x = frames.positions[k : k + replicas]
        positions = torch.tensor(0.1 * x.reshape(-1, 3), requires_grad=True)
        if forces:
            energy, force = module(positions)
            assert not force.requires_grad
        else:
            energy = module(positions)
            energy.backward()
            force = -positions.grad
        found = energy.item() * KJ_PER_MOL, force.numpy() * KJ_PER_MOL / 10
        assert worst(*found, net, x) < TOLERANCE[precision]


def test_exported_file_with_forces_gives_both(frames, net, tmp_path):
    module = torch.jit.load(str(export_torchscript(CGForceField(net), tmp_path / "model.pt", forces=True)))
    x = frames.positions[3:4]
    energy, forces = module(torch.from_numpy(0.1 * x[0]))
    assert worst(energy.item() * KJ_PER_MOL, forces.numpy() * KJ_PER_MOL / 10, net, x) < 1e-10


def test_asking_the_exported_energy_for_second_derivatives_is_an_error_and_no_zero(frames, net):
    module = script(net)
    positions = torch.tensor(0.1 * frames.positions[0], requires_grad=True)
    (gradient,) = torch.autograd.grad(module(positions), positions, create_graph=True)
    refuses(RuntimeError, "does not require grad", torch.autograd.grad, gradient.sum(), positions)


def test_positions_in_single_precision_are_taken(frames, net):
    energy, forces = script(net, forces=True)(torch.tensor(0.1 * frames.positions[0]).float())
    assert worst(energy.item() * KJ_PER_MOL, forces.numpy() * KJ_PER_MOL / 10, net, frames.positions[:1]) < 1e-3


def test_another_force_field_is_exported_with_its_energy_alone(frames, net):
    class Spring(nn.Module):
        kind, topology, temperature = "spring", net.topology, 300.0

        def energy(self, positions):
            return positions.square().sum((-1, -2))

    spring = Spring()
    x = torch.tensor(0.1 * frames.positions[0])
    assert script(spring)(x).item() == pytest.approx(100.0 * float(x.square().sum()) / KJ_PER_MOL)
    refuses(InputError, "forces of a Spring are not written out", script, spring, forces=True)
