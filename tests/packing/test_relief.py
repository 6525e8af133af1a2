"""Parting of overlaps: clashes go, symmetry, order and density stay."""

import numpy as np
import pytest

from molflow_sim import Molecule
from molflow_sim.errors import InputError
from molflow_sim.evaluate.overlap import CLASH_OVERLAP, heavy_atom_overlap
from molflow_sim.packing import random_packings
from molflow_sim.packing.relief import relieve


@pytest.fixture(scope="module")
def dense():
    return random_packings(Molecule.from_smiles("Cc1ccc(O)cc1"), 60, seed=2, packing_coefficient=(0.66, 0.76))


def clash_free(packings):
    return np.mean([heavy_atom_overlap(packings.crystal(k)) < CLASH_OVERLAP for k in range(len(packings))])


def test_most_overlaps_of_dense_random_packings_are_gone(dense):
    assert clash_free(dense) < 0.4 and clash_free(relieve(dense)) > 0.8


def test_the_density_becomes_that_of_crystals(dense):
    moved = relieve(dense)
    filled = [k * dense.molecule.volume for k in (dense.placements[p].n_images for p in dense.placement)]
    np.testing.assert_allclose(filled / np.linalg.det(moved.cell), 0.72)


def test_space_groups_and_order_are_kept_and_symmetry_stays_exact(dense):
    moved = relieve(dense)
    assert moved.space_groups == dense.space_groups and np.array_equal(moved.index, dense.index)
    for k in range(0, len(moved), 7):
        crystal = moved.crystal(k)
        assert crystal.space_group == dense.crystal(k).space_group
        assert np.linalg.det(moved.rotation[k, 0]) == pytest.approx(1.0, abs=1e-9)


def test_no_evaluations_change_nothing_and_numbers_out_of_range_are_refused(dense):
    assert relieve(dense, 0) is dense
    with pytest.raises(InputError):
        relieve(dense, -1)
    with pytest.raises(InputError, match="packing coefficients"):
        random_packings(Molecule.from_smiles("c1ccccc1"), 2, packing_coefficient=(0.7, 1.2))
