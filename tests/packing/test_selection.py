"""The better part of generated packings: what a few steps of the potential tell about the end of the press."""

import numpy as np
import pytest
from refusals import refuses

from molflow_sim import Molecule, parametrize
from molflow_sim.errors import InputError
from molflow_sim.packing import PressSettings, RigidPackings, press, random_packings
from molflow_sim.packing.packings import OVERLAP_FREE
from molflow_sim.packing.relief import relieve
from molflow_sim.packing.selection import select_low


@pytest.fixture(scope="module")
def molecule() -> Molecule:
    return Molecule.from_smiles("Cc1ccc(O)cc1", n_conformers=1)


@pytest.fixture(scope="module")
def parted(molecule) -> RigidPackings:
    return relieve(random_packings(molecule, 150, seed=2, packing_coefficient=(0.66, 0.76)))


def test_what_is_selected_presses_to_lower_energies(molecule, parted):
    parameters = parametrize(molecule)
    chosen = select_low(parted, parameters, 30)
    energy = press(parted, parameters).energy
    kept = np.isin(parted.index, chosen.index)
    assert np.nanmedian(energy[kept]) < np.nanmedian(energy[~kept]) - 0.01


def test_order_symmetry_and_numbers_are_kept_and_nothing_counts_as_pressed(molecule, parted):
    chosen = select_low(parted, parametrize(molecule), 40)
    assert len(chosen) == 40 and np.all(np.diff(chosen.index) > 0)
    np.testing.assert_array_equal(chosen.cell, parted.cell[chosen.index])
    assert set(chosen.status) == {OVERLAP_FREE} and np.isnan(chosen.energy).all()
    assert [parted.space_groups[i] for i in chosen.index] == chosen.space_groups


@pytest.mark.parametrize(("n", "of"), [(0, None), (5, None), (2, 3)])
def test_numbers_out_of_range_are_refused(molecule, parted, n, of):
    refuses(InputError, "selected", select_low, parted.select(np.arange(4)), parametrize(molecule), n, of=of)


def test_the_press_parts_overlaps_of_those_only_that_have_any(molecule, parted):
    parameters = parametrize(molecule)
    clean, loose = parted.select(np.arange(20)), random_packings(molecule, 20, seed=3)
    alone = press(clean, parameters)
    np.testing.assert_array_equal(alone.energy, press(clean, parameters, PressSettings(soft_evaluations=0)).energy)
    together = press(RigidPackings.concatenate([clean, loose]), parameters)
    np.testing.assert_array_equal(together.energy[:20], alone.energy)
    np.testing.assert_array_equal(together.energy[20:], press(loose, parameters).energy)
