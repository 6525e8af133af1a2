"""The benchmark of searches with and without freed packings: what it counts."""

from benchmarks.freed_search import Both, lines


def test_forms_are_counted_by_side_and_time_over_that_of_the_press():
    times = {"press": 10.0, "compare (atoms free)": 4.0}
    runs = [
        Both("1", "OCCO", {"pressed": None, "freed": 3}, {}, {"pressed": {"press": 10.0}, "freed": times}),
        Both("2", "NCCN", {"pressed": 7, "freed": 1}, {}, {"pressed": {"press": 10.0}, "freed": times}),
    ]
    assert [figure for _, figure in lines(runs)] == [
        "1 of 2 found; rank 0 ≤ 1, 0 ≤ 5, 1 ≤ 10, 1 ≤ 20",
        "2 of 2 found; rank 1 ≤ 1, 2 ≤ 5, 2 ≤ 10, 2 ≤ 20",
        "0.40",
    ]
