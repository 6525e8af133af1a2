"""Free energies in a landscape: order, columns, notes, and what is computed when."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from refusals import refuses
from screening_examples import landscape

from molflow_sim import Landscape, rank
from molflow_sim.errors import InputError
from molflow_sim.evaluate import vibrations as physics
from molflow_sim.evaluate.vibrations import Vibrations
from molflow_sim.screening.landscape import ReferenceMatch
from molflow_sim.screening.report import report_html
from molflow_sim.screening.serialise import to_bytes
from molflow_sim.screening.vibrations import vibrating, warmed
from molflow_sim.units import KJ_PER_MOL


def stored(wavenumber: float, reason: str = "") -> bytes:
    """An Einstein crystal of 12 modes a molecule, or a reason."""
    modes = {"wavenumbers": [wavenumber] * 12, "acoustic": [], "molecules": 1, "repeats": [1, 1, 1]}
    return to_bytes({"reason": reason, **({} if reason else modes)})


def einstein(wavenumber: float, temperature: float = 300.0) -> float:
    modes = Vibrations(np.full(12, wavenumber), np.empty((0, 3)), 1, (1, 1, 1))
    return modes.free_energy(temperature) / KJ_PER_MOL


def test_free_energies_order_the_structures_that_have_one_and_the_others_keep_their_rank():
    cold = landscape(5)  # 0.96 kJ/mol apart
    data = [stored(100.0), stored(90.0), stored(-50.0), stored(0.0, "NonFiniteError: no force")]
    warm = warmed(cold, vibrating(cold, 4), data, 300.0)
    assert [e.rank for e in warm] == [1, 2, 3, 4, 5]
    assert [e.static_rank for e in warm] == [2, 1, 3, 4, 5]
    gain = einstein(90.0) - einstein(100.0)
    assert gain < -2.0
    assert warm[0].free_energy_relative == 0
    assert warm[0].vibrational_free_energy == pytest.approx(gain)
    assert warm[1].vibrational_free_energy == 0
    assert warm[1].free_energy_relative == pytest.approx(-gain - cold[1].relative_energy)
    assert warm[0].relative_energy == cold[1].relative_energy  # as it was
    assert all(np.isnan(e.free_energy_relative) and np.isnan(e.vibrational_free_energy) for e in warm.entries[2:])
    assert "not a minimum: 12 imaginary modes" in warm[2].note and "no force" in warm[3].note


def test_vibrations_on_different_potentials_are_not_mixed():
    cold = landscape(4)
    entries = [replace(e, relaxed_on="best" if e.rank != 2 else "potential") for e in cold]
    entries[2] = replace(entries[2], relative_energy=float("nan"))
    assert [e.rank for e in vibrating(replace(cold, entries=tuple(entries)), 10)] == [1, 4]


def test_the_known_form_keeps_its_mark_and_the_tables_their_units(tmp_path):
    cold = replace(landscape(3), reference=ReferenceMatch("known.cif", "P21/c", 1.3, rank=2, relative_energy=0.96))
    warm = warmed(cold, vibrating(cold, 10), [stored(100.0), stored(90.0), stored(100.0)], 300.0)
    assert warm.reference.rank == 1 and warm[0].id == cold[1].id
    table = warm.to_dataframe()
    assert list(table["free_energy_relative_kj_per_mol"]) == [e.free_energy_relative for e in warm]
    assert {"vibrational_free_energy_kj_per_mol", "static_rank"} <= set(table)
    assert not {"vibrational_free_energy_kj_per_mol", "static_rank"} & set(cold.to_dataframe())
    page = report_html(replace(warm, run={**warm.run, "settings": {"temperature": 300.0}}))
    assert "free energy at 300.0 K" in page and "free energy at" not in report_html(cold)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two crystals of formamide."""
    folder = tmp_path_factory.mktemp("given")
    for k, entry in enumerate(landscape(2)):
        entry.crystal.write(folder / f"{k}.cif")
    return sorted(folder.iterdir())


def test_a_ranking_at_a_temperature_is_stored_and_another_temperature_computes_nothing(files, tmp_path, monkeypatch):
    options = {"energy": "potential", "relax": True, "output": tmp_path / "r", "progress": False}
    (static,) = rank(files, **options)
    (warm,) = rank(files, temperature=300.0, **options)
    assert {e.id for e in warm} == {e.id for e in static}
    assert [e.id for e in sorted(warm, key=lambda e: e.static_rank)] == [e.id for e in static]
    known = [e for e in warm if np.isfinite(e.vibrational_free_energy)]
    assert all(("imaginary" in e.note) != (e in known) for e in warm)
    assert warm.run["timings_s"]["vibrations"] > 0
    pd.testing.assert_frame_equal(Landscape.load(tmp_path / "r").to_dataframe(), warm.to_dataframe())
    monkeypatch.setattr(physics, "crystal_vibrations", lambda *_: pytest.fail("computed again"))
    (colder,) = rank(files, temperature=100.0, **options)
    assert [e.static_rank for e in colder] != [0] * len(colder)
    (again,) = rank(files, temperature=300.0, **options)
    pd.testing.assert_frame_equal(again.to_dataframe(), warm.to_dataframe())


@pytest.mark.parametrize("temperature", [0.0, -5.0, float("nan")])
def test_an_impossible_temperature_is_refused_before_any_work(files, tmp_path, temperature):
    options = {"relax": True, "output": tmp_path / "r", "progress": False}
    refuses(InputError, "above 0 K", rank, files, temperature=temperature, **options)
    assert not (tmp_path / "r").exists()


def test_structures_as_they_are_given_have_no_vibrations(files, tmp_path):
    refuses(InputError, "--relax", rank, files, temperature=300.0, output=tmp_path / "r", progress=False)
    assert not (tmp_path / "r").exists()
