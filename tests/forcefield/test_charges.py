"""Partial charges: neutral, symmetric, close to the potential they stand for, and computed once."""

import json
import sys
import warnings

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from refusals import refuses
from scipy.spatial.transform import Rotation

from molflow_sim.errors import InputError, MissingDependencyError, ParameterError, UnsupportedElementError
from molflow_sim.forcefield import CHARGE_MODELS, charges, parametrize, partial_charges
from molflow_sim.forcefield.esp import equivalent_atoms, fit_charges, inverse_distances, shell_points
from molflow_sim.forcefield.gfn2 import gfn2_multipoles, multipole_potential
from molflow_sim.systems.molecule import Molecule
from molflow_sim.units import BOHR

DEBYE = 1 / 0.20819434  # e·Å in debye


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for every test."""
    monkeypatch.setenv("MOLFLOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def molecule(smiles: str) -> Molecule:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=3) == 0
    return Molecule.from_rdkit(mol)


def dipole(mol: Molecule, q: np.ndarray) -> float:
    return float(np.linalg.norm(q @ mol.conformers[0])) * DEBYE


def require(model: str) -> None:
    library = {"hf-esp": "pyscf", "gfn2-esp": "tblite", "gfn2": "tblite"}.get(model)
    if library:
        pytest.importorskip(library, reason=f"{library} is not installed: {model} charges are not tested")


@pytest.mark.parametrize("model", CHARGE_MODELS)
@pytest.mark.parametrize("smiles", ["CO", "C[N+](=O)[O-]"])
def test_charges_add_up_to_zero_and_equivalent_atoms_are_equal(model, smiles):
    require(model)
    mol = molecule(smiles)
    q = partial_charges(mol, model)
    assert abs(q.sum()) < 1e-14
    for kind in np.unique(equivalent_atoms(mol.rdmol)):
        assert np.ptp(q[equivalent_atoms(mol.rdmol) == kind]) < 1e-12
    assert np.abs(q).max() > 0.05


def test_hf_charges_of_water_give_its_hf_dipole():
    require("hf-esp")
    water = molecule("O")
    q = partial_charges(water, "hf-esp")
    assert -0.90 < q[0] < -0.70
    assert dipole(water, q) == pytest.approx(2.2, abs=0.15)  # HF/6-31G* exaggerates the dipole, as is well known


def test_hf_charges_of_methanol_have_the_order_of_electronegativity():
    require("hf-esp")
    q = partial_charges(molecule("CO"), "hf-esp")
    assert -0.75 < q[1] < -0.5 and 0.3 < q[5] < 0.5
    assert q[0] > 0


def test_gfn2_multipoles_add_up_to_the_molecular_dipole_in_any_orientation():
    require("gfn2")
    mol = molecule("CS(C)=O")
    x = mol.conformers[0]
    turn = Rotation.random(rng=1)
    q, d, quadrupole = gfn2_multipoles(mol.numbers, x)
    q2, d2, quadrupole2 = gfn2_multipoles(mol.numbers, turn.apply(x))
    calculator = pytest.importorskip("tblite.interface").Calculator("GFN2-xTB", mol.numbers, x / BOHR)
    calculator.set("verbosity", 0)
    assert q @ x + d.sum(0) == pytest.approx(calculator.singlepoint().get("dipole") * BOHR, abs=1e-4)
    assert q2 == pytest.approx(q, abs=1e-4)
    assert d2 == pytest.approx(turn.apply(d), abs=1e-4)
    matrix = turn.as_matrix()
    assert quadrupole2 == pytest.approx(matrix @ quadrupole @ matrix.T, abs=2e-4)


def test_fitted_gfn2_charges_carry_the_dipole_that_its_mulliken_charges_miss():
    require("gfn2-esp")
    water = molecule("O")
    q, d, _ = gfn2_multipoles(water.numbers, water.conformers[0])
    full = np.linalg.norm(q @ water.conformers[0] + d.sum(0)) * DEBYE
    assert dipole(water, partial_charges(water, "gfn2-esp")) == pytest.approx(full, rel=0.02)
    assert dipole(water, partial_charges(water, "gfn2")) < 0.8 * full


def test_the_fit_recovers_charges_from_their_own_potential():
    mol = molecule("NC(N)=O")
    classes = equivalent_atoms(mol.rdmol)
    truth = np.array([-0.9, 1.0, -0.9, -0.6, 0.35, 0.35, 0.35, 0.35])
    points = shell_points(list(mol.symbols), mol.conformers[0])
    potential = (truth / np.linalg.norm(points[:, None] - mol.conformers[0], axis=-1)).sum(1)
    fitted = fit_charges(inverse_distances(points, mol.conformers[0]), potential, classes, mol.numbers > 1)
    assert fitted == pytest.approx(truth, abs=0.03)  # what the weak restraint costs the buried carbon
    refitted = (fitted / np.linalg.norm(points[:, None] - mol.conformers[0], axis=-1)).sum(1)
    assert np.linalg.norm(refitted - potential) < 0.01 * np.linalg.norm(potential)


def test_the_multipole_potential_is_that_of_point_charges_close_together():
    h = 1e-3
    offsets = np.array([[h, 0, 0], [-h, 0, 0], [0, h, 0], [0, -h, 0]])
    q = np.array([3.0, -1.0, -1.0, -1.0]) / h
    point = np.array([[2.0, 1.5, -1.0]])
    exact = (q / np.linalg.norm(point[:, None] - offsets, axis=-1)).sum(1)
    second = np.einsum("n,ni,nj->ij", q, offsets, offsets)
    moments = (q.sum()[None], (q @ offsets)[None], (1.5 * second - 0.5 * np.trace(second) * np.eye(3))[None])
    assert multipole_potential(np.zeros((1, 3)), moments, point) == pytest.approx(exact, rel=1e-5)


def test_shell_points_stay_outside_the_shell_they_belong_to():
    mol = molecule("CO")
    points = shell_points(list(mol.symbols), mol.conformers[0])
    radii = np.array([1.2 if s == "H" else {"C": 1.70, "O": 1.52}[s] for s in mol.symbols])
    ratio = (np.linalg.norm(points[:, None] - mol.conformers[0], axis=-1) / radii).min(1)
    assert ratio.min() > 1.399 and ratio.max() < 2.001
    assert len(points) > 300


def test_equivalence_ignores_how_bonds_and_stereo_are_drawn():
    nitro = equivalent_atoms(Chem.AddHs(Chem.MolFromSmiles("C[N+](=O)[O-]")))
    assert nitro[2] == nitro[3] and len(set(nitro)) == 4
    acid = equivalent_atoms(Chem.AddHs(Chem.MolFromSmiles("CC(=O)O")))
    assert acid[2] != acid[3]
    toluene = equivalent_atoms(Chem.AddHs(Chem.MolFromSmiles("Cc1ccccc1")))
    assert toluene[2] == toluene[6] and toluene[2] != toluene[3]
    alanine = equivalent_atoms(Chem.AddHs(Chem.MolFromSmiles("CC[C@H](C)O")))
    assert len(set(alanine[5:])) < len(alanine[5:])  # CH3 and CH2 hydrogens are averaged


def test_charges_are_computed_once_and_then_read(cache, monkeypatch):
    mol, calls = molecule("CO"), []
    monkeypatch.setitem(CHARGE_MODELS, "gfn2", lambda m, k: calls.append(k) or np.arange(6.0))
    first = partial_charges(mol, "gfn2")
    assert partial_charges(mol, "gfn2").tolist() == first.tolist()
    assert calls == [0]
    assert partial_charges(mol, "gfn2", cache=False).tolist() == first.tolist()
    assert calls == [0, 0]
    (file,) = (cache / "charges").iterdir()
    assert json.loads(file.read_text())["model"] == "gfn2"


@pytest.mark.parametrize("damage", ["", "{", '{"charges": [1, 2]}', '{"charges": [1, 1, 1, 1, 1, 1]}', "[]", "null"])
def test_a_damaged_cache_file_is_computed_afresh(cache, monkeypatch, damage):
    mol = molecule("CO")
    monkeypatch.setitem(CHARGE_MODELS, "gfn2", lambda m, k: np.arange(6.0))
    good = partial_charges(mol, "gfn2")
    (file,) = (cache / "charges").iterdir()
    file.write_text(damage)
    assert partial_charges(mol, "gfn2").tolist() == good.tolist()
    assert json.loads(file.read_text())["charges"] == good.tolist()


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("MOLFLOW_CACHE", str(blocked))
    monkeypatch.setitem(CHARGE_MODELS, "gfn2", lambda m, k: np.arange(6.0))
    assert len(partial_charges(molecule("CO"), "gfn2")) == 6


def test_another_conformer_or_model_has_another_cache_entry(monkeypatch):
    mol = molecule("CO")
    two = mol.with_conformers(np.concatenate([mol.conformers, 1.01 * mol.conformers]))
    keys = {charges._cache_key(two, model, k) for model in ("gfn2", "hf-esp") for k in (0, 1)}
    assert len(keys) == 4
    assert charges._cache_key(mol, "gfn2", 0) == charges._cache_key(two, "gfn2", 0)


@pytest.mark.parametrize(
    ("model", "library", "wanted"),
    [("hf-esp", "pyscf", "pip install pyscf"), ("gfn2", "tblite", r"molflow-sim\[xtb\]")],
)
def test_a_missing_library_is_named_with_its_install_command(monkeypatch, model, library, wanted):
    for name in [m for m in sys.modules if m.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    refuses(MissingDependencyError, wanted, partial_charges, molecule("CO"), model)


def test_mmff_charges_of_carbon_dioxide_are_warned_about_and_made_neutral():
    with pytest.warns(UserWarning, match="O=C=O add up to -1.00 e"):
        q = partial_charges(molecule("O=C=O"))
    assert q.sum() == pytest.approx(0, abs=1e-14)


def test_ordinary_molecules_are_not_warned_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        partial_charges(molecule("CC(=O)Nc1ccc(O)cc1"))


def test_parametrize_collects_everything_in_the_molecules_order():
    mol = molecule("CC(N)=O")
    p = parametrize(mol)
    assert p.numbers.tolist() == mol.numbers.tolist() and p.masses == pytest.approx(mol.masses)
    assert p.charge_model == "mmff94" and p.charges == pytest.approx(p.mmff.charges, abs=1e-12)
    assert {len(v) for v in (p.exp6_a, p.exp6_b, p.exp6_c, p.charges, p.numbers)} == {mol.n_atoms}
    assert p.mmff.n_atoms == mol.n_atoms


def test_molecules_beyond_the_force_field_unknown_models_and_conformers_are_refused():
    boronic = Chem.AddHs(Chem.MolFromSmiles("OB(O)c1ccccc1"))
    rdDistGeom.EmbedMolecule(boronic, randomSeed=3)
    refuses(UnsupportedElementError, "B", parametrize, Molecule.from_rdkit(boronic))
    hexafluoride = Chem.MolFromSmiles("FS(F)(F)(F)(F)F")
    rdDistGeom.EmbedMolecule(hexafluoride, randomSeed=3)
    refuses(ParameterError, "no atom types", parametrize, Molecule.from_rdkit(hexafluoride))
    mol = molecule("O")
    refuses(InputError, "choose one of mmff94, hf-esp", partial_charges, mol, "am1-bcc")
    refuses(InputError, "conformer 3 of 1", partial_charges, mol, "mmff94", conformer=3)
