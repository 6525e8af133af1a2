"""`molflow cg`: help, one-line errors before any work, exit codes."""

import json
import re
from importlib.resources import files

import mdtraj
import numpy as np
import pytest
from bead_examples import peptide, peptide_trajectory

from molflow_sim.cg import BeadFrames, DistillSettings
from molflow_sim.cg.student.cgnet import CGNetSettings
from molflow_sim.cg.student.prior import PriorSettings
from molflow_sim.cg.teacher.forces import ForceSampleSettings
from molflow_sim.data import alanine_card, alanine_frames
from molflow_sim.evaluate import dihedral
from molflow_sim.runs.files import sha256

VERBS = ("fit", "distill", "simulate", "report", "export")


@pytest.fixture
def md(tmp_path):
    """A folder with a trajectory of six residues (TRR, nm) and its PDB file."""
    trajectory = peptide_trajectory(peptide(6, capped=False), frames=150)
    trajectory[0].save_pdb(str(tmp_path / "md.pdb"))
    trajectory.save_trr(str(tmp_path / "md.trr"))
    return tmp_path


def fit_arguments(folder, **changes) -> list[str]:
    given = {"trajectory": folder / "md.trr", "topology": folder / "md.pdb", "beads": "name CA", "temperature": "300"}
    options = [
        str(part) for key, value in (given | changes).items() if value is not None for part in (f"--{key}", value)
    ]
    return ["fit", *options, "-o", str(folder / "model")]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_examples(molflow, verb):
    code, out, _ = molflow("cg", verb, "--help")
    assert code == 0 and "Usage" in out and "Examples" in out and f"molflow cg {verb}" in out


def test_the_group_lists_its_verbs(molflow):
    code, out, _ = molflow("cg", "--help")
    assert code == 0 and all(verb in out for verb in VERBS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trajectory": "nothing.xtc"}, "nothing.xtc: no such file"),
        ({"topology": "nothing.pdb"}, "nothing.pdb: no such file"),
        ({"temperature": None}, "temperature is missing"),
        ({"temperature": "-5"}, "above zero"),
        ({"beads": None}, "no beads are given"),
        ({"beads": "name XX"}, "name XX|no atom"),
        ({"beads": "resid ("}, "resid"),
        ({"beads": "0,99"}, "99"),
        ({"stride": "0"}, "stride"),
        ({"stride": "10"}, "15 frames are too few"),
        ({"steps": "0"}, "max_steps"),
        ({"device": "tpu"}, "device"),
        ({"config": "nothing.yaml"}, "nothing.yaml"),
    ],
)
def test_fit_refuses_bad_input_in_one_line_before_any_work(molflow, md, changes, words):
    code, out, err = molflow("cg", *fit_arguments(md, **changes))
    assert code == 2 and "training steps" not in out
    assert err.startswith("molflow: ") and err.count("\n") == 1 and re.search(words, err)
    assert not (md / "model").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda md: np.put(md.xyz, md.xyz[0].size * 7, np.nan), "frame 7"),
        (lambda md: np.add(md.xyz[9, 9:], 5.0, out=md.xyz[9, 9:]), "frame 9"),
    ],
    ids=["nan", "torn apart"],
)
def test_fit_refuses_spoilt_frames_and_names_them(molflow, md, spoil, words):
    trajectory = mdtraj.load(str(md / "md.trr"), top=str(md / "md.pdb"))
    spoil(trajectory)
    trajectory.save_trr(str(md / "md.trr"))
    code, _, err = molflow("cg", *fit_arguments(md))
    assert code == 2 and err.count("\n") == 1 and words in err


def test_fit_refuses_a_topology_of_other_atoms(molflow, md):
    peptide_trajectory(peptide(7, capped=False), frames=1).save_pdb(str(md / "other.pdb"))
    code, _, err = molflow("cg", *fit_arguments(md, topology=md / "other.pdb"))
    assert code == 2 and err.count("\n") == 1 and "35" in err and "30" in err


def test_fit_refuses_an_npz_of_another_temperature_or_kind(molflow, tmp_path):
    alanine_frames().take(200).save(tmp_path / "frames.npz")
    code, _, err = molflow("cg", "fit", "--trajectory", tmp_path / "frames.npz", "-T", "310", "-o", tmp_path / "m")
    assert code == 2 and "300 K, not 310 K" in err
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    code, _, err = molflow("cg", "fit", "--trajectory", tmp_path / "other.npz", "-o", tmp_path / "m")
    assert code == 2 and "other.npz" in err and err.count("\n") == 1


def test_fit_leaves_a_folder_of_something_else_alone(molflow, md):
    (md / "model").mkdir()
    (md / "model" / "thesis.txt").write_text("years of work")
    code, _, err = molflow("cg", *fit_arguments(md))
    assert code == 2 and "not empty" in err
    assert [p.name for p in (md / "model").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("verb", VERBS[1:])
def test_later_verbs_say_where_there_is_no_model(molflow, tmp_path, verb):
    more = ["--torchscript", tmp_path / "x.pt"] if verb == "export" else []
    code, _, err = molflow("cg", verb, tmp_path / "none", *more)
    assert code == 1 and err.startswith("molflow: ") and err.count("\n") == 1 and "none" in err
    assert not (tmp_path / "none").exists() and not (tmp_path / "x.pt").exists()


@pytest.mark.parametrize(
    ("options", "words"), [(["--method", "guess"], "flow-forces"), (["--samples", "10"], "samples")]
)
def test_distill_refuses_wrong_options(molflow, tmp_path, options, words):
    code, _, err = molflow("cg", "distill", tmp_path, *options)
    assert code == 2 and words in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flatness: 1.0", "unknown flatness; known are energy_weight, force_field, sampling"),
        ("sampling: {flatnes: 1.0}", "sampling: unknown flatnes; known are .*flatness"),
        ("force_field: {prior: {power: 6}}", "force_field: prior: unknown power; known are .*exponent"),
        ("force_field: {width: wide}", "force_field: width must be int, got 'wide'"),
        ("sampling: 3", "sampling: expected a mapping"),
        ("energy_weight: -1", "energy_weight must not be negative"),
        ("sampling: [", "not YAML"),
        (None, "small.yaml cannot be read"),
    ],
)
def test_distill_names_what_is_wrong_in_its_settings(molflow, tmp_path, text, words):
    if text is not None:
        (tmp_path / "small.yaml").write_text(text)
    code, _, err = molflow("cg", "distill", tmp_path / "none", "--config", tmp_path / "small.yaml")
    assert code == 2 and err.startswith("molflow: ") and re.search(words, err)


def test_settings_of_a_distillation_come_back_from_yaml_and_what_is_left_out_keeps_its_default(tmp_path):
    chosen = DistillSettings(CGNetSettings(width=24, prior=PriorSettings(exponent=8)), ForceSampleSettings(flatness=2))
    chosen.to_yaml(tmp_path / "small.yaml")
    assert DistillSettings.from_yaml(tmp_path / "small.yaml") == chosen
    (tmp_path / "part.yaml").write_text("force_field: {width: 24, prior: {exponent: 8}}\nsampling: {flatness: 2}\n")
    assert DistillSettings.from_yaml(tmp_path / "part.yaml") == chosen
    (tmp_path / "none.yaml").write_text("")
    assert DistillSettings.from_yaml(tmp_path / "none.yaml") == DistillSettings()


def test_a_fit_that_has_not_ended_is_not_distilled(molflow, tmp_path):
    (tmp_path / "fit.json").write_text(json.dumps({"identity": {}, "finished": False}))
    code, _, err = molflow("cg", "distill", tmp_path)
    assert code == 1 and "has not ended" in err


def test_shipped_frames_are_those_of_their_card():
    card, frames = alanine_card(), alanine_frames()
    assert sha256((files("molflow_sim.data") / "alanine.npz").read_bytes()) == card["sha256"]
    assert frames.n_frames == card["frames"] and frames.temperature == card["temperature_K"]
    assert frames.topology.phi_psi_indices() is not None and frames.forces is None
    assert isinstance(frames.validate(), BeadFrames)


def test_shipped_frames_are_l_alanine_in_its_usual_basins():
    frames = alanine_frames()
    phi = dihedral(frames.positions, frames.topology.phi_psi_indices())[:, 0]
    assert np.mean(phi < 0) > 0.95
