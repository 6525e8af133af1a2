"""`molflow generate crystals`: what is written, with which provenance, and what becomes of molecules that fail."""

import csv
import re
from dataclasses import replace
from functools import partial

import ase.db
import ase.io
import gemmi
import numpy as np
import pytest
from refusals import refuses

from molflow_sim import MolecularCrystal, Molecule, generate
from molflow_sim.errors import InputError, NoCandidatesError
from molflow_sim.runs.identity import code_version


@pytest.fixture
def crystals(molflow):
    return partial(molflow, "generate", "crystals")


@pytest.fixture(scope="module")
def formamide():
    return Molecule.from_smiles("NC=O")


def test_help_names_every_option(crystals):
    code, out, _ = crystals("--help")
    out = re.sub(r"\x1b\[[0-9;]*m", "", out)
    options = ("--candidates", "--output", "--seed", "--space-groups", "--method", "--weights", "--press", "--no-press")
    assert all(word in out for word in (*options, "extxyz"))
    assert code == 0


def test_an_extxyz_file_holds_n_crystals_with_their_provenance(crystals, tmp_path):
    code, out, _ = crystals("NC=O", "-n", 4, "-o", tmp_path / "out.extxyz", "--seed", 5, "-g", "P-1,P21/c")
    frames = ase.io.read(tmp_path / "out.extxyz", index=":")
    assert code == 0 and "4 crystals" in out and len(frames) == 4
    for k, atoms in enumerate(frames):
        assert atoms.pbc.all() and len(atoms) == 6 * atoms.info["z"]
        assert atoms.info["candidate"] == k and atoms.info["seed"] == 5 and atoms.info["generator"] == "flow"
        assert atoms.info["version"] == code_version("molflow_sim.models.crystal_flow.generator:FlowGenerator")
        assert atoms.info["space_group"] in ("P -1", "P 1 21/c 1")
        assert not atoms.info["pressed"] and atoms.info["smiles"] == "NC=O"


def test_a_database_can_be_searched_by_space_group_and_energy(crystals, tmp_path):
    code, _, _ = crystals("NC=O", "-n", 6, "-o", tmp_path / "out.db", "--press", "-g", "P-1", "-q")
    with ase.db.connect(tmp_path / "out.db") as database:
        rows = list(database.select("space_group=P -1,energy_kj_per_mol<-10"))
    assert code == 0 and rows and all(row.pressed and row.seed == 0 for row in rows)


def test_a_folder_gets_one_cif_for_each_crystal_that_reads_back(crystals, tmp_path, formamide):
    code, _, _ = crystals("NC=O", "-n", 5, "-o", tmp_path / "out", "--press", "-g", "P-1")
    expected = {c.info["candidate"]: c for c in generate("crystals", formamide, 5, press=True, space_groups="P-1")}
    files = sorted((tmp_path / "out").glob("*.cif"))
    assert code == 0 and [int(f.stem.split("_")[1]) for f in files] == sorted(expected)
    for file in files:
        read, made = MolecularCrystal.from_cif(file), expected[int(file.stem.split("_")[1])]
        assert read.space_group.name == made.space_group.name and read.volume == pytest.approx(made.volume, rel=1e-6)
        assert "_molflow_seed" in file.read_text() and made.info["version"] in file.read_text()


def test_one_cif_file_holds_a_block_for_each_crystal(crystals, tmp_path):
    crystals("NC=O", "-n", 3, "-o", tmp_path / "out.cif")
    blocks = gemmi.cif.read(str(tmp_path / "out.cif"))
    assert [b.name for b in blocks] == ["crystal_00000", "crystal_00001", "crystal_00002"]
    assert [b.find_value("_molflow_candidate") for b in blocks] == ["0", "1", "2"]


def test_the_hash_of_the_weights_is_written(crystals, tmp_path, stand_in):
    crystals("NC=O", "-n", 2, "-o", tmp_path / "out.extxyz", "--method", "flow")
    for atoms in ase.io.read(tmp_path / "out.extxyz", index=":"):
        assert atoms.info["weights"] == "sha256:packaged" and atoms.info["generator"] == "flow"


def test_pressed_crystals_are_minima_of_the_proposed_ones(formamide):
    raw, pressed = (generate("crystals", formamide, 8, space_groups="P-1", press=press) for press in (False, True))
    assert {c.info["candidate"] for c in pressed} <= {c.info["candidate"] for c in raw}
    assert np.mean([c.density for c in pressed]) > np.mean([c.density for c in raw])
    assert all(c.info["energy_kj_per_mol"] < 0 for c in pressed)


def test_more_crystals_leave_the_first_as_they_are(formamide, monkeypatch):
    monkeypatch.setattr("molflow_sim.generators.generate.BATCH", 4)
    few, more = (generate("crystals", formamide, n, seed=3) for n in (4, 10))
    for a, b in zip(few, more):
        np.testing.assert_array_equal(a.cell, b.cell)
    assert [c.info["candidate"] for c in more] == list(range(10))


def test_the_library_refuses_no_candidates_and_counts_why_none_survive_the_press(formamide, monkeypatch):
    monkeypatch.setattr("molflow_sim.packing.press", lambda p, _: replace(p, status=np.full(len(p), 3, np.int8)))
    refuses(NoCandidatesError, "implausible density", generate, "crystals", formamide, 3, press=True)
    refuses(InputError, "candidates", generate, "crystals", formamide, 0)


@pytest.fixture
def molecules(tmp_path):
    path = tmp_path / "list.smi"
    path.write_text("# a comment\nNC=O form/amide\n[Na+].[Cl-] salt\nC[Hg]C metal\nNC(N)=O form/amide\nNC=O again\n")
    return path


def test_molecules_of_a_list_that_fail_are_rows_with_reasons_and_the_others_are_written(crystals, tmp_path, molecules):
    code, out, err = crystals(molecules, "-n", 3, "-o", tmp_path / "out.extxyz")
    frames = ase.io.read(tmp_path / "out.extxyz", index=":")
    assert code == 0 and "6 crystals of 2 molecules" in out and len(frames) == 6
    assert {atoms.info["smiles"] for atoms in frames} == {"NC=O", "NC(N)=O"}
    with open(tmp_path / "out.failed.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert rows["salt"]["source"] == "list.smi:3" and "UnsupportedElementError" in rows["salt"]["reason"]
    assert "Hg" in rows["metal"]["reason"] and set(rows) == {"salt", "metal"} and "Traceback" not in err


def test_each_molecule_of_a_list_has_a_folder_of_its_own(crystals, tmp_path, molecules):
    crystals(molecules, "-n", 2, "-o", tmp_path / "out", "-q")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"form_amide", "form_amide_line5", "failed.csv"}
    assert len(list((tmp_path / "out").rglob("*.cif"))) == 4


def test_a_list_of_which_nothing_can_be_used_leaves_the_reasons_and_no_empty_file(crystals, tmp_path):
    (tmp_path / "bad.smi").write_text("[Na+].[Cl-] salt\n")
    code, _, err = crystals(tmp_path / "bad.smi", "-o", tmp_path / "out.db")
    assert code == 1 and "out.failed.csv" in err and err.count("\n") == 1
    assert not (tmp_path / "out.db").exists() and "salt" in (tmp_path / "out.failed.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["CC(", "-o", "a.extxyz"], 2, "SMILES"),
        (["NC=O", "-o", "a.pdb"], 2, ".pdb"),
        (["NC=O", "-o", "a.db", "-n", "0"], 2, "candidates"),
        (["NC=O", "-o", "a.db", "-g", "P99"], 2, "P99"),
        (["C[C@H](O)C#N", "-o", "a.db", "-g", "P-1"], 2, "Sohncke"),
        (["NC=O", "-o", "a.db", "--method", "magic"], 2, "random, flow, mixed"),
        (["NC=O", "-o", "a.db", "--weights", "w", "--method", "random"], 2, "unknown weights"),
        (["absent.smi", "-o", "a.db"], 2, "absent.smi"),
        (["NC=O"], 2, "--output"),
        (["NC=O", "-o", "a.db", "--option", "n=3"], 2, "option of its own"),
        (["some.smi", "-o", "a.db", "--name", "x"], 2, "of one molecule"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_leaves_nothing(
    crystals, tmp_path, monkeypatch, arguments, code, words
):
    monkeypatch.chdir(tmp_path)
    got, _, err = crystals(*arguments)
    assert got == code and words in err and err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_what_is_there_is_replaced_only_if_asked(crystals, tmp_path):
    out = tmp_path / "out"
    assert crystals("NC=O", "-n", 3, "-o", out)[0] == 0
    code, _, err = crystals("NC=O", "-n", 2, "-o", out)
    assert code == 2 and "--overwrite" in err and len(list(out.iterdir())) == 3
    assert crystals("NC=O", "-n", 2, "-o", out, "--overwrite")[0] == 0 and len(list(out.iterdir())) == 2
