"""Volumes of molecules against formulas and thrown points; packing coefficients against what crystals have."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from crystal_examples import crystal, molecule
from hypothesis import given
from hypothesis import strategies as st
from test_hydrogen_bonds import DATA, needs_data

from molflow_sim import MolecularCrystal
from molflow_sim.evaluate.overlap import van_der_waals_radii
from molflow_sim.evaluate.packing_coefficient import molecular_volume, packing_coefficient


@given(st.floats(0.0, 5.0), st.sampled_from([1, 6, 8, 17]), st.lists(st.floats(-50, 50), min_size=3, max_size=3))
def test_two_spheres_have_the_volume_of_the_formula(d, z, shift):
    r, s = van_der_waals_radii([6, z])
    lens = 0.0
    if d < abs(r - s):
        lens = 4 / 3 * np.pi * min(r, s) ** 3
    elif d < r + s and d > 1e-9:
        lens = np.pi * (r + s - d) ** 2 * (d**2 + 2 * d * (r + s) - 3 * (r - s) ** 2) / (12 * d)
    expected = 4 / 3 * np.pi * (r**3 + s**3) - lens
    if d < 1e-9 and r == s:
        return  # two names of one sphere
    positions = np.array([[0, 0, 0], [0.6 * d, 0, 0.8 * d]]) + shift
    assert molecular_volume([6, z], positions) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("smiles", ["c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "NC(N)=S"])
def test_volumes_are_those_of_points_thrown_at_the_molecule(smiles):
    mol = molecule(smiles)
    x, radii = mol.conformers[0], van_der_waals_radii(mol.numbers)
    low, high = x.min(0) - 2.0, x.max(0) + 2.0
    points = np.random.default_rng(0).uniform(low, high, (400_000, 3))
    inside = np.zeros(len(points), bool)
    for centre, radius in zip(x, radii):
        inside |= np.sum((points - centre) ** 2, axis=1) < radius**2
    assert molecular_volume(mol.numbers, x) == pytest.approx(inside.mean() * np.prod(high - low), rel=0.008)


def test_it_falls_with_the_cell():
    loose, dense = crystal("urea"), crystal("urea", scale=0.9)
    assert packing_coefficient(dense) == pytest.approx(packing_coefficient(loose) / 0.9**3)


@needs_data
@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [
        ("06_benzene", 0.68, 0.72),
        ("13_naphthalene", 0.70, 0.76),
        ("05_anthracene", 0.70, 0.76),
        ("21_urea", 0.65, 0.77),
    ],
)
def test_known_crystals_are_filled_as_kitaigorodskii_says(name, lowest, highest):
    c = MolecularCrystal.from_ase(ase.io.read(DATA / "x23" / name / "POSCAR_solid", format="vasp"), symprec=0.01)
    assert lowest < packing_coefficient(c) < highest
