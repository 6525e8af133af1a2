"""The PythonForce of compiled loops is the System of custom forces, faster."""

import copy

import numpy as np
import openmm
import pytest
import torch
from crystal_examples import crystal
from molflow_openmm import crystalSystem
from molflow_openmm.compiled import NAME, without_gpu
from openmm import app, unit
from special_positions import UREA

from molflow_sim import parametrize
from molflow_sim.errors import InputError, NonFiniteError
from molflow_sim.forcefield.dynamics import DynamicsPotential
from molflow_sim.systems.crystal import MolecularCrystal
from molflow_sim.units import KJ_PER_MOL

CUTOFF = 7.0
CRYSTALS = ("acetamide", "propargyl alcohol", "pyruvonitrile")  # triclinic, monoclinic, orthorhombic


def context(system, positions, timestep=5e-4, platform="CPU") -> openmm.Context:
    made = openmm.Context(system, openmm.VerletIntegrator(timestep), openmm.Platform.getPlatformByName(platform))
    made.setPositions(positions)
    return made


def energy_and_forces(made: openmm.Context) -> tuple[float, np.ndarray]:
    """kJ/mol and kJ/mol/nm."""
    state = made.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def both(name: str, **options):
    """The custom and the compiled System of a crystal, and distorted positions in nm."""
    options = {"nonbondedCutoff": 0.1 * CUTOFF, **options}
    _, custom, positions = crystalSystem(crystal(name), **options)
    _, compiled, _ = crystalSystem(crystal(name), compiled=True, **options)
    x = np.asarray(positions.value_in_unit(unit.nanometer))
    return custom, compiled, x + np.random.default_rng(7).normal(0.0, 0.004, x.shape)


def potential(name: str, **options) -> tuple[DynamicsPotential, np.ndarray, np.ndarray]:
    """Of one unit cell, its positions and its cell."""
    packed = crystal(name)
    _, positions, _, species = packed.unit_cell()
    parameters = [parametrize(m) for m in packed.molecules]
    options = {"cutoff": CUTOFF, "alpha": 0.4, **options}
    return DynamicsPotential(parameters, species, **options), positions, np.asarray(packed.cell)


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize("tail", [False, True])
def test_energy_and_forces_are_those_of_the_custom_forces(name, tail):
    custom, compiled, x = both(name, dispersionCorrection=tail)
    energy, forces = energy_and_forces(context(custom, x, platform="Reference"))
    for platform in ("Reference", "CPU"):
        got, pull = energy_and_forces(context(compiled, x, platform=platform))
        assert got == pytest.approx(energy, rel=1e-5)
        assert np.linalg.norm(pull - forces) < 1e-4 * np.linalg.norm(forces)


def test_no_intermolecular_energy_hides_behind_a_larger_intramolecular_one():
    custom, compiled, x = both("acetamide")
    made = context(custom, x, platform="Reference")
    whole = made.getState(energy=True, groups={1, 2}).getPotentialEnergy()._value
    inside = made.getState(energy=True, groups={0}).getPotentialEnergy()._value
    got, _ = energy_and_forces(context(compiled, x))
    assert got - inside == pytest.approx(whole, rel=2e-5)


def test_a_unit_cell_smaller_than_the_cutoff_has_the_energy_of_its_supercell():
    one, x, cell = potential("acetamide")
    energy, forces = one(x, cell)
    shifts = np.array(list(np.ndindex(2, 3, 2))) @ cell
    many, _, _ = potential("acetamide")
    parameters, order = many.arguments[:2]
    many = DynamicsPotential(parameters, list(order) * 12, cutoff=CUTOFF, alpha=0.4)
    big, pull = many((shifts[:, None] + x).reshape(-1, 3), cell * np.array([2, 3, 2])[:, None])
    assert big == pytest.approx(12 * energy, rel=1e-6)
    np.testing.assert_allclose(pull[: len(x)], forces, atol=1e-5)


def test_forces_are_minus_the_gradient():
    one, x, _ = potential("propargyl alcohol", cutoff=None, alpha=0.0)  # a cutoff truncates the Ewald sum
    _, forces = one(x)
    rng, h = np.random.default_rng(0), 5e-3  # Å: single precision leaves 1e-5 eV of noise
    for _ in range(6):
        direction = rng.normal(size=x.shape)
        direction /= np.linalg.norm(direction)
        slope = (one(x + h * direction)[0] - one(x - h * direction)[0]) / (2 * h)
        assert slope == pytest.approx(-np.sum(forces * direction), rel=3e-3, abs=3e-3)


def test_bits_do_not_depend_on_threads_and_positions_may_have_wandered():
    one, x, cell = potential("acetamide")
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            energy, forces = one(x, cell)
            found.append((energy, forces.tobytes()))
    finally:
        torch.set_num_threads(before)
    assert len(set(found)) == 1
    far = one(x + 40.0 * cell[0] - 55.0 * cell[2], cell)
    assert far[0] == pytest.approx(found[0][0], rel=1e-6)


def test_a_list_that_has_lasted_gives_the_energy_of_a_new_one():
    one, x, cell = potential("acetamide")
    rng = np.random.default_rng(1)
    for _ in range(12):
        x, cell = x + rng.normal(0.0, 0.15, x.shape), cell * (1.0 + rng.normal(0.0, 0.004))
        kept = one(x, cell)
        fresh = potential("acetamide")[0](x, cell)
        assert kept[0] == pytest.approx(fresh[0], rel=1e-6)
        np.testing.assert_allclose(kept[1], fresh[1], atol=1e-4)
    assert 1 < one.n_lists < 12


@pytest.mark.parametrize(
    ("timestep", "options"),
    [
        (1.0, {}),
        (2.0, {"constraints": app.HBonds}),
        (4.0, {"constraints": app.HBonds, "hydrogenMass": 3.0}),
    ],
)
def test_energy_is_conserved_at_the_time_steps_that_are_offered(timestep, options):
    topology, system, positions = crystalSystem(
        crystal("acetamide"), nonbondedCutoff=0.1 * CUTOFF, compiled=True, **options
    )
    made = context(system, positions, timestep=1e-3 * timestep)
    openmm.LocalEnergyMinimizer.minimize(made, maxIterations=100)
    made.setVelocitiesToTemperature(300.0, 1)
    made.getIntegrator().step(200)
    totals = []
    for _ in range(20):
        made.getIntegrator().step(40)
        state = made.getState(energy=True)
        totals.append((state.getPotentialEnergy() + state.getKineticEnergy())._value / topology.getNumAtoms())
    drift = np.polyfit(np.arange(20) * 0.04 * timestep, totals, 1)[0]  # kJ/mol per atom per ps
    print(f"{timestep:g} fs: drift {drift:.2e} kJ/mol/atom/ps, spread {np.std(totals):.2e} kJ/mol/atom")
    assert abs(drift) < 0.02
    assert np.std(totals) < 0.03


def test_the_force_survives_the_serialisation_of_its_system():
    _, compiled, x = both("acetamide", dispersionCorrection=True)
    # on Reference: the CPU platform's particle mesh has one of two last bits, 2e-8 apart, by how its threads run
    energy, forces = energy_and_forces(context(compiled, x, platform="Reference"))
    text = openmm.XmlSerializer.serialize(compiled)
    for system in (openmm.XmlSerializer.deserialize(text), copy.deepcopy(compiled)):
        assert system.getForce(0).getName() == NAME
        again, pull = energy_and_forces(context(system, x, platform="Reference"))
        assert again == pytest.approx(energy, rel=1e-9)
        np.testing.assert_allclose(pull, forces, rtol=1e-6, atol=1e-3)


def test_what_blows_up_is_told_and_does_not_hang():
    one, x, cell = potential("acetamide")
    for broken in (x * np.nan, x * 100.0):
        with pytest.raises(NonFiniteError, match="torn apart"):
            one(broken, cell)
    _, compiled, positions = both("acetamide")
    with pytest.raises(openmm.OpenMMException, match="torn apart"):
        context(compiled, positions * 100.0).getState(energy=True)


def test_impossible_limits_are_named():
    with pytest.raises(InputError, match="must exceed the switch width"):
        potential("acetamide", cutoff=2.0)
    with pytest.raises(InputError, match="splitting"):
        potential("acetamide", alpha=1.0)


def test_platforms_on_the_processor_are_known():
    assert without_gpu(openmm.Platform.getPlatformByName("Reference"))
    assert without_gpu(None) == (
        max(map(openmm.Platform.getPlatform, range(openmm.Platform.getNumPlatforms())), key=lambda p: p.getSpeed())
        .getName() in ("CPU", "Reference")
    )  # fmt: skip


def test_boxes_that_a_barostat_tries_have_the_same_energies():
    custom, compiled, x = both("acetamide", ewaldErrorTolerance=2e-4, dispersionCorrection=True)
    sides = [context(custom, x, platform="Reference"), context(compiled, x)]
    rows = np.array([row._value for row in sides[0].getState().getPeriodicBoxVectors()])
    index = np.repeat(np.arange(len(x) // 9), 9)  # acetamide has nine atoms
    centres = np.add.reduceat(x, np.arange(0, len(x), 9)) / 9
    rng = np.random.default_rng(0)
    changes = []
    for _ in range(8):  # one context each, so that neighbour lists last from box to box
        strain = np.eye(3) + np.tril(rng.normal(0.0, 0.01, (3, 3)))
        moved = x + (centres @ strain - centres)[index]
        for made in sides:
            made.setPeriodicBoxVectors(*(rows @ strain))
            made.setPositions(moved)
        changes.append([energy_and_forces(made)[0] for made in sides])
    changes = np.diff(np.array(changes), axis=0)
    assert np.abs(changes[:, 0] - changes[:, 1]).max() < 2e-3 * np.abs(changes[:, 0]).max()


def test_a_barostat_takes_the_same_moves_of_whole_molecules():
    """With the same random numbers: the same moves of the box are proposed and accepted."""
    boxes, molecules = [], []
    for compiled in (False, True):
        _, system, positions = crystalSystem(
            MolecularCrystal.from_cif(UREA),
            (3, 3, 3),
            nonbondedCutoff=0.6,
            ewaldErrorTolerance=1e-5,
            dispersionCorrection=True,
            compiled=compiled,
        )
        barostat = openmm.MonteCarloFlexibleBarostat(1.0, 200.0, 2)
        barostat.setRandomNumberSeed(3)
        system.addForce(barostat)
        integrator = openmm.LangevinMiddleIntegrator(200.0, 1.0, 1e-3)
        integrator.setRandomNumberSeed(3)
        made = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
        made.setPositions(positions)
        made.setVelocitiesToTemperature(200.0, 3)
        rows = []
        for _ in range(60):
            integrator.step(2)
            rows.append(made.getState().getPeriodicBoxVectors(asNumpy=True)._value)
        boxes.append(np.array(rows))
        molecules.append([list(atoms) for atoms in made.getMolecules()])
    assert molecules[0] == molecules[1] and len(molecules[1]) == 2 * 27
    assert len(np.unique(boxes[0][:, 0, 0])) > 5, "moves were accepted"
    assert np.abs(boxes[0] - boxes[1]).max() < 1e-6


def test_energies_are_those_of_the_crystal_potential():
    from molflow_sim import CrystalPotential

    packed = crystal("acetamide")
    topology, compiled, positions = crystalSystem(
        packed, nonbondedCutoff=0.1 * CUTOFF, ewaldErrorTolerance=1e-6, compiled=True
    )
    numbers, x, _, _ = packed.unit_cell()
    exact = CrystalPotential.from_crystals([packed], cutoff=CUTOFF)(
        {
            "positions": torch.as_tensor(x),
            "cell": torch.as_tensor(np.asarray(packed.cell).T.copy())[None],
            "atomic_numbers": torch.as_tensor(numbers),
            "system_idx": torch.zeros(len(numbers), dtype=torch.int64),
        }
    )["energy"].item()
    cells = topology.getNumAtoms() / len(numbers)
    got, _ = energy_and_forces(context(compiled, positions))
    assert got * KJ_PER_MOL / cells == pytest.approx(exact, rel=1e-4)  # the real-space sum ends at erfc(3)
