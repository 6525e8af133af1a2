"""Docking of conformers: poses are judged where they lie, rigid ones keep their shape, failures are counted."""

import json
import sys

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from refusals import refuses

from benchmarks import docking, pocket
from molflow_sim.chemistry.conformers import with_positions
from molflow_sim.errors import InputError, MissingDependencyError

FAST = "ETKDGv3"
SMILES = "CC(=O)NCCO"


def made(mol: Chem.Mol) -> Chem.Mol:
    rdDistGeom.EmbedMolecule(mol, randomSeed=7)
    return mol


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A peptide of four residues, and a ligand beside it."""
    folder = tmp_path_factory.mktemp("complex")
    peptide = Chem.RemoveHs(made(Chem.AddHs(Chem.MolFromSequence("SGAS"))))
    ligand = Chem.RemoveHs(made(Chem.AddHs(Chem.MolFromSmiles(SMILES))))
    x, y = (m.GetConformer().GetPositions() for m in (peptide, ligand))
    y = y - y.mean(0) + x.mean(0)
    while np.linalg.norm(x[:, None] - y, axis=2).min() < 3.5:
        y = y + np.array([0.0, 0.0, 0.5])
    receptor, sdf = folder / "receptor.pdb", folder / "ligand.sdf"
    receptor.write_text(Chem.MolToPDBBlock(peptide))
    with Chem.SDWriter(str(sdf)) as writer:
        writer.write(with_positions(ligand, y))
    return receptor, sdf


@pytest.fixture
def libraries():
    for name in ("vina", "meeko"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install '.[dock]'")


def test_poses_are_compared_where_they_lie_over_symmetric_names():
    benzene = made(Chem.AddHs(Chem.MolFromSmiles("c1ccccc1")))
    x = benzene.GetConformer().GetPositions()
    sixth = np.array([*np.roll(np.arange(6), 1), *np.roll(np.arange(6, 12), 1)])
    assert pocket.in_place(benzene, with_positions(benzene, x[sixth])) == pytest.approx(0.0, abs=1e-9)
    assert pocket.in_place(benzene, with_positions(benzene, x + np.array([0.0, 3.0, 4.0]))) == pytest.approx(5.0)
    assert pocket.in_place(Chem.RemoveHs(benzene), benzene) == pytest.approx(0.0, abs=1e-9)


def test_what_is_missing_is_named_with_its_extra(monkeypatch, files, tmp_path):
    monkeypatch.setitem(sys.modules, "vina", None)
    refuses(MissingDependencyError, r"molflow-sim\[dock\]", pocket.libraries)
    with pytest.raises(SystemExit, match="dock"):
        docking.main([*map(str, files), "-o", str(tmp_path / "out.json")])


def test_files_that_cannot_be_used_are_refused(files, tmp_path, libraries):
    receptor, ligand = files
    refuses(InputError, "by turns", docking.read, [receptor])
    refuses(InputError, "no atoms", docking.read, [ligand, ligand])
    refuses(InputError, "no molecule with coordinates", docking.read, [receptor, receptor])
    strange = tmp_path / "strange.pdb"
    strange.write_text(receptor.read_text().replace("GLY", "QQQ"))
    refuses(InputError, "no template of QQQ", docking.read, [strange, ligand])
    mol = pocket.read_ligand(ligand)
    with Chem.SDWriter(str(tmp_path / "far.sdf")) as writer:
        writer.write(with_positions(mol, mol.GetConformer().GetPositions() + 40.0))
    refuses(InputError, "not measured in that pocket", docking.read, [receptor, tmp_path / "far.sdf"])


def test_a_rigid_ligand_has_nothing_to_turn(libraries):
    mol = made(Chem.AddHs(Chem.MolFromSmiles(SMILES)))
    assert "BRANCH" not in pocket.ligand_pdbqt(mol, rigid=True)
    assert pocket.ligand_pdbqt(mol, rigid=False).count("\nBRANCH") == 3  # both bonds of CCO, and the hydroxyl's


def test_sources_are_docked_resumed_and_compared(files, tmp_path, capsys, libraries):
    out = tmp_path / "out.json"
    words = [*map(str, files), "-o", str(out), "-n", "2", "--starts", "1", "--seeds", "2", "--exhaustiveness", "1"]
    sides = f"{FAST};{docking.CONTROL}"
    assert docking.main([*words, "--sides", sides]) == 0
    first = json.loads(out.read_text())
    assert len(first["results"]) == 8
    for row in first["results"]:
        assert row["score"] < 0.0 <= row["rmsd"] and row["failed"] == 0
        assert row["docked"] == (2 if (row["side"], row["kind"]) == (FAST, "rigid") else 1)
        assert (row["nearest"] == 0.0) == (row["side"] == docking.CONTROL)
    table = first["tables"][0]
    assert [(row["docking"], row["source"], row["runs"]) for row in table] == [
        (kind, side, 2) for kind in ("rigid", "free") for side in (FAST, docking.CONTROL)
    ]
    assert docking.main([*words, "--sides", sides, "--print-only"]) == 0
    assert json.loads(out.read_text()) == first
    assert "Docked conformers" in capsys.readouterr().out


def test_conformers_that_cannot_be_docked_are_counted(files, monkeypatch, libraries):
    one = docking.read(files)[0]

    class Broken:
        def dock(self, rdmol, positions, **_):
            if positions[0, 0] > 0.0:
                raise pocket.DockingError("no way")
            return pocket.Pose(-1.0, 2.5)

    monkeypatch.setattr(docking, "pocket", lambda *_: Broken())
    x = np.array([np.full((4, 3), s) for s in (1.0, -1.0, 1.0)])
    monkeypatch.setattr(docking, "conformers", lambda *_: (None, x))
    monkeypatch.setattr(docking, "heavy_atom_rmsds", lambda *_: np.array([[1.25]]))
    rigid, free = docking.measure(one, FAST, 3, 1, 1, 0)
    assert (rigid.docked, rigid.failed, rigid.score, rigid.reason) == (1, 2, -1.0, "DockingError: no way")
    assert (free.docked, free.failed, free.score, free.rmsd) == (0, 1, None, None)
    row = docking.overall([rigid, free])
    assert [r["< 2 Å, %"] for r in row.rows] == [0, 0] and [r["failed"] for r in row.rows] == [2, 1]
