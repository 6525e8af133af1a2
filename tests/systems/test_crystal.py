"""Molecular crystals: the cell's content, special positions, and relaxed geometries put back."""

from dataclasses import replace

import numpy as np
import pytest
from refusals import refuses
from scipy.spatial.transform import Rotation
from special_positions import SITES, UREA, general, largest_distance, special

from molflow_sim import MolecularCrystal, SpaceGroup
from molflow_sim.errors import CrystalError
from molflow_sim.symmetry import cell_matrix
from molflow_sim.systems.crystal_symmetry import make_whole, site_symmetry

P21C = ("C=O", "P 1 21/c 1", (7.0, 6.0, 8.0, 90, 110, 90), (0.2, 0.15, 0.3))


def test_positions_follow_the_documented_formula():
    crystal = general(*P21C)
    rigid, group = crystal.asymmetric_unit[0], crystal.space_group
    _, positions, molecule, species = crystal.unit_cell()
    k = 0
    for g in rigid.images:
        centre = (group.rotations[g] @ rigid.centroid + group.translations[g]) @ crystal.cell
        for atom in rigid.conformer:
            expected = centre + group.cartesian_rotations[g] @ (rigid.orientation @ atom)
            np.testing.assert_allclose(positions[k], expected, atol=1e-10)
            k += 1
    np.testing.assert_array_equal(molecule, np.repeat(np.arange(4), 4))
    np.testing.assert_array_equal(species, 0)


def test_the_cell_content_is_invariant_under_every_operation():
    crystal = general(*P21C)
    numbers, positions, _, _ = crystal.unit_cell()
    fractional = positions @ np.linalg.inv(crystal.cell)
    for w, t in zip(crystal.space_group.rotations, crystal.space_group.translations):
        assert largest_distance(crystal, numbers, fractional @ w.T + t) < 1e-8


def test_numbers_of_a_known_crystal():
    urea = MolecularCrystal.from_cif(UREA)
    assert urea.z == 2 and urea.z_prime == 0.25
    assert urea.formula == "CH4N2O" and urea.volume == pytest.approx(145.06, abs=0.01)
    assert urea.density == pytest.approx(1.375, abs=0.002) and urea.space_group.name == "P -4 21 m"


@pytest.mark.parametrize("name", SITES)
def test_site_symmetry_has_as_many_operations_as_copies_are_missing(name):
    crystal = special(name)
    frac, operations, shifts, permutations = site_symmetry(crystal, 0)
    group = crystal.space_group
    assert len(operations) * crystal.z == group.order
    for g, shift, permutation in zip(operations, shifts, permutations):
        moved = frac @ group.rotations[g].T + group.translations[g] + shift
        np.testing.assert_allclose(moved, frac[permutation], atol=1e-9)


def test_a_molecule_without_its_sites_symmetry_is_refused():
    crystal = general("NC=O", "P -1", (6, 7, 8, 80, 95, 100), (0, 0, 0))
    rigid = replace(crystal.asymmetric_unit[0], images=(0,))
    refuses(CrystalError, "map it on itself", replace(crystal, asymmetric_unit=(rigid,)).to_cif)


@pytest.mark.parametrize("crystal", [general(*P21C), *map(special, SITES)], ids=["general", *SITES])
def test_wrapped_positions_in_a_turned_frame_give_the_same_crystal(crystal):
    numbers, positions, _, _ = crystal.unit_cell()
    wrapped = np.mod(positions @ np.linalg.inv(crystal.cell), 1.0) @ crystal.cell
    turn = Rotation.random(random_state=5).as_matrix()
    back = crystal.with_geometry(crystal.cell @ turn.T, wrapped @ turn.T)
    assert back.space_group.name == crystal.space_group.name and back.z == crystal.z
    np.testing.assert_allclose(back.cell, crystal.cell, atol=1e-8)
    fractional = back.unit_cell()[1] @ np.linalg.inv(back.cell)
    assert largest_distance(crystal, numbers, fractional) < 1e-8


def test_a_symmetric_strain_keeps_the_group_and_an_odd_atom_breaks_it():
    crystal = general(*P21C)
    positions = crystal.unit_cell()[1]
    cell = cell_matrix(crystal.space_group.constrain(crystal.cell_parameters * np.array([1.1, 0.95, 1, 1, 0.98, 1])))
    strained = crystal.with_geometry(cell, positions @ np.linalg.inv(crystal.cell) @ cell)
    assert strained.space_group.name == "P 1 21/c 1"
    np.testing.assert_allclose(strained.cell, cell, atol=1e-8)
    odd = positions.copy()
    odd[5] += 0.3
    broken = crystal.with_geometry(crystal.cell, odd)
    assert broken.space_group.name == "P 1" and broken.z == crystal.z
    assert broken.info["symmetry_lost"] == "P 1 21/c 1"
    np.testing.assert_allclose(broken.unit_cell()[1], odd, atol=1e-8)


def test_small_noise_is_averaged_over_the_group():
    crystal = general(*P21C)
    numbers, positions, _, _ = crystal.unit_cell()
    noise = np.random.default_rng(0).normal(scale=0.005, size=positions.shape)
    back = crystal.with_geometry(crystal.cell, positions + noise)
    assert back.space_group.name == "P 1 21/c 1"
    assert 0 < largest_distance(crystal, numbers, back.unit_cell()[1] @ np.linalg.inv(back.cell)) < 0.02


def test_a_cell_that_leaves_its_crystal_system_loses_the_group():
    crystal = general(*P21C)
    cell = cell_matrix(crystal.cell_parameters + np.array([0, 0, 0, 3.0, 0, 0]))
    out = crystal.with_geometry(cell, crystal.unit_cell()[1] @ np.linalg.inv(crystal.cell) @ cell)
    assert out.space_group.name == "P 1"


def test_make_whole_joins_molecules_across_skewed_cells():
    cell = cell_matrix(np.array([5.0, 6.0, 7.0, 50.0, 55.0, 60.0]))
    x = np.array([[4.9, 0.1, 0.1], [6.1, 0.2, 0.3], [7.2, 1.0, 0.2]])
    bonds = np.array([[0, 1], [1, 2]])
    wrapped = np.mod(x @ np.linalg.inv(cell), 1.0)
    whole = make_whole(wrapped[None], bonds, cell)[0] @ cell
    np.testing.assert_allclose(np.diff(whole, axis=0), np.diff(x, axis=0), atol=1e-9)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"cell": np.full((3, 3), np.nan)}, "finite"),
        ({"cell": np.eye(3)[::-1] * 5}, "standard frame"),
        ({"asymmetric_unit": ()}, "at least one"),
        ({"species": 3}, "species"),
        ({"images": (0, 9)}, "operations"),
        ({"images": ()}, "operations"),
        ({"centroid": np.array([np.nan, 0, 0])}, "NaN"),
        ({"conformer": np.zeros((3, 3))}, "conformer"),
    ],
)
def test_impossible_crystals_and_molecules_in_them_are_refused(change, word):
    crystal = general(*P21C)
    with pytest.raises(CrystalError, match=word):
        if not change.keys() & {"cell", "asymmetric_unit"}:
            change = {"asymmetric_unit": (replace(crystal.asymmetric_unit[0], **change),)}
        replace(crystal, **change)


@pytest.mark.parametrize(
    "change",
    [
        lambda cell, x: (cell, x[:-1]),
        lambda cell, x: (cell, np.where(x == x[0, 0], np.nan, x)),
        lambda cell, x: (cell[[0, 1, 1]], x),
        lambda cell, x: (cell[[1, 0, 2]], x),
    ],
    ids=["shape", "nan", "flat", "left-handed"],
)
def test_impossible_geometries_are_refused(change):
    crystal = general(*P21C)
    with pytest.raises(CrystalError):
        crystal.with_geometry(*change(crystal.cell, crystal.unit_cell()[1]))


def test_several_species_count_in_the_formula():
    water, formamide = general("O", "P 1", (20, 20, 20, 90, 90, 90), (0.1, 0.1, 0.1)), general(*P21C)
    rigid = water.asymmetric_unit[0]
    far = [replace(rigid, centroid=np.array([0.1 + 0.3 * k, 0.6, 0.5])) for k in range(2)]
    mixed = MolecularCrystal(
        (water.molecules[0], formamide.molecules[0]),
        (rigid, *far, replace(formamide.asymmetric_unit[0], species=1, images=(0,))),
        SpaceGroup.from_name("P 1"),
        water.cell,
    )
    assert mixed.formula == "(H2O)3(CH2O)" and mixed.z == 4
    assert len(mixed.unit_cell()[0]) == 13
