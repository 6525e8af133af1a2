"""`molflow cg` from frames to report, as a user runs it: every stage, killed and resumed, and a changed model."""

import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from molflow_openmm import simulate_cg
from processes import killed
from refusals import refuses

from molflow_sim.cg import ModelFolder, distill, fit, report
from molflow_sim.cli.main import run
from molflow_sim.data import alanine_frames
from molflow_sim.errors import InputError, StoreError, WeightsError
from molflow_sim.training import TrainSettings

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    return alanine_frames().take(1000).save(tmp_path_factory.mktemp("frames") / "frames.npz")


@pytest.fixture(scope="module")
def model(tmp_path_factory, frames) -> Path:
    """A model folder after fit, distill and simulate, by the command line: barely trained, but whole."""
    folder = tmp_path_factory.mktemp("work") / "model"
    for words in (
        ["fit", "--trajectory", str(frames), "-o", str(folder), "--steps", "60", "-q"],
        ["distill", str(folder), "--samples", "2000", "--steps", "150", "-q"],
        ["simulate", str(folder), "--replicas", "4", "--ns", "0.01", "--report-every", "0.1", "-q"],
    ):
        assert run(["cg", *words]) == 0
    return folder


def test_the_stages_leave_a_model_a_trajectory_and_a_report(capsys, model, frames):
    assert run(["cg", "report", str(model), "--reference", str(frames)]) == 0
    out = capsys.readouterr().out
    assert "coverage" in out and "simulation" in out and "flow" in out
    page = (model / "report.html").read_text()
    assert "<html" in page and 'src="http' not in page
    names = {p.name for p in model.iterdir()}
    assert {"frames.npz", "teacher.safetensors", "student.safetensors", "simulation", "report.html"} <= names
    assert not [p for p in model.rglob("*") if p.suffix in (".pt", ".pkl", ".ckpt")], "nothing here is a pickle"


def test_an_all_atom_reference_is_mapped_as_the_fit_was(tmp_path):
    rng = np.random.default_rng(1)
    beads = alanine_frames().take(300)
    topology = beads.topology.to_mdtraj()
    trajectory = mdtraj.Trajectory(0.1 * beads.positions, topology)
    trajectory[0].save_pdb(str(tmp_path / "md.pdb"))
    trajectory.save_trr(str(tmp_path / "md.trr"))
    trajectory[rng.permutation(300)].save_trr(str(tmp_path / "other.trr"))
    fit([tmp_path / "md.trr"], tmp_path / "m", topology=tmp_path / "md.pdb", beads="backbone", temperature=300, steps=5)
    (tmp_path / "md.pdb").unlink()  # the folder holds a copy
    made = report(tmp_path / "m", tmp_path / "other.trr", flow_samples=500)
    assert made.coordinates == "phi-psi" and [s.label for s in made.scores] == ["flow"]
    copy = tmp_path / "m" / "topology.pdb"
    known = copy.read_bytes()
    again = {"beads": "backbone", "temperature": 300, "steps": 6, "overwrite": True}
    fit([tmp_path / "md.trr"], tmp_path / "m", topology=copy, **again)
    assert copy.read_bytes() == known, "the folder's own copy does as well"
    for name in ("topology.psf", "teacher.notes"):
        (tmp_path / "m" / name).write_text("mine")
    frames = beads.save(tmp_path / "frames.npz")
    fit(frames, tmp_path / "m", steps=5, overwrite=True)
    left = {p.name for p in (tmp_path / "m").iterdir()}
    assert {"topology.psf", "teacher.notes"} <= left and "topology.pdb" not in left, "what is not of the fit stays"


def test_exported_torchscript_gives_the_energy_of_the_model(model, tmp_path):
    assert run(["cg", "export", str(model), "--torchscript", str(tmp_path / "model.pt"), "-q"]) == 0
    x = alanine_frames().positions[:1].astype(float)
    ours = ModelFolder(model).load_student().energy_and_forces(np.ascontiguousarray(x))[0][0] * 96.48533212331
    theirs = float(torch.jit.load(str(tmp_path / "model.pt"))(torch.from_numpy(0.1 * x[0])))
    assert theirs == pytest.approx(ours, rel=1e-5)


def test_the_same_command_again_does_nothing_and_another_one_is_refused(capsys, model, frames):
    before = (model / "teacher.safetensors").stat().st_mtime_ns
    assert run(["cg", "fit", "--trajectory", str(frames), "-o", str(model), "--steps", "60"]) == 0
    assert "already" in capsys.readouterr().out
    assert (model / "teacher.safetensors").stat().st_mtime_ns == before
    assert run(["cg", "fit", "--trajectory", str(frames), "-o", str(model), "--steps", "70"]) == 2
    assert "training" in capsys.readouterr().err
    refuses(StoreError, "seed", distill, model, samples=2000, steps=150, seed=5)


def test_a_simulation_is_extended_by_asking_for_more(model):
    simulate_cg(model, 4, 0.01, report_every_ps=0.1, output=model.parent / "run")
    first = simulate_cg(model, 4, 0.01, report_every_ps=0.1, output=model.parent / "run").positions()
    longer = simulate_cg(model, 4, 0.012, report_every_ps=0.1, output=model.parent / "run").positions()
    assert longer.shape[1] == 120 and np.array_equal(longer[:, :100], first)


def test_other_code_reads_a_model_and_does_not_go_on_with_it(model, frames, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    quick = {"report_every_ps": 0.1, "output": tmp_path / "run"}
    simulate_cg(copy, 2, 0.001, **quick)
    monkeypatch.setattr("molflow_sim.runs.folder.code_identity", lambda *_: "other")
    with pytest.warns(UserWarning, match="run of other code"):
        assert simulate_cg(copy, 2, 0.001, **quick).reports == 10
    refuses(StoreError, "other code.*--overwrite", simulate_cg, copy, 2, 0.002, **quick)
    stages = {
        "fit": partial(fit, frames, copy, steps=60),
        "distill": partial(distill, copy, samples=2000, steps=150),
    }
    for name, again in stages.items():
        with pytest.warns(UserWarning, match=f"{name} of other code"):
            again()
        told = json.loads((copy / f"{name}.json").read_text())
        (copy / f"{name}.json").write_text(json.dumps({**told, "status": "running"}))
        refuses(StoreError, f"unfinished {name} of other code", again)
        (copy / f"{name}.json").write_text(json.dumps(told))


def test_a_changed_or_cut_off_model_is_refused_by_every_verb(capsys, model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    for name, verb in (("student", "simulate"), ("student", "export"), ("teacher", "distill"), ("teacher", "report")):
        path = copy / f"{name}.safetensors"
        data = path.read_bytes()
        more = {"export": ["--torchscript", str(tmp_path / "x.pt")], "distill": ["--overwrite"]}.get(verb, [])
        for bad in (data[:-10], data[:-1] + bytes([data[-1] ^ 1])):
            path.write_bytes(bad)
            assert run(["cg", verb, str(copy), *more]) == 1
            err = capsys.readouterr().err
            assert "SHA-256" in err and err.count("\n") == 1
        path.write_bytes(data)
    with pytest.raises(WeightsError):
        ModelFolder(tmp_path).load_student()


def test_distill_makes_the_force_field_of_its_settings_file_and_refuses_another_one(capsys, model, tmp_path):
    copy, small = tmp_path / "copy", tmp_path / "small.yaml"
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns("student*", "distill.json", "simulation"))
    small.write_text("force_field: {width: 24, depth: 2}\nsampling: {flatness: 1.0}\nenergy_weight: 0.0\n")
    words = ["cg", "distill", str(copy), "--samples", "2000", "--steps", "20", "-q", "--config", str(small)]
    assert run(words) == 0
    settings = ModelFolder(copy).load_student().settings
    assert (settings.width, settings.depth) == (24, 2)
    asked = json.loads((copy / "distill.json").read_text())["identity"]
    assert asked["sampling"]["flatness"] == 1.0 and asked["energy weight"] == 0.0
    header = (copy / "training" / "student" / "metrics.csv").read_text()
    assert "energies" not in header, "a weight of zero leaves the energies out"
    small.write_text(small.read_text().replace("flatness: 1.0", "flatness: 30.0"))
    assert run(words) == 2
    err = capsys.readouterr().err
    assert "sampling.flatness: there 1.0, here 30.0" in err and err.count("\n") == 1


def test_force_matching_asks_for_forces(model):
    refuses(InputError, "no forces", distill, model, method="force-matching", overwrite=True)
    assert (model / "student.safetensors").exists(), "refused before anything was removed"


@pytest.mark.slow
def test_a_killed_fit_carries_on_to_the_same_weights(frames, tmp_path):
    plan = TrainSettings(max_steps=40, batch_size=64, warmup_steps=5, checkpoint_minutes=0.0, device="cpu")
    whole = fit(frames, tmp_path / "whole", train=plan)
    script = (
        "from molflow_sim.cg.pipeline import fit; from molflow_sim.training import TrainSettings;"
        "import torch; torch.set_num_threads(1);"
        f"fit({str(frames)!r}, {str(tmp_path / 'cut')!r}, train=TrainSettings(max_steps=40, batch_size=64,"
        "warmup_steps=5, checkpoint_minutes=0.0, device='cpu'))"
    )
    checkpoint = tmp_path / "cut" / "training" / "teacher" / "checkpoint.safetensors"
    killed([sys.executable, "-c", script], checkpoint.exists, env=ENVIRONMENT)
    record = json.loads((tmp_path / "cut" / "fit.json").read_text())
    if record["status"] == "done":
        pytest.skip("the fit was over before it could be killed")
    refuses(WeightsError, "has not ended", distill, tmp_path / "cut")
    carried_on = fit(frames, tmp_path / "cut", train=plan)
    for (name, a), (_, b) in zip(whole.state_dict().items(), carried_on.state_dict().items()):
        assert torch.equal(a, b), name
