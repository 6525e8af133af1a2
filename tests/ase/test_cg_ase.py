"""Coarse-grained models as ASE calculators: the same numbers as torch and OpenMM, in eV and Å, recomputed when due."""

import math

import ase
import numpy as np
import openmm
import pytest
import torch
from ase import units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet
from cg_examples import backbone_frames, group_topology, small_net
from molflow_ase import CGCalculator, FlowCalculator, bead_atoms
from molflow_openmm import CGForceField
from refusals import refuses

from molflow_sim.cg.teacher import BeadFlow, TeacherSettings
from molflow_sim.errors import InputError, NonFiniteError, WeightsError
from molflow_sim.units import BOLTZMANN, KJ_PER_MOL


@pytest.fixture(scope="module")
def calculator(folder):
    return CGCalculator(folder)


@pytest.fixture(scope="module")
def flow(frames):
    return BeadFlow.from_frames(frames, TeacherSettings(hidden=(16,)))


def numerical_forces(atoms: ase.Atoms, step: float = 3e-4) -> np.ndarray:
    """Central differences of fourth order: the flow's energy is curved enough to spoil those of second."""
    forces = np.zeros((len(atoms), 3))
    for i, k in np.ndindex(forces.shape):
        for shift, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.positions[i, k] += shift * step
            forces[i, k] -= weight * moved.get_potential_energy() / (12 * step)
    return forces


def test_force_field_gives_the_numbers_of_torch_and_openmm(folder, calculator, frames):
    x = frames.positions[3]
    atoms = bead_atoms(frames.topology, x, calculator)
    tensor = torch.tensor(x, requires_grad=True)
    expected = calculator.forcefield.energy(tensor)
    (gradient,) = torch.autograd.grad(expected, tensor)
    assert atoms.get_potential_energy() == pytest.approx(expected.item(), rel=1e-9)
    np.testing.assert_allclose(atoms.get_forces(), -gradient.numpy(), rtol=1e-6, atol=1e-9)
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(CGForceField.load(folder).createSystem(), openmm.VerletIntegrator(0.001), platform)
    context.setPositions(0.1 * x)
    in_openmm = context.getState(energy=True).getPotentialEnergy()._value * KJ_PER_MOL
    assert atoms.get_potential_energy() == pytest.approx(in_openmm, rel=1e-9)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert atoms.get_forces().dtype == np.float64


@pytest.mark.parametrize("model", ["force field", "fixed", "importance"])
def test_forces_are_the_gradient_of_the_energy(flow, calculator, frames, model):
    used = calculator if model == "force field" else FlowCalculator(flow, model, n_augmentations=4)
    atoms = bead_atoms(frames.topology, frames.positions[5], used)
    forces = atoms.get_forces()
    assert np.abs(forces - numerical_forces(atoms)).max() < 1e-6 * np.abs(forces).max()


def test_flow_energy_is_minus_kT_times_the_joint_log_density_at_the_augmentation_of_its_seed(flow, frames):
    x = torch.tensor(frames.positions[2])
    calculator = FlowCalculator(flow, seed=3)
    eta = calculator.eta[0]
    expected = -BOLTZMANN * 300.0 * calculator.flow.joint_log_prob(x, eta).item()
    atoms = bead_atoms(frames.topology, frames.positions[2], calculator)
    assert atoms.get_potential_energy() == pytest.approx(expected, rel=1e-12)
    assert torch.equal(FlowCalculator(flow, seed=3).eta, calculator.eta)
    assert not torch.equal(FlowCalculator(flow, seed=4).eta, calculator.eta)


def test_importance_estimate_of_the_flow_tends_to_one_value_whatever_the_seed(flow, frames):
    def spread(count: int) -> float:
        atoms = bead_atoms(frames.topology, frames.positions[2])
        energies = []
        for seed in range(6):
            atoms.calc = FlowCalculator(flow, "importance", count, seed)
            energies.append(atoms.get_potential_energy())
        return float(np.std(energies)) / (BOLTZMANN * 300.0)

    assert spread(2000) < 0.1 and spread(2000) < 0.5 * spread(4)


def test_flow_handed_in_stays_in_single_precision(flow, frames):
    FlowCalculator(flow)
    assert flow.bond_mean.dtype == torch.float32


def test_parameters_that_no_longer_count_are_not_taken(flow):
    with pytest.raises(InputError, match="augmentation"):
        FlowCalculator(flow).set(augmentation="importance")


def test_flow_without_augmentation_has_one_energy(frames):
    flow = BeadFlow.from_frames(frames, TeacherSettings(hidden=(16,), n_augmentations=0))
    energies = [
        bead_atoms(frames.topology, frames.positions[0], FlowCalculator(flow, kind, 3, seed)).get_potential_energy()
        for kind, seed in (("fixed", 0), ("fixed", 1), ("importance", 2))
    ]
    assert energies[0] == energies[1] and energies[2] == pytest.approx(energies[0], rel=1e-12)


def test_no_stress_is_offered(calculator, frames):
    atoms = bead_atoms(frames.topology, frames.positions[0], calculator)
    assert "stress" not in calculator.implemented_properties
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_moved_beads_are_noticed_and_what_does_not_matter_is_not(folder, frames):
    calculator = CGCalculator(folder)
    atoms = bead_atoms(frames.topology, frames.positions[0], calculator)
    first = atoms.get_potential_energy()
    results = calculator.results
    atoms.set_cell([50, 50, 50])
    atoms.set_initial_charges([0.1] * 5)
    assert atoms.get_potential_energy() == first and calculator.results is results
    atoms.positions[1, 0] += 0.01
    assert calculator.check_state(atoms) == ["positions"]
    assert atoms.get_potential_energy() != first
    atoms.numbers[0] = 8
    refuses(InputError, "atom 0 is O", atoms.get_potential_energy)


def test_beads_that_are_groups_have_their_masses_and_no_element():
    beads = group_topology()
    frames = backbone_frames(topology=beads)
    atoms = bead_atoms(beads, frames.positions[0], CGCalculator(small_net(frames)))
    assert atoms.get_masses() == pytest.approx(beads.masses)
    assert (atoms.numbers == 0).all() and math.isfinite(atoms.get_potential_energy())


def test_dynamics_in_ase_keeps_its_energy(calculator, frames):
    atoms = bead_atoms(frames.topology, frames.positions[0], calculator)
    atoms.set_velocities(np.random.default_rng(0).normal(scale=0.03, size=(5, 3)))
    dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
    energies = []
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()), interval=5)
    dynamics.run(1000)
    assert np.ptp(energies) < 0.005 and abs(np.mean(energies[:50]) - np.mean(energies[-50:])) < 0.001


def test_what_cannot_be_evaluated_is_a_named_error(calculator, flow, frames, tmp_path):
    x = frames.positions[0].copy()
    refuses(InputError, "4 atoms", ase.Atoms("CNCC", x[:4], calculator=calculator).get_potential_energy)
    with pytest.raises(InputError, match="pbc"):
        ase.Atoms("CNCCN", x, cell=[20, 20, 20], pbc=True, calculator=calculator).get_potential_energy()
    x[2] = np.nan
    for model in (calculator, FlowCalculator(flow)):
        with pytest.raises(NonFiniteError):
            bead_atoms(frames.topology, x, model).get_potential_energy()
    with pytest.raises(WeightsError):
        CGCalculator(tmp_path)
    with pytest.raises(WeightsError):
        FlowCalculator(tmp_path)
    refuses(InputError, "augmentation", FlowCalculator, flow, "mean")
    refuses(InputError, "at least 1", FlowCalculator, flow, "importance", 0)
