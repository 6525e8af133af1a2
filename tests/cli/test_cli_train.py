"""`molflow train crystal-flow`: what a folder holds becomes a data set, and what cannot be used a row."""

import csv
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from flow_stand_in import weights_of
from refusals import refuses
from screening_examples import landscape

from molflow_sim import Molecule
from molflow_sim.dataset import CrystalDataset, training_source
from molflow_sim.dataset.skeletons import split_of_molecule
from molflow_sim.dataset.sources import kind_of, landscape_dataset
from molflow_sim.errors import InputError, StoreError, TrainingError
from molflow_sim.generators.generate import generate
from molflow_sim.runs.files import write_bytes_atomically

TRAIN, TEST = "NC=O", "NN"


@pytest.fixture
def train(molflow):
    return partial(molflow, "train", "crystal-flow")


def sides(*smiles: str) -> list[str]:
    return [split_of_molecule(Molecule.from_smiles(s).rdmol) for s in smiles]


@pytest.fixture(scope="module")
def cifs(tmp_path_factory):
    """Pressed crystals of one molecule of each side, and CIFs that cannot be used."""
    folder = tmp_path_factory.mktemp("cifs")
    for name, smiles in (("a", TRAIN), ("b", TEST)):
        made = generate("crystals", smiles, 8, press=True, space_groups="P-1")
        (folder / f"{name}.cif").write_text(min(made, key=lambda c: c.info["energy_kj_per_mol"]).to_cif())
    text = (folder / "a.cif").read_text()
    (folder / "disordered.cif").write_text(re.sub(r" 1 (\d+)$", r" 0.5 \1", text, count=1, flags=re.M))
    (folder / "metal.cif").write_text(re.sub(r"^[NC]1 +[NC] ", "Fe1 Fe ", text, count=1, flags=re.M))
    (folder / "empty.cif").write_text("")
    return folder


def test_the_molecules_of_these_tests_are_on_both_sides_of_the_split():
    assert sides(TRAIN, TEST) == ["train", "test"]


def test_cifs_become_a_data_set_and_the_refused_ones_rows_with_reasons(train, tmp_path, cifs, stand_in):
    code, out, _ = train(cifs, "-o", tmp_path / "out", "--processes", 1)
    ((data, config, folder, initial),) = stand_in.calls
    assert code == 0 and "3 left out" in out and folder == tmp_path / "out" and initial is None and config.starts == 7
    assert [record.smiles for record in data] == [TRAIN] and data[0].experimental
    with open(tmp_path / "out" / "data" / "dropped.csv", newline="") as file:
        rows = {row["name"]: row["reason"] for row in csv.DictReader(file)}
    assert set(rows) == {"disordered", "metal", "empty"}
    assert "Disordered" in rows["disordered"] and "Fe" in rows["metal"]


def test_the_test_side_is_trained_on_only_if_asked(train, tmp_path, cifs, stand_in):
    train(cifs, "-o", tmp_path / "out", "--processes", 1, "--split", "all", "-q")
    assert sorted(record.smiles for record in stand_in.calls[0][0]) == sorted([TRAIN, TEST])


def test_excluded_molecules_are_not_trained_on(train, tmp_path, cifs, stand_in):
    (tmp_path / "kept_out.smi").write_text(f"{TRAIN} x\n")
    arguments = (cifs, "-o", tmp_path / "out", "--processes", 1, "--exclude", tmp_path / "kept_out.smi")
    code, _, err = train(*arguments)
    assert code == 1 and "--split all" in err and not stand_in.calls


def test_exclusions_from_what_has_its_sides_are_refused_and_not_forgotten(molflow, train, tmp_path, cifs, stand_in):
    (tmp_path / "kept_out.smi").write_text(f"{TRAIN} x\n")
    training_source(cifs, tmp_path / "set", progress=False)
    exclude = ("--exclude", tmp_path / "kept_out.smi")
    code, _, err = train(tmp_path / "set", "-o", tmp_path / "out", *exclude)
    assert code == 2 and "is a data set" in err and not stand_in.calls
    code, _, err = molflow("train", "coarsenconf", tmp_path / "set", "-o", tmp_path / "out", *exclude)
    assert code == 2 and "without split and exclude" in err


def test_the_same_command_carries_on_and_reads_no_cif_twice(train, tmp_path, cifs, stand_in, monkeypatch):
    train(cifs, "-o", tmp_path / "out", "--processes", 1, "-q")

    def refuse(*_):
        raise AssertionError("read again")

    monkeypatch.setattr("molflow_sim.dataset.build.make_shard", refuse)
    assert train(cifs, "-o", tmp_path / "out", "--processes", 1, "-q")[0] == 0


def test_a_data_set_is_read_where_it_lies(train, tmp_path, cifs, stand_in):
    source = training_source(cifs, tmp_path / "set", progress=False)
    assert kind_of(tmp_path / "set") == "data set" and source.kind == "CIFs"
    code, out, _ = train(tmp_path / "set", "-o", tmp_path / "out")
    assert code == 0 and "data set" in out and not (tmp_path / "out" / "data").exists()
    assert [record.smiles for record in stand_in.calls[0][0]] == [TRAIN]


@pytest.fixture
def screening(tmp_path):
    """A finished screening's folder."""
    made = landscape(4)
    folder = tmp_path / "screening"
    (folder / "store").mkdir(parents=True)
    write_bytes_atomically(folder / "run.json", b'{"identity": {"molecule": "NC=O"}, "status": "done"}')
    made.save(folder / "store" / "landscape.json")
    return folder, made


def test_a_landscape_is_trained_on_whole_with_its_own_conformers_and_energies(train, screening, tmp_path, stand_in):
    folder, made = screening
    code, out, _ = train(folder, "-o", tmp_path / "out")
    data = stand_in.calls[0][0]
    assert code == 0 and "landscape" in out and len(data) == 4
    for record, entry in zip(data, made.entries):
        assert record.energy == entry.energy and record.space_group == entry.crystal.space_group.name
        positions = np.concatenate([entry.crystal.copies(k) for k in range(len(entry.crystal.asymmetric_unit))])
        np.testing.assert_allclose(record.positions(), positions, atol=1e-9)


def test_another_landscape_replaces_the_converted_one_only_if_asked(train, screening, tmp_path, stand_in):
    folder, _ = screening
    assert train(folder, "-o", tmp_path / "out", "-q")[0] == 0
    landscape(3).save(folder / "store" / "landscape.json")
    code, _, err = train(folder, "-o", tmp_path / "out", "-q")
    assert code == 2 and "--overwrite" in err
    assert train(folder, "-o", tmp_path / "out", "-q", "--overwrite")[0] == 0 and len(stand_in.calls[-1][0]) == 3


def test_structures_with_other_numbers_of_molecules_go_to_shards_of_their_own(tmp_path):
    made = landscape(3)
    one = made.entries[0].crystal
    two = replace(one, asymmetric_unit=one.asymmetric_unit * 2)
    made = replace(made, entries=(replace(made.entries[0], crystal=two), *made.entries[1:]))
    data = CrystalDataset(landscape_dataset(made, tmp_path / "set"))
    assert sorted(len(record.conformers) for record in data) == [1, 1, 2]
    assert len(data.keys) == 1


def test_a_landscape_ranked_in_part_by_another_model_is_weighted_by_the_potential(tmp_path):
    made = landscape(3)
    first = replace(made.entries[0], energy=-4000.0, energy_model="gfn2-xtb", potential_energy=-3.0)
    data = CrystalDataset(landscape_dataset(replace(made, entries=(first, *made.entries[1:])), tmp_path / "set"))
    assert sorted(data.energy) == sorted([-3.0, *(e.potential_energy for e in made.entries[1:])])


def test_landscapes_that_are_empty_damaged_or_another_ones_are_refused(tmp_path):
    landscape_dataset(landscape(3), tmp_path / "set")
    refuses(StoreError, "belongs to another run", landscape_dataset, landscape(4), tmp_path / "set")
    refuses(TrainingError, "empty", landscape_dataset, replace(landscape(1), entries=()), tmp_path / "set")
    (tmp_path / "run.json").write_text("{")
    refuses(StoreError, r"run\.json", kind_of, tmp_path)
    refuses(InputError, "no such folder", kind_of, tmp_path / "nowhere")


def test_a_config_and_weights_to_start_from_reach_the_training(train, tmp_path, cifs, stand_in, monkeypatch):
    (tmp_path / "c.yaml").write_text("starts: 3\n")
    weights_of(tmp_path)
    monkeypatch.setattr("molflow_sim.dataset.train.packaged", lambda kind: weights_of(tmp_path / kind))
    arguments = (cifs, "-o", tmp_path / "out", "--config", tmp_path / "c.yaml", "--processes", 1, "-q")
    train(*arguments, "--from-pretrained")
    train(*arguments, "--weights", tmp_path)
    (_, config, _, shipped), (_, _, _, own) = stand_in.calls
    assert config.starts == 3 and shipped.card["data"] == own.card["data"] == "mine"


@pytest.mark.parametrize(
    ("make", "options", "code", "words"),
    [
        (lambda p: p / "absent", [], 2, "no such folder"),
        (lambda p: p, [], 2, "neither a data set"),
        (None, ["--split", "half"], 2, "'train' or 'all'"),
        (None, ["--config", "absent.yaml"], 2, "absent.yaml"),
        (None, ["--weights", "absent"], 1, "absent"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(train, tmp_path, cifs, stand_in, make, options, code, words):
    folder = tmp_path / "given"
    folder.mkdir()
    source = make(folder) if make else cifs
    got, _, err = train(source, "-o", tmp_path / "out", "--processes", 1, "-q", *options)
    assert got == code and words in err and err.count("\n") == 1 and not stand_in.calls


def test_cifs_that_are_all_refused_are_an_error_that_points_to_the_reasons(train, tmp_path, stand_in):
    (tmp_path / "cifs").mkdir()
    (tmp_path / "cifs" / "empty.cif").write_text("")
    code, _, err = train(tmp_path / "cifs", "-o", tmp_path / "out", "--processes", 1, "-q")
    assert code == 1 and "dropped.csv" in err and "1 rows" in err


def test_seed_steps_and_device_count_more_than_the_settings(train, tmp_path, cifs, stand_in):
    arguments = ("--processes", 1, "-q", "--seed", 4, "--steps", 9, "--device", "cpu")
    assert train(cifs, "-o", tmp_path / "out", *arguments)[0] == 0
    ((_, config, _, _),) = stand_in.calls
    assert (config.seed, config.training.seed, config.training.max_steps, config.training.device) == (4, 4, 9, "cpu")


@pytest.mark.parametrize(("kind", "words"), [("magic", "choose from crystal-flow"), ("cgnet", "not trained on")])
def test_a_kind_that_cannot_be_trained_is_named(molflow, tmp_path, cifs, kind, words):
    code, _, err = molflow("train", kind, cifs, "-o", tmp_path / "out")
    assert code == 2 and words in err


def test_several_data_sets_are_trained_on_together_and_nothing_else_beside_them(train, tmp_path, cifs, stand_in):
    first = training_source(cifs, tmp_path / "one", split="all", progress=False).folder
    landscape_dataset(landscape(), tmp_path / "two")
    code, _, _ = train(first, tmp_path / "two", "-o", tmp_path / "out", "--split", "all", "-q")
    (data, *_), *_ = stand_in.calls
    assert code == 0 and len(data) > len(CrystalDataset(first))
    code, _, err = train(first, cifs, "-o", tmp_path / "other", "-q")
    assert code != 0 and "cifs" in err and "--cifs" in err
