"""The tables of README and docs are what the benchmarks kept."""

import json

from benchmarks.tables import filled, keep, main


def test_the_pages_agree_with_the_kept_results(capsys) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_a_table_names_command_and_date_of_each_run(tmp_path) -> None:
    path = keep("toy", [("speed", "3 crystals/s"), ("drift", "0.1 kJ/mol")], {"speed": 3.0}, tmp_path)
    kept = json.loads(path.read_text())
    page = filled("Figures:\n\n<!-- results: toy -->\nold\n<!-- end -->\nAfter.\n", tmp_path)
    assert page.count("\n| ") == 3 and f"`{kept['command']}` | {kept['date']} |" in page
    assert "| drift | 0.1 kJ/mol | same run |" in page and "old" not in page and page.endswith("After.\n")


def test_links_hold_from_the_page_they_are_on(tmp_path) -> None:
    keep("toy", [("speed", "3 ([table](docs/methods/toy.md))")], folder=tmp_path)
    empty = "<!-- results: toy -->\n<!-- end -->\n"
    assert "(docs/methods/toy.md)" in filled(empty, tmp_path) and "(../methods/toy.md)" in filled(
        empty, tmp_path, "../"
    )


def test_a_table_of_all_figures_goes_where_the_page_wants_it(tmp_path) -> None:
    keep("toy", [], {"small": [{"energy": "fit", "ρ": "0.7"}, {"energy": "best", "ρ": "0.9"}]}, tmp_path)
    page = filled("<!-- rows: toy small -->\nold\n<!-- end -->\n", tmp_path)
    assert "| energy | ρ |\n| --- | --- |\n| fit | 0.7 |\n| best | 0.9 |\n<!-- end -->" in page and "old" not in page
