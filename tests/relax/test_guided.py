"""Minimisation on an expensive surface that a cheap one guides: the same minimum for fewer gradients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import AllChem

from molflow_sim.errors import MissingDependencyError
from molflow_sim.forcefield.gfn2_energy import GFN2Energy
from molflow_sim.forcefield.mmff import extract_mmff
from molflow_sim.forcefield.mmff_compiled import mmff_hessian, mmff_molecules
from molflow_sim.relax.guided import guided, newton, positive_inverse


class Counted:
    """A surface that counts how often it is asked."""

    def __init__(self, surface):
        self.surface, self.calls = surface, 0

    def __call__(self, x):
        self.calls += 1
        return self.surface(x)


def mmff(terms):
    def surface(x):
        energy, gradient, _ = mmff_molecules(terms, x, np.zeros(1, int))
        return float(energy[0]), gradient[0]

    return surface


@pytest.fixture(scope="module")
def butanol():
    mol = Chem.AddHs(Chem.MolFromSmiles("CCCCO"))
    AllChem.EmbedMolecule(mol, randomSeed=3)
    return extract_mmff(mol), mol.GetConformer().GetPositions()


def test_the_hessian_of_mmff_is_the_change_of_its_gradient(butanol):
    terms, x = butanol
    hessian = mmff_hessian(terms, x)
    assert np.allclose(hessian, hessian.T)
    move = 1e-3 * np.random.default_rng(0).normal(size=x.shape)
    change = mmff(terms)(x + move)[1] - mmff(terms)(x - move)[1]
    assert np.allclose(change.ravel(), 2.0 * hessian @ move.ravel(), atol=0.02 * np.abs(change).max())


def test_newton_finds_a_minimum_of_mmff(butanol):
    terms, x = butanol
    end = newton(mmff(terms), x, positive_inverse(mmff_hessian(terms, x)), force=1e-3, evaluations=300)
    assert end.converged and end.force <= 1e-3
    assert np.linalg.eigvalsh(mmff_hessian(terms, end.positions)).min() > -0.02


def test_a_guide_saves_gradients_and_leads_to_a_minimum_of_the_surface(butanol):
    terms, x = butanol
    start = newton(mmff(terms), x, positive_inverse(mmff_hessian(terms, x)), force=1e-3, evaluations=300).positions
    # bonds a little longer and stiffer, as another method has them
    rng = np.random.default_rng(1)
    pairs, target = terms.bonds, terms.bond_r0 + 0.03 * rng.random(len(terms.bonds))

    def other(y):
        energy, gradient = mmff(terms)(y)
        v = y[pairs[:, 1]] - y[pairs[:, 0]]
        r = np.linalg.norm(v, axis=1)
        pull = (20.0 * (r - target) / r)[:, None] * v
        gradient = gradient.copy()
        np.add.at(gradient, pairs[:, 1], pull)
        np.add.at(gradient, pairs[:, 0], -pull)
        return energy + 10.0 * float(((r - target) ** 2).sum()), gradient

    hessian = mmff_hessian(terms, start)
    led, unled = Counted(other), Counted(other)
    a = guided(led, mmff(terms), start, hessian, force=0.01, evaluations=100)
    b = newton(unled, start, positive_inverse(hessian), force=0.01, evaluations=300)
    assert a.converged and b.converged
    assert a.energy == pytest.approx(b.energy, abs=1e-3)
    assert a.evaluations == led.calls < unled.calls


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_guide_that_is_wrong_only_costs_time(seed):
    """A quadratic surface and a guide with another minimum and other curvatures."""
    rng = np.random.default_rng(seed)
    n = 3
    root = rng.normal(size=(3 * n, 3 * n))
    stiff = root @ root.T + np.eye(3 * n)
    low = rng.normal(size=(n, 3))

    def surface(x, k=stiff, low=low):
        step = (x - low).ravel()
        return 0.5 * float(step @ k @ step), (k @ step).reshape(n, 3)

    def guide(x):
        return surface(x, np.diag(rng_values), 0.5 * low)

    rng_values = rng.uniform(0.5, 20.0, 3 * n)
    end = guided(surface, guide, np.zeros((n, 3)), np.diag(rng_values), force=1e-3, evaluations=400)
    assert end.converged
    assert np.allclose(end.positions, low, atol=0.01)


def test_it_stops_where_it_is_told_to_and_says_when_it_did_not_arrive(butanol):
    terms, x = butanol
    hessian = mmff_hessian(terms, x)
    flat = Counted(lambda y: (0.0, np.zeros_like(y)))
    few = guided(mmff(terms), flat, x, hessian, force=1e-6, evaluations=3)
    assert not few.converged and few.evaluations == 3
    told = guided(mmff(terms), mmff(terms), x, hessian, force=1e-6, evaluations=50, stop=lambda y, e, f: True)
    assert told.evaluations == 1 and np.array_equal(told.positions, x)


def test_gfn2_gradients_are_those_of_its_energy_whatever_came_before():
    pytest.importorskip("tblite", reason="tblite is not installed")
    mol = Chem.AddHs(Chem.MolFromSmiles("CO"))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    x = mol.GetConformer().GetPositions()
    numbers = np.array([a.GetAtomicNum() for a in mol.GetAtoms()])
    surface = GFN2Energy(numbers)
    _, gradient = surface(x)
    move = 0.01 * np.random.default_rng(0).normal(size=x.shape)
    slope = (surface(x + move)[0] - surface(x - move)[0]) / 2.0
    assert slope == pytest.approx(float(np.vdot(gradient, move)), abs=3e-4)
    assert GFN2Energy(numbers)(x)[0] == pytest.approx(surface(x)[0], abs=1e-4)


def test_gfn2_takes_fewer_gradients_with_mmff_as_its_guide_than_by_bfgs_with_the_hessian_of_mmff():
    pytest.importorskip("tblite", reason="tblite is not installed")
    led = unled = 0
    for smiles in ("OCCNC=O", "COC(=O)CO", "CC(=O)NC"):
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        AllChem.EmbedMolecule(mol, randomSeed=1)
        AllChem.MMFFOptimizeMolecule(mol, maxIters=1000)
        x, terms = mol.GetConformer().GetPositions(), extract_mmff(mol)
        numbers = np.array([a.GetAtomicNum() for a in mol.GetAtoms()])
        hessian = mmff_hessian(terms, x)
        a = guided(GFN2Energy(numbers), mmff(terms), x, hessian, force=0.03, evaluations=60)
        b = newton(GFN2Energy(numbers), x, positive_inverse(hessian), force=0.03, evaluations=60)
        assert a.converged
        led, unled = led + a.evaluations, unled + b.evaluations
    assert led < 0.8 * unled


def test_without_tblite_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tblite.interface", None)
    with pytest.raises(MissingDependencyError, match=r"molflow-sim\[xtb\]"):
        GFN2Energy(np.array([1, 1]))
