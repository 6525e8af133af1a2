"""All-atom frames of capped alanine in explicit water: what the example with `--water explicit` starts from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from molflow_sim.cg import read_frames

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.slow
def test_frames_in_water_are_those_of_the_whole_molecule_and_a_longer_run_keeps_them(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("OPENMM_CPU_THREADS", "1")
    import make_alanine_frames as example
    import replica_exchange

    monkeypatch.setattr(replica_exchange, "BLOCK_FRAMES", 20)
    settings = replace(example.settings_for("explicit"), interval_ps=0.004, equilibration_ps=0.02)
    first, topology = example.run_md(tmp_path, 8e-5, settings, "CPU")
    short = read_frames(first, topology, "backbone", 300.0)
    with np.load(tmp_path / "state.npz") as state:
        side, n_atoms = state["boxes"][0][0, 0], state["positions"].shape[1]
    assert (n_atoms - 22) % 3 == 0 and (n_atoms - 22) // 3 / side**3 == pytest.approx(33.0, rel=0.1), "waters per nm³"
    assert side > 0.9 + 1.5, "nm: the cutoff and more lies between the extended molecule and its image"
    longer, _ = example.run_md(tmp_path, 1.2e-4, settings, "CPU")
    frames = read_frames(longer, topology, "backbone", 300.0)
    assert (short.n_frames, frames.n_frames) == (20, 30)
    assert np.array_equal(frames.positions[:20], short.positions), "carried on, not begun again"
    bonds = np.linalg.norm(np.diff(frames.positions, axis=1), axis=-1)
    assert 1.2 < bonds.min() and bonds.max() < 1.75, "Å: nothing is torn by the periodic box"
