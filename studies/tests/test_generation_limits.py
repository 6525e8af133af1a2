"""The limits benchmark: the sampler's arithmetic, disturbances that keep the symmetry, what the tables say."""

from __future__ import annotations

import math
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from molflow_sim import MolecularCrystal, Molecule
from molflow_sim.packing import random_packings
from molflow_sim.symmetry.sites import placement_of

# -- the sampler ------------------------------------------------------------------------------------------------------


def test_minima_are_drawn_with_exponential_weights_of_their_energies():
    from studies.limits import sampler_share

    # Weights at 2 kJ/mol: e^-1 for the form; 1, e^-2 and e^-3 for the others.
    by_hand = math.exp(-1) / (1.0 + math.exp(-1) + math.exp(-2) + math.exp(-3))
    assert sampler_share([2.0], [0.0, 4.0, 6.0], 2.0) == pytest.approx(by_hand, abs=1e-12)
    assert sampler_share([-98.0], [-100.0, -96.0, -94.0], 2.0) == pytest.approx(by_hand, abs=1e-12)


def test_two_minima_that_are_the_form_count_together_and_none_counts_nothing():
    from studies.limits import sampler_share

    assert sampler_share([0.0, 0.0], [0.0, 0.0, 0.0], 1.0) == pytest.approx(0.4)
    assert sampler_share([], [0.0, 1.0], 1.0) == 0.0
    assert sampler_share([3.0], [], 1.0) == 1.0


def test_a_minimum_found_later_can_only_lower_the_share():
    from studies.limits import sampler_share

    for energy in (-3.0, 0.5, 50.0):
        assert sampler_share([1.0], [0.0, 2.0, energy], 2.0) < sampler_share([1.0], [0.0, 2.0], 2.0)


def test_the_form_joins_the_minima_however_it_was_found_unless_a_hit_has_its_energy():
    from molflow_sim.units import KJ_PER_MOL
    from studies.limits import Landscape, _split

    others = np.array([-90.0, -95.0]) * KJ_PER_MOL
    for hits, elsewhere, expected, gap in (
        ([], [-93.0], [2.0], [0.0, 5.0]),
        ([-93.4], [-93.0], [1.6], [0.0, 5.0]),
        ([-93.4], [-99.0, -98.5], [5.6, 0.0], [4.0, 9.0]),
        ([], [np.nan], [], [0.0, 5.0]),
    ):
        result = Landscape(10)
        _split(result, others, np.array(hits) * KJ_PER_MOL, np.array(elsewhere) * KJ_PER_MOL)
        assert result.experimental == pytest.approx(expected, abs=1e-3)
        assert result.others == pytest.approx(gap, abs=1e-3)


# -- groups and sites -------------------------------------------------------------------------------------------------


def test_settings_of_a_group_are_one_kind_and_its_sites_are_others():
    from studies.limits import kind_of, kinds

    benzene = Molecule.from_smiles("c1ccccc1")
    names = {k: {p.space_group for p in random_packings(benzene, 40, space_groups=k, seed=1).placements}
             for k in (("P 1 21/c 1",), ("P 1 21/n 1",), ("C 1 2/c 1",))}  # fmt: skip
    assert all(len(v) == 1 for v in names.values())
    c, n, centred = (set(kinds(random_packings(benzene, 40, space_groups=k, seed=1), False)) for k in names)
    assert c == n == {(14, 48, 3, 3), (14, 24, 0, 3)}, "general and on the inversion centre"
    assert (15, 24, 0, 3) in centred and (15, 24, 1, 1) in centred, "the centre is told from the axis"
    p41, p43 = (random_packings(benzene, 1, space_groups=[k]).placements[0] for k in ("P 41", "P 43"))
    assert kind_of(p41, False) == kind_of(p43, False) and kind_of(p41, True) != kind_of(p43, True)


def test_candidates_of_the_known_group_are_all_of_its_kind_or_none_where_the_molecule_cannot_take_the_site():
    from studies.limits import kinds, packings_in

    benzene, glycolamide = Molecule.from_smiles("c1ccccc1"), Molecule.from_smiles("NC(=O)CO")
    inversion = (14, 24, 0, 3)
    packings = packings_in(benzene, inversion, "P 1 21/a 1", 30, 0)
    assert len(packings) == 30 and set(kinds(packings, False)) == {inversion}
    assert {"P 1 21/c 1", "P 1 21/n 1"} >= set(packings.space_groups), "the common settings, not the experiment's"
    assert packings_in(glycolamide, inversion, "P 1 21/c 1", 30, 0) is None
    assert set(packings_in(glycolamide, (114, 48, 3, 3), "P -4 21 c", 5, 0).space_groups) == {"P -4 21 c"}


# -- disturbances -----------------------------------------------------------------------------------------------------

SITES = [("NC(=O)CO", "P-1"), ("NC(=O)CO", "P21"), ("NC(=O)CO", "P21/c"), ("NC(=O)CO", "Pbca"), ("NC(=O)CO", "R-3"),
         ("c1ccccc1", "P21/c"), ("c1ccccc1", "C2/c"), ("C=O", "P21/m"), ("C=O", "Pnma")]  # fmt: skip


def crystals(smiles: str, group: str) -> list[MolecularCrystal]:
    """Two on each kind of site that the molecule can take there."""
    from studies.limits import kinds

    packings = random_packings(Molecule.from_smiles(smiles), 60, space_groups=[group], seed=3)
    found = kinds(packings, False)
    return [packings.crystal(i) for k in sorted(set(found)) for i in [j for j, f in enumerate(found) if f == k][:2]]


def asymmetry(crystal: MolecularCrystal) -> float:
    """How far (Å) an operation of the group takes an atom from the nearest atom of the crystal."""
    (numbers, positions, _, _), cell = crystal.unit_cell(), crystal.cell
    fractional, worst = positions @ np.linalg.inv(cell), 0.0
    for w, t in zip(crystal.space_group.rotations, crystal.space_group.translations):
        apart = (fractional @ w.T + t)[:, None] - fractional
        distance = np.linalg.norm((apart - np.rint(apart)) @ cell, axis=-1)
        worst = max(worst, float(np.where(numbers[:, None] == numbers, distance, 9.0).min(axis=1).max()))
    return worst


@pytest.mark.parametrize("smiles, group", SITES)
def test_a_disturbed_crystal_keeps_its_group_its_site_and_its_crystal_system(smiles, group):
    from studies.limits import disturb, kind_of

    rng = np.random.default_rng(5)
    for crystal in crystals(smiles, group):
        before, after = crystal, disturb(crystal, rng, 30.0, 0.9, 0.09)
        assert after.space_group.name == before.space_group.name and after.z == before.z
        assert kind_of(placement_of(after), False) == kind_of(placement_of(before), False)
        assert np.allclose(after.space_group.constrain(after.cell_parameters), after.cell_parameters, atol=1e-6)
        assert asymmetry(after) < asymmetry(before) + 1e-4
        assert not np.allclose(after.cell, before.cell, atol=1e-2)


@pytest.mark.parametrize("smiles, group", SITES)
def test_turn_shift_and_strain_have_the_size_asked_for_or_are_nil_where_the_site_allows_none(smiles, group):
    from studies.limits import disturb, freedom

    rng = np.random.default_rng(6)
    for crystal in crystals(smiles, group):
        turns, shifts = (round(float(np.trace(p))) for p in freedom(crystal))
        moved = disturb(crystal, rng, 20.0, 0.6, 0.0)
        (before,), (after,) = crystal.asymmetric_unit, moved.asymmetric_unit
        turn = after.orientation @ before.orientation.T
        angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1.0) / 2.0, -1.0, 1.0)))
        assert angle == pytest.approx(20.0 if turns else 0.0, abs=1e-4)
        step = (after.centroid - before.centroid) @ crystal.cell
        assert np.linalg.norm(step) == pytest.approx(0.6 if shifts else 0.0, abs=1e-6)
        strained = disturb(crystal, rng, 0.0, 0.0, 0.06)
        stretch = np.linalg.svd(np.linalg.solve(crystal.cell, strained.cell), compute_uv=False)
        assert np.abs(stretch - 1.0).max() == pytest.approx(0.06, abs=1e-6)


def test_a_shift_along_a_polar_axis_is_none():
    from studies.limits import disturb, freedom

    (crystal, *_) = crystals("NC(=O)CO", "P21")
    assert round(float(np.trace(freedom(crystal)[1]))) == 2
    moved = disturb(crystal, np.random.default_rng(0), 0.0, 1.0, 0.0)
    step = (moved.asymmetric_unit[0].centroid - crystal.asymmetric_unit[0].centroid) @ crystal.cell
    assert step[1] == pytest.approx(0.0, abs=1e-9)


def test_a_strain_turns_the_molecule_with_the_frame_and_not_against_its_neighbours():
    from studies.limits import disturb

    for crystal in crystals("NC(=O)CO", "P-1"):
        after = disturb(crystal, np.random.default_rng(1), 0.0, 0.0, 0.1)
        turn = after.asymmetric_unit[0].orientation @ crystal.asymmetric_unit[0].orientation.T
        strain = np.linalg.solve(crystal.cell, after.cell @ turn)  # with the frame's turn taken back
        assert np.allclose(strain, strain.T, atol=1e-8) and not np.allclose(turn, np.eye(3), atol=1e-3)


@pytest.mark.parametrize("smiles, group", [("NC(=O)CO", "P21/c"), ("c1ccccc1", "P21/c")])
def test_the_press_takes_small_disturbances_of_a_minimum_home(smiles, group):
    from benchmarks.search import pressed_experiment
    from molflow_sim import parametrize
    from molflow_sim.packing import press
    from molflow_sim.units import KJ_PER_MOL
    from studies.limits import DISTURBANCES, kept_energies, returned

    molecule = Molecule.from_smiles(smiles, n_conformers=1)
    parameters = parametrize(molecule)
    pressed = press(random_packings(molecule, 8, space_groups=[group], seed=2), parameters)
    pressed = pressed.select(pressed.ok)
    crystal = pressed.crystal(int(np.argmin(pressed.energy)))
    target = SimpleNamespace(crystal=crystal, experimental=molecule, racemic=False)
    assert kept_energies(target, pressed_experiment(target, molecule, parameters)) == pytest.approx(
        pressed.energy.min(), abs=0.2 * KJ_PER_MOL
    )
    back = dict(zip(DISTURBANCES, returned(target, 4)))
    assert back[10.0, 0.3, 0.03] == 4 and back[0.0, 0.0, 0.03] == 4
    assert all(0 <= k <= 4 for k in back.values() if k is not None)
    on_the_centre = len(crystal.asymmetric_unit[0].images) < crystal.space_group.order
    assert (back[0.0, 1.0, 0.0] is None) == on_the_centre, "a shift alone is no disturbance on an inversion centre"


# -- tables -----------------------------------------------------------------------------------------------------------


def made(target: str, hits: tuple[int, int], known: tuple[int, int], returned=(), **changes):
    from studies.limits import Landscape, Limits

    minimum = {"rmsd": 0.1, "n_matched": 15, "energy": -90.0, "density": 1.0, "status": "ok"}
    landscapes = {
        source: asdict(
            Landscape(100, 99, h, 20, min(h, 1), 100 if k is not None else 0, k or 0, minimum,
                      **{"experimental": [2.0], "others": [0.0, 4.0], **changes})
        )
        for source, h, k in zip(("rdkit", "experimental"), hits, known)
    }  # fmt: skip
    return Limits(target, "rigid", "C", "P -1", [2, 48, 3, 3], 0, landscapes, {}, 4, list(returned))


def test_ratios_are_pooled_and_typical_and_a_target_without_any_hit_counts_as_one():
    from studies.generation_limits import compare

    ratios = compare([(8, 100), (4, 50), (0, 10)], [(2, 100), (0, 100), (0.2, 100)])
    assert ratios["hits per 1000"] == round(1000 * (0.08 + 0.08 + 0.0) / 3, 2)
    assert ratios["enrichment"] == round(0.16 / 0.022, 2)
    assert ratios["typical"] == round((4.0 * (4 / 50) / (0.5 / 100) * 1.0) ** (1 / 3), 2)
    assert compare([(3, 100)], [(0, 100)])["enrichment"] is None and compare([], [])["typical"] is None


def test_tables_set_each_oracle_beside_plain_random_packing():
    from studies.generation_limits import conformer_table, group_table, sampler_table

    runs = [made("a", (2, 8), (10, 20)), made("b", (0, 4), (None, 40))]
    rdkit, own = conformer_table(runs).rows
    assert (rdkit["hits per 1000"], rdkit["enrichment"], rdkit["hit"]) == (10.0, 1.0, 1)
    assert own["enrichment"] == 6.0 and own["typical"] == round(math.sqrt(4.0 * 8.0), 2) and own["kept"] == 2
    rdkit, own = group_table(runs).rows
    assert (rdkit["targets"], rdkit["no site"], rdkit["enrichment"]) == (1, 1, 5.0)
    assert rdkit["drawn %"] == 20.0 and rdkit["drawn hits per 1000"] == 50.0 and rdkit["hits elsewhere %"] == 50.0
    assert own["enrichment"] == 5.0 and own["over RDKit's, open"] == 30.0
    rows = sampler_table(runs).rows
    (two,) = [r for r in rows if r["conformers"] == "rdkit" and r["s, kJ/mol"] == "2"]
    share = math.exp(-1) / (1.0 + math.exp(-1) + math.exp(-2))
    assert two["hits per 1000"] == round(1000 * share, 2) and two["enrichment"] == round(share / 0.01, 2)
    assert (two["median dE"], two["median rank"], two["no minimum"]) == (2.0, 2.0, 0)


def test_targets_without_the_minimum_are_counted_and_left_out_of_the_sampler():
    from studies.generation_limits import sampler_table

    rows = sampler_table([made("a", (2, 8), (1, 1)), made("b", (0, 0), (0, 0), experimental=[])]).rows
    assert {(r["targets"], r["no minimum"]) for r in rows} == {(1, 1)}


def test_closeness_is_averaged_over_the_targets_that_can_be_disturbed():
    from studies.generation_limits import closeness_table
    from studies.limits import DISTURBANCES

    n = len(DISTURBANCES)
    rows = closeness_table([made("a", (0, 0), (0, 0), [4] * n), made("b", (0, 0), (0, 0), [1, None] + [2] * (n - 2)),
                            made("c", (0, 0), (0, 0))]).rows  # fmt: skip
    assert len(rows) == n
    assert (rows[0]["targets"], rows[0]["back %"], rows[0]["lowest"]) == (2, 62.5, 25.0)
    assert (rows[1]["targets"], rows[1]["back %"]) == (1, 100.0)


def test_an_empty_run_prints_tables_that_say_so(capsys):
    from benchmarks.generation_tables import print_tables
    from studies.generation_limits import closeness_table, conformer_table, group_table, sampler_table

    print_tables([table([]) for table in (conformer_table, group_table, sampler_table, closeness_table)])
    assert capsys.readouterr().out.count("nothing done yet") == 4
