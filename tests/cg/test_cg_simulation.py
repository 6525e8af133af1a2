"""What is read of a coarse-grained run's folder, and what is said where it is not all there."""

import json

import numpy as np
import pytest
from refusals import refuses

from molflow_sim.cg import CGSimulation
from molflow_sim.coarse import backbone_topology
from molflow_sim.errors import InputError, StoreError
from molflow_sim.io.dcd import append_dcd, start_dcd, truncate_dcd

REPORTS, COPIES, TEMPERATURES = 4, 3, (300.0, 320.0)


@pytest.fixture
def run(tmp_path):
    """Frame r of copy c at temperature t lies about r + 10 c + 100 t."""
    beads = backbone_topology()
    shape = np.random.default_rng(0).normal(size=(beads.n_beads, 3))
    for t, kelvin in enumerate(TEMPERATURES):
        path = tmp_path / f"{kelvin:.0f}K.dcd"
        start_dcd(path, beads.n_beads, 2.0, 500)
        append_dcd(path, np.array([shape + r + 10 * c + 100 * t for r in range(REPORTS) for c in range(COPIES)]))
    rows = [f"{r},{r},{k:g},0,{k + 1:g},,1" for r in range(REPORTS) for k in TEMPERATURES]
    (tmp_path / "log.csv").write_text("\n".join(["head", *rows]) + "\n")
    (tmp_path / "walkers.csv").write_text("\n".join(["head", *(f"{r},0,1,0,1,0,1" for r in range(REPORTS))]) + "\n")
    settings = {"temperatures": TEMPERATURES, "replicas": COPIES}
    summary = {"topology": json.loads(beads.to_json()), "settings": settings, "reports": REPORTS}
    (tmp_path / "summary.json").write_text(json.dumps({**summary, "report_every_ps": 2.0, "acceptance": [0.5]}))
    return tmp_path


def test_frames_come_by_copy_and_time(run):
    found = CGSimulation.load(run)
    x = found.positions(320.0, discard_ps=2.0)
    assert x.shape == (COPIES, REPORTS - 1, 5, 3) and x.dtype == np.float32
    np.testing.assert_allclose(x[2, 1, 0] - found.positions(320.0)[0, 0, 0], 22.0, atol=1e-4)
    assert found.kinetic_temperatures() == [(300.0, 301.0), (320.0, 321.0)]
    assert found.walkers().shape == (REPORTS, 2, COPIES) and found.walkers()[0].tolist() == [[0, 1, 0], [1, 0, 1]]
    refuses(InputError, "leaves nothing", found.positions, 300.0, 8.0)
    refuses(InputError, "no frames at 310 K", found.positions, 310.0)


def test_files_that_are_missing_or_cut_off_are_named(run):
    found = CGSimulation.load(run)
    truncate_dcd(run / "300K.dcd", REPORTS * COPIES - 1)
    refuses(StoreError, r"300K\.dcd holds frames of shape \(11, 5, 3\)", found.positions, 300.0)
    (run / "log.csv").write_text("head\n0,0,300,0,a,,1\n")
    refuses(StoreError, r"log\.csv cannot be read", found.kinetic_temperatures)
    (run / "log.csv").unlink()
    refuses(StoreError, r"log\.csv cannot be read", found.kinetic_temperatures)
    (run / "walkers.csv").write_text("head\n0,0,1,0,1,0,1\n")
    refuses(StoreError, "1 rows of at least 4", found.walkers)
    (run / "summary.json").write_text("[]")
    refuses(StoreError, "no finished", CGSimulation.load, run)
