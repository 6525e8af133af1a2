"""Harmonic lattice vibrations: symmetry, sum rules, supercells, and the free energy of oscillators."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from ase.phonons import Phonons
from ase.vibrations import Vibrations as AseVibrations
from crystal_examples import crystal
from hypothesis import given
from hypothesis import strategies as st
from molflow_ase import CrystalCalculator
from refusals import refuses
from special_positions import SITES, special

from molflow_sim import MolecularCrystal
from molflow_sim.energies import EnsemblePotential
from molflow_sim.errors import InputError, NonFiniteError
from molflow_sim.evaluate.vibrations import FLOOR, Vibrations, crystal_vibrations, force_constants, oscillators
from molflow_sim.forcefield import CrystalPotential, parametrize
from molflow_sim.relax.flexible import relax_flexible
from molflow_sim.symmetry import SpaceGroup, cell_matrix
from molflow_sim.symmetry.spacegroup import repeats_for_axis
from molflow_sim.systems.crystal import RigidMolecule
from molflow_sim.units import BOLTZMANN, INVERSE_CM, KJ_PER_MOL

DATA = Path(__file__).resolve().parents[1] / "data"


@lru_cache
def relaxed(name: str, fmax: float = 1e-3) -> tuple[MolecularCrystal, CrystalPotential]:
    """A relaxed crystal with the force field it was relaxed on."""
    if name == "benzene":
        start = MolecularCrystal.from_cif(DATA / "benzene_D.cif")
    else:
        start = special(name) if name in SITES else crystal(name)
    potential = CrystalPotential.from_crystals([start], cutoff=9.0)
    return relax_flexible([start], potential, fmax=fmax)[0].crystal, potential


def modes(values, molecules=1, acoustic=((), ())) -> Vibrations:
    return Vibrations(np.array(values, dtype=float), np.array(acoustic), molecules, (1, 1, 1))


# -- the free energy ----------------------------------------------------------------------------------------------


def test_an_einstein_crystal_has_the_free_energy_and_the_entropy_of_the_textbook():
    nu, temperature, step = 80.0, 300.0, 0.01
    x = nu * INVERSE_CM / (BOLTZMANN * temperature)
    crystal = modes([nu] * 12, molecules=4)
    expected = 3 * (nu * INVERSE_CM / 2 + BOLTZMANN * temperature * np.log(1 - np.exp(-x)))
    assert crystal.free_energy(temperature) == pytest.approx(expected, rel=1e-12)
    entropy = -(crystal.free_energy(temperature + step) - crystal.free_energy(temperature - step)) / (2 * step)
    assert entropy == pytest.approx(3 * BOLTZMANN * (x / np.expm1(x) - np.log(-np.expm1(-x))), rel=1e-6)


def test_the_cold_crystal_has_its_zero_point_energy_and_the_hot_one_the_classical_free_energy():
    assert oscillators(np.array([1500.0]), 1.0)[0] == pytest.approx(750.0 * INVERSE_CM, rel=1e-12)
    classical = BOLTZMANN * 3000.0 * np.log(20.0 * INVERSE_CM / (BOLTZMANN * 3000.0))
    assert oscillators(np.array([20.0]), 3000.0)[0] == pytest.approx(classical, abs=1e-6)


@given(st.lists(st.floats(0, 3500), min_size=1, max_size=9), st.floats(1, 900), st.floats(1.01, 2))
def test_the_free_energy_falls_with_temperature_and_rises_with_stiffness(values, temperature, factor):
    soft, stiff = modes(values), modes([factor * v + 1 for v in values])
    assert soft.free_energy(temperature * factor) <= soft.free_energy(temperature)
    assert stiff.free_energy(temperature) >= soft.free_energy(temperature)


def test_soft_modes_count_as_the_floor_and_a_way_down_leaves_no_free_energy():
    soft = modes([-9.0, 0.5, 100.0])
    assert soft.problem == ""
    assert soft.free_energy(300.0) == modes([FLOOR, FLOOR, 100.0]).free_energy(300.0)
    saddle = modes([-57.0, -12.0, 0.5, 100.0])
    assert np.isnan(saddle.free_energy(300.0))
    assert saddle.problem == "not a minimum: 2 imaginary modes, the largest 57i cm⁻¹"


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(temperature):
    refuses(InputError, "above 0 K", modes([100.0]).free_energy, temperature)


# -- the force constants ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["formamide", "benzene", "acetonitrile", "twofold in C2/c", "mirror", "-3"])
def test_the_space_group_gives_what_displacing_every_atom_gives(name):
    """General and special positions, a centred and a hexagonal cell; supercells of different shape."""
    structure, potential = relaxed(name)
    # small, since threefold axes do not map displacements along x, y, z on each other
    options = {"minimum_axis": 7.0, "displacement": 1e-3}
    some, every = (force_constants(structure, potential, symmetric=s, **options) for s in (True, False))
    assert some.shape[2:5] == repeats_for_axis(structure.cell, 7.0)
    assert np.abs(some - every).max() < 3e-6 * np.abs(every).max()


def test_on_the_potential_of_best_too():
    structure, _ = relaxed("acetonitrile")
    potential = EnsemblePotential([parametrize(structure.molecules[0], "mmff94")], "mean(fit,so3lr)")
    some, every = (force_constants(structure, potential, minimum_axis=5.0, symmetric=s) for s in (True, False))
    assert np.abs(some - every).max() < 1e-4 * np.abs(every).max()  # the network is in float32


def test_moving_the_whole_crystal_costs_nothing_and_everything_else_does():
    structure, potential = relaxed("benzene")
    phi = force_constants(structure, potential, minimum_axis=7.0)
    n, masses = len(phi), np.repeat(structure.to_ase().get_masses(), 3)
    gamma = phi.sum(axis=(2, 3, 4)).reshape(3 * n, 3 * n) / np.sqrt(np.outer(masses, masses))
    values, vectors = np.linalg.eigh(gamma)
    assert np.abs(values[:3]).max() < 1e-4 * values[3]
    uniform = np.sqrt(masses[:, None]) * np.tile(np.eye(3), (n, 1))
    assert np.linalg.norm(vectors[:, :3].T @ uniform) == pytest.approx(np.linalg.norm(uniform), rel=1e-6)
    result = crystal_vibrations(structure, potential, minimum_axis=7.0)
    assert len(result.wavenumbers) == 3 * n * np.prod(result.repeats) - 3
    assert result.problem == "" and 20 < result.wavenumbers[0]
    assert 2000 < result.wavenumbers[-1] < 2500  # C-D, not C-H


def test_a_molecule_alone_in_a_large_cell_turns_freely():
    molecule = crystal("formamide").molecules[0]
    body, group = np.asarray(molecule.conformers[0]), SpaceGroup.from_name("P 1")
    alone = RigidMolecule(0, body, np.full(3, 0.5), np.eye(3), (0,))
    box = MolecularCrystal((molecule,), (alone,), group, cell_matrix(np.array([60.0, 60, 60, 90, 90, 90])))
    potential = CrystalPotential.from_crystals([box], cutoff=9.0)
    box = relax_flexible([box], potential, fmax=1e-4)[0].crystal
    found = crystal_vibrations(box, potential, displacement=1e-3).wavenumbers
    assert np.abs(found[:3]).max() < 5.0 < 100.0 < found[3]  # rotations; the translations are left out
    assert len(found) == 3 * molecule.n_atoms - 3


def test_the_spectrum_does_not_depend_on_how_the_crystal_is_described():
    structure, potential = relaxed("acetonitrile")
    twice = MolecularCrystal.from_ase(structure.to_ase().repeat((2, 1, 1)), molecules=structure.molecules)
    assert twice.space_group.name == "P 1" and twice.z == 2 * structure.z
    one = crystal_vibrations(twice, potential, minimum_axis=1.0)
    two = crystal_vibrations(
        structure, potential, minimum_axis=1.01 / np.linalg.norm(np.linalg.inv(structure.cell)[:, 0])
    )
    assert two.repeats == (2, 1, 1) and one.repeats == (1, 1, 1)
    assert one.wavenumbers == pytest.approx(two.wavenumbers, abs=0.05)
    assert one.free_energy(300.0) == pytest.approx(two.free_energy(300.0), abs=0.3 * KJ_PER_MOL)


def test_waves_longer_than_the_supercell_are_not_forgotten():
    """With them the free energy hardly depends on the supercell; the modes alone are off by kJ/mol."""
    structure, potential = relaxed("benzene")
    results = [crystal_vibrations(structure, potential, minimum_axis=axis) for axis in (6.0, 12.0)]
    assert results[0].molecules < results[1].molecules / 3
    small, large = (r.free_energy(300.0) / KJ_PER_MOL for r in results)
    assert small == pytest.approx(large, abs=0.4)
    bare = [oscillators(r.wavenumbers, 300.0).sum() / r.molecules / KJ_PER_MOL for r in results]
    assert abs(bare[0] - bare[1]) > 1.5


def test_ase_finds_the_same_modes_of_one_cell(tmp_path):
    structure, potential = relaxed("acetonitrile")
    ours = crystal_vibrations(structure, potential, minimum_axis=1.0, displacement=0.003).wavenumbers
    atoms = structure.to_ase()
    atoms.calc = CrystalCalculator(structure, cutoff=9.0)
    theirs = AseVibrations(atoms, name=str(tmp_path / "ase"), delta=0.003)
    theirs.run()
    real = theirs.get_frequencies().real
    assert np.sort(real)[-len(ours) :] == pytest.approx(ours, abs=0.05)


def test_ase_finds_the_same_phonons_of_a_supercell(tmp_path):
    structure, potential = relaxed("acetonitrile")
    ours = crystal_vibrations(structure, potential, minimum_axis=5.0, displacement=0.01)
    assert np.prod(ours.repeats) > 1
    calculator = CrystalCalculator(structure, cutoff=9.0)
    phonons = Phonons(structure.to_ase(), calculator, ours.repeats, delta=0.01, name=str(tmp_path / "ase"))
    phonons.run()
    phonons.read(acoustic=True)
    points = np.stack(np.meshgrid(*[np.arange(k) / k for k in ours.repeats], indexing="ij"), -1).reshape(-1, 3)
    theirs = np.sort(phonons.band_structure(points, verbose=False).ravel()) / INVERSE_CM
    assert theirs[-len(ours.wavenumbers) :] == pytest.approx(ours.wavenumbers, abs=0.3)


def test_a_force_that_is_not_finite_is_named():
    structure, potential = relaxed("acetonitrile")
    wrong = replace(structure, cell=0.3 * structure.cell)
    refuses(NonFiniteError, "not finite", force_constants, wrong, potential)
