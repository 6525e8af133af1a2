"""What is said of the ranks of known forms."""

from benchmarks.ranking import Place, calibration


def place(relative: float | None, uncertainty: float | None, rank: int | None = 2) -> Place:
    return Place("T", "C", 5, 9, rank, relative, uncertainty, 0.1, 1, 0.0, 1, 1, 0.0, 1.0, "")


def test_a_bar_holds_the_form_that_is_as_near_and_says_nothing_of_forms_that_were_not_found():
    rows = calibration(
        [place(0.0, 0.0, 1), place(1.9, 1.0), place(2.1, 0.5), place(None, None, None), place(1.0, None)]
    )
    assert [row["known forms"] for row in rows] == ["1 of 3", "1 of 3", "2 of 3", "2 of 3"]
    assert rows[1]["share, %"] == "33" and rows[1]["if ± were a standard deviation, %"] == "68"
