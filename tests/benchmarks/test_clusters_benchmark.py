"""The benchmark of clusters: who is compared, and what its shares count."""

import json
from pathlib import Path

import numpy as np
import pytest
from special_positions import UREA

from benchmarks import clusters
from molflow_sim.dataset.clusters import ClusterSettings, build_cluster_dataset
from molflow_sim.models.cluster_flow import ClusterFlow, ClusterFlowSettings
from molflow_sim.training.model import save_model

TRUTH, RANDOM, PACKMOL = clusters.TRUTH, clusters.RANDOM, clusters.PACKMOL


def test_shares_are_of_the_targets_on_which_both_were_relaxed():
    energies = {TRUTH: [-3.0, -2.0, -1.0], RANDOM: [-1.0, -1.0, np.nan], PACKMOL: [-2.0, -2.5, -2.0]}
    rows = [
        {"target": str(k), "side": side, "seconds": 1.0, **({"energy": e} if np.isfinite(e) else {})}
        for side, values in energies.items()
        for k, e in enumerate(values)
    ]
    table = {row["side"]: row for row in clusters.summary(rows)}
    assert table[TRUTH]["below PACKMOL's"] == "1 of 3" and table[TRUTH]["below random starts'"] == "2 of 2"
    assert table[PACKMOL]["below PACKMOL's"] == "-" and table[PACKMOL]["energy - PACKMOL's, kJ/mol"] == "0.0"
    assert table[TRUTH]["energy - PACKMOL's, kJ/mol"] == "0.5"


def test_all_sides_are_done_on_the_test_side_and_the_truth_matches_itself(tmp_path: Path):
    pytest.importorskip("packmol")
    (tmp_path / "cifs").mkdir()
    (tmp_path / "cifs" / "urea.cif").write_text(UREA)
    (tmp_path / "test.smi").write_text("NC(N)=O\n")
    build_cluster_dataset(
        tmp_path / "data", cifs=tmp_path / "cifs", exclude=tmp_path / "test.smi", settings=ClusterSettings(size=9),
        progress=False,
    )  # fmt: skip
    save_model(tmp_path / "flow", ClusterFlow(ClusterFlowSettings.small()))
    words = [
        str(tmp_path / "data"),
        "-o",
        str(tmp_path / "out.json"),
        "--flow",
        f"mine={tmp_path / 'flow'}",
        "--no-relax",
    ]
    assert clusters.main(words) == 0
    table = {row["side"]: row for row in json.loads((tmp_path / "out.json").read_text())["table"]}
    pieces = {f"crystal flow, lowest of {pool}" for pool in clusters.POOLS}
    assert set(table) == {TRUTH, clusters.NOISED, RANDOM, PACKMOL, *pieces, "mine"}
    assert all(table[side]["pairs that collide"] == "0.00 %" for side in pieces)
    assert table[TRUTH]["cores found"] == "1 of 1" and table[TRUTH]["RMSD17, Å"] == "0.00"
    assert table[PACKMOL]["pairs that collide"] == "0.00 %"
