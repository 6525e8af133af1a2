"""The benchmark of freed packings: hits count candidates, places are shares of the distinct packings."""

from dataclasses import replace

import pytest
from crystal_examples import crystal

from benchmarks.flexible_press import Freed, distances, table

RUN = Freed(
    "1", "OCCO", 10, 3, 20, 2, 0.5, True,
    copies=[5, 1, 3, 1],
    energy={"pressed": [0.0, 1.0, 2.0, 3.0], "freed": [0.0, 1.0, -2.0, None], "relaxed": [0.0, 1.0, -2.0, -1.0]},
    rmsd={"pressed": [None, 0.4, None, None], "freed": [None, 0.4, 0.3, None], "relaxed": [None, 0.6, 0.2, 0.5]},
    seconds={"generated": 0.1, "pressed": 0.3, "freed": 0.4, "relaxed": 1.6},
)  # fmt: skip


def test_hits_are_candidates_within_the_bound():
    assert [RUN.hits(side) for side in ("pressed", "freed", "relaxed")] == [1, 4, 3]


def test_the_place_is_that_of_the_lowest_packing_that_ends_as_the_form():
    assert [RUN.place(side) for side in ("pressed", "freed", "relaxed")] == [0.5, 0.0, 0.0]
    lost = replace(RUN, rmsd={**RUN.rmsd, "relaxed": [None] * 4})
    assert lost.place("pressed") is None


def test_the_table_pools_candidates_and_adds_the_time_of_the_press():
    pressed, freed, relaxed = table([RUN, replace(RUN, target="2", copies=[1, 1, 1, 1])]).rows
    assert pressed["hits per 1000"] == 50.0 and freed["hits per 1000"] == 150.0 and relaxed["hit"] == 2
    assert (pressed["CPU ms a candidate"], freed["CPU ms a candidate"]) == (20.0, 40.0)
    assert pressed["in the lowest 15 %"] == "0 of 2" and freed["in the lowest 15 %"] == "2 of 2"


def test_distances_are_to_the_nearest_form_and_none_for_another_packing():
    form = crystal("glycolic")
    near, other = crystal("glycolic", scale=1.01), crystal("glycolic", scale=1.3)
    (own, close, apart) = distances([form], [form, near, other])
    assert own == pytest.approx(0.0, abs=1e-3) and 0.0 < close < 0.5 and apart is None
