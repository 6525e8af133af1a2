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
