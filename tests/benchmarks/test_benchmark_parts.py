"""Stored results of a benchmark: made once, made again where damaged, and nothing lost with what fails."""

from dataclasses import dataclass

import pytest

from benchmarks.parts import Parts
from molflow_sim.errors import InputError


@dataclass
class Row:
    name: str
    value: float


def test_a_result_is_made_once_and_read_afterwards(tmp_path, capsys) -> None:
    made = []

    def make() -> Row:
        made.append(1)
        return Row("a", 0.5)

    for _ in range(2):
        parts = Parts(tmp_path / "out.json")
        assert parts.result("a-1", lambda stored: Row(**stored), make, lambda row: str(row.value)) == Row("a", 0.5)
    assert len(made) == 1 and capsys.readouterr().err.startswith("a-1: 0.5")
    assert Parts(tmp_path / "out.json", print_only=True).result("b", Row, make) is None and len(made) == 1


def test_a_damaged_file_is_made_again(tmp_path) -> None:
    parts = Parts(tmp_path / "out.json")
    (parts.folder / "a.json").write_text('[{"name": "a"')
    rows = parts.result("a", lambda stored: [Row(**r) for r in stored], lambda: [Row("a", 1.0), Row("b", 2.0)])
    assert rows == parts.result("a", lambda stored: [Row(**r) for r in stored], lambda: None)


def test_what_fails_is_named_and_leaves_no_file(tmp_path, capsys) -> None:
    def fails() -> Row:
        raise InputError("no such thing")

    parts = Parts(tmp_path / "out.json")
    assert parts.result("a", lambda stored: Row(**stored), fails) is None
    assert "a: InputError: no such thing" in capsys.readouterr().err and not list(parts.folder.iterdir())


def test_nothing_is_begun_when_the_time_is_over(tmp_path) -> None:
    parts = Parts(tmp_path / "out.json", max_minutes=-1.0)
    assert parts.result("a", lambda stored: stored, lambda: pytest.fail("begun")) is None
