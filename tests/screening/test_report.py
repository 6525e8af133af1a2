"""The report: whole in one file, offline, and safe with any text in it."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import Page
from screening_examples import landscape

from molflow_sim.runs.pages import script_json
from molflow_sim.screening.landscape import ReferenceMatch
from molflow_sim.screening.report import cell_for_viewing, report_html

NASTY = '</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> & "quotes" @@DATA@@ \u2028'


@pytest.fixture(scope="module")
def page():
    return Page(report_html(landscape(4)))


def test_the_report_needs_no_network(page):
    assert page.links == [] and page.tags.count("script") == 3
    assert "link" not in page.tags and "img" not in page.tags


def test_rows_carry_all_columns_and_their_structure(page):
    data = json.loads(page.data)
    assert [r["rank"] for r in data["rows"]] == [1, 2, 3, 4]
    first = data["rows"][0]
    assert first["space_group"] == "P-1" and first["z"] == 2 and len(first["xyz"]) == 3 * len(first["elements"]) == 36
    assert first["cif"].startswith("data_") and "_cell_length_a" in first["cif"]
    assert set(data["elements"]) == {"1", "6", "7", "8"}


def test_what_was_dropped_is_listed_with_its_reason(page):
    assert "id9999" in page.text and "2 contacts too short" in page.text


def test_provenance_is_shown(page):
    assert "seed" in page.text and "molflow-sim" in page.text and "3.5" in page.text


def test_text_from_outside_cannot_leave_its_place():
    made = landscape(2, name=NASTY, note=NASTY)
    made = replace(
        made,
        dropped=(replace(made.dropped[0], reason=NASTY),),
        reference=ReferenceMatch(NASTY, "P-1", 1.2, note=NASTY),
        run={**made.run, "settings": {NASTY: NASTY, "several": [NASTY, "{{ 7 * 7 }}"]}},
    )
    page = Page(report_html(made))
    assert page.tags.count("script") == 3 and "img" not in page.tags
    assert json.loads(page.data)["rows"][0]["note"] == NASTY
    assert page.text.count("alert(1)") >= 8 and "{{ 7 * 7 }}" in page.text


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.floats(), st.integers())))
def test_script_json_is_exact_and_never_ends_its_element(value):
    text = script_json(value)
    assert not re.search(r"[<>&\u2028\u2029]", text)
    expected = {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in value.items()}
    assert json.loads(text) == expected


def test_energies_that_are_not_known_are_null_not_nan():
    made = landscape(2)
    entries = (made[0], replace(made[1], relative_energy=float("nan"), energy_model="potential"))
    page = Page(report_html(replace(made, entries=(replace(entries[0], energy_model="GFN2-xTB"), entries[1]))))
    data = json.loads(page.data)
    assert data["reranked"] and data["rows"][1]["shown"] is None and data["rows"][1]["potential"] > 0


def test_the_experimental_form_is_marked_and_described():
    made = replace(
        landscape(3), reference=ReferenceMatch("exp.cif", "P21/c", 1.3, rank=2, relative_energy=0.96, rmsd15=0.31)
    )
    page = Page(report_html(made))
    assert "found at rank 2" in page.text and "0.31 Å" in page.text
    assert [r["reference"] for r in json.loads(page.data)["rows"]] == [False, True, False]


def test_molecules_are_shown_whole_with_their_centres_in_the_cell():
    shown = landscape(2)[1]
    numbers, positions, bonds = cell_for_viewing(shown)
    assert len(numbers) == 24 and len(bonds) == 20
    assert np.linalg.norm(positions[bonds[:, 0]] - positions[bonds[:, 1]], axis=1).max() < 1.6
    centres = positions.reshape(4, 6, 3).mean(axis=1) @ np.linalg.inv(shown.crystal.cell)
    assert (centres > -1e-5).all() and (centres < 1).all()
