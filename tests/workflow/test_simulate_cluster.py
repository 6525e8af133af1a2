"""`molflow simulate cluster`: droplets and boxes that can be killed, resumed, extended and refused."""

import csv
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from molflow_openmm import ClusterSettings, simulate_cluster
from processes import killed

from molflow_sim import Molecule
from molflow_sim.errors import InputError, MolflowError
from molflow_sim.io.dcd import dcd_layout
from molflow_sim.packing.clusters import random_cluster
from molflow_sim.systems.cluster import MolecularCluster

COMMAND = [sys.executable, "-c", "from molflow_sim.cli import main; main()", "simulate", "cluster"]
QUICK = ["--ps", 0.4, "--report-every", 0.04, "-T", 250]


@pytest.fixture(scope="module")
def droplet() -> MolecularCluster:
    return random_cluster([Molecule.from_smiles("NC=O", n_conformers=1)], [6], density=0.7, seed=0)


@pytest.fixture
def file(droplet, tmp_path) -> Path:
    path = tmp_path / "formamide.extxyz"
    ase.io.write(path, droplet.to_ase())
    return path


@pytest.fixture
def molflow_simulate(molflow):
    return partial(molflow, "simulate", "cluster")


def steps(folder: Path) -> list[int]:
    with open(folder / "log.csv") as file:
        return [int(row["Step"]) for row in csv.DictReader(file)]


def test_a_droplet_writes_its_files_and_stays_open(molflow_simulate, file, tmp_path):
    folder = tmp_path / "run"
    code, out, err = molflow_simulate(file, *QUICK, "-o", folder)
    assert code == 0, err
    assert "potential energy" in out and "density" not in out.split("results")[0].split("platform")[1]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["atoms"] == 36 and not summary["periodic"] and summary["density_mean_g_cm3"] is None
    assert summary["time_ps"] == pytest.approx(0.4) and steps(folder) == list(range(20, 201, 20))
    assert dcd_layout(folder / "trajectory.dcd").n_frames == 10
    last = MolecularCluster.from_atoms(ase.io.read(folder / "final.extxyz"))
    assert last.n_molecules == 6 and last.cell is None
    for name in ("initial.pdb", "system.xml", "state.xml", "final.pdb", "run.svg"):
        assert (folder / name).stat().st_size > 0
    assert json.loads((folder / "run.json").read_text())["status"] == "done"
    again = molflow_simulate(file, *QUICK, "-o", folder)
    assert again[0] == 0 and steps(folder) == list(range(20, 201, 20))


def test_a_density_is_pressed_to_and_a_run_too_short_to_tell_says_that_it_drifts(molflow_simulate, file, tmp_path):
    folder = tmp_path / "run"
    code, out, err = molflow_simulate(file, *QUICK[:1], 0.12, *QUICK[2:], "--density", 0.5, "-o", folder)
    assert code == 0, err
    assert "still drifting" in out
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["periodic"] and summary["drifting"] and summary["density_mean_g_cm3"] > 0.4
    assert MolecularCluster.from_atoms(ase.io.read(folder / "final.extxyz")).density > 0.4


def test_a_density_out_of_reach_is_named(droplet, tmp_path):
    settings = ClusterSettings(picoseconds=0.1, density=3.0, press_ps=1.0, report_every=0.02)
    with pytest.raises(MolflowError, match=r"pressed the box to .* not to the 3 asked for"):
        simulate_cluster(droplet, tmp_path / "run", settings)


def test_a_box_kept_fixed_keeps_its_volume(tmp_path):
    box = random_cluster([Molecule.from_smiles("NC=O", n_conformers=1)], [6], density=0.7, periodic=True, seed=0)
    summary = simulate_cluster(
        box, tmp_path / "run", ClusterSettings(picoseconds=0.2, report_every=0.02, pressure=None)
    )
    assert summary["density_mean_g_cm3"] == pytest.approx(0.7, rel=1e-4) and summary["density_std_g_cm3"] < 1e-6
    assert not summary["drifting"]


def test_a_checkpoint_that_openmm_cannot_read_is_a_named_error(molflow_simulate, file, tmp_path):
    arguments = [file, *QUICK, "-o", tmp_path / "run"]
    assert molflow_simulate(*arguments)[0] == 0
    (tmp_path / "run" / "state.xml").write_text("<State")
    (tmp_path / "run" / "summary.json").unlink()
    code, _, err = molflow_simulate(*arguments)
    assert code == 1 and err.startswith("molflow: OpenMM: ") and "unexpected" not in err


@pytest.mark.slow
def test_a_killed_run_carries_on_and_loses_and_repeats_nothing(molflow_simulate, file, tmp_path):
    folder = tmp_path / "run"
    arguments = [file, "--ps", 2, "--report-every", 0.04, "--density", 0.4, "-o", folder]
    for frames in (3, 11):  # killed twice, at two moments

        def reached(frames=frames) -> bool:
            return (folder / "state.xml").exists() and dcd_layout(folder / "trajectory.dcd").n_frames >= frames

        killed([*COMMAND, *map(str, arguments)], reached, stdout=subprocess.DEVNULL)
        assert not (folder / "summary.json").exists()
    code, out, err = molflow_simulate(*arguments)
    assert code == 0, err
    assert "carrying on from step" in out
    assert steps(folder) == list(range(20, 1001, 20))
    assert dcd_layout(folder / "trajectory.dcd").n_frames == 50


def test_what_cannot_be_run_is_named_in_one_line(molflow_simulate, file, tmp_path):
    boron = tmp_path / "boron.xyz"
    ase.io.write(boron, ase.build.molecule("BF3"))
    text = tmp_path / "notes.extxyz"
    text.write_text("no structure")
    for arguments, exit_code, words in (
        ([tmp_path / "none.xyz"], 2, "no such file"),
        ([text], 2, "cannot be read"),
        ([file, "--frame", 7], 2, "structure 7"),
        ([file, "--density", -1], 2, "density must be a positive number"),
        ([file, "--timestep", 9], 2, "unstable"),
        ([boron], 2, "B"),
    ):
        code, _, err = molflow_simulate(*arguments, "-o", tmp_path / "run")
        assert code == exit_code and words in err and len(err.strip().splitlines()) == 1, err
        assert not (tmp_path / "run" / "summary.json").exists()


def test_settings_are_checked():
    with pytest.raises(InputError, match="press-ps"):
        ClusterSettings(press_ps=0.0)
    assert np.isclose(ClusterSettings().timestep, 2.0)
