"""Divergences of bond lengths and angles: their limits, their classes, and the floor."""

import numpy as np
import pytest
from rdkit import Chem

from benchmarks.divergence import (
    InternalClasses,
    angle_divergence,
    bond_angles,
    bond_divergence,
    floor,
    jensen_shannon,
)


@pytest.fixture
def classes() -> InternalClasses:
    return InternalClasses.of([Chem.AddHs(Chem.MolFromSmiles("CC(=O)N"))], [0, 0])


def frames(n: int, spread: float, seed: int = 0) -> np.ndarray:
    one = np.array([[0.0, 0, 0], [1.5, 0, 0], [2.1, 1.0, 0], [2.2, -1.1, 0]])
    return np.concatenate([one, one + 6.0])[None] + spread * np.random.default_rng(seed).normal(size=(n, 8, 3))


def test_the_divergence_is_one_bit_without_overlap_and_zero_for_the_same():
    p = np.array([1.0, 2.0, 0.0, 0.0])
    assert jensen_shannon(p, 3.0 * p) == pytest.approx(0.0)
    assert jensen_shannon(p, p[::-1]) == pytest.approx(1.0)
    assert jensen_shannon(np.array([1.0, 0]), np.array([1.0, 1.0])) == pytest.approx(0.3113, abs=1e-4)


def test_bonds_and_angles_are_classed_by_elements_and_types(classes):
    assert {k: len(v) for k, v in classes.bonds.items()} == {"C-C": 2, "C=O": 2, "C-N": 2}
    assert {k: len(v) for k, v in classes.angles.items()} == {"C-C=O": 2, "C-C-N": 2, "N-C=O": 2}
    assert bond_angles(frames(1, 0.0), classes.angles["C-C-N"]).mean() == pytest.approx(122.5, abs=0.1)


def test_a_sample_of_the_same_distribution_is_at_the_floor_and_another_is_not(classes):
    truth = frames(400, 0.03)
    low = floor(classes, truth)
    same = bond_divergence(classes, frames(200, 0.03, 1), truth), angle_divergence(classes, frames(200, 0.03, 1), truth)
    wide = bond_divergence(classes, frames(200, 0.12, 2), truth), angle_divergence(classes, frames(200, 0.12, 2), truth)
    assert max(low) < 0.05 and all(s < 1.5 * f for s, f in zip(same, low))
    assert min(wide) > 0.2


def test_values_beyond_the_range_count_too(classes):
    assert bond_divergence(classes, 5.0 * frames(20, 0.0), frames(20, 0.0)) == pytest.approx(1.0)
