"""The landscape as an object: order, tables, re-ranking, and files that load again."""

import json
from dataclasses import replace

import gemmi
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refuses
from screening_examples import crystal, formamide, landscape

from molflow_sim import Molecule, parametrize
from molflow_sim.errors import InputError, StoreError
from molflow_sim.screening import Landscape, ScreenSettings
from molflow_sim.screening.landscape import relative_energies, short_symbol
from molflow_sim.screening.ranking import RelaxedRow, build_landscape, distinct, rerank
from molflow_sim.screening.serialise import (
    crystal_from_json,
    crystal_to_json,
    from_bytes,
    molecule_from_json,
    molecule_to_json,
    to_bytes,
)
from molflow_sim.symmetry.operations import space_group_from_operations
from molflow_sim.units import KJ_PER_MOL


def row(k: int, energy: float, **changes) -> RelaxedRow:
    base = RelaxedRow(f"id{k}", crystal(formamide()), energy, energy + 1, 1, True, converged=True)
    return replace(base, **changes)


def test_a_landscape_is_a_sequence_of_ranked_structures():
    made = landscape(4)
    assert len(made) == 4 and made[0].rank == 1 and [e.rank for e in made] == [1, 2, 3, 4]
    assert made[-1].relative_energy == pytest.approx(0.03 / KJ_PER_MOL)
    assert "4 structures" in repr(made)


def test_the_table_has_one_row_each_in_peoples_units():
    table = landscape(3).to_dataframe()
    assert list(table["rank"]) == [1, 2, 3]
    assert table["relative_energy_kj_per_mol"].tolist() == pytest.approx([0, 0.964853, 1.929707], abs=1e-5)
    assert table["space_group"].tolist() == ["P-1", "P21/c", "P-1"]
    assert (table["density_g_per_cm3"] > 0).all()


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=8))
def test_relative_energies_start_at_zero_and_ignore_missing_ones(energies):
    values = np.array([*energies, np.nan])
    relative = relative_energies(values)
    assert np.nanmin(relative) == 0 and np.isnan(relative[-1])
    assert np.allclose(np.diff(relative[:-1]) * KJ_PER_MOL, np.diff(values[:-1]), atol=1e-9)


def test_duplicates_are_merged_into_their_representative_and_counted():
    tally = {}
    rows = [row(0, -3.0, copies=2), row(1, -2.9), row(2, -3.001, copies=5), row(3, -1.0, valid=False, reason="clash")]
    kept, dropped = distinct(rows, np.array([2, 1, 2]), tally)
    assert [r.id for r in kept] == ["id2", "id1"] and [r.copies for r in kept] == [7, 1]
    assert {d.id: d.reason for d in dropped} == {"id3": "clash", "id0": "same structure as id2"}
    assert tally["rank"] == {"distinct": 2, "duplicates merged": 1}


def test_a_second_model_orders_the_best_and_failures_follow_with_their_reason(tmp_path):
    rows = [row(k, -3.0 + 0.01 * k) for k in range(5)]
    second = [
        {"energy": -10.0, "parts": {}, "reason": ""},
        {"energy": None, "parts": {}, "reason": "SCF did not converge"},
        {"energy": -10.2, "parts": {}, "reason": ""},
    ]
    made = build_landscape(formamide(), rerank(rows, second, "GFN2-xTB"), [], {}, {}, None, tmp_path)
    assert [e.id for e in made] == ["id2", "id0", "id1", "id3", "id4"]
    assert made[0].relative_energy == 0 and made[1].relative_energy == pytest.approx(0.2 / KJ_PER_MOL)
    assert np.isnan([e.relative_energy for e in made.entries[2:]]).all()
    assert made[2].note == "SCF did not converge"
    assert [e.energy_model for e in made] == ["GFN2-xTB"] * 2 + ["potential"] * 3
    assert made[0].potential_relative == pytest.approx(0.02 / KJ_PER_MOL)


@pytest.mark.filterwarnings("ignore:.*stereochemistry")  # the racemic one is meant
@pytest.mark.parametrize("smiles", ["NC=O", "c1ccccc1", "CC(O)C#N"])
def test_a_loaded_molecule_can_be_parametrised_and_keeps_its_hand(smiles):
    molecule = Molecule.from_smiles(smiles)
    again = molecule_from_json(from_bytes(to_bytes(molecule_to_json(molecule))))
    assert np.array_equal(parametrize(again).charges, parametrize(molecule).charges)
    assert again.racemic == molecule.racemic and again.is_chiral == molecule.is_chiral


def test_every_column_of_the_tables_that_has_a_unit_says_it():
    bare = {"rank", "id", "space_group", "z", "z_prime", "converged", "copies", "energy_model", "relaxation_steps",
            "note", "stage", "reason", "source", "packing_coefficient", "hydrogen_bonds", "relaxed_on"}  # fmt: skip
    units = ("kj_per_mol", "ev_per_molecule", "g_per_cm3", "ev_per_angstrom", "gpa", "angstrom", "degree",
             "angstrom3_per_molecule")  # fmt: skip
    made = landscape(2)
    for name in [*made.to_dataframe().columns, *made.dropped_dataframe().columns]:
        assert name in bare or name.endswith(units), name


def test_molecules_and_crystals_survive_the_store_to_the_last_bit():
    molecule = formamide()
    again = molecule_from_json(from_bytes(to_bytes(molecule_to_json(molecule))))
    assert again.smiles == molecule.smiles and again.key == molecule.key
    assert np.array_equal(again.bonds, molecule.bonds) and np.array_equal(again.numbers, molecule.numbers)
    first = crystal(molecule, "P 1 21/c 1")
    second = crystal_from_json(from_bytes(to_bytes(crystal_to_json(first))), [molecule])
    assert np.array_equal(first.unit_cell()[1], second.unit_cell()[1]) and np.array_equal(first.cell, second.cell)
    assert second.space_group.name == first.space_group.name


def test_a_crystal_in_a_setting_without_a_symbol_survives_the_store_and_has_the_symbol_of_its_group():
    texts = ("x,y,z", "-x,-y,-z", "x,y+1/2,z", "-x,-y+1/2,-z")  # P-1, its cell doubled along b
    group = space_group_from_operations([gemmi.Op(text) for text in texts])
    made = crystal(formamide())
    unit = replace(made.asymmetric_unit[0], images=(0, 1, 2, 3))
    doubled = replace(made, space_group=group, cell=made.cell * [[1.0], [2.0], [1.0]], asymmetric_unit=(unit,))
    again = crystal_from_json(from_bytes(to_bytes(crystal_to_json(doubled))), [formamide()])
    assert np.array_equal(again.unit_cell()[1], doubled.unit_cell()[1]) and again.space_group.name == group.name
    assert short_symbol(again) == "P-1" and again.z == 4


def test_a_saved_landscape_loads_again(tmp_path):
    made = landscape(3)
    made.save(tmp_path / "store" / "landscape.json")
    (tmp_path / "run.json").write_text(json.dumps(made.run))
    again = Landscape.load(tmp_path)
    assert again.to_dataframe().equals(made.to_dataframe())
    assert again.dropped == made.dropped and again.folder == tmp_path


@pytest.mark.parametrize("content", [None, b"", b"{", b"{}", b'{"molecule": {}}'])
def test_an_unfinished_or_damaged_landscape_says_what_to_do(tmp_path, content):
    (tmp_path / "run.json").write_text("{}")
    if content is not None:
        (tmp_path / "store").mkdir()
        (tmp_path / "store" / "landscape.json").write_bytes(content)
    refuses(StoreError, r"run the same command again|cannot be read", Landscape.load, tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    refuses(StoreError, "holds no run", Landscape.load, tmp_path)


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_the_picture_is_drawn_in_the_format_of_its_name(tmp_path, suffix):
    path = landscape(9).plot(tmp_path / f"picture.{suffix}")
    start = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(start)


def test_space_groups_may_be_written_as_people_write_them():
    assert ScreenSettings(space_groups="P21/c, P-1").space_groups == ("P 1 21/c 1", "P -1")
    assert ScreenSettings(space_groups=("P 1 21/c 1", "P21/c")).space_groups == ("P 1 21/c 1",)
    with pytest.raises(InputError):
        ScreenSettings(space_groups=",")
