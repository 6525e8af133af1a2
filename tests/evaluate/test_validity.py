"""Each validity column fails for its own fault, with a reason, and for no experimental crystal."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase.data import atomic_masses
from packing_examples import BONDS, FORMAMIDE, NUMBERS

from molflow_sim.evaluate import ValidityThresholds, check_validity

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cod_organic" / "cif"


def two_molecules(distance: float, cell=None, shape=FORMAMIDE, turn=None):
    """Two formamides stacked along z at `distance` Å, in a wide cell; `cell` replaces it."""
    second = shape.copy() if turn is None else shape @ turn.T
    positions = np.concatenate([shape, second + np.array([0.0, 0.0, distance])])
    cell = np.diag([6.5, 5.5, 8.0]) if cell is None else cell
    return made(NUMBERS, cell, positions, BONDS)


def made(numbers, cell, positions, bonds):
    """What the check asks of a crystal of two molecules with these numbers and bonds."""
    molecule = SimpleNamespace(bonds=bonds, masses=atomic_masses[numbers])
    arrays = np.tile(numbers, 2), positions, np.repeat([0, 1], len(numbers)), np.zeros(2, dtype=int)
    return SimpleNamespace(
        molecules=[molecule], cell=cell, unit_cell=lambda: arrays, masses=np.tile(molecule.masses, 2)
    )


def check(crystal, **thresholds):
    return check_validity(crystal, thresholds=ValidityThresholds(**thresholds))


def test_a_sound_crystal_passes_every_column():
    result = check(two_molecules(4.0))
    assert result.valid and result.reasons == ()
    assert result.columns()["reason"] == ""


def test_a_close_contact_is_a_clash_that_names_the_atoms():
    result = check(two_molecules(2.0))
    assert not result.no_clash
    assert result.bonds_unchanged and result.density_ok and result.z_ok
    assert result.shortest_contact < 1.0
    assert "contacts too short" in result.reasons[0]


def test_fused_molecules_change_z():
    result = check(two_molecules(1.3))
    assert not result.z_ok
    assert "1 molecules in the cell instead of 2" in result.reasons[0]


def test_a_contact_with_a_periodic_image_counts_in_a_skewed_cell():
    straight = np.diag([6.5, 5.5, 8.0])
    skewed = np.array([[1, 0, 0], [2, 1, 0], [-1, 3, 1]]) @ straight
    short = np.diag([6.5, 5.5, 6.0])
    skewed_short = np.array([[1, 0, 0], [2, 1, 0], [-1, 3, 1]]) @ short
    assert check(two_molecules(4.0, skewed)).no_clash and not check(two_molecules(4.0, short)).no_clash
    assert check(two_molecules(4.0, skewed_short)).shortest_contact == pytest.approx(
        check(two_molecules(4.0, short)).shortest_contact
    )


def test_a_short_hydrogen_bond_is_no_clash_but_the_same_distance_between_other_atoms_is():
    shape = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    bonds = np.array([[0, 1], [0, 2]])
    second = np.array([[2.46, 0, 0], [2.70, 0.93, 0], [2.70, -0.5, 0.78]])
    cell = np.diag([7.0, 5.0, 5.0])
    positions = np.concatenate([shape, second])
    assert check(made(np.array([8, 1, 1]), cell, positions, bonds)).no_clash  # H...O 1.50 Å
    assert not check(made(np.array([6, 1, 1]), cell, positions, bonds)).no_clash


def test_a_broken_bond_is_reported_with_its_length():
    shape = FORMAMIDE.copy()
    shape[5] += (shape[5] - shape[2]) * 0.9
    result = check(two_molecules(4.0, np.diag([8.0, 8.0, 8.0]), shape))
    assert not result.bonds_unchanged and not result.z_ok
    assert "broken" in " ".join(result.reasons)


def test_a_new_bond_within_a_molecule_is_reported():
    shape = FORMAMIDE.copy()
    shape[4] = shape[5] + np.array([0.3, 0.5, 0.0])
    result = check(two_molecules(4.0, shape=shape))
    assert not result.bonds_unchanged
    assert "formed" in " ".join(result.reasons)


@pytest.mark.parametrize(("scale", "ok"), [(1.0, True), (1.6, False)])
def test_density_must_be_that_of_an_organic_crystal(scale, ok):
    result = check(two_molecules(4.0, np.diag([6.5, 5.5, 8.0]) * scale))
    assert result.density == pytest.approx(2 * 45.041 / (6.5 * 5.5 * 8.0 * scale**3) * 1.66053907, rel=1e-3)
    assert result.density_ok is ok


def test_thresholds_are_settings():
    crystal = two_molecules(4.0)
    assert not check(crystal, contact=1.4).no_clash and not check(crystal, min_density=0.6).density_ok


def test_a_crystal_that_is_not_finite_fails_everything_with_one_reason():
    result = check(made(NUMBERS, np.eye(3) * 8.0, np.full((12, 3), np.nan), BONDS))
    assert not result.valid and len(result.reasons) == 1


@pytest.mark.skipif(not DATA.is_dir(), reason="the experimental crystals are not in this checkout")
def test_experimental_crystals_have_no_clashes_and_unchanged_bonds():
    crystal_module = pytest.importorskip("molflow_sim.systems.crystal")
    flagged, read = [], 0
    for path in sorted(DATA.glob("*.cif"))[::6]:
        try:
            crystal = crystal_module.MolecularCrystal.from_cif(path)
        except Exception as error:
            assert type(error).__module__ == "molflow_sim.errors", (path.name, error)
            continue
        read += 1
        result = check_validity(crystal)
        if not result.valid:
            flagged.append((path.stem, result.reasons))
    assert read > 30
    assert len(flagged) <= 0.03 * read, flagged
