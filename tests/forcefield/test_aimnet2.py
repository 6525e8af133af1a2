"""AIMNet2 inside molecules: a smooth surface, the same each time, and refusals."""

import numpy as np
import pytest
from refusals import refuses
from scipy.spatial.transform import Rotation

from molflow_sim import Molecule
from molflow_sim.errors import MissingDependencyError, UnsupportedElementError, WeightsError
from molflow_sim.forcefield import aimnet2
from molflow_sim.forcefield.aimnet2 import AIMNet2
from molflow_sim.relax.intramolecular import intramolecular
from molflow_sim.units import KJ_PER_MOL

ETHANOL = Molecule.from_smiles("CCO", n_conformers=1)
NUMBERS, POSITIONS = np.asarray(ETHANOL.numbers), ETHANOL.conformers[0]


def test_the_gradient_is_that_of_the_energy():
    model, step = AIMNet2(NUMBERS), 3e-3
    gradient = model(POSITIONS)[1]
    for i, k in [(0, 0), (2, 1), (8, 2)]:
        shift = np.zeros_like(POSITIONS)
        shift[i, k] = step
        slope = (model(POSITIONS + shift)[0] - model(POSITIONS - shift)[0]) / (2 * step)
        assert slope == pytest.approx(gradient[i, k], abs=3e-4)


def test_turned_moved_and_renumbered_molecules_have_the_same_energy():
    energy, gradient = AIMNet2(NUMBERS)(POSITIONS)
    turn, order = Rotation.random(random_state=1).as_matrix(), np.random.default_rng(2).permutation(len(NUMBERS))
    moved = (POSITIONS @ turn.T + [3.0, -1.0, 2.0])[order]
    other, turned = AIMNet2(NUMBERS[order])(moved)
    assert other == pytest.approx(energy, abs=1e-5)
    np.testing.assert_allclose(turned, (gradient @ turn.T)[order], atol=5e-5)


def test_the_same_positions_have_the_same_bits_whatever_came_between():
    model = AIMNet2(NUMBERS)
    first = model(POSITIONS)
    AIMNet2(np.array([6, 1, 1, 1, 1]))(Molecule.from_smiles("C", n_conformers=1).conformers[0])
    for _ in range(2):
        energy, gradient = model(POSITIONS)
        assert energy == first[0] == model.energy(POSITIONS) and np.array_equal(gradient, first[1])


def test_gauche_butane_lies_above_anti_as_by_ccsd_t():
    butane = Molecule.from_smiles("CCCC", n_conformers=6)
    _, energies = intramolecular("aimnet2", butane).relax(np.asarray(butane.conformers))
    distinct = np.unique(np.round(energies / KJ_PER_MOL, 1))
    gauche = distinct[distinct > distinct[0] + 0.5][0] - distinct[0]
    assert gauche == pytest.approx(2.5, abs=1.5)  # kJ/mol


def test_what_it_cannot_do_is_refused(monkeypatch, tmp_path):
    refuses(UnsupportedElementError, "Na", AIMNet2, np.array([11, 1]))
    aimnet2._load.cache_clear()
    monkeypatch.setattr(aimnet2, "SHA256", "0" * 64)
    refuses(WeightsError, r"SHA-256 differs.*pip install", AIMNet2, NUMBERS)
    monkeypatch.setattr(aimnet2, "PACKAGE", "no_such_package")
    refuses(MissingDependencyError, r"pip install auto3d==2\.3\.1", AIMNet2, NUMBERS)
