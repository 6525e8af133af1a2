"""The clash test of generative models, on crystals small enough to do by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_examples import packing, rewritten

from molflow_sim.evaluate import CLASH_OVERLAP, heavy_atom_overlap


def atoms(*numbers: int, apart: float, length: float = 20.0):
    """Single-atom molecules on a line, `apart` from one to the next."""
    positions = np.zeros((len(numbers), 3))
    positions[:, 0] = apart * np.arange(len(numbers))
    return np.array(numbers), length * np.eye(3), positions, np.arange(len(numbers))


@pytest.mark.parametrize(("pair", "reach"), [((6, 6), 3.40), ((6, 8), 3.22), ((7, 8), 3.07), ((17, 17), 3.50)])
def test_the_overlap_is_the_sum_of_radii_less_the_distance(pair, reach):
    assert heavy_atom_overlap(atoms(*pair, apart=reach - 0.5)) == pytest.approx(0.5)
    assert heavy_atom_overlap(atoms(*pair, apart=reach + 0.1)) == 0.0


def test_the_deepest_overlap_counts():
    numbers, cell, positions, molecule = atoms(6, 6, 6, apart=3.0)
    positions[2, 0] = 5.0
    assert heavy_atom_overlap((numbers, cell, positions, molecule)) == pytest.approx(1.4)


def test_a_strong_hydrogen_bond_is_no_clash_and_a_bond_is_one():
    assert heavy_atom_overlap(atoms(8, 8, apart=2.40)) < CLASH_OVERLAP < heavy_atom_overlap(atoms(6, 8, apart=1.4))


def test_hydrogens_and_atoms_of_one_molecule_do_not_count():
    assert heavy_atom_overlap(atoms(1, 8, apart=0.5)) == 0.0
    numbers, cell, positions, _ = atoms(6, 6, apart=1.5)
    assert heavy_atom_overlap((numbers, cell, positions, np.zeros(2, int))) == 0.0


def test_a_molecule_clashes_with_its_own_image():
    assert heavy_atom_overlap(atoms(6, apart=0.0, length=2.5)) == pytest.approx(0.9)


def test_what_is_no_crystal_overlaps_without_end():
    numbers, cell, positions, molecule = atoms(6, 6, apart=5.0)
    assert heavy_atom_overlap((numbers, 0.0 * cell, positions, molecule)) == np.inf
    assert heavy_atom_overlap((numbers, cell, np.nan * positions, molecule)) == np.inf


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), mirror=st.booleans())
def test_the_overlap_does_not_depend_on_cell_origin_orientation_or_order(seed, mirror):
    crystal = packing(seed, length=0.9)
    assert heavy_atom_overlap(rewritten(crystal, seed + 1, mirror)) == pytest.approx(heavy_atom_overlap(crystal))
