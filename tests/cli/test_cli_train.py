"""`molflow train crystal-flow`: what a folder holds becomes a data set, and what cannot be used a row."""

import csv

import numpy as np
import pytest
from flow_stand_in import stand_in, weights_of  # noqa: F401
from refusals import refuses
from screening_examples import landscape

from molflow_sim.cli.main import run
from molflow_sim.dataset import CrystalDataset, training_source
from molflow_sim.dataset.skeletons import split_of_molecule
from molflow_sim.dataset.sources import kind_of, landscape_dataset
from molflow_sim.errors import InputError, StoreError, TrainingError
from molflow_sim.generators.generate import generate
from molflow_sim.runs.files import write_bytes_atomically

TRAIN, TEST = "NC=O", "NN"


def outcome(capsys, *arguments) -> tuple[int, str, str]:
    code = run(["train", "crystal-flow", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def sides(*smiles: str) -> list[str]:
    from molflow_sim import Molecule

    return [split_of_molecule(Molecule.from_smiles(s).rdmol) for s in smiles]


@pytest.fixture(scope="module")
def cifs(tmp_path_factory):
    """Pressed crystals of one molecule of each side, and CIFs that cannot be used."""
    folder = tmp_path_factory.mktemp("cifs")
    for name, smiles in (("a", TRAIN), ("b", TEST)):
        made = generate("crystals", smiles, 8, press=True, space_groups="P-1")
        (folder / f"{name}.cif").write_text(min(made, key=lambda c: c.info["energy_kj_per_mol"]).to_cif())
    text = (folder / "a.cif").read_text()
    lines = text.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("_atom_site_symmetry_multiplicity")) + 1
    lines[start] = lines[start].rsplit(" 1 ", 1)[0] + " 0.5 " + lines[start].split()[-1]
    (folder / "disordered.cif").write_text("\n".join(lines) + "\n")
    metal = text.splitlines()
    metal[start] = (
        metal[start].replace("N1 ", "Fe1").replace(" N ", " Fe ").replace("C1 ", "Fe1").replace(" C ", " Fe ")
    )
    (folder / "metal.cif").write_text("\n".join(metal) + "\n")
    (folder / "empty.cif").write_text("")
    return folder


def test_the_molecules_of_these_tests_are_on_both_sides_of_the_split():
    assert sides(TRAIN, TEST) == ["train", "test"]


def test_cifs_become_a_data_set_and_the_refused_ones_rows_with_reasons(capsys, tmp_path, cifs, stand_in):  # noqa: F811
    code, out, _ = outcome(capsys, cifs, "-o", tmp_path / "out", "--processes", 1)
    ((data, config, folder, initial),) = stand_in.calls
    assert code == 0 and "3 left out" in out and folder == tmp_path / "out" and initial is None and config.starts == 7
    assert [record.smiles for record in data] == [TRAIN] and data[0].experimental
    with open(tmp_path / "out" / "data" / "dropped.csv", newline="") as file:
        rows = {row["name"]: row["reason"] for row in csv.DictReader(file)}
    assert set(rows) == {"disordered", "metal", "empty"}
    assert "Disordered" in rows["disordered"] and "Fe" in rows["metal"]


def test_the_test_side_is_trained_on_only_if_asked(capsys, tmp_path, cifs, stand_in):  # noqa: F811
    outcome(capsys, cifs, "-o", tmp_path / "out", "--processes", 1, "--split", "all", "-q")
    assert sorted(record.smiles for record in stand_in.calls[0][0]) == sorted([TRAIN, TEST])


def test_excluded_molecules_are_not_trained_on(capsys, tmp_path, cifs, stand_in):  # noqa: F811
    (tmp_path / "kept_out.smi").write_text(f"{TRAIN} x\n")
    arguments = (cifs, "-o", tmp_path / "out", "--processes", 1, "--exclude", tmp_path / "kept_out.smi")
    code, _, err = outcome(capsys, *arguments)
    assert code == 1 and "--split all" in err and not stand_in.calls


def test_the_same_command_carries_on_and_reads_no_cif_twice(capsys, tmp_path, cifs, stand_in, monkeypatch):  # noqa: F811
    outcome(capsys, cifs, "-o", tmp_path / "out", "--processes", 1, "-q")

    def refuse(*_):
        raise AssertionError("read again")

    monkeypatch.setattr("molflow_sim.dataset.build.make_shard", refuse)
    assert outcome(capsys, cifs, "-o", tmp_path / "out", "--processes", 1, "-q")[0] == 0


def test_a_data_set_is_read_where_it_lies(capsys, tmp_path, cifs, stand_in):  # noqa: F811
    source = training_source(cifs, tmp_path / "set", progress=False)
    assert kind_of(tmp_path / "set") == "data set" and source.kind == "CIFs"
    code, out, _ = outcome(capsys, tmp_path / "set", "-o", tmp_path / "out")
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


def test_a_landscape_is_trained_on_whole_with_its_own_conformers_and_energies(capsys, screening, tmp_path, stand_in):  # noqa: F811
    folder, made = screening
    code, out, _ = outcome(capsys, folder, "-o", tmp_path / "out")
    data = stand_in.calls[0][0]
    assert code == 0 and "landscape" in out and len(data) == 4
    for record, entry in zip(data, made.entries):
        assert record.energy == entry.energy and record.space_group == entry.crystal.space_group.name
        positions = np.concatenate([entry.crystal.copies(k) for k in range(len(entry.crystal.asymmetric_unit))])
        np.testing.assert_allclose(record.positions(), positions, atol=1e-9)


def test_structures_with_other_numbers_of_molecules_go_to_shards_of_their_own(tmp_path):
    from dataclasses import replace

    made = landscape(3)
    one = made.entries[0].crystal
    two = replace(one, asymmetric_unit=one.asymmetric_unit * 2)
    made = replace(made, entries=(replace(made.entries[0], crystal=two), *made.entries[1:]))
    data = CrystalDataset(landscape_dataset(made, tmp_path / "set"))
    assert sorted(len(record.conformers) for record in data) == [1, 1, 2]
    assert len(data.keys) == 1


def test_a_landscape_ranked_in_part_by_another_model_is_weighted_by_the_potential(tmp_path):
    from dataclasses import replace

    made = landscape(3)
    first = replace(made.entries[0], energy=-4000.0, energy_model="gfn2-xtb", potential_energy=-3.0)
    data = CrystalDataset(landscape_dataset(replace(made, entries=(first, *made.entries[1:])), tmp_path / "set"))
    assert sorted(data.energy) == sorted([-3.0, *(e.potential_energy for e in made.entries[1:])])


def test_another_landscape_is_not_mixed_into_the_data_of_the_first(tmp_path):
    landscape_dataset(landscape(3), tmp_path / "set")
    refuses(StoreError, "belongs to another run", landscape_dataset, landscape(4), tmp_path / "set")


def test_an_empty_landscape_is_refused(tmp_path):
    from dataclasses import replace

    refuses(TrainingError, "empty", landscape_dataset, replace(landscape(1), entries=()), tmp_path / "set")


def test_a_config_and_weights_to_start_from_reach_the_training(capsys, tmp_path, cifs, stand_in, monkeypatch):  # noqa: F811
    (tmp_path / "c.yaml").write_text("starts: 3\n")
    weights_of(tmp_path)
    monkeypatch.setattr("molflow_sim.dataset.train.packaged", lambda kind: weights_of(tmp_path / kind))
    arguments = (cifs, "-o", tmp_path / "out", "--config", tmp_path / "c.yaml", "--processes", 1, "-q")
    outcome(capsys, *arguments, "--from-pretrained")
    outcome(capsys, *arguments, "--weights", tmp_path)
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
def test_what_cannot_be_is_refused_in_one_line(capsys, tmp_path, cifs, stand_in, make, options, code, words):  # noqa: F811
    folder = tmp_path / "given"
    folder.mkdir()
    got, _, err = outcome(capsys, make(folder) if make else cifs, "-o", tmp_path / "out", "--processes", 1, "-q",
                          *options)  # fmt: skip
    assert got == code and words in err and err.count("\n") == 1 and not stand_in.calls


def test_cifs_that_are_all_refused_are_an_error_that_points_to_the_reasons(capsys, tmp_path, stand_in):  # noqa: F811
    (tmp_path / "cifs").mkdir()
    (tmp_path / "cifs" / "empty.cif").write_text("")
    code, _, err = outcome(capsys, tmp_path / "cifs", "-o", tmp_path / "out", "--processes", 1, "-q")
    assert code == 1 and "dropped.csv" in err and "1 rows" in err


def test_seed_steps_and_device_count_more_than_the_settings(capsys, tmp_path, cifs, stand_in):  # noqa: F811
    arguments = ("--processes", 1, "-q", "--seed", 4, "--steps", 9, "--device", "cpu")
    assert outcome(capsys, cifs, "-o", tmp_path / "out", *arguments)[0] == 0
    ((_, config, _, _),) = stand_in.calls
    assert (config.seed, config.training.seed, config.training.max_steps, config.training.device) == (4, 4, 9, "cpu")


@pytest.mark.parametrize(("kind", "words"), [("magic", "choose from crystal-flow"), ("cgnet", "not trained on")])
def test_a_kind_that_cannot_be_trained_is_named(capsys, tmp_path, cifs, kind, words):
    assert run(["train", kind, str(cifs), "-o", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err


def test_a_damaged_screening_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    refuses(StoreError, r"run\.json", kind_of, tmp_path)
    refuses(InputError, "no such folder", kind_of, tmp_path / "nowhere")


def test_several_data_sets_are_trained_on_together_and_nothing_else_beside_them(capsys, tmp_path, cifs, stand_in):  # noqa: F811
    first = training_source(cifs, tmp_path / "one", split="all", progress=False).folder
    landscape_dataset(landscape(), tmp_path / "two")
    code, _, _ = outcome(capsys, first, tmp_path / "two", "-o", tmp_path / "out", "--split", "all", "-q")
    (data, *_), *_ = stand_in.calls
    assert code == 0 and len(data) > len(CrystalDataset(first))
    code, _, err = outcome(capsys, first, cifs, "-o", tmp_path / "other", "-q")
    assert code != 0 and "cifs" in err and "--cifs" in err
