"""The coarse-grained force field in OpenMM: one energy through every door, ordinary Systems, independent copies."""

import pickle
import subprocess
import sys
import tomllib
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from cg_examples import backbone_frames, group_topology, save_model, small_net
from molflow_openmm import CGForceField, bead_topology, export_torchscript
from molflow_openmm.cg import force as cg_force
from molflow_openmm.cg.settings import CGSimulationSettings, temperature_ladder
from openmm import app, unit
from refusals import refuses

from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.errors import InputError, MissingDependencyError, WeightsError
from molflow_sim.units import BOLTZMANN, KJ_PER_MOL

REFERENCE = openmm.Platform.getPlatform("Reference")
GAS = BOLTZMANN / KJ_PER_MOL  # kJ/mol/K


@pytest.fixture(scope="module")
def forcefield(folder):
    return CGForceField.load(folder)


def context_of(system: openmm.System, positions: np.ndarray, integrator: openmm.Integrator | None = None):
    """A context on the Reference platform at positions (..., 3) in Å."""
    context = openmm.Context(system, integrator or openmm.VerletIntegrator(0.001), REFERENCE)
    context.setPositions(0.1 * np.asarray(positions, dtype=float).reshape(-1, 3))
    return context


def energy_and_forces(system: openmm.System, positions: np.ndarray) -> tuple[float, np.ndarray]:
    """What OpenMM says, in eV and eV/Å."""
    state = context_of(system, positions).getState(energy=True, forces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoules_per_mole)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoules_per_mole / unit.nanometer)
    return energy * KJ_PER_MOL, forces * KJ_PER_MOL / 10.0


def torch_energy_and_forces(net, positions: np.ndarray) -> tuple[float, np.ndarray]:
    x = torch.tensor(positions, dtype=torch.float64, requires_grad=True)
    energy = net.energy(x).sum()
    return energy.item(), -torch.autograd.grad(energy, x)[0].numpy()


@pytest.mark.parametrize("replicas", [1, 3])
def test_python_backend_gives_the_energy_and_forces_of_the_torch_model(forcefield, frames, replicas):
    x = frames.positions[:replicas]
    energy, forces = energy_and_forces(forcefield.createSystem(replicas=replicas), x)
    expected, expected_forces = torch_energy_and_forces(forcefield.forcefield, x)
    assert energy == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(forces.reshape(x.shape), expected_forces, rtol=1e-6, atol=1e-9)


def test_positions_read_the_slow_way_are_the_same(forcefield, frames, monkeypatch):
    """OpenMM's public accessor, for a version without the one it is built on."""
    x = frames.positions[:2]
    fast = energy_and_forces(forcefield.createSystem(replicas=2), x)
    monkeypatch.setattr(cg_force, "_read_positions", cg_force._positions_by_units)
    slow = energy_and_forces(forcefield.createSystem(replicas=2), x)
    assert fast[0] == slow[0] and np.array_equal(fast[1], slow[1])


def test_forces_are_the_gradient_of_the_energy_that_openmm_sees(forcefield, frames):
    system = forcefield.createSystem()
    x, step = frames.positions[7], 1e-4
    context = context_of(system, x)

    def energy(moved: np.ndarray) -> float:
        context.setPositions(0.1 * moved)
        return context.getState(energy=True).getPotentialEnergy()._value * KJ_PER_MOL

    numerical = np.zeros_like(x)
    for i, k in np.ndindex(x.shape):
        high, low = x.copy(), x.copy()
        high[i, k] += step
        low[i, k] -= step
        numerical[i, k] = -(energy(high) - energy(low)) / (2 * step)
    forces = energy_and_forces(system, x)[1]
    assert np.abs(forces - numerical).max() < 1e-6 * np.abs(forces).max()


@pytest.mark.parametrize(("precision", "tolerance"), [("double", 1e-9), ("single", 1e-4)])
def test_exported_torchscript_gives_the_same_energy_in_nm_and_kj_per_mol(
    folder, forcefield, frames, tmp_path, precision, tolerance
):
    path = export_torchscript(folder, tmp_path / "model.pt", replicas=2, precision=precision)
    module = torch.jit.load(str(path))
    for start in (0, 40):  # not the example it was traced with, nor one alone
        x = frames.positions[start : start + 2]
        nanometres = torch.tensor(0.1 * x.reshape(-1, 3), requires_grad=True)
        energy = module(nanometres)
        (gradient,) = torch.autograd.grad(energy, nanometres)
        expected, forces = torch_energy_and_forces(forcefield.forcefield, x)
        assert energy.item() * KJ_PER_MOL == pytest.approx(expected, rel=tolerance)
        scale = np.abs(forces).max()
        assert np.abs(-gradient.numpy().reshape(x.shape) * KJ_PER_MOL / 10 - forces).max() < 10 * tolerance * scale


def test_export_leaves_the_force_field_as_it_was(folder, tmp_path):
    forcefield = CGForceField.load(folder)
    before = {name: (value.dtype, value.clone()) for name, value in forcefield.forcefield.state_dict().items()}
    export_torchscript(forcefield, tmp_path / "model.pt", precision="single")
    for name, value in forcefield.forcefield.state_dict().items():
        assert value.dtype == before[name][0] and torch.equal(value, before[name][1])


def test_exported_file_needs_nothing_but_torch(folder, frames, tmp_path):
    path = export_torchscript(folder, tmp_path / "model.pt")
    script = (
        "import sys, torch; m = torch.jit.load(sys.argv[1]); print(float(m(torch.rand(5, 3).double())));"
        "assert not any(n.startswith('molflow') for n in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def test_system_holds_the_beads_masses_one_force_and_the_motion_remover(forcefield):
    system = forcefield.createSystem(forcefield.createTopology())
    masses = [system.getParticleMass(i)._value for i in range(system.getNumParticles())]
    assert masses == pytest.approx(forcefield.beads.masses)
    kinds = [type(force).__name__ for force in system.getForces()]
    assert kinds == ["PythonForce", "CMMotionRemover"]
    assert not system.usesPeriodicBoundaryConditions()
    assert forcefield.createSystem(removeCMMotion=False).getNumForces() == 1


def test_topology_carries_names_elements_residues_and_bonds_of_each_copy(forcefield):
    topology = bead_topology(forcefield.beads, replicas=2)
    atoms = list(topology.atoms())
    assert [a.name for a in atoms] == 2 * list(forcefield.beads.names)
    assert [a.element.symbol for a in atoms[:5]] == list(forcefield.beads.elements)
    assert [r.name for r in topology.residues()] == 2 * ["ACE", "ALA", "NME"]
    assert topology.getNumChains() == 2 and topology.getNumBonds() == 8


def test_beads_that_are_groups_keep_their_masses(tmp_path):
    beads = group_topology()
    net = small_net(backbone_frames(topology=beads))
    forcefield = CGForceField(net)
    system = forcefield.createSystem(forcefield.createTopology(2))
    assert [a.element for a in forcefield.createTopology().atoms()] == [None] * 5
    assert [system.getParticleMass(i)._value for i in range(10)] == pytest.approx(np.tile(beads.masses, 2))


def test_xml_round_trip_rebuilds_the_force_from_its_folder(forcefield, frames):
    system = forcefield.createSystem()
    text = openmm.XmlSerializer.serialize(system)
    again = openmm.XmlSerializer.deserialize(text)
    assert energy_and_forces(again, frames.positions[3])[0] == energy_and_forces(system, frames.positions[3])[0]
    assert openmm.XmlSerializer.serialize(again) == text


def test_xml_of_a_model_that_was_changed_since_is_refused(folder, frames, tmp_path):
    other = save_model(tmp_path / "other", small_net(frames))
    function = pickle.dumps(CGForceField.load(other).function())
    save_model(other, small_net(frames, seed=1))
    with pytest.raises(WeightsError, match="another one"):
        pickle.loads(function)  # noqa: S301 (made above)


def test_force_field_made_in_memory_works_but_says_why_it_cannot_be_pickled(frames):
    forcefield = CGForceField(small_net(frames))
    assert np.isfinite(energy_and_forces(forcefield.createSystem(), frames.positions[0])[0])
    refuses(pickle.PicklingError, r"CGForceField\.load", pickle.dumps, forcefield.function())


def test_checkpoint_brings_back_the_same_trajectory(forcefield, frames):
    integrator = openmm.LangevinMiddleIntegrator(300, 1.0, 0.002)
    integrator.setRandomNumberSeed(5)
    context = context_of(forcefield.createSystem(), frames.positions[0], integrator)
    context.setVelocitiesToTemperature(300, 1)
    integrator.step(20)
    checkpoint = context.createCheckpoint()
    integrator.step(50)
    first = context.getState(positions=True).getPositions(asNumpy=True)._value.copy()
    context.loadCheckpoint(checkpoint)
    integrator.step(50)
    assert np.array_equal(first, context.getState(positions=True).getPositions(asNumpy=True)._value)


def test_openmms_own_replica_exchange_sampler_runs(forcefield, frames, tmp_path):
    topology = forcefield.createTopology()
    integrator = openmm.LangevinMiddleIntegrator(300, 1.0, 0.002)
    simulation = app.Simulation(topology, forcefield.createSystem(topology), integrator, REFERENCE)
    simulation.context.setPositions(0.1 * frames.positions[0])
    states = [{"temperature": t * unit.kelvin} for t in temperature_ladder("300:500:3")]
    sampler = app.ReplicaExchangeSampler(states, simulation, 20)
    sampler.reporters.append(app.ReplicaExchangeReporter(str(tmp_path / "out"), 2, sampler, checkpoints=True))
    sampler.simulate(6)
    assert sampler.currentIteration == 6 and sorted(sampler.replicaStateIndex) == [0, 1, 2]
    energies = np.array(
        [[e.value_in_unit(unit.kilojoules_per_mole) for e in row] for row in sampler.replicaStateEnergy]
    )
    assert energies.shape == (3, 3) and np.isfinite(energies).all()


def test_copies_do_not_see_each_other_even_on_top_of_each_other(forcefield, frames):
    pair = forcefield.createSystem(replicas=2)
    a, b = frames.positions[:2]
    near = energy_and_forces(pair, np.stack([a, b]))
    far = energy_and_forces(pair, np.stack([a, b + 1000.0]))
    alone = [energy_and_forces(forcefield.createSystem(), x) for x in (a, b)]
    assert near[0] == pytest.approx(alone[0][0] + alone[1][0], rel=1e-12)
    assert far[0] == pytest.approx(near[0], rel=1e-9)
    np.testing.assert_allclose(near[1], np.concatenate([alone[0][1], alone[1][1]]), rtol=1e-10, atol=1e-12)


def test_several_copies_get_no_common_motion_remover(forcefield):
    system = forcefield.createSystem(replicas=4)
    assert [type(force).__name__ for force in system.getForces()] == ["PythonForce"]
    refuses(InputError, "couple", forcefield.createSystem, replicas=4, removeCMMotion=True)


def test_copies_are_read_off_a_topology_that_holds_several(forcefield):
    assert forcefield.createSystem(forcefield.createTopology(3)).getNumParticles() == 15
    assert forcefield.createSystem(forcefield.createTopology(), replicas=3).getNumParticles() == 15


def test_constant_energy_dynamics_does_not_drift(forcefield, frames):
    n, steps = 8, 8000  # 8 ps at 1 fs
    integrator = openmm.VerletIntegrator(0.001)
    context = context_of(forcefield.createSystem(replicas=n), frames.positions[:n], integrator)
    context.setVelocitiesToTemperature(300, 3)
    total = []
    for _ in range(steps // 20):
        integrator.step(20)
        state = context.getState(energy=True)
        total.append((state.getPotentialEnergy() + state.getKineticEnergy())._value / (GAS * 300))
    time = np.arange(len(total)) * 20e-6  # ns
    slope, offset = np.polyfit(time, total, 1)
    spread = np.std(np.array(total) - slope * time - offset) / np.sqrt(len(total)) * np.sqrt(12) / time[-1]
    # kT/ns/dof: no drift beyond what the fluctuation of the shadow energy makes of a slope over so short a run
    assert abs(slope) / (15 * n) < 5 * spread / (15 * n)
    assert np.ptp(total) / (15 * n) < 0.02


@pytest.fixture
def ml_potential(folder):
    mlpotential = pytest.importorskip("openmmml.mlpotential")
    from molflow_openmm.cg.openmmml_potential import CGPotentialImplFactory

    mlpotential.MLPotential.registerImplFactory("molflow-cg", CGPotentialImplFactory())
    return lambda **arguments: mlpotential.MLPotential("molflow-cg", **{"modelPath": str(folder), **arguments})


def test_entry_point_names_the_factory():
    pytest.importorskip("openmmml")
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    target = tomllib.loads(project.read_text())["project"]["entry-points"]["openmmml.potentials"]["molflow-cg"]
    module, name = target.split(":")
    assert hasattr(getattr(import_module(module), name)(), "createImpl")


def test_openmm_ml_makes_the_same_system(ml_potential, forcefield, frames):
    system = ml_potential().createSystem(forcefield.createTopology())
    ours = forcefield.createSystem()
    assert energy_and_forces(system, frames.positions[0])[0] == energy_and_forces(ours, frames.positions[0])[0]
    assert sorted(type(f).__name__ for f in system.getForces()) == ["CMMotionRemover", "PythonForce"]


def test_openmm_ml_does_not_freeze_beads_without_an_element(ml_potential, tmp_path):
    beads = group_topology()
    model = save_model(tmp_path, small_net(backbone_frames(topology=beads)))
    system = ml_potential(modelPath=model).createSystem(bead_topology(beads))
    assert [system.getParticleMass(i)._value for i in range(5)] == pytest.approx(beads.masses)


def test_openmm_ml_puts_the_molecule_beside_other_particles(ml_potential, forcefield, frames):
    topology = forcefield.createTopology()
    residue = topology.addResidue("AR", topology.addChain())
    topology.addAtom("AR", app.element.argon, residue)
    mm = openmm.System()
    for _ in range(6):
        mm.addParticle(12.0)
    system = ml_potential().createMixedSystem(topology, mm, list(range(5)))
    x = np.concatenate([frames.positions[0], [[30.0, 0.0, 0.0]]])
    energy, forces = energy_and_forces(system, x)
    assert energy == pytest.approx(torch_energy_and_forces(forcefield.forcefield, frames.positions[:1])[0])
    assert not forces[5].any()


def test_openmm_ml_names_what_it_does_not_understand(ml_potential, forcefield):
    refuses(InputError, "modelPath", ml_potential, modelPath=None)
    refuses(InputError, "flavour", ml_potential, flavour=1)
    refuses(InputError, "colour", ml_potential().createSystem, forcefield.createTopology(), colour="red")


def test_package_is_light_until_it_is_used():
    """openmm-ml imports this package at every start, by its entry point."""
    script = (
        "import sys, molflow_openmm; heavy = {'torch', 'rdkit', 'ase', 'pandas', 'openmm'} & set(sys.modules);"
        "assert not heavy, heavy; from molflow_openmm.crystal.simulate import simulate as a;"
        "from molflow_openmm import simulate as b; assert a is b and callable(b)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def test_topologies_of_other_molecules_and_bad_arguments_are_refused(forcefield):
    beads = forcefield.beads
    short = BeadTopology(beads.names[:4], beads.masses[:4], beads.bonds[:3])
    renamed = BeadTopology(("X", *beads.names[1:]), beads.masses, beads.bonds)
    branched = BeadTopology(beads.names, beads.masses, np.array([[0, 1], [1, 2], [2, 3], [2, 4]]))
    for other, message in ((short, "4 atoms"), (renamed, "called X"), (branched, "bonds")):
        refuses(InputError, message, forcefield.createSystem, bead_topology(other))
        refuses(InputError, "beads", forcefield.createSystem, other)
    refuses(InputError, "3 copies", forcefield.createSystem, forcefield.createTopology(3), replicas=2)
    for replicas in (0, 1.5, True):
        refuses(InputError, "replicas", forcefield.createSystem, replicas=replicas)
    with pytest.raises(InputError, match="backend must be one of python, torchforce"):
        forcefield.createSystem(backend="jax")


def test_missing_and_damaged_models_and_positions_that_are_not_finite_are_refused(folder, tmp_path, frames, forcefield):
    with pytest.raises(WeightsError):
        CGForceField.load(tmp_path)
    damaged = save_model(tmp_path, small_net(frames))
    data = (damaged / "student.safetensors").read_bytes()
    (damaged / "student.safetensors").write_bytes(data[:-3])
    refuses(WeightsError, "SHA-256", CGForceField.load, damaged)
    x = frames.positions[0].copy()
    x[2, 1] = np.nan
    refuses(openmm.OpenMMException, "finite", energy_and_forces, forcefield.createSystem(), x)


def test_torchforce_says_what_to_install_where_it_cannot_run(forcefield):
    try:
        system = forcefield.createSystem(backend="torchforce")
    except MissingDependencyError as error:
        assert "openmm-torch" in str(error) and "torch" in str(error)
    else:
        assert system.getNumForces() == 2


def test_temperatures_are_a_number_a_list_or_a_geometric_ladder():
    assert temperature_ladder(300) == (300.0,) and temperature_ladder("300,400") == (300.0, 400.0)
    ladder = temperature_ladder("300:500:4")
    assert ladder[0] == 300 and ladder[-1] == pytest.approx(500)
    assert np.allclose([b / a for a, b in pairwise(ladder)], (500 / 300) ** (1 / 3))
    for bad in ("300:500", "hot", "500:300:4", (400, 300), (300, 300), (), -1, "300:500:1", float("nan")):
        with pytest.raises(InputError):
            temperature_ladder(bad)


def test_exchanges_are_spread_evenly_over_a_report_and_settings_that_cannot_work_refused():
    for bad in (
        {"ns": 0},
        {"timestep_fs": -1},
        {"report_every_ps": 1e-4},
        {"seed": -1},
        {"replicas": 0},
        {"backend": "x"},
    ):
        with pytest.raises(InputError):
            CGSimulationSettings(**bad)
    settings = CGSimulationSettings(temperatures="300:500:3", report_every_ps=5, exchange_every_ps=1)
    assert settings.chunks == [500] * 5
    assert CGSimulationSettings(report_every_ps=5).chunks == [2500]
    assert sum(CGSimulationSettings(temperatures="300:500:3", report_every_ps=1, exchange_every_ps=0.3).chunks) == 500
