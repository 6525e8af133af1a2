"""The yield benchmark: shares of low packings, and their ratios to random packing."""

from __future__ import annotations

import pytest

from molflow_sim.dataset import DatasetSettings, build_crystal_dataset
from studies.crystal_yield import main, table, yields


def run(energies: list[float], representative: list[int]) -> dict:
    return {"energy": energies, "representative": representative, "seconds": [1.0, 2.0]}


RUNS = {
    "random": run([-99.5, -80.0, -96.0, -99.5], [0, 1, 2, 0]),
    "flow": run([-100.0, -100.0, -98.5], [0, 0, 2]),  # one of four did not press
}


def test_yields_count_from_the_lowest_packing_of_all_sides_over_all_candidates():
    found = yields(RUNS, 4)
    assert found["random"] == {"1": 0.5, "2": 0.5, "5": 0.75, "distinct": 2.0}
    assert found["flow"] == {"1": 0.5, "2": 0.75, "5": 0.75, "distinct": 2.0}


def test_the_table_takes_means_over_molecules_and_ratios_to_random_packing():
    nothing = {"random": run([-10.0], [0]), "flow": run([], [])}
    rows = table([{"runs": RUNS}, {"runs": nothing}], ["random", "flow"], 4)
    assert [row["within 2, %"] for row in rows] == [37.5, 37.5]
    assert [row["ratio 5"] for row in rows] == [1.0, 0.75]
    assert rows[0]["ms generated"] == 250.0 and rows[1]["different within 5"] == 1.0


@pytest.mark.slow
def test_the_command_compares_the_shipped_flow_with_random_packing_and_carries_on(tmp_path, capsys):
    settings = DatasetSettings(candidates=12, keep=3, max_atoms=16, space_groups="P-1")
    build_crystal_dataset(["NC=O formamide"], tmp_path / "set", settings=settings, processes=1, progress=False)
    arguments = [str(tmp_path / "set"), "-o", str(tmp_path / "y.json"), "--split", "train", "--candidates", "6"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert "1 molecules of the train side" in first and "generator packaged" in first
    assert main(arguments) == 0
    assert capsys.readouterr().out == first  # read from its parts: times and all
