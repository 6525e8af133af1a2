"""`molflow doctor` reports every package and backend, and fails only if the core does."""

import json

import openmm
import pytest

from molflow_sim.cli import doctor
from molflow_sim.cli.main import run


@pytest.fixture(scope="module")
def rows():
    return {row.name: row for row in doctor.diagnose()}


def test_every_dependency_and_backend_has_a_row(rows):
    packages = {*doctor.packages(), "python", "numba", "tblite"}
    assert {*packages, "compiled pair kernel", "OpenMM", "GFN2-xTB (tblite)"} <= set(rows)
    assert all(row.status in ("ok", "missing", "broken") and row.detail for row in rows.values())


def test_the_core_works_here(rows):
    assert not [row for row in rows.values() if row.fatal]
    assert "Reference" in rows["OpenMM"].detail


def test_a_missing_optional_package_names_its_extra():
    row = doctor._package("openmmtorch-that-is-not-there", "openmm-torch")
    assert row.status == "missing" and not row.fatal

    def needs_tblite() -> str:
        raise ModuleNotFoundError("No module named 'tblite'", name="tblite")

    row = doctor._try("GFN2-xTB (tblite)", doctor.OPTIONAL, needs_tblite)
    assert (row.status, row.detail) == ("missing", "pip install 'molflow-sim[xtb]'")


def test_a_backend_that_fails_is_a_row_with_its_reason_not_a_traceback():
    def fails() -> str:
        raise OSError("libfoo.so.1: cannot open shared object file")

    row = doctor._try("backend", doctor.CORE, fails)
    assert row.status == "broken" and row.fatal and "libfoo.so.1" in row.detail


def test_exit_code_is_one_if_the_core_is_broken(monkeypatch, capsys):
    broken = doctor.Row("OpenMM", doctor.CORE, "broken", "no platform")
    monkeypatch.setattr(doctor, "diagnose", lambda: [broken])
    assert run(["doctor"]) == 1
    assert "does not work: OpenMM" in capsys.readouterr().out


def test_json_holds_the_same_rows(monkeypatch, capsys):
    only = doctor.Row("python", doctor.CORE, "ok", "3.12.1")
    monkeypatch.setattr(doctor, "diagnose", lambda: [only])
    assert run(["doctor", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data == {"works": True, "rows": [{"name": "python", "kind": "core", "status": "ok", "detail": "3.12.1"}]}


def test_openmm_platforms_are_those_that_can_hold_a_context(monkeypatch):
    def refuse(*_: object) -> None:
        raise openmm.OpenMMException("no device")

    monkeypatch.setattr(openmm, "Context", refuse)
    row = doctor._try("OpenMM", doctor.CORE, doctor._openmm_cpu)
    assert row.status == "broken" and "Reference fails: no device" in row.detail
