"""From cluster to crystal as a benchmark: what its shares and rates count."""

from pathlib import Path

from special_positions import UREA

from benchmarks import implied
from benchmarks.targets import read_targets


def test_shares_after_the_press_are_of_crystals_that_it_leaves_where_they_are():
    rows = [
        {"molecules": "a", "stays": stays, "misfit": 0.1, "raw": True, "pressed": pressed, "seconds": 1.0}
        for stays, pressed in ((True, True), (True, False), (False, False))
    ]
    (line,) = implied.own_table(rows)
    assert line["recovered"] == "3 of 3" and line["pressed"] == "1 of 2"


def test_rates_are_of_the_targets_that_both_sides_have_done():
    row = {"candidates": 100, "made": 90, "converged": 80, "seconds": 1.0}
    rows = [
        {"target": target, "side": side, "hits": hits} | row
        for target, side, hits in (
            ("a", "random", 4), ("a", "cluster-flow", 2), ("b", "random", 0), ("b", "cluster-flow", 0),
            ("c", "random", 50),
        )
    ]  # fmt: skip
    random, flow = implied.searched_table(rows)
    assert random["hits"] == "4" and random["hits per 1,000"] == "20.0" and random["over random's, pooled"] == "1.0"
    assert flow["targets"] == "2" and flow["over random's, pooled"] == "0.5"
    assert implied.searched_table(rows[:1]) == []


def test_urea_is_found_in_its_own_molecules_and_not_in_molecules_at_random(tmp_path: Path):
    (tmp_path / "cif").mkdir()
    (tmp_path / "cif" / "100.cif").write_text(UREA)
    ((target,), _) = read_targets(tmp_path)
    rows = {r["molecules"]: r for r in implied.of_own_molecules(target, 0)}
    assert rows["as they are"]["raw"] and rows["as they are"]["misfit"] < 0.01
    assert not rows[implied.AT_RANDOM]["raw"] and rows[implied.AT_RANDOM]["misfit"] > 0.3
