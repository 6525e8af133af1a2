"""Compiled minimisation on MMFF94: RDKit's energies, minima, held torsions, each conformer by itself."""

import numpy as np
import pytest

from molflow_sim import Molecule
from molflow_sim.chemistry.conformers import minimised
from molflow_sim.chemistry.embedding import embedded
from molflow_sim.chemistry.rotors import rotors
from molflow_sim.forcefield.mmff import extract_mmff
from molflow_sim.forcefield.mmff_minimise import _hold, _sine_and_cosine, energies, in_dielectric, minimise
from molflow_sim.geometry.torsions import torsion_angles
from molflow_sim.geometry.turning import turn
from molflow_sim.units import KJ_PER_MOL

MOLECULE = Molecule.from_smiles("OC[C@@H](F)COc1ccccc1C(=O)NC", search=False)
TERMS = extract_mmff(MOLECULE.rdmol)
STARTS = np.array(embedded(MOLECULE.rdmol, 6, seed=1))


@pytest.mark.parametrize("dielectric", [1.0, 4.0])
def test_minima_are_those_of_rdkit(dielectric):
    field = in_dielectric(TERMS, dielectric)
    found = minimise(field, STARTS, fmax=0.003, max_steps=3000)
    wanted, energy = minimised(MOLECULE.rdmol, STARTS, dielectric)
    assert energies(field, wanted) == pytest.approx(energy, abs=1e-3)
    assert found.max_force.max() <= 0.003
    # two ways down may end in neighbouring minima, most do not
    assert np.median(np.abs(found.energies - energy)) < 0.1 * KJ_PER_MOL


def test_a_conformer_does_not_feel_the_others():
    whole = minimise(TERMS, STARTS, max_steps=60)
    assert np.array_equal(minimise(TERMS, STARTS[2:3], max_steps=60).positions[0], whole.positions[2])


def test_the_pull_of_held_torsions_is_the_slope_of_their_energy():
    held = rotors(MOLECULE.rdmol).torsions
    x = STARTS[0].copy()
    start = np.array([_sine_and_cosine(x + 0.1 * np.sin(np.arange(x.size)).reshape(x.shape), *t) for t in held])
    gradient, step = np.zeros_like(x), 1e-5
    _hold(x, gradient, held, start, 2.0)
    numeric = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        for sign in (1, -1):
            y = x.copy()
            y[place] += sign * step
            numeric[place] += sign * _hold(y, np.zeros_like(x), held, start, 2.0) / (2 * step)
    assert gradient == pytest.approx(numeric, abs=1e-7)


def test_held_torsions_stay_where_free_ones_move():
    held = rotors(MOLECULE.rdmol).torsions
    change = {
        stiffness: np.abs(
            np.angle(np.exp(1j * (torsion_angles(
                minimise(TERMS, STARTS, held=held, stiffness=stiffness, fmax=0.01, max_steps=2000).positions, held
            ) - torsion_angles(STARTS, held))))
        ).mean()
        for stiffness in (0.0, 0.3, 20.0)
    }  # fmt: skip
    assert change[20.0] < np.deg2rad(5) < change[0.0] and change[20.0] < change[0.3] < change[0.0]


def test_hopeless_starts_are_told_apart():
    hopeless = STARTS[:2].copy()
    hopeless[1] = np.nan
    found = minimise(TERMS, hopeless)
    assert np.isfinite(found.energies[0]) and not np.isfinite(found.energies[1])


def test_turning_sets_torsions_and_nothing_else():
    turned = rotors(MOLECULE.rdmol)
    wanted = np.random.default_rng(0).uniform(-np.pi, np.pi, (len(STARTS), len(turned)))
    x = STARTS.copy()
    turn(x, turned.axes, turned.moving, wanted - torsion_angles(x, turned.torsions))
    assert np.angle(np.exp(1j * (torsion_angles(x, turned.torsions) - wanted))) == pytest.approx(0.0, abs=1e-9)
    i, j = MOLECULE.bonds.T
    assert np.linalg.norm(x[:, i] - x[:, j], axis=2) == pytest.approx(
        np.linalg.norm(STARTS[:, i] - STARTS[:, j], axis=2)
    )


@pytest.mark.parametrize(("smiles", "count"), [("CCCC", 1), ("CC#CC", 0), ("C1CCCCC1", 0), ("CNC(C)=O", 1), ("CCO", 0)])
def test_rotors_have_heavy_atoms_on_both_sides(smiles, count):
    assert len(rotors(Molecule.from_smiles(smiles, search=False).rdmol)) == count
