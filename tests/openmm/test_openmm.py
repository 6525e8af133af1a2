"""The OpenMM System has the energy and forces of `CrystalPotential`."""

import numpy as np
import openmm
import pytest
import torch
from crystal_examples import crystal
from hypothesis import given, settings
from hypothesis import strategies as st
from molflow_openmm import SimulationSettings, crystalSystem
from molflow_openmm.crystal.box import box_like, largest_cutoff, reduced_box, smallest_supercell
from molflow_openmm.crystal.forces import GROUPS
from openmm import app, unit
from refusals import refuses

from molflow_sim import CrystalPotential, Molecule
from molflow_sim.errors import InputError
from molflow_sim.symmetry import cell_matrix
from molflow_sim.systems.crystal import MolecularCrystal, RigidMolecule
from molflow_sim.units import KJ_PER_MOL

CUTOFF = 7.0
CRYSTALS = ("acetamide", "propargyl alcohol", "pyruvonitrile")  # triclinic, monoclinic, orthorhombic


def context(system: openmm.System, positions: unit.Quantity, platform: str = "Reference") -> openmm.Context:
    made = openmm.Context(system, openmm.VerletIntegrator(5e-4), openmm.Platform.getPlatformByName(platform))
    made.setPositions(positions)
    return made


def openmm_energy(made: openmm.Context, groups: set[int] | None = None) -> float:
    state = made.getState(energy=True, **({"groups": groups} if groups is not None else {}))
    return state.getPotentialEnergy().value_in_unit(unit.kilojoules_per_mole)


def openmm_forces(made: openmm.Context) -> np.ndarray:
    """kJ/mol/nm"""
    return made.getState(forces=True).getForces(asNumpy=True).value_in_unit(unit.kilojoules_per_mole / unit.nanometer)


def reference(crystal: MolecularCrystal, numbers: np.ndarray, cell: np.ndarray, positions: np.ndarray) -> dict:
    """CrystalPotential in OpenMM's units: kJ/mol and kJ/mol/nm."""
    potential = CrystalPotential.from_crystals([crystal], cutoff=CUTOFF, compute_stress=False)
    out = potential(
        {
            "positions": torch.as_tensor(positions),
            "cell": torch.as_tensor(cell.T.copy())[None],
            "atomic_numbers": torch.as_tensor(numbers),
            "system_idx": torch.zeros(len(numbers), dtype=torch.int64),
        }
    )
    result = {name: out[name].item() / KJ_PER_MOL for name in out if name != "forces"}
    return result | {"forces": out["forces"].numpy() * 10.0 / KJ_PER_MOL}


def distorted(crystal: MolecularCrystal, **options):
    """A tight-tolerance System and a randomly distorted supercell of the crystal (positions in Å)."""
    topology, system, positions = crystalSystem(
        crystal, nonbondedCutoff=0.1 * CUTOFF, ewaldErrorTolerance=1e-7, **options
    )
    positions = 10.0 * np.asarray(positions.value_in_unit(unit.nanometer))
    positions = positions + np.random.default_rng(7).normal(0.0, 0.04, positions.shape)
    vectors = system.getDefaultPeriodicBoxVectors()
    box = 10.0 * np.array([v.value_in_unit(unit.nanometer) for v in vectors])
    numbers = np.array([a.element.atomic_number for a in topology.atoms()])
    return system, numbers, box, positions


@pytest.mark.parametrize("name", CRYSTALS)
def test_energy_and_forces_are_those_of_the_crystal_potential_on_a_distorted_supercell(name):
    packed = crystal(name)
    system, numbers, box, positions = distorted(packed)
    expected = reference(packed, numbers, box, positions)
    made = context(system, 0.1 * positions)
    inter = openmm_energy(made, {GROUPS["exp-6"], GROUPS["electrostatics"]})
    assert openmm_energy(made) == pytest.approx(expected["energy"], rel=1e-5)
    assert inter == pytest.approx(expected["intermolecular_energy"], rel=1e-5)
    assert openmm_energy(made, {GROUPS["intramolecular"]}) == pytest.approx(expected["intramolecular_energy"], rel=1e-8)
    error = np.linalg.norm(openmm_forces(made) - expected["forces"]) / np.linalg.norm(expected["forces"])
    assert error < 1e-5


@pytest.mark.parametrize("name", CRYSTALS)
def test_a_supercell_has_the_energy_of_its_unit_cells(name):
    packed = crystal(name)
    numbers, positions, _, _ = packed.unit_cell()
    topology, system, big = crystalSystem(packed, nonbondedCutoff=0.1 * CUTOFF, ewaldErrorTolerance=1e-7)
    cells = topology.getNumAtoms() / len(numbers)
    expected = reference(packed, numbers, packed.cell, positions)["energy"]
    assert openmm_energy(context(system, big)) / cells == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", CRYSTALS)
def test_default_pme_tolerance_costs_less_than_a_tenth_of_a_kilojoule_per_molecule(name):
    topology, system, positions = crystalSystem(crystal(name), nonbondedCutoff=0.1 * CUTOFF)
    _, tight, _ = crystalSystem(crystal(name), nonbondedCutoff=0.1 * CUTOFF, ewaldErrorTolerance=1e-7)
    difference = openmm_energy(context(system, positions)) - openmm_energy(context(tight, positions))
    assert abs(difference) / topology.getNumResidues() < 0.1


def test_the_cpu_platform_agrees_in_single_precision():
    system, _, _, positions = distorted(crystal("acetamide"))
    exact, single = (openmm_forces(context(system, 0.1 * positions, name)) for name in ("Reference", "CPU"))
    assert np.linalg.norm(single - exact) / np.linalg.norm(exact) < 1e-4


def test_forces_are_minus_the_gradient():
    system, _, _, positions = distorted(crystal("acetamide"))
    made = context(system, 0.1 * positions)
    forces = openmm_forces(made)
    rng, h = np.random.default_rng(0), 1e-6
    for _ in range(6):
        direction = rng.normal(size=positions.shape)
        direction /= np.linalg.norm(direction)
        energies = []
        for sign in (1, -1):
            made.setPositions(0.1 * positions + sign * h * direction)
            energies.append(openmm_energy(made))
        slope = (energies[0] - energies[1]) / (2 * h)
        assert slope == pytest.approx(-np.sum(forces * direction), rel=1e-4, abs=0.5)


def test_energy_is_conserved_in_nve_dynamics():
    topology, system, positions = crystalSystem(crystal("acetamide"), nonbondedCutoff=0.1 * CUTOFF)
    made = context(system, positions, "CPU")
    openmm.LocalEnergyMinimizer.minimize(made, maxIterations=200)
    made.setVelocitiesToTemperature(200.0, 1)
    made.getIntegrator().step(200)
    totals = []
    for _ in range(20):
        made.getIntegrator().step(50)
        state = made.getState(energy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        totals.append(total.value_in_unit(unit.kilojoules_per_mole) / topology.getNumAtoms())
    drift = np.polyfit(np.arange(20) * 0.025, totals, 1)[0]  # kJ/mol per atom per ps
    print(f"drift {drift:.2e} kJ/mol/atom/ps, spread {np.std(totals):.2e} kJ/mol/atom")
    assert abs(drift) < 0.02
    assert np.std(totals) < 0.02


def test_two_species_keep_their_own_terms():
    first, second = crystal("acetamide"), Molecule.from_smiles("O", n_conformers=1)
    water = RigidMolecule(1, second.conformers[0], np.array([0.75, 0.3, 0.75]), np.eye(3), (0, 1))
    packed = MolecularCrystal(
        (*first.molecules, second), (*first.asymmetric_unit, water), first.space_group, 1.15 * first.cell
    )
    system, numbers, box, positions = distorted(packed)
    expected = reference(packed, numbers, box, positions)
    assert openmm_energy(context(system, 0.1 * positions)) == pytest.approx(expected["energy"], rel=1e-5)


def test_topology_has_a_residue_per_molecule_and_survives_a_pdb_file(tmp_path):
    packed = crystal("propargyl alcohol")
    topology, system, positions = crystalSystem(packed, supercell=(2, 3, 3), nonbondedCutoff=0.7)
    assert topology.getNumResidues() == packed.z * 18
    assert topology.getNumBonds() == topology.getNumResidues() * len(packed.molecules[0].bonds)
    app.PDBFile.writeFile(topology, positions, str(tmp_path / "a.pdb"))
    read = app.PDBFile(str(tmp_path / "a.pdb"))
    assert [a.element for a in read.topology.atoms()] == [a.element for a in topology.atoms()]
    names = [a.name for a in next(topology.residues()).atoms()]
    assert len(set(names)) == len(names) and max(map(len, names)) <= 4
    assert app.Simulation(topology, system, openmm.VerletIntegrator(0.001)) is not None


def test_system_survives_serialisation():
    _, system, positions = crystalSystem(crystal("acetamide"), nonbondedCutoff=0.7)
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    assert openmm_energy(context(again, positions)) == openmm_energy(context(system, positions))


def test_too_small_a_supercell_is_refused_with_the_smallest_that_works():
    packed = crystal("acetamide")
    with pytest.raises(InputError, match="use at least") as error:
        crystalSystem(packed, supercell=(1, 1, 1), nonbondedCutoff=0.7)
    counts = [int(n) for n in str(error.value).split("use at least ")[1].split(",")[:3]]
    crystalSystem(packed, supercell=counts, nonbondedCutoff=0.7)


@pytest.mark.parametrize("supercell", [(0, 1, 1), (2, 2), (1.5, 2, 2), "abc", 3])
def test_a_supercell_that_is_not_three_whole_numbers_is_refused(supercell):
    with pytest.raises(InputError, match="three positive whole numbers"):
        crystalSystem(crystal("acetamide"), supercell=supercell, nonbondedCutoff=0.7)


def test_constraints_and_repartitioned_hydrogens():
    packed = crystal("acetamide")
    _, plain, _ = crystalSystem(packed, nonbondedCutoff=0.7)
    topology, system, _ = crystalSystem(packed, nonbondedCutoff=0.7, constraints=app.HBonds, hydrogenMass=3.0)
    hydrogens = [a.index for a in topology.atoms() if a.element is app.element.hydrogen]
    assert system.getNumConstraints() == len(hydrogens)
    assert all(system.getParticleMass(i) == 3.0 * unit.dalton for i in hydrogens)
    total = [sum(s.getParticleMass(i)._value for i in range(s.getNumParticles())) for s in (plain, system)]
    assert total[0] == pytest.approx(total[1], rel=1e-12)
    for mass in (0.0, -3.0, float("nan")):  # atoms without mass would stand still
        refuses(
            InputError, "hydrogenMass must be positive", crystalSystem, packed, nonbondedCutoff=0.7, hydrogenMass=mass
        )
    refuses(InputError, "hydrogen-mass", SimulationSettings, hydrogen_mass=0.0)
    refuses(InputError, "seed", SimulationSettings, seed=2**31)


cells = st.tuples(*[st.floats(3.0, 20.0)] * 3, *[st.floats(50.0, 130.0)] * 3).filter(
    lambda p: np.linalg.det(cell_matrix(np.array(p))) > 0.2 * p[0] * p[1] * p[2]
)


@given(cells)
@settings(max_examples=200, deadline=None)
def test_reduced_box_spans_the_same_lattice_in_the_form_openmm_accepts(parameters):
    cell = cell_matrix(np.array(parameters))
    box = reduced_box(cell)
    change = box @ np.linalg.inv(cell)
    assert np.allclose(change, np.rint(change), atol=1e-9)
    assert np.linalg.det(change) == pytest.approx(1.0)
    half = 0.5 * np.diag(box) * (1 + 1e-9)
    assert abs(box[1, 0]) <= half[0] and abs(box[2, 0]) <= half[0] and abs(box[2, 1]) <= half[1]
    assert np.allclose(box_like(box, cell), cell)
    openmm.System().setDefaultPeriodicBoxVectors(*[openmm.Vec3(*row) for row in 0.1 * box])


@given(cells, st.floats(4.0, 15.0), st.floats(1.0, 20.0))
@settings(max_examples=200, deadline=None)
def test_smallest_supercell_holds_the_cutoff_and_one_repeat_less_does_not(parameters, cutoff, extent):
    cell = cell_matrix(np.array(parameters))
    counts = smallest_supercell(cell, cutoff, extent)
    assert largest_cutoff(cell, counts, extent) >= cutoff - 1e-6
    for axis in range(3):
        if counts[axis] > 1:
            fewer = np.array(counts)
            fewer[axis] -= 1
            assert largest_cutoff(cell, fewer, extent) < cutoff + 1e-6
