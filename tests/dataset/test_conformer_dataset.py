"""Data sets of conformers: searched by GFN2-xTB, or taken from an SDF or from crystals; what is left out and why."""

import csv
import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from processes import killed
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolAlign
from refusals import refuses
from threadpoolctl import threadpool_limits

from molflow_sim.chemistry.conformers import keeps_stereo
from molflow_sim.cli.main import run as molflow
from molflow_sim.dataset import ConformerSettings, build_conformer_dataset, read_ensembles
from molflow_sim.dataset.conformer_search import search_conformers
from molflow_sim.dataset.items import excluded_skeletons
from molflow_sim.dataset.skeletons import skeletons, three_way_split
from molflow_sim.errors import InputError, MissingDependencyError, StoreError
from molflow_sim.io.ensembles import read_described
from molflow_sim.units import KCAL_PER_MOL

DATA = Path(__file__).parents[1] / "data"
SMALL = ConformerSettings(embeddings=8, kicks=4, evaluations=60, max_atoms=20)
LACTATE = "COC(=O)[C@H](C)O"


def shuffled(mol: Chem.Mol, seed: int) -> Chem.Mol:
    return Chem.RenumberAtoms(mol, np.random.default_rng(seed).permutation(mol.GetNumAtoms()).tolist())


def embedded(smiles: str, n: int = 1) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMultipleConfs(mol, n, randomSeed=7)
    return mol


def record(mol: Chem.Mol, title: str = "", conformer: int = -1, **properties: object) -> str:
    mol = Chem.Mol(mol)
    mol.SetProp("_Name", title)
    told = "".join(f">  <{name}>\n{value}\n\n" for name, value in properties.items())
    return Chem.MolToMolBlock(mol, confId=conformer) + told + "$$$$\n"


def rows(folder: Path) -> dict[str, str]:
    with open(folder / "dropped.csv", newline="") as file:
        return {row["source"]: row["reason"] for row in csv.DictReader(file)}


@pytest.fixture
def build(tmp_path):
    def build(text: str, **options):
        path = tmp_path / "given.sdf"
        path.write_text(text)
        options = {"progress": False, "energy_property": "e", **options}
        return build_conformer_dataset(output=tmp_path / "out", sdf=path, **options)

    return build


def test_records_of_any_atom_order_become_one_ensemble_in_the_order_of_the_smiles(build):
    mol = embedded(LACTATE, 3)
    energies = [5.0, 3.0, 4.0]
    text = "".join(
        record(shuffled(Chem.Mol(mol, confId=k), k), "lactate", smiles="C[C@H](O)C(=O)OC", e=energies[k])
        for k in range(3)
    )
    summary = build(text)
    (ensemble,) = read_ensembles(summary.folder)
    assert (summary.molecules, summary.conformers, summary.dropped) == (1, 3, 0)
    assert (ensemble.name, ensemble.source, ensemble.smiles) == ("lactate", "dft", LACTATE)
    assert np.allclose(ensemble.energies, KCAL_PER_MOL * np.array([0.0, 1.0, 2.0]), atol=1e-6)
    reference = Chem.AddHs(Chem.MolFromSmiles(ensemble.smiles))
    assert [a.GetAtomicNum() for a in reference.GetAtoms()] == ensemble.numbers.tolist()
    assert keeps_stereo(reference, ensemble.positions.astype(float)).all()
    for x, k in zip(ensemble.positions, (1, 2, 0)):
        probe = Chem.Mol(reference)
        conformer = Chem.Conformer(len(x))
        conformer.SetPositions(x.astype(float))
        probe.AddConformer(conformer)
        # atom by atom: hydrogens of one methyl group may have changed places
        assert rdMolAlign.GetBestRMS(Chem.RemoveHs(probe), Chem.RemoveHs(Chem.Mol(mol, confId=k))) < 0.002


def test_stereochemistry_that_a_smiles_leaves_open_is_read_from_the_coordinates(build):
    build(record(embedded(LACTATE), "lactate", smiles="COC(=O)C(C)O"))
    (ensemble,) = read_ensembles(build(record(embedded(LACTATE), "lactate", smiles="COC(=O)C(C)O")).folder)
    assert ensemble.smiles == LACTATE
    assert np.isnan(ensemble.energies).all() and ensemble.shares.tolist() == [1.0]


def test_records_without_a_smiles_belong_together_by_their_title_or_graph(build):
    mol = embedded("CCO", 2)
    text = "".join(record(mol, title, k) for title in ("a", "", "") for k in range(2))
    assert sorted(map(len, read_ensembles(build(text).folder))) == [2, 4]


def test_each_record_that_cannot_be_used_is_a_row_with_the_reason(build):
    flat = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    AllChem.Compute2DCoords(flat)
    broken = embedded("CCO")
    broken.GetConformer().SetAtomPosition(0, (float("nan"), 0.0, 0.0))
    same = {"smiles": LACTATE}
    cases = {
        "hydrogens are missing": record(Chem.RemoveHs(embedded("CCO")), "bare"),
        "2 components": record(embedded("CCO.O"), "two"),
        "radicals are not supported": record(embedded("CC[O]"), "radical"),
        "element Na": record(embedded("[Na]C"), "metal"),
        "the energy e is 'nan'": record(embedded("CCC"), "nan", e="nan"),
        "the energy e is 'low'": record(embedded("CCCC"), "word", e="low"),
        "flat": record(flat, "flat"),
        "its valences are impossible": record(broken, "NaN among the coordinates"),
        "another molecule": record(embedded("CCN"), "other", smiles="CCO"),
        "cannot read": "nothing\n\n\nof use\n$$$$\n",
        "cannot read SMILES": record(embedded("CCCCC"), "nonsense", smiles="C1CC"),
    }
    mirrored = record(embedded("COC(=O)[C@@H](C)O"), **same)
    summary = build("".join(cases.values()) + record(embedded(LACTATE), **same) + mirrored)
    found = rows(summary.folder)
    for number, reason in enumerate(cases, 1):
        assert reason in found[f"given.sdf:{number}"], found
    assert "another stereoisomer" in found[f"given.sdf:{len(cases) + 1}"]
    assert [e.smiles for e in read_ensembles(summary.folder)] == [LACTATE]
    assert len(found) == summary.dropped


def test_an_unusable_file_is_refused_as_a_whole(tmp_path):
    (tmp_path / "empty.sdf").write_text("CCO ethanol\n")
    refuses(InputError, "no record", build_conformer_dataset, output=tmp_path / "o", sdf=tmp_path / "empty.sdf")
    refuses(InputError, "cannot be read", build_conformer_dataset, output=tmp_path / "o", sdf=tmp_path / "none.sdf")
    (tmp_path / "no.sdf.gz").write_bytes(b"not packed")
    refuses(InputError, "cannot be read", build_conformer_dataset, output=tmp_path / "o", sdf=tmp_path / "no.sdf.gz")
    refuses(InputError, "nothing to build", build_conformer_dataset, output=tmp_path / "o")
    refuses(InputError, "source must be", build_conformer_dataset, ["CCO"], tmp_path / "o", source="guess")
    refuses(InputError, "of an SDF", build_conformer_dataset, ["CCO"], tmp_path / "out", energy_property="energy")


def test_excluded_molecules_of_a_file_go_to_the_test_side(build, tmp_path):
    others = [s for s in ("CCO", "CCCO", "CCCCO", "CC(C)O", "CCOC", "CCN") if side(s) != "test"]
    kept_out, kept = others[:2]
    (tmp_path / "out.sdf.gz").write_bytes(gzip.compress(record(embedded(kept_out), smiles=kept_out).encode()))
    text = record(embedded(kept_out), "a") + record(embedded(kept), "b")
    splits = {e.smiles: e.split for e in read_ensembles(build(text, exclude=tmp_path / "out.sdf.gz").folder)}
    assert splits == {kept_out: "test", kept: side(kept)}


def side(smiles: str) -> str:
    return three_way_split(skeletons(Chem.MolFromSmiles(smiles)))


def test_exclusions_come_from_several_files_of_either_kind_and_from_lines(tmp_path):
    (tmp_path / "a.smi").write_text("CCO ethanol\n# comment\n")
    (tmp_path / "b.sdf").write_text(record(Chem.RemoveHs(embedded("CCN")), "by its graph"))
    found = excluded_skeletons([tmp_path / "a.smi", tmp_path / "b.sdf", "CCC"])
    for smiles in ("CCO", "CCN", "CCC"):
        assert skeletons(Chem.MolFromSmiles(smiles))[0] in found
    (tmp_path / "c.smi").write_text("no-smiles\n")
    refuses(InputError, "c.smi", excluded_skeletons, [tmp_path / "a.smi", tmp_path / "c.smi"])
    (tmp_path / "empty.smi").write_text("\n")
    refuses(InputError, "empty.smi", excluded_skeletons, tmp_path / "empty.smi")
    refuses(InputError, "none of its lines", excluded_skeletons, ["no-smiles"])
    (tmp_path / "d.smi").write_text("\ufeffCCO\nCCN,amine\n", encoding="utf-8")  # as some editors save it
    with pytest.warns(UserWarning, match="d.smi: 1 lines exclude nothing, they are no SMILES: CCN,amine"):
        assert set(excluded_skeletons(tmp_path / "d.smi")) == set(excluded_skeletons(["CCO"]))


def test_molecules_of_crystals_are_measured_conformers(tmp_path):
    folder = tmp_path / "cifs"
    folder.mkdir()
    for name in ("paracetamol", "croconic_noH"):
        (folder / f"{name}.cif").write_bytes((DATA / f"{name}.cif").read_bytes())
    summary = build_conformer_dataset(output=tmp_path / "out", cifs=folder, progress=False)
    (ensemble,) = read_ensembles(summary.folder)
    assert (ensemble.name, ensemble.source, ensemble.n_atoms) == ("paracetamol", "measured", 20)
    assert Chem.CanonSmiles(ensemble.smiles) == Chem.CanonSmiles("CC(=O)Nc1ccc(O)cc1")
    oh = [np.linalg.norm(ensemble.positions[0][i] - ensemble.positions[0][j]) for i, j in pairs(ensemble, 8, 1)]
    assert oh == pytest.approx([0.983], abs=0.01)  # neutron distance
    assert "MissingHydrogensError" in rows(summary.folder)["croconic_noH.cif"]


@pytest.mark.parametrize("smiles, copies", [("O=c1cc[nH]cc1", 1), (LACTATE, 2)])
def test_rings_that_lose_their_aromaticity_and_both_hands_of_a_racemate_are_read(tmp_path, smiles, copies):
    """A crystal's bonds come without aromaticity, and half the molecules of a racemate are mirror images."""
    mol = embedded(smiles)
    x = mol.GetConformer().GetPositions()
    x -= x.mean(0)
    places = [(-1) ** k * x + [0.0, 0.0, 9.0 * k] for k in range(copies)]
    symbols = copies * [a.GetSymbol() for a in mol.GetAtoms()]
    (tmp_path / "cifs").mkdir()
    crystal = Atoms(symbols, np.concatenate(places) + 5.0, cell=[11.0, 12.0, 9.0 * copies + 2.0], pbc=True)
    crystal.write(tmp_path / "cifs" / "made.cif")
    build_conformer_dataset(output=tmp_path / "out", cifs=tmp_path / "cifs", progress=False)
    (ensemble,) = read_ensembles(tmp_path / "out")
    assert len(ensemble) == copies and np.isnan(ensemble.energies).all()
    assert keeps_stereo(Chem.AddHs(Chem.MolFromSmiles(ensemble.smiles)), ensemble.positions.astype(float)).all()


def pairs(ensemble, a: int, b: int) -> list[tuple[int, int]]:
    bonds = Chem.AddHs(Chem.MolFromSmiles(ensemble.smiles)).GetBonds()
    both = [(x.GetBeginAtomIdx(), x.GetEndAtomIdx()) for x in bonds]
    return [(i, j) for i, j in both if {ensemble.numbers[i], ensemble.numbers[j]} == {a, b}]


# -- searched by GFN2-xTB ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> Path:
    pytest.importorskip("tblite", reason="tblite is not installed")
    out = tmp_path_factory.mktemp("searched") / "set"
    lines = ["CCO ethanol", "CC[C@H](O)C#N hand", "OCC again", "C1CC no", "CCCCCCCC large", "CCN out", "B(C)(C)C boron"]
    build_conformer_dataset(lines, out, settings=SMALL, exclude=["CCN"], progress=False)
    return out


def test_ethanol_has_a_trans_conformer_and_a_gauche_one_that_counts_twice(searched):
    ethanol = next(e for e in read_ensembles(searched) if e.name == "ethanol")
    assert len(ethanol) == 2 and ethanol.energies[0] == 0.0
    angles = []
    for x in ethanol.positions.astype(float):
        mol = Chem.AddHs(Chem.MolFromSmiles(ethanol.smiles))
        conformer = Chem.Conformer(len(x))
        conformer.SetPositions(x)
        mol.AddConformer(conformer)
        (chain,) = mol.GetSubstructMatches(Chem.MolFromSmarts("CCO[H]"))
        angles.append(abs(Chem.rdMolTransforms.GetDihedralDeg(mol.GetConformer(), *chain)))
    trans = int(np.argmax(angles))
    assert angles[trans] > 170.0 and 45.0 < angles[1 - trans] < 75.0
    boltzmann = np.exp(-ethanol.energies / (8.617333e-5 * 298.15)) * np.where(np.arange(2) == trans, 1.0, 2.0)
    assert ethanol.shares == pytest.approx(boltzmann / boltzmann.sum(), abs=1e-4)


def test_searched_conformers_keep_the_hand_and_differ(searched):
    hand = next(e for e in read_ensembles(searched) if e.name == "hand")
    mol = Chem.AddHs(Chem.MolFromSmiles(hand.smiles))
    assert hand.smiles == "CC[C@H](O)C#N" and len(hand) >= 4
    assert keeps_stereo(mol, hand.positions.astype(float)).all()
    assert (np.diff(hand.energies) >= 0.0).all() and hand.energies.max() <= 25.0 / 96.485 + 1e-6
    for x in hand.positions:
        conformer = Chem.Conformer(len(x))
        conformer.SetPositions(x.astype(float))
        mol.AddConformer(conformer, assignId=True)
    for i in range(len(hand)):
        for j in range(i):
            assert rdMolAlign.GetBestRMS(Chem.Mol(mol, confId=i), Chem.Mol(mol, confId=j)) > 0.1


def test_molecules_that_are_not_searched_have_rows(searched):
    found = rows(searched)
    assert "duplicate" in found["molecule:3"]
    assert "cannot read SMILES" in found["molecule:4"]
    assert "26 atoms" in found["molecule:5"]
    assert "excluded" in found["molecule:6"]
    assert "MMFF94 has no type" in found["molecule:7"]


def test_what_was_done_is_told(searched):
    told = {e.name: told for e, told in read_described(searched)}["ethanol"]
    assert told["work"]["gradients"] <= 60 + 40 and told["work"]["embedded"] >= 4
    assert told["skeleton"] == skeletons(Chem.MolFromSmiles("CCO"))[0]


def test_a_molecule_does_not_depend_on_its_company(searched, tmp_path):
    build_conformer_dataset(["CC[C@H](O)C#N hand"], tmp_path / "alone", settings=SMALL, exclude=["CCN"], progress=False)
    for path in (tmp_path / "alone" / "store" / "molecules").iterdir():
        assert path.read_bytes() == (searched / "store" / "molecules" / path.name).read_bytes()


@pytest.mark.parametrize("smiles", ["CCOC", "CC(C)O"])
def test_a_search_gives_the_same_bits_on_any_number_of_threads(smiles):
    pytest.importorskip("tblite.interface", reason="tblite is not installed")
    rdmol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    settings, found = ConformerSettings(evaluations=40), []
    for threads in (1, 2, 2):
        with threadpool_limits(limits=threads):
            found.append(search_conformers(rdmol, settings, 0).positions)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[1], found[2])


def test_another_search_needs_another_folder(searched):
    other = ConformerSettings(embeddings=9, kicks=4, evaluations=60, max_atoms=20)
    refuses(StoreError, "embeddings", build_conformer_dataset, ["CCO"], searched, settings=other, exclude=["CCN"])


def test_a_molecule_that_takes_too_long_is_a_row(tmp_path):
    pytest.importorskip("tblite", reason="tblite is not installed")
    settings = ConformerSettings(embeddings=8, seconds=1e-6)
    summary = build_conformer_dataset(["CCO"], tmp_path / "o", settings=settings, progress=False)
    assert "not done within" in rows(summary.folder)["molecule:1"]


def test_a_killed_build_goes_on_to_the_same_bytes(tmp_path):
    pytest.importorskip("tblite", reason="tblite is not installed")
    (tmp_path / "list.smi").write_text("CCO\nCCCO\nCC(C)O\nCCOC\n")
    options = ["--evaluations", "40", "-q", "-o"]
    command = [sys.executable, "-m", "molflow_sim", "dataset", "conformers", tmp_path / "list.smi", *options]
    folders = [tmp_path / name for name in ("killed", "whole")]
    stored = folders[0] / "store" / "molecules"
    assert killed([*command, folders[0]], lambda: stored.is_dir() and any(stored.glob("*.npz")))
    before = len(list(stored.glob("*.npz")))
    assert before < 4
    for folder in folders:
        molflow(["dataset", "conformers", str(tmp_path / "list.smi"), *options, str(folder)])
    a, b = ({p.name: p.read_bytes() for p in (f / "store" / "molecules").glob("*.npz")} for f in folders)
    assert len(a) == 4 and a == b
    assert not list(folders[0].rglob("*.part*"))


def test_without_tblite_nothing_starts(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite.interface", None)
    refuses(MissingDependencyError, r"molflow-sim\[xtb\]", build_conformer_dataset, ["CCO"], tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "name, value", [("keep", 0), ("evaluations", True), ("window", 0.0), ("force", "small"), ("seconds", -1)]
)
def test_settings_out_of_range_are_named(name, value):
    refuses(InputError, f"{name} must be", ConformerSettings, **{name: value})


def test_the_command_packs_and_has_examples(build, tmp_path, capsys):
    folder = build(record(embedded("CCO"), "a")).folder
    molflow(["dataset", "conformers", "--pack", str(folder), "-o", str(tmp_path / "packed"), "-q"])
    assert [e.name for e in read_ensembles(tmp_path / "packed")] == ["a"]
    assert molflow(["dataset", "conformers", "x.smi", "--pack", str(folder)]) == 2
    assert "give it without molecules" in capsys.readouterr().err
    assert molflow(["dataset", "conformers", "--help"]) == 0
    assert "molflow dataset conformers --from-sdf" in capsys.readouterr().out
