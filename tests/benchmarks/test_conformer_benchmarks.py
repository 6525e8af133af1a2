"""Benchmarks of conformers: failures are not found, the wrong hand does not count, all sides on the same molecules."""

import gzip
import json

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from benchmarks import ensembles, ligands
from benchmarks.conformer_metrics import right
from molflow_sim.chemistry.conformers import with_positions
from molflow_sim.dataset.conformers import ConformerEnsemble
from molflow_sim.errors import ConformerError

SMILES = ("C[C@H](O)CC(N)=O", "CCOCC")
FAST = "ETKDGv3"


def ligand(smiles: str, name: str = "000") -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(mol, randomSeed=3)
    mol.SetProp("_Name", name)
    mol.SetProp("smiles", smiles)
    return mol


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "ligands.sdf.gz"
    with gzip.open(path, "wt") as file, Chem.SDWriter(file) as writer:
        for smiles in SMILES:
            writer.write(ligand(smiles))
    return path


def test_what_a_side_hands_back_is_measured_against_the_pose():
    own = ligand(SMILES[0])
    x = own.GetConformer().GetPositions()
    both = np.array([x, x * [1, 1, -1]])
    found = ligands.measure(own, "side", 2, 0, lambda smiles, n, seed: (own, both, 1.5))
    assert found.best == pytest.approx(0.0, abs=1e-3) and found.wrong == 1 and len(found.rmsd) == 1
    assert found.seconds == 1.5 and found.n == 2


def test_a_side_that_fails_has_found_nothing():
    def fails(*_):
        raise ConformerError("no way")

    found = ligands.measure(ligand(SMILES[1]), "side", 2, 0, fails)
    assert found.best == np.inf and found.reason == "ConformerError: no way"
    row = ligands.table([found], [2]).rows[0]
    assert row["failed"] == 1 and row["< 1.5 Å, %"] == 0.0


def test_the_stereochemistry_of_the_smiles_is_put_on_any_atom_order():
    own = ligand(SMILES[0])
    x = own.GetConformer().GetPositions()
    order = np.random.default_rng(0).permutation(own.GetNumAtoms())
    other = Chem.RenumberAtoms(own, order.tolist())
    Chem.RemoveStereochemistry(other)
    told = ligands.stereo_of(other, SMILES[0])
    assert [a.GetAtomicNum() for a in told.GetAtoms()] == [a.GetAtomicNum() for a in other.GetAtoms()]
    assert right(told, np.array([x, x * [1, 1, -1]])[:, order]).tolist() == [True, False]
    assert Chem.MolToSmiles(Chem.RemoveHs(with_positions(told, x[order]))) == SMILES[0]


def test_ligands_run_resume_and_print(data, tmp_path, capsys):
    words = ["-o", str(tmp_path / "out.json"), "--data", str(data), "--sides", FAST, "--counts", "1,3"]
    assert ligands.main(words) == 0
    first = json.loads((tmp_path / "out.json").read_text())
    assert len(first["results"]) == 4 and first["tables"][0][0]["ligands"] == 2
    assert first["tables"][0][0]["median Å"] >= first["tables"][0][1]["median Å"]
    assert ligands.main([*words, "--print-only"]) == 0
    assert json.loads((tmp_path / "out.json").read_text()) == first
    assert "Best of N" in capsys.readouterr().out


def test_sides_are_compared_on_ligands_that_all_of_them_have_done(data, tmp_path):
    out = tmp_path / "out.json"
    ligands.main(["-o", str(out), "--data", str(data), "--sides", FAST, "--counts", "1"])
    both = f"{FAST};torsions (default)"
    ligands.main(["-o", str(out), "--data", str(data), "--sides", both, "--counts", "1", "--targets", "1"])
    ligands.main(["-o", str(out), "--data", str(data), "--sides", both, "--counts", "1", "--print-only"])
    kept = json.loads(out.read_text())
    best, _, each = kept["tables"]
    assert [(row["side"], row["ligands"]) for row in best] == [(FAST, 1), ("torsions (default)", 1)]
    assert [(row["side"], row["ligands"]) for row in each] == [(FAST, 2), ("torsions (default)", 1)]
    assert len(kept["results"]) == 3


def test_a_side_that_was_not_run_at_some_n_does_not_hide_that_n(data, tmp_path):
    words = ["-o", str(tmp_path / "out.json"), "--data", str(data)]
    both = f"{FAST};torsions (default)"
    ligands.main([*words, "--sides", both, "--counts", "1", "--targets", "1"])
    ligands.main([*words, "--sides", FAST, "--counts", "2"])
    ligands.main([*words, "--sides", both, "--counts", "1,2", "--print-only"])
    best = json.loads((tmp_path / "out.json").read_text())["tables"][0]
    assert [(row["N"], row["side"], row["ligands"]) for row in best] == [
        (1, FAST, 1), (1, "torsions (default)", 1), (2, FAST, 2),
    ]  # fmt: skip


def test_ensembles_ask_for_twice_as_many_as_are_known(tmp_path, monkeypatch):
    mol = ligand(SMILES[1])
    rdDistGeom.EmbedMultipleConfs(mol, 3, randomSeed=1)
    x = np.array([c.GetPositions() for c in mol.GetConformers()], dtype=np.float32)
    known = ConformerEnsemble(SMILES[1], "ether", np.array([a.GetAtomicNum() for a in mol.GetAtoms()]), x,
                              np.zeros(3), np.full(3, 1 / 3), "gfn2", "test")  # fmt: skip
    monkeypatch.setattr(ensembles, "read_ensembles", lambda _: [known])
    assert ensembles.main([str(tmp_path), "-o", str(tmp_path / "out.json"), "--sides", FAST]) == 0
    row = json.loads((tmp_path / "out.json").read_text())["results"][0]
    assert row["asked"] == 6 and row["gave"] == 6 and set(row["scores"]) == {"0.5", "0.75"}


def test_properties_of_the_known_conformers_err_by_nothing_and_those_of_a_side_by_something(tmp_path, monkeypatch):
    properties = pytest.importorskip("benchmarks.properties")
    mol = ligand(SMILES[1])
    rdDistGeom.EmbedMultipleConfs(mol, 2, randomSeed=1)
    x = np.array([c.GetPositions() for c in mol.GetConformers()])
    numbers = np.array([a.GetAtomicNum() for a in mol.GetAtoms()])
    known = ConformerEnsemble(SMILES[1], "ether", numbers, x, np.zeros(2), np.full(2, 0.5), "gfn2", "test")
    same = properties.of_ensemble("ether", "same", numbers, x[::-1])
    table = properties.table([[properties.of_ensemble("ether", properties.KNOWN, numbers, x), same]], False).rows[0]
    assert [table[name] for name in properties.NAMES.values()] == ["0.00 (0.00)"] * 4 and table["failed"] == 0
    monkeypatch.setattr(properties, "read_ensembles", lambda _: [known])
    assert properties.main([str(tmp_path), "-o", str(tmp_path / "out.json"), "--sides", FAST]) == 0
    row = json.loads((tmp_path / "out.json").read_text())["results"][1]
    assert row["gave"] == 4 and row["lowest"] <= row["energy"] and row["gap"] > 1.0 and 0.0 < row["dipole"] < 5.0


def test_the_dipole_and_gap_of_water_are_those_of_gfn2_xtb():
    properties = pytest.importorskip("benchmarks.properties")
    water = np.array([[0.0, 0.0, 0.0], [0.7575, 0.5865, 0.0], [-0.7575, 0.5865, 0.0]])
    energy, dipole, gap = properties.single_point(np.array([8, 1, 1]), water)
    assert energy == pytest.approx(-5.07 * 2625.5, rel=2e-3)  # -5.07 hartree
    assert 1.85 < dipole < 2.6 and 10.0 < gap < 16.0
