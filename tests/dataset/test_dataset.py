"""Data sets of packings: what is kept, what is left out and why, and what a reader gets back."""

import csv
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from ase import Atoms
from processes import without_chemistry
from rdkit import Chem
from refusals import refuses

from molflow_sim import MolecularCrystal, Molecule, SpaceGroup, parametrize
from molflow_sim.chemistry.checks import mirror_image
from molflow_sim.cli.main import run as molflow
from molflow_sim.dataset import CrystalDataset, DatasetSettings, build_crystal_dataset
from molflow_sim.dataset.processes import ProcessExecutor
from molflow_sim.dataset.shards import unpack_shard
from molflow_sim.dataset.skeletons import skeletons, skeletons_of_smiles, split_of
from molflow_sim.errors import InputError, StoreError
from molflow_sim.packing import press, random_packings
from molflow_sim.screening import Stages
from molflow_sim.screening.stages import evaluate
from molflow_sim.units import KJ_PER_MOL

SETTINGS = DatasetSettings(candidates=24, keep=6, window=12.0, max_atoms=16, space_groups="P-1,P21/c")
MOLECULES = [
    "NC=O formamide", "# a comment", "CC(=O)O acetic acid", "C(N)=O written otherwise", "no-smiles nonsense",
    "[Na+].[Cl-] salt", "CCCCCCCC octane", "CC(=O)CC(C)=O keto", "C[C@H](O)C#N lactonitrile",
]  # fmt: skip
EXCLUDED = ["CC(O)=CC(C)=O", "C[C@@H](O)C#N", "NC(N)=O"]


@pytest.fixture(scope="module")
def cifs(tmp_path_factory) -> Path:
    """Crystals of urea (pressed, so that they are stable) and CIFs that cannot be used."""
    folder = tmp_path_factory.mktemp("cifs")
    urea = Molecule.from_smiles("NC(N)=O")
    packings = press(random_packings(urea, 12, space_groups=["P-1", "P21/c"], seed=1), parametrize(urea))
    lowest = int(np.nanargmin(np.where(packings.ok, packings.energy, np.nan)))
    text = packings.crystal(lowest).to_cif()
    (folder / "urea.cif").write_text(text)
    (folder / "copy.cif").write_text(text)
    (folder / "disordered.cif").write_text(re.sub(r" 1 (\d+)$", r" 0.5 \1", text, count=1, flags=re.M))
    (folder / "empty.cif").write_text("")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cifs) -> Path:
    out = tmp_path_factory.mktemp("set") / "set"
    build_crystal_dataset(MOLECULES, out, cifs=cifs, exclude=EXCLUDED, settings=SETTINGS, processes=1, progress=False)
    return out


@pytest.fixture(scope="module")
def dataset(folder) -> CrystalDataset:
    return CrystalDataset(folder)


def dropped(folder: Path) -> dict[str, str]:
    with open(folder / "dropped.csv", newline="") as file:
        return {row["name"]: row["reason"] for row in csv.DictReader(file)}


def shards(folder: Path) -> dict[str, dict]:
    return {p.name: unpack_shard(p.read_bytes(), p.name) for p in sorted(folder.glob("store/*/*.npz"))}


def test_kept_packings_lie_within_the_window_lowest_first_and_not_more_than_asked(dataset):
    generated = [k for k in range(len(dataset)) if not dataset[k].experimental]
    for _, rows in dataset.molecules():
        rows = [k for k in rows if k in generated]
        if rows:
            assert 1 < len(rows) <= SETTINGS.keep
            relative = dataset.relative_energy[rows]
            assert relative[0] == 0 and np.all(np.diff(relative) >= 0)
            assert relative[-1] <= SETTINGS.window * KJ_PER_MOL


def test_a_record_is_the_crystal_whose_energy_it_states(dataset):
    class Crystal:  # what `evaluate` needs of one
        def __init__(self, record):
            self.z = record.z
            self.atoms = Atoms(np.tile(record.numbers, record.z), record.positions().reshape(-1, 3), cell=record.cell)
            self.atoms.pbc = True

        def to_ase(self):
            return self.atoms

    for smiles in ("NC=O", "CC(=O)O"):
        molecule = Molecule.from_smiles(smiles)
        records = [r for r in dataset if r.smiles == molecule.smiles]
        energies = evaluate([Crystal(r) for r in records], parametrize(molecule))
        np.testing.assert_allclose(
            energies - molecule.energies.min(), [r.energy for r in records], atol=1e-6, err_msg=smiles
        )


def test_energies_are_those_of_bound_crystals(dataset):
    assert np.all((dataset.energy > -2.0) & (dataset.energy < -0.2))


def test_what_is_left_out_has_its_reason(folder):
    reasons = dropped(folder)
    assert reasons["nonsense"].startswith("MoleculeError")
    assert reasons["salt"].startswith("UnsupportedElementError")
    assert reasons["octane"].startswith("MoleculeTooLargeError: 26 atoms")
    assert reasons["written otherwise"] == "duplicate: the same molecule as molecule:1"
    assert reasons["keto"].startswith("excluded") and EXCLUDED[0] in reasons["keto"]
    assert reasons["lactonitrile"].startswith("excluded") and EXCLUDED[1] in reasons["lactonitrile"]
    assert reasons["disordered"].startswith("DisorderedCrystalError")
    assert reasons["empty"].startswith("CrystalError") and len(reasons) == 8


def test_an_experimental_crystal_of_an_excluded_molecule_is_flagged_and_never_in_train(dataset, folder):
    (urea,) = [r for r in dataset if r.experimental]
    assert urea.name == "urea" or urea.name == "copy"
    assert urea.split == "test" and urea.smiles == "NC(N)=O"
    assert not any(r.experimental for r in CrystalDataset(folder, split="train"))


def test_an_experimental_crystal_is_relaxed_rigidly_where_the_press_keeps_it(dataset, cifs):
    (urea,) = [r for r in dataset if r.experimental]
    read = MolecularCrystal.from_cif(cifs / "urea.cif")
    assert urea.relaxed
    assert abs(np.linalg.det(urea.cell)) / urea.z == pytest.approx(read.volume / read.z, rel=0.05)


def test_a_crystal_that_the_press_moves_away_is_kept_as_it_was_read(tmp_path, cifs):
    class Away:
        def same(self, rmsd):
            return False

    stages = replace(Stages(), similarity=lambda a, b: Away())
    build_crystal_dataset(None, tmp_path / "set", cifs=cifs, processes=1, progress=False, stages=stages)
    (urea,) = CrystalDataset(tmp_path / "set")
    assert not urea.relaxed and np.isfinite(urea.energy)


def test_the_split_is_that_of_the_skeleton_whatever_tautomer_or_stereoisomer():
    def side(smiles):
        return split_of(skeletons(Chem.MolFromSmiles(smiles))[0])

    for one, other in [
        ("CC(=O)CC(C)=O", "CC(O)=CC(C)=O"),
        ("C[C@H](O)C#N", "C[C@@H](O)C#N"),
        ("Oc1ccccn1", "O=c1cccc[nH]1"),
    ]:
        assert skeletons_of_smiles([one]).keys() & skeletons_of_smiles([other]).keys()
        assert side(one) == side(other)
    sides = [split_of(f"skeleton {k}") for k in range(2000)]
    assert 0.17 < sides.count("test") / 2000 < 0.23


def test_a_racemate_is_one_molecule_whichever_hand_was_drawn(tmp_path):
    molecule = Molecule.from_smiles("CC(O)C#N")
    packings = random_packings(molecule, 1, space_groups=["P-1"], seed=0)
    (tmp_path / "cifs").mkdir()
    settings = replace(SETTINGS, candidates=8)
    build_crystal_dataset(["CC(O)C#N"], tmp_path / "one", settings=settings, processes=1, progress=False)
    found = CrystalDataset(tmp_path / "one")[0]
    for name, hand in (("left", 1.0), ("right", -1.0)):  # a centrosymmetric crystal holds both: list either first
        crystal = packings.crystal(0)
        unit = replace(
            crystal.asymmetric_unit[0],
            conformer=hand * found.conformers[0],
            centroid=found.centroid[0],
            orientation=found.orientation[0],
        )
        group = SpaceGroup.from_name(found.space_group)
        listed = molecule if hand > 0 else replace(molecule, rdmol=mirror_image(molecule.rdmol))
        whole = MolecularCrystal((listed,), (replace(unit, images=found.images[0]),), group, found.cell, {})
        (tmp_path / "cifs" / f"{name}.cif").write_text(whole.to_cif())
    build_crystal_dataset(None, tmp_path / "two", cifs=tmp_path / "cifs", processes=1, progress=False)
    both = CrystalDataset([tmp_path / "one", tmp_path / "two"])
    assert {r.smiles for r in both if r.experimental} == {"C[C@H](O)C#N", "C[C@@H](O)C#N"}
    assert len(both.keys) == 1 and all(r.racemic for r in both)


def test_packings_do_not_depend_on_the_company_a_molecule_keeps(folder, tmp_path):
    build_crystal_dataset(
        [MOLECULES[2]], tmp_path / "alone", exclude=EXCLUDED, settings=SETTINGS, processes=1, progress=False
    )
    ((name, alone),) = shards(tmp_path / "alone").items()
    together = shards(folder)[name]
    for array in together.keys() - {"meta"}:
        np.testing.assert_array_equal(alone[array], together[array], err_msg=array)


def test_a_shard_says_how_it_was_made(folder):
    for shard in shards(folder).values():
        meta = shard["meta"]
        assert meta["settings"]["seed"] == 0 and meta["code"] and meta["smiles"] and meta["skeleton"]
        assert meta["split"] in ("train", "test")


def test_a_damaged_shard_is_named_by_the_reader_and_restored_by_the_next_build(folder, tmp_path, cifs):
    copy = tmp_path / "copy"
    copytree(folder, copy)
    victim = sorted(copy.glob("store/molecules/*.npz"))[0]
    good = victim.read_bytes()
    victim.write_bytes(good[:-30] + bytes(30))
    refuses(StoreError, victim.name, CrystalDataset, copy)
    summary = build_crystal_dataset(
        MOLECULES, copy, cifs=cifs, exclude=EXCLUDED, settings=SETTINGS, processes=1, progress=False
    )
    assert summary.computed == 1
    assert victim.read_bytes() == good
    victim.unlink()
    refuses(StoreError, victim.name, CrystalDataset, copy)


def test_a_torn_manifest_line_is_no_shard(folder, tmp_path):
    copytree(folder, tmp_path / "copy")
    with open(tmp_path / "copy" / "store" / "manifest.jsonl", "a") as file:
        file.write('{"key": "molecules/0000')
    assert len(CrystalDataset(tmp_path / "copy")) == len(CrystalDataset(folder))


@pytest.mark.parametrize("change", [{"settings": replace(SETTINGS, seed=1)}, {"exclude": ["C"]}])
def test_a_folder_takes_no_shards_made_otherwise(folder, change):
    with pytest.raises(StoreError, match="belongs to another run"):
        build_crystal_dataset(
            MOLECULES, folder, **{"exclude": EXCLUDED, "settings": SETTINGS, "progress": False, **change}
        )


def test_low_packings_weigh_more_and_every_molecule_the_same(dataset):
    weights = dataset.weights(scale=4.0)
    for _, rows in dataset.molecules():
        assert weights[rows].sum() == pytest.approx(1)
        ratio = weights[rows] / weights[rows[0]]
        expected = np.exp(-(dataset.energy[rows] - dataset.energy[rows[0]]) / (4 * KJ_PER_MOL))
        np.testing.assert_allclose(ratio, expected)
    refuses(InputError, "scale", dataset.weights, scale=0.0)


def test_several_folders_read_as_one(dataset, folder):
    twice = CrystalDataset([folder, folder])
    assert len(twice) == len(dataset) and twice.keys == dataset.keys  # found again is not found twice


def test_another_round_with_the_flow_adds_what_is_new(folder, dataset, tmp_path):
    settings = replace(SETTINGS, generator="flow")
    refuses(InputError, "unknown weights", replace, SETTINGS, weights=str(tmp_path))
    again = build_crystal_dataset(MOLECULES[:1], tmp_path / "round", settings=settings, processes=1, progress=False)
    assert again.molecules == 1
    run = json.loads((tmp_path / "round" / "run.json").read_text())["identity"]
    assert run["packings"]["generator"] == "flow" and run["packings"]["weights"]
    joined = CrystalDataset([folder, tmp_path / "round"])
    found = len(CrystalDataset(tmp_path / "round"))
    assert len(dataset) < len(joined) <= len(dataset) + found
    assert joined.keys == dataset.keys


def test_indices_count_from_both_ends_and_end(dataset):
    assert dataset[-1].key == dataset[len(dataset) - 1].key
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def fatal_or_plain(item: str) -> bytes:
    if item == "fatal":
        os._exit(9)
    return item.encode()


def test_an_item_that_kills_its_process_costs_only_itself():
    executor = ProcessExecutor(2, lambda item: b"lost")
    items = ["a", "fatal", "b", "c", "d"]
    try:
        results = {items[k]: data for k, data, _ in executor.run(fatal_or_plain, (), items)}
    finally:
        executor.close()
    assert results == {"a": b"a", "fatal": b"lost", "b": b"b", "c": b"c", "d": b"d"}


def test_reading_needs_no_chemistry_library(folder, dataset):
    script = """
        from molflow_sim.dataset import CrystalDataset

        data = CrystalDataset(sys.argv[1])
        data.weights(), list(data.molecules())
        print("read", sum(record.positions().size > 0 for record in data))
    """
    assert without_chemistry(script, folder, also="numba rich").strip() == f"read {len(dataset)}"


@pytest.mark.parametrize(
    "wrong", [{"keep": 0}, {"window": -1.0}, {"window": float("nan")}, {"max_atoms": 1.5}, {"candidates": 0}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    refuses(InputError, next(iter(wrong)), DatasetSettings, **wrong)


def test_the_command_names_what_is_wrong_in_one_line(tmp_path, capsys):
    out = str(tmp_path / "set")
    assert molflow(["dataset", "crystals", str(tmp_path / "none.smi"), "-o", out]) == 2
    assert molflow(["dataset", "crystals", "-o", out]) == 2
    assert molflow(["dataset", "crystals", "-o", out, "--cifs", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("molflow: ") for line in lines)
    assert not (tmp_path / "set").exists()


def test_the_command_builds_what_the_function_builds(tmp_path, folder, capsys):
    (tmp_path / "one.smi").write_text("CC(=O)O acetic acid\n")
    (tmp_path / "not.smi").write_text("\n".join(EXCLUDED) + "\n")
    command = ["dataset", "crystals", str(tmp_path / "one.smi"), "-o", str(tmp_path / "set"), "--exclude"]
    command += [str(tmp_path / "not.smi"), "--candidates", "24", "--keep", "6", "--window", "12", "--max-atoms", "16"]
    assert molflow([*command, "-g", "P-1,P21/c", "--processes", "1"]) == 0
    assert "6 packings of 1 molecules" in capsys.readouterr().out
    assert molflow([*command, "-g", "P-1,P21/c", "--processes", "1", "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    made = json.loads((tmp_path / "set" / "run.json").read_text())["identity"]
    assert made == json.loads((folder / "run.json").read_text())["identity"]
