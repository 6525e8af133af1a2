"""Coarse-grained runs: Langevin and exchange that sample what they should, and can be killed, resumed and refused."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from molflow_openmm import CGForceField, simulate_cg
from refusals import refuses

from molflow_sim.cg import BeadFlow, BeadFrames, CGSimulation, ModelFolder, TeacherSettings
from molflow_sim.coarse import BeadTopology
from molflow_sim.errors import InputError, NonFiniteError, StoreError, TrajectoryError
from molflow_sim.io.dcd import append_dcd, dcd_layout, read_positions, start_dcd, truncate_dcd
from molflow_sim.units import BOLTZMANN

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))
from cg_examples import save_model, small_net
from processes import killed

QUICK = {"ns": 0.002, "report_every_ps": 0.1, "exchange_every_ps": 0.05, "friction_per_ps": 10.0}


class Springs:
    """A stand-in force field whose averages are known: a dimer with a harmonic bond, E = ½ k (r − r₀)²."""

    kind, temperature = "springs", 300.0
    topology = BeadTopology(("A", "B"), np.array([20.0, 30.0]), np.array([[0, 1]]))

    def __init__(self, k: float = 2.0, r0: float = 3.0) -> None:
        self.k, self.r0 = k, r0

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.k * ((x[..., 1, :] - x[..., 0, :]).norm(dim=-1) - self.r0) ** 2

    def energy_and_forces(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d = x[:, 1] - x[:, 0]
        r = np.linalg.norm(d, axis=1)
        pull = (self.k * (r - self.r0) / r)[:, None] * d
        return 0.5 * self.k * (r - self.r0) ** 2, np.stack([pull, -pull], axis=1)

    def start(self) -> BeadFrames:
        rng = np.random.default_rng(0)
        x = np.zeros((50, 2, 3))
        x[:, 1] = self.r0 * rng.normal([0, 0, 3], 0.01, size=(50, 3)) / 3
        return BeadFrames.from_arrays(x, self.topology, 300.0)


def lengths(positions: np.ndarray) -> np.ndarray:
    return np.linalg.norm(positions[..., 1, :] - positions[..., 0, :], axis=-1)


def test_langevin_run_samples_the_boltzmann_distribution_of_every_copy(tmp_path):
    springs = Springs()
    options = {"output": tmp_path / "run", "start": springs.start(), "friction_per_ps": 5.0, "report_every_ps": 0.5}
    run = simulate_cg(CGForceField(springs), 400, 0.03, 300, **options)
    r = lengths(run.positions(discard_ps=5.0)).ravel()
    grid = np.linspace(2.0, 4.0, 2001)
    p = grid**2 * np.exp(-0.5 * springs.k * (grid - springs.r0) ** 2 / (BOLTZMANN * 300))
    p /= p.sum()
    mean, variance = (p * grid).sum(), (p * grid**2).sum() - (p * grid).sum() ** 2
    assert r.mean() == pytest.approx(mean, abs=0.005) and r.var() == pytest.approx(variance, rel=0.06)


def test_replica_exchange_samples_each_temperature_and_walkers_travel(tmp_path):
    springs = Springs()
    options = {"output": tmp_path / "run", "start": springs.start(), "friction_per_ps": 5.0, "report_every_ps": 0.5}
    run = simulate_cg(CGForceField(springs), 150, 0.02, "300:600:3", exchange_every_ps=0.25, **options)
    for temperature in run.temperatures:
        r = lengths(run.positions(temperature, discard_ps=4.0)).ravel()
        assert r.var() == pytest.approx(BOLTZMANN * temperature / springs.k, rel=0.1)
    assert all(0.5 < share < 1.0 for share in run.acceptance)
    walkers = run.walkers()
    assert walkers.shape == (40, 3, 150)
    assert (np.sort(walkers, axis=1) == np.arange(3)[:, None]).all()  # each walker is somewhere, and only there
    assert (walkers[-1, 0] == 2).any()


def test_results_open_in_mdtraj_and_as_bead_frames(folder, frames, tmp_path):
    run = simulate_cg(folder, 3, **QUICK, start=frames, output=tmp_path / "run", seed=4)
    assert run.temperatures == (300.0,) and run.reports == 20
    trajectory = mdtraj.load(str(run.folder / "300K.dcd"), top=str(run.folder / "topology.pdb"))
    assert trajectory.n_frames == 60 and trajectory.unitcell_lengths is None
    samples = run.samples()
    assert isinstance(samples, BeadFrames) and samples.n_frames == 60 and samples.temperature == 300.0
    # In the file all copies of one time follow one another; samples have one copy after another.
    by_time = 10 * trajectory.xyz.reshape(20, 3, 5, 3)
    np.testing.assert_allclose(samples.positions, by_time.swapaxes(0, 1).reshape(60, 5, 3), atol=1e-5)
    assert samples.lengths == (20, 20, 20) and samples.topology == frames.topology
    assert np.abs(np.einsum("fbk,b->fk", samples.positions, frames.topology.masses)).max() < 1e-3
    names = [a.name for a in trajectory.topology.atoms]
    assert names == list(frames.topology.names) and trajectory.topology.n_bonds == 4
    rows = list(csv.DictReader((run.folder / "log.csv").read_text().splitlines()))
    assert int(rows[-1].get("#Step") or rows[-1]['#"Step"']) == 1000
    assert run.samples(discard_ps=1.0).n_frames == 30
    refuses(InputError, "no frames at 350 K", run.samples, 350)
    refuses(InputError, "leaves nothing", run.samples, discard_ps=2.0)


def test_copies_start_apart_and_stay_independent(folder, frames, tmp_path):
    run = simulate_cg(folder, 4, **QUICK, start=frames, output=tmp_path / "run")
    final = run.positions()[:, -1]
    assert min(np.abs(final[i] - final[j]).max() for i in range(4) for j in range(i)) > 0.05


def test_finished_run_is_returned_at_once_and_can_be_extended(folder, frames, tmp_path):
    first = simulate_cg(folder, 2, **QUICK, start=frames, output=tmp_path / "run")
    seen: list[dict] = []
    again = simulate_cg(folder, 2, **QUICK, start=frames, output=tmp_path / "run", progress=seen.append)
    assert not seen and again.reports == first.reports
    before = first.positions()
    options = {**QUICK, "ns": 0.003, "progress": seen.append}
    longer = simulate_cg(folder, 2, **options, start=frames, output=tmp_path / "run")
    assert longer.reports == 30 and seen[0]["report"] == 20
    assert np.array_equal(longer.positions()[:, :20], before)


def test_reports_after_the_last_checkpoint_are_cut_off_on_carrying_on(folder, frames, tmp_path):
    class Stopped(Exception):
        pass

    def stop(event: dict) -> None:
        if event["report"] == 7:
            raise Stopped

    options = {**QUICK, "temperatures": "300:400:2", "start": frames, "output": tmp_path / "run"}
    with pytest.raises(Stopped):
        simulate_cg(folder, 2, **options, checkpoint_seconds=0, progress=stop)
    for name in ("300K.dcd", "400K.dcd"):  # as if killed between appending and the checkpoint
        append_dcd(tmp_path / "run" / name, np.zeros((2, 5, 3)))
    with open(tmp_path / "run" / "log.csv", "a") as file:
        file.write("400,0.8,300,1,1,,1\n400,0.8,40")
    run = simulate_cg(folder, 2, **options)
    assert run.positions(400).shape == (2, 20, 5, 3) and np.abs(run.positions(400)).max(axis=(2, 3)).min() > 0.5
    steps = [int(line.split(",")[0]) for line in (run.folder / "log.csv").read_text().splitlines()[1:]]
    assert steps == sorted(2 * list(range(50, 1001, 50)))
    assert run.walkers().shape == (20, 2, 2)


SCRIPT = """
import sys
sys.path.insert(0, {unit!r})
import numpy as np
from cg_examples import backbone_frames
from molflow_openmm import simulate_cg
print("go", flush=True)
run = simulate_cg({model!r}, 4, 0.02, "300:400:2", start=backbone_frames(), output={output!r}, report_every_ps=0.1,
                  checkpoint_seconds=0.2)
print(run.reports)
"""


def test_killed_run_carries_on_to_its_full_length(folder, tmp_path):
    unit = str(Path(__file__).resolve().parents[1] / "helpers")
    output = tmp_path / "run"
    script = SCRIPT.format(unit=unit, model=str(folder), output=str(output))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script]
    ended = killed(command, (output / "state.npz").exists, 0.15, env=environment)
    assert ended, "the run was over before it could be killed"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    run = CGSimulation.load(output)
    assert run.reports == 200 and run.positions(400).shape == (4, 200, 5, 3)
    steps = [int(line.split(",")[0]) for line in (output / "log.csv").read_text().splitlines()[1:]]
    assert steps == sorted(2 * list(range(50, 10001, 50)))
    jumps = np.linalg.norm(np.diff(run.positions(300), axis=1), axis=-1)
    assert np.isfinite(jumps).all()


def test_bonds_beyond_their_range_and_dynamics_that_blow_up_are_errors_with_copy_and_time(tmp_path):
    class Torn(Springs):
        def energy_and_forces(self, x):
            energies, forces = super().energy_and_forces(x)
            forces[1] = [[0, 0, -0.2], [0, 0, 0.2]]  # pulls the second copy apart
            return energies, forces

    torn = Torn()
    with pytest.raises(TrajectoryError, match=r"report \d+ \(.* ps\), 300 K, copy 1: bond CG1-A to CG1-B is .* Å long"):
        simulate_cg(CGForceField(torn), 3, 0.01, output=tmp_path / "torn", start=torn.start(), report_every_ps=0.05)

    class Burst(Springs):
        calls = 0

        def energy_and_forces(self, x):
            energies, forces = super().energy_and_forces(x)
            self.calls += 1
            if self.calls > 60:
                forces[2] = np.nan
            return energies, forces

    burst = Burst()
    with pytest.raises(NonFiniteError, match=r"report \d+ \(.* ps\), 300 K, copy 2: positions are not finite"):
        simulate_cg(CGForceField(burst), 4, 0.01, output=tmp_path / "burst", start=burst.start(), report_every_ps=0.05)


def test_strained_starting_frames_are_relaxed_first(folder, frames, tmp_path):
    x = frames.positions[:4].copy()
    x[:, 4] += 0.3 * (x[:, 4] - x[:, 3])
    strained = BeadFrames.from_arrays(x, frames.topology, 300.0)
    run = simulate_cg(folder, 4, **QUICK, start=strained, output=tmp_path / "run")
    assert run.reports == 20


def test_model_folder_with_a_flow_needs_no_frames_to_start_from(frames, tmp_path):
    model = save_model(tmp_path, small_net(frames))
    ModelFolder(model).save_teacher(BeadFlow.from_frames(frames, TeacherSettings(hidden=(16,))))
    run = simulate_cg(model, 3, **QUICK)
    assert run.folder == model / "simulation" and run.positions().shape == (3, 20, 5, 3)


def test_folders_of_other_runs_are_left_alone(folder, frames, tmp_path):
    simulate_cg(folder, 2, **QUICK, start=frames, output=tmp_path / "run")
    with pytest.raises(StoreError, match="replicas: there 2, here 3"):
        simulate_cg(folder, 3, **QUICK, start=frames, output=tmp_path / "run")
    other = save_model(tmp_path / "other", small_net(frames, seed=3))
    refuses(StoreError, "another run", simulate_cg, other, 2, **QUICK, start=frames, output=tmp_path / "run")
    run = simulate_cg(other, 3, **QUICK, start=frames, output=tmp_path / "run", overwrite=True)
    assert run.positions().shape == (3, 20, 5, 3)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    refuses(StoreError, "not empty", simulate_cg, folder, 2, **QUICK, start=frames, output=tmp_path / "full")


def test_damaged_checkpoints_and_runs_without_anything_to_start_from_are_refused(folder, frames, tmp_path):
    run = simulate_cg(folder, 2, **QUICK, start=frames, output=tmp_path / "run")
    (run.folder / "state.npz").write_bytes(b"PK broken")
    with pytest.raises(StoreError, match=r"state\.npz cannot be read"):
        simulate_cg(folder, 2, **{**QUICK, "ns": 0.01}, start=frames, output=tmp_path / "run")
    refuses(InputError, "start=", simulate_cg, folder, 2, **QUICK, output=tmp_path / "new")
    with pytest.raises(InputError, match="other beads"):
        simulate_cg(folder, 2, **QUICK, start=Springs().start(), output=tmp_path / "run2")
    refuses(InputError, "output=", simulate_cg, CGForceField(Springs()), 2, **QUICK, start=Springs().start())


def test_dcd_files_without_a_box_are_appended_and_cut(tmp_path):
    path, rng = tmp_path / "a.dcd", np.random.default_rng(0)
    x = rng.normal(size=(6, 4, 3)).astype(np.float32)
    start_dcd(path, 4, 2.0, 50)
    append_dcd(path, x[:4])
    with open(path, "ab") as file:
        file.write(b"half a frame")
    append_dcd(path, x[4:])
    assert np.array_equal(read_positions(path), x) and not dcd_layout(path).box
    truncate_dcd(path, 5)
    assert np.array_equal(read_positions(path), x[:5])
    truncate_dcd(path, 0)
    assert read_positions(path).shape == (0, 4, 3)
