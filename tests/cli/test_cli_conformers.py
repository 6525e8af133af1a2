"""`molflow generate conformers` and `molflow screen --conformers`: files, batches that go on, and bad input."""

import csv
import json
from functools import partial

import ase.db
import ase.io
import pytest
from rdkit import Chem
from refusals import refuses

from molflow_sim import Molecule, generate
from molflow_sim.chemistry.conformers import keeps_stereo
from molflow_sim.errors import InputError, MoleculeError
from molflow_sim.generators.crystal_conformers import NUMBER, with_conformers_of

CHIRAL = "C[C@H](O)CC(N)=O"
FAST = ("--method", "etkdg")
LIST = f"""{CHIRAL} butyramide
CCO
C1CC open
[Na+].[Cl-] salt
C[CH2] radical
[Fe] iron
F[C@]12C[C@@]1(F)C2 strained
C12C3C4C1C5C2C3C45 cubane
"""


@pytest.fixture
def conformers(molflow):
    return partial(molflow, "generate", "conformers")


@pytest.fixture(scope="module")
def sdf(tmp_path_factory):
    from molflow_sim.generators.writers import conformers_of, structure_writer

    path = tmp_path_factory.mktemp("sdf") / "own.sdf"
    found = generate("conformers", Molecule.from_smiles(CHIRAL, name="own", search=False), 4, bases=4, pool=20)
    with structure_writer(path, kind="conformers") as writer:
        writer.write(conformers_of(found))
    return path, found


def test_an_sdf_holds_conformers_energies_shares_and_where_they_come_from(sdf):
    path, found = sdf
    records = [m for m in Chem.SDMolSupplier(str(path), removeHs=False)]
    assert len(records) == len(found.conformers) == 4
    for k, record in enumerate(records):
        notes = record.GetPropsAsDict()
        assert record.GetConformer().GetPositions() == pytest.approx(found.conformers[k], abs=1e-3)
        assert keeps_stereo(record, record.GetConformer().GetPositions()[None]).all()
        assert Chem.MolToSmiles(Chem.RemoveHs(record)) == found.smiles == notes["smiles"]
        assert notes["conformer"] == k + 1 and notes["share"] == pytest.approx(found.shares[k], abs=1e-6)
        assert notes["generator"] == "torsions" and notes["energy_model"] == "restrained" and notes["version"]
    above = [m.GetDoubleProp("energy_kj_per_mol") for m in records]
    assert above[0] == 0.0 and above == sorted(above)


def test_extxyz_and_database_hold_the_same(conformers, tmp_path):
    for name in ("out.extxyz", "out.db"):
        code, out, _ = conformers(CHIRAL, "-n", 3, "-o", tmp_path / name, *FAST)
        assert code == 0 and "3 conformers of C4H9NO2" in out
    frames = ase.io.read(tmp_path / "out.extxyz", index=":")
    rows = list(ase.db.connect(tmp_path / "out.db").select())
    for atoms, row in zip(frames, rows, strict=True):
        assert atoms.info["energy_kj_per_mol"] == pytest.approx(row.energy_kj_per_mol, abs=1e-3)
        assert atoms.info["smiles"] == row.smiles == CHIRAL and not atoms.pbc.any()


def test_a_list_becomes_an_sdf_each_and_reasons_for_the_rest(conformers, tmp_path):
    (tmp_path / "some.smi").write_text(LIST)
    code, out, _ = conformers(tmp_path / "some.smi", "-n", 2, "-o", tmp_path / "out", *FAST)
    assert code == 0 and "of 3 molecules" in out and "5 molecules failed" in out
    with open(tmp_path / "out" / "summary.csv") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    for name, reason in (("open", "MoleculeError"), ("salt", "Na"), ("radical", "radicals"), ("iron", "Fe"),
                         ("strained", "ConformerError")):  # fmt: skip
        assert reason in rows[name]["reason"] and not rows[name]["file"]
    assert rows["butyramide"]["conformers"] == "2" and (tmp_path / "out" / rows["cubane"]["file"]).is_file()


def test_a_killed_batch_goes_on_with_what_is_missing(conformers, tmp_path, monkeypatch):
    (tmp_path / "two.smi").write_text(f"{CHIRAL} first\nCCO second\n")
    ask = partial(conformers, tmp_path / "two.smi", "-n", 2, "-o", tmp_path / "out", *FAST)
    assert ask()[0] == 0
    first = (tmp_path / "out" / "first.sdf").stat().st_mtime_ns
    (tmp_path / "out" / "rows" / "second.json").unlink()  # as a kill between the two files leaves it
    (tmp_path / "out" / ".first.sdf.part0").write_text("half")
    assert ask()[0] == 0
    assert (tmp_path / "out" / "first.sdf").stat().st_mtime_ns == first
    assert json.loads((tmp_path / "out" / "rows" / "second.json").read_text())["conformers"] == 2
    assert not list((tmp_path / "out").glob(".*.part*"))
    code, _, err = ask("--seed", 1)
    assert code == 2 and "another" in err


def test_a_list_of_other_code_is_told_of_and_not_gone_on_with(conformers, tmp_path, monkeypatch):
    (tmp_path / "some.smi").write_text("CO first\n")
    ask = partial(conformers, tmp_path / "some.smi", "-n", 2, "-o", tmp_path / "out", *FAST)
    assert ask()[0] == 0
    monkeypatch.setattr("molflow_sim.runs.folder.code_identity", lambda *_: "other")
    for _ in range(2):
        code, _, err = ask()
        assert code == 0 and "of other code" in err
    (tmp_path / "some.smi").write_text("CO first\nCCO second\n")
    code, _, err = ask()
    assert code != 0 and "unfinished run of other code" in err and "--overwrite" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("CCO", "-o", "out.cif"), "not to"),
        (("CCO", "-o", "out"), "not to"),
        (("CCO", "-o", "out.sdf", "--energy", "nonsense"), "energy"),
        (("CCO", "-o", "out.sdf", "--window", -1), "window"),
        (("CCO", "-o", "out.sdf", "--method", "nonsense"), "unknown generator"),
        (("CCO.O", "-o", "out.sdf"), "components"),
        (("CCO", "-o", "out.sdf", "--option", "n=3"), "option of its own"),
        (("CCO", "-o", "out.sdf", "--option", "seed=3"), "option of its own"),
        (("OB(O)CC", "-o", "out.sdf"), "etkdg"),
    ],
)
def test_what_cannot_be_done_is_said(conformers, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = conformers(*arguments)
    assert code == 2 and words in " ".join(err.split()) and not list(tmp_path.iterdir())


def test_crystals_are_searched_with_the_conformers_of_a_file_or_a_generator(sdf):
    path, found = sdf
    molecule = Molecule.from_smiles(CHIRAL)
    read = with_conformers_of(molecule, str(path))
    assert (
        read.conformers == pytest.approx(found.conformers, abs=2e-3) and read.numbers.tolist() == found.numbers.tolist()
    )
    assert with_conformers_of(molecule, "rdkit") is molecule
    mixed = with_conformers_of(molecule, "mixed")
    assert 1 < len(mixed.conformers) <= NUMBER and mixed.shares.sum() == pytest.approx(1.0)


def test_files_of_other_molecules_are_refused(sdf, tmp_path):
    path, _ = sdf
    refuses(MoleculeError, "record 1 is", with_conformers_of, Molecule.from_smiles("CCO"), str(path))
    other = Molecule.from_smiles(CHIRAL.replace("@", "@@"))
    refuses(MoleculeError, "another stereoisomer", with_conformers_of, other, str(path))
    refuses(InputError, "choose from", with_conformers_of, other, "nonsense")
    bare = tmp_path / "bare.sdf"
    Chem.SDWriter(str(bare)).write(Chem.RemoveHs(Chem.MolFromMolFile(str(path))))
    refuses(MoleculeError, "hydrogens", with_conformers_of, Molecule.from_smiles(CHIRAL), str(bare))
    refuses(MoleculeError, "cannot read", with_conformers_of, other, str(tmp_path / "missing.sdf"))
