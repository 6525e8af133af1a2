"""`molflow simulate`: NPT runs that can be killed, resumed, extended and refused."""

import csv
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from molflow_openmm import SimulationSettings
from molflow_openmm import simulate as run
from molflow_openmm.crystal.analysis import mean_structure, nearest_images, packing_kept, read_frames
from molflow_openmm.crystal.settings import choose_box
from molflow_openmm.crystal.system import as_crystal, crystal_box
from processes import killed
from refusals import refuses
from special_positions import UREA

from molflow_sim.errors import InputError, StoreError
from molflow_sim.io.dcd import dcd_layout, truncate_dcd, truncate_log

QUICK = ["--supercell", "3,3,4", "--cutoff", "6", "-T", "100", "--report-every", "0.02"]
SETTINGS = dict(supercell=(3, 3, 4), cutoff=6.0, report_every=0.02, temperature=100.0)
COMMAND = [sys.executable, "-c", "from molflow_sim.cli import main; main()", "simulate"]


@pytest.fixture
def cif(tmp_path: Path) -> Path:
    path = tmp_path / "urea.cif"
    path.write_text(UREA)
    return path


@pytest.fixture
def molflow_simulate(molflow):
    return partial(molflow, "simulate")


def log_steps(folder: Path) -> list[int]:
    with open(folder / "log.csv") as file:
        return [int(row["Step"]) for row in csv.DictReader(file)]


def test_a_short_run_writes_its_files_and_says_whether_the_packing_stayed(molflow_simulate, cif, tmp_path):
    code, out, err = molflow_simulate(cif, *QUICK, "--ps", 0.2, "-o", tmp_path / "run")
    assert code == 0, err
    assert "density drift" in out and "RMSD15" in out and "stayed" in out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["rmsd15_average_matched"] == 15 and summary["rmsd15_average_A"] < 0.5
    assert abs(summary["density_drift_percent"]) < 10
    assert summary["settings"]["seed"] == 0 and summary["molflow_sim"] and summary["openmm"]
    assert log_steps(tmp_path / "run") == list(range(20, 201, 20))
    assert dcd_layout(tmp_path / "run" / "trajectory.dcd").n_frames == 10
    for name in ("initial.pdb", "system.xml", "state.xml", "average.cif", "final.cif", "final.pdb"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    assert as_crystal(tmp_path / "run" / "average.cif").z == 72


@pytest.mark.slow
def test_a_killed_run_carries_on_and_loses_and_repeats_nothing(molflow_simulate, cif, tmp_path):
    folder = tmp_path / "run"
    arguments = [cif, *QUICK, "--ps", 0.6, "-o", folder]
    for frames in (3, 11):  # killed twice, at two moments

        def reached(frames=frames) -> bool:
            return (folder / "state.xml").exists() and dcd_layout(folder / "trajectory.dcd").n_frames >= frames

        killed([*COMMAND, *arguments], reached, stdout=subprocess.DEVNULL)
        assert not (folder / "summary.json").exists()
    code, out, err = molflow_simulate(*arguments)
    assert code == 0, err
    assert "carrying on from step" in out
    assert log_steps(folder) == list(range(20, 601, 20))
    assert dcd_layout(folder / "trajectory.dcd").n_frames == 30


def test_a_finished_run_is_not_repeated_and_can_be_extended(cif, tmp_path):
    first = run(cif, tmp_path / "run", SimulationSettings(picoseconds=0.1, **SETTINGS))
    written = (tmp_path / "run" / "state.xml").stat().st_mtime_ns
    again = run(cif, tmp_path / "run", SimulationSettings(picoseconds=0.1, **SETTINGS))
    assert again == first and (tmp_path / "run" / "state.xml").stat().st_mtime_ns == written
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "done"
    longer = run(cif, tmp_path / "run", SimulationSettings(picoseconds=0.2, **SETTINGS))
    assert longer["time_ps"] == pytest.approx(0.2)
    assert log_steps(tmp_path / "run") == list(range(20, 201, 20))


def test_a_run_of_other_code_is_read_and_not_extended(cif, tmp_path, monkeypatch):
    short, long = (SimulationSettings(picoseconds=ps, **SETTINGS) for ps in (0.04, 0.08))
    first = run(cif, tmp_path / "run", short)
    monkeypatch.setattr("molflow_sim.runs.folder.code_identity", lambda *_: "other")
    with pytest.warns(UserWarning, match="run of other code"):
        assert run(cif, tmp_path / "run", short) == first
    refuses(StoreError, "other code.*--overwrite", run, cif, tmp_path / "run", long)
    assert log_steps(tmp_path / "run") == [20, 40]
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({k: v for k, v in told.items() if k != "code"}))
    assert run(cif, tmp_path / "run", short) == first, "of a version that did not say its code"
    refuses(StoreError, "code unknown.*--overwrite", run, cif, tmp_path / "run", long)


def test_a_folder_of_another_run_is_refused_unless_overwritten(cif, tmp_path):
    folder = tmp_path / "run"
    settings = {**SETTINGS, "picoseconds": 0.04}
    run(cif, folder, SimulationSettings(**{**settings, "temperature": 300.0}))
    (folder / "mine.txt").write_text("keep")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(StoreError, match=r"temperature: there 300\.0, here 100\.0"):
        run(cif, folder, SimulationSettings(**settings))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    run(cif, folder, SimulationSettings(**settings), overwrite=True)
    assert (folder / "mine.txt").read_text() == "keep"


def test_two_processes_cannot_write_one_folder(cif, tmp_path):
    settings = SimulationSettings(picoseconds=0.04, **SETTINGS)
    refused = []

    def second_process(_: dict) -> None:
        try:
            run(cif, tmp_path / "run", settings)
        except StoreError as error:
            refused.append(str(error))

    run(cif, tmp_path / "run", settings, progress=second_process)
    assert refused and f"being written by process {os.getpid()}" in refused[0]
    assert log_steps(tmp_path / "run") == [20, 40]


def test_folders_that_cannot_be_written_and_missing_files_are_named(molflow_simulate, cif, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("")
    for file, output, words in (
        (cif, tmp_path / "run", "holds no run"),
        (cif, cif / "run", "cannot write to"),
        (tmp_path / "none.cif", tmp_path / "new", "none.cif: no such file"),
    ):
        code, _, err = molflow_simulate(file, *QUICK, "-o", output)
        assert code == 2 and words in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--supercell", "3,2"], "three positive whole numbers"),
        (["--supercell", "a,b,c"], "three positive whole numbers"),
        (["--supercell", "1,1,1", "--cutoff", "6"], "use --supercell 3,3,3"),
        (["--supercell", "3,3,4", "--cutoff", "12"], "or --cutoff"),
        (["--platform", "Abacus"], "available: Reference"),
        (["--ps", "-1"], "picoseconds must be a positive number"),
        (["--ps", "nan"], "picoseconds must be a positive number"),
        (["--timestep", "10"], "unstable"),
        (["--charges", "guess"], "guess"),
    ],
)
def test_bad_options_are_named_in_one_line_with_exit_code_2(molflow_simulate, cif, tmp_path, arguments, message):
    code, _, err = molflow_simulate(cif, *arguments, "-o", tmp_path / "run")
    assert code == 2, err
    assert message in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["", "not a cif", UREA.replace("H1 H", "#").replace("H2 H", "#")])
def test_a_cif_that_cannot_be_simulated_is_named(molflow_simulate, tmp_path, content):
    path = tmp_path / "bad.cif"
    path.write_text(content)
    code, _, err = molflow_simulate(path, "-o", tmp_path / "run")
    assert code == 2 and err.startswith("molflow: ") and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_dynamics_that_blow_up_are_named(molflow_simulate, cif, tmp_path):
    code, _, err = molflow_simulate(cif, *QUICK[:4], "-T", 50000, "--timestep", 4, "--ps", 1, "-o", tmp_path / "run")
    assert code == 1 and "blew up" in err and "time step 4 fs" in err


def test_a_small_supercell_lowers_the_default_cutoff_and_says_so():
    crystal = as_crystal(UREA)
    supercell, cutoff, warning = choose_box(crystal, SimulationSettings(supercell=(3, 3, 4)))
    assert supercell == (3, 3, 4) and 7.0 < cutoff < 8.4
    assert "4,4,5 would hold 10 Å" in warning
    supercell, cutoff, warning = choose_box(crystal, SimulationSettings(supercell=(2, 5, 1)))
    assert supercell == (3, 5, 3) and 6.0 <= cutoff < 7.0
    assert "3,5,3 is used" in warning
    supercell, cutoff, warning = choose_box(crystal, SimulationSettings())
    assert cutoff == 10.0 and supercell == (4, 4, 5) and not warning
    refuses(InputError, "cutoff", choose_box, crystal, SimulationSettings(cutoff=1.5))


def test_molecules_that_the_barostat_wrapped_are_put_back():
    box = crystal_box(as_crystal(UREA), (3, 3, 4), 7.0)
    rng = np.random.default_rng(0)
    sizes = np.diff([*(first for _, first in box.order), len(box.numbers)])
    shifts = np.repeat(rng.integers(-2, 3, (len(box.order), 3)), sizes, axis=0) @ box.cell
    assert np.allclose(nearest_images(box, box.cell, box.positions + shifts), box.positions)


def test_the_mean_of_a_strained_trajectory_keeps_the_packing(cif, tmp_path):
    run(cif, tmp_path / "run", SimulationSettings(**{**SETTINGS, "picoseconds": 0.08, "temperature": 50.0}))
    box = crystal_box(as_crystal(cif), (3, 3, 4), 6.0)
    cells, frames = read_frames(box, tmp_path / "run" / "trajectory.dcd")
    assert frames.shape == (4, len(box.numbers), 3)
    cell, positions = mean_structure(cells, frames)
    assert np.abs(cell - box.cell).max() < 1.0
    assert np.abs(positions - box.positions).max() < 1.5
    match = packing_kept(box, cell, positions)
    assert match.full and match.rmsd < 0.5


def test_cutting_a_trajectory_and_a_log_leaves_the_head_untouched(cif, tmp_path):
    folder = tmp_path / "run"
    run(cif, folder, SimulationSettings(supercell=(3, 3, 4), cutoff=6.0, report_every=0.01, picoseconds=0.05))
    whole, log = (folder / "trajectory.dcd").read_bytes(), (folder / "log.csv").read_text().splitlines()
    with open(folder / "trajectory.dcd", "ab") as file:
        file.write(b"half a frame")
    with open(folder / "log.csv", "a") as file:
        file.write("12.0%,60,0.0")
    truncate_dcd(folder / "trajectory.dcd", 3)
    truncate_log(folder / "log.csv", 30)
    layout = dcd_layout(folder / "trajectory.dcd")
    cut = (folder / "trajectory.dcd").read_bytes()
    assert layout.n_frames == 3 and len(cut) == layout.start + 3 * layout.frame
    assert cut[layout.start :] == whole[layout.start : len(cut)]
    assert (folder / "log.csv").read_text().splitlines() == log[:4]
    refuses(StoreError, "holds 3 frames", truncate_dcd, folder / "trajectory.dcd", 4)
