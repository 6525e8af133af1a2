"""Clusters in OpenMM: one potential, open or periodic, with stock forces or compiled loops."""

import dataclasses
from functools import partial

import numpy as np
import openmm
import pytest
from molflow_openmm import clusterSystem
from molflow_openmm.cluster.drift import drift
from molflow_openmm.cluster.recipe import Recipe, split_frames, together
from molflow_openmm.cluster.system import standard_frame
from molflow_openmm.run import integrate

from molflow_sim import Molecule
from molflow_sim.errors import InputError
from molflow_sim.packing.clusters import random_cluster
from molflow_sim.units import KJ_PER_MOL


@pytest.fixture(scope="module")
def molecules() -> list[Molecule]:
    return [Molecule.from_smiles(s, n_conformers=1) for s in ("CC(N)=O", "O")]


@pytest.fixture(scope="module")
def droplet(molecules):
    return random_cluster(molecules, [4, 3], density=0.8, seed=1)


def context(system, positions, timestep=5e-4, platform="CPU") -> openmm.Context:
    made = openmm.Context(system, openmm.VerletIntegrator(timestep), openmm.Platform.getPlatformByName(platform))
    made.setPositions(positions)
    return made


def energy_and_forces(system, positions, platform="CPU"):
    """kJ/mol and kJ/mol/nm."""
    state = context(system, positions, platform=platform).getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def test_a_droplet_has_the_same_energy_and_forces_in_both_systems(droplet):
    _, custom, x = clusterSystem(droplet)
    _, compiled, _ = clusterSystem(droplet, compiled=True)
    energy, forces = energy_and_forces(custom, x, "Reference")
    got, pull = energy_and_forces(compiled, x)
    assert got == pytest.approx(energy, rel=1e-5)
    assert np.linalg.norm(pull - forces) < 1e-4 * np.linalg.norm(forces)
    whole = [[list(m) for m in context(system, x).getMolecules()] for system in (custom, compiled)]
    assert whole[0] == whole[1] and len(whole[1]) == 4 + 3, "barostats and boxes take molecules as wholes"


def test_a_droplet_has_the_energy_of_the_ase_calculator(droplet):
    from molflow_ase import ClusterCalculator

    atoms = droplet.to_ase()
    atoms.calc = ClusterCalculator()
    _, compiled, x = clusterSystem(droplet, compiled=True)
    energy, forces = energy_and_forces(compiled, x)
    assert energy * KJ_PER_MOL == pytest.approx(atoms.get_potential_energy(), rel=1e-5)
    expected = atoms.get_forces() / KJ_PER_MOL * 10.0
    assert np.linalg.norm(forces - expected) < 1e-4 * np.linalg.norm(expected)


def test_a_skewed_box_may_stand_in_any_frame(molecules):
    cell = np.array([[2.0, 14.0, 1.0], [13.5, -1.0, 2.0], [0.5, 3.0, 15.0]])  # left-handed
    box = dataclasses.replace(random_cluster(molecules, [4, 3], density=0.3, seed=2), cell=cell)
    _, custom, x = clusterSystem(box, nonbondedCutoff=0.6, ewaldErrorTolerance=2e-4)
    _, compiled, y = clusterSystem(box, nonbondedCutoff=0.6, ewaldErrorTolerance=2e-4, compiled=True)
    energy, forces = energy_and_forces(custom, x, "Reference")
    got, pull = energy_and_forces(compiled, y)
    assert got == pytest.approx(energy, rel=1e-5)
    assert np.linalg.norm(pull - forces) < 1e-4 * np.linalg.norm(forces)
    turned, turn = standard_frame(cell)
    assert np.allclose(turned[np.triu_indices(3, 1)], 0.0) and (np.diag(turned) > 0).all()
    assert np.allclose(turn @ turn.T, np.eye(3)) and np.linalg.det(turn) == pytest.approx(1.0)


def test_a_small_box_is_refused_by_stock_forces_and_taken_by_compiled_loops(molecules):
    box = random_cluster(molecules, [2, 1], density=0.3, periodic=True, seed=3)
    with pytest.raises(InputError, match=r"holds a cutoff of at most .* compiled=True"):
        clusterSystem(box)
    _, system, x = clusterSystem(box, compiled=True)
    assert np.isfinite(energy_and_forces(system, x)[0])


def test_a_droplet_keeps_its_energy(droplet):
    _, system, x = clusterSystem(droplet, compiled=True)
    made = context(system, x)
    openmm.LocalEnergyMinimizer.minimize(made, maxIterations=200)
    made.setVelocitiesToTemperature(200.0, 1)
    made.getIntegrator().step(200)
    totals = []
    for _ in range(20):
        made.getIntegrator().step(100)
        state = made.getState(energy=True)
        totals.append((state.getPotentialEnergy() + state.getKineticEnergy())._value / len(droplet.numbers))
    drift_rate = np.polyfit(np.arange(20) * 0.05, totals, 1)[0]  # kJ/mol per atom per ps
    print(f"drift {drift_rate:.2e} kJ/mol/atom/ps, spread {np.std(totals):.2e}")
    assert abs(drift_rate) < 0.005 and np.std(totals) < 0.02


def test_molecules_scattered_over_images_come_together_whole(molecules):
    box = random_cluster(molecules, [4, 3], density=0.7, periodic=True, seed=4)
    images = np.random.default_rng(0).integers(-3, 4, (box.n_molecules, 3))
    scattered = box.positions + (images @ box.cell)[box.molecule_index]
    gathered = together(scattered, box.cell, box.sizes)
    assert np.allclose(gathered.mean(0), 0.0)
    shift = (gathered - box.positions) @ np.linalg.inv(box.cell)
    per_molecule = np.array([shift[box.molecule_index == m] for m in range(3)])
    assert np.allclose(per_molecule, per_molecule[:, :1])  # molecules moved whole
    centres = dataclasses.replace(box, positions=gathered, cell=None).centres
    assert np.linalg.norm(centres - centres.mean(0), axis=1).max() < 0.9 * np.sqrt(0.75) * box.cell[0, 0]


def test_the_split_is_eighty_ten_ten_and_follows_from_the_seed():
    split = split_frames(301, 0)
    assert np.bincount(split).tolist() == [241, 30, 30]
    assert np.array_equal(split, split_frames(301, 0)) and not np.array_equal(split, split_frames(301, 1))


def test_a_recipe_goes_from_hot_to_cold_and_takes_its_frames():
    recipe = Recipe(5, boxes=3, frames=10, hot_ps=10, cooling_rate=10000, settle_ps=4, production_ps=6, timestep=2.0)
    counts = [recipe.frames_of(b) for b in range(3)]
    assert counts == [4, 3, 3]
    segments = recipe.segments(0)
    temperatures = [s.temperature for s in segments]
    assert temperatures == sorted(temperatures, reverse=True) and temperatures[-1] == 300.0
    assert [s.stage for s in segments if s.frame] == ["production"] * 4
    assert sum(s.steps for s in segments if s.stage == "cooling") * 2e-3 == pytest.approx(35, abs=1.5)
    for bad in ({"timestep": 0.0}, {"boxes": 0}, {"frames": 1}, {"hot_temperature": 200.0}, {"cooling_rate": -1.0}):
        with pytest.raises(InputError):
            Recipe(5, **bad)


def test_a_drift_is_told_from_noise():
    rng = np.random.default_rng(0)
    steady = 1.0 + rng.normal(0.0, 0.01, 200)
    assert not drift(steady).drifting
    assert drift(steady + np.linspace(0.0, 0.2, 200)).drifting
    assert drift(steady[:3]).drifting
    up, down = drift(2.0 + steady + np.linspace(0.0, 0.2, 200)), drift(-2.0 - steady - np.linspace(0.0, 0.2, 200))
    assert (down.change, down.error, down.drifting) == pytest.approx((-up.change, up.error, up.drifting))
    noisy = rng.normal(-100.0, 40.0, 40)  # of energies below zero
    assert drift(noisy).error > 0.01 and not drift(noisy).drifting


def test_a_gas_that_condenses_does_not_stop_the_dynamics():
    """OpenMM's barostat keeps the wide moves of the gas, and asks for a box smaller than nothing."""
    system = openmm.System()
    pairs = openmm.NonbondedForce()
    pairs.setNonbondedMethod(pairs.CutoffPeriodic)
    pairs.setCutoffDistance(0.6)
    for _ in range(64):
        system.addParticle(40.0)
        pairs.addParticle(0.0, 0.34, 1.0)
    system.addForce(pairs)
    system.setDefaultPeriodicBoxVectors(*(8.0 * np.eye(3)))
    barostat = openmm.MonteCarloBarostat(3000.0, 100.0, 1)
    barostat.setRandomNumberSeed(1)
    system.addForce(barostat)
    grid = 1.9 * np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 3) + 0.5

    def gas() -> openmm.Context:
        integrator = openmm.LangevinMiddleIntegrator(100.0, 1.0, 2e-3)
        integrator.setRandomNumberSeed(1)
        made = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
        made.setPositions(grid)
        made.setVelocitiesToTemperature(100.0, 1)
        return made

    made = gas()
    with pytest.raises(openmm.OpenMMException, match="periodic box"):
        made.getIntegrator().step(3000)
    made = gas()
    for _ in range(30):
        integrate(made, partial(made.getIntegrator().step, 100))
    state = made.getState()
    assert state.getStepCount() == 3000
    assert 2.0 < state.getPeriodicBoxVolume()._value < 3.5, "a liquid of argon"
