"""Duplicates are found in any disguise, different packings stay apart, and the lowest in energy represents."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_examples import FORMAMIDE, NUMBERS, packing, rewritten, shaken
from refusals import refuses

from molflow_sim.errors import InputError
from molflow_sim.evaluate.deduplicate import (
    CrystalDuplicates,
    PackingDuplicates,
    deduplicate_crystals,
    deduplicate_packings,
)
from molflow_sim.evaluate.fingerprint import fingerprint, fingerprints, reduce_lattice

GROUPS = ("P 1", "P -1", "P 1 21 1", "P 1 21/c 1", "P 21 21 21", "C 1 2/c 1", "P b c a", "R -3")


@given(seed=st.integers(0, 10_000), group=st.sampled_from(GROUPS), mirror=st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_fingerprint_does_not_depend_on_cell_origin_order_or_hand(seed, group, mirror):
    crystal = packing(seed, group)
    f = fingerprints([crystal, rewritten(crystal, seed + 1, mirror)])
    assert np.abs(f.vectors[0] - f.vectors[1]).max() < 1e-6
    assert f.density[0] == pytest.approx(f.density[1])


def test_the_fingerprint_of_a_supercell_is_that_of_the_cell():
    numbers, cell, positions, molecule = packing(4)
    doubled = (
        np.tile(numbers, 2),
        cell * np.array([[2.0], [1.0], [1.0]]),
        np.concatenate([positions, positions + cell[0]]),
        np.concatenate([molecule, molecule + molecule.max() + 1]),
    )
    f = fingerprints([(numbers, cell, positions, molecule), doubled])
    assert np.abs(f.vectors[0] - f.vectors[1]).max() < 1e-6


@given(seed=st.integers(0, 10_000), size=st.floats(0.001, 0.3))
@settings(max_examples=20, deadline=None)
def test_no_entry_changes_by_more_than_twice_the_largest_shift(seed, size):
    crystal = packing(seed)
    moved = shaken(crystal, size, seed)
    largest = np.linalg.norm(moved[2] - crystal[2], axis=1).max()
    f = fingerprints([crystal, moved])
    assert np.abs(f.vectors[0] - f.vectors[1]).max() <= 2 * largest + 1e-9


def test_the_fingerprint_lists_the_distances_a_direct_search_finds():
    numbers, cell, positions, molecule = packing(11, "P -1")
    f = fingerprint((numbers, cell, positions, molecule))
    heavy = numbers > 1
    centres = np.array([positions[heavy & (molecule == m)].mean(axis=0) for m in range(2)])
    grid = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) @ cell
    lists = []
    for m in range(2):
        d = np.concatenate([np.linalg.norm(c + grid - centres[m], axis=1) for c in centres])
        lists.append(np.sort(d)[1:17])
    assert np.allclose(f.centres[0], np.mean(lists, axis=0))


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_the_reduced_lattice_is_the_same_lattice_with_short_vectors(seed):
    rng = np.random.default_rng(seed)
    cell = rng.normal(size=(3, 3)) * 5
    reduced = reduce_lattice(cell)
    change = reduced @ np.linalg.inv(cell)
    assert np.allclose(change, np.rint(change), atol=1e-6)
    assert np.linalg.det(reduced) == pytest.approx(np.linalg.det(cell))
    gram = reduced @ reduced.T
    shortest = np.diag(gram)
    assert np.all(2 * np.abs(gram[np.triu_indices(3, 1)]) <= shortest[[0, 0, 1]] * (1 + 1e-9))


def test_each_packing_is_represented_by_its_lowest_copy():
    originals = [packing(s) for s in range(5)]
    crystals = [*originals, *(rewritten(c, 9, mirror=True) for c in originals), *(rewritten(c, 10) for c in originals)]
    energies = np.concatenate([np.linspace(-1.0, -0.9, 5) + shift for shift in (0.001, 0.0, 0.002)])
    expected = np.tile(np.arange(5, 10), 3)
    assert np.array_equal(deduplicate_packings(crystals, energies), expected)
    shuffle = np.random.default_rng(1).permutation(15)
    again = deduplicate_packings([crystals[i] for i in shuffle], energies[shuffle])
    assert np.array_equal(shuffle[again], expected[shuffle])


def test_equal_fingerprints_with_another_energy_are_kept_apart():
    crystal = packing(1)
    assert np.array_equal(deduplicate_packings([crystal, crystal], np.array([-1.0, -0.9])), [0, 1])


def test_a_chain_of_small_steps_does_not_merge_its_ends():
    numbers, cell, positions, molecule = packing(2)
    chain = [(numbers, cell * (1 + 0.002 * k), positions @ np.linalg.inv(cell) @ (cell * (1 + 0.002 * k)), molecule)
             for k in range(8)]  # fmt: skip
    groups = deduplicate_packings(chain, -1.0 + 1e-6 * np.arange(8), PackingDuplicates(density=0.007))
    assert groups[1] == 0 and groups[7] != 0


def test_packings_that_are_not_finite_stay_alone():
    good = packing(3)
    bad = (good[0], good[1], np.full_like(good[2], np.nan), good[3])
    flat = (good[0], good[1] * np.array([[1.0], [1.0], [0.0]]), good[2], good[3])
    groups = deduplicate_packings([good, bad, bad, flat, good], np.array([-1.0, -1.0, -1.0, -1.0, np.nan]))
    assert np.array_equal(groups, [0, 1, 2, 3, 4])


def test_nothing_to_merge_is_no_error():
    assert len(deduplicate_packings([], np.empty(0))) == 0
    assert len(deduplicate_crystals([], np.empty(0))) == 0


def test_two_thousand_packings_take_seconds():
    crystals = [packing(s, "P 1 21/c 1") for s in range(500)] * 4
    deduplicate_packings(crystals[:2], np.zeros(2))  # compiled before the clock starts
    energies = np.random.default_rng(0).normal(size=500).repeat(4).reshape(500, 4).T.ravel()
    start = time.perf_counter()
    groups = deduplicate_packings(crystals, energies)
    assert len(np.unique(groups)) == 500
    assert time.perf_counter() - start < 20.0


def test_relaxed_crystals_are_merged():
    originals = [packing(s, "P 1 21/c 1") for s in range(3)]
    crystals = [*originals, *(shaken(rewritten(c, 5), 0.03, 6) for c in originals)]
    energies = np.array([0.0, 0.002, 0.004, 0.001, 0.003, 0.005])
    groups = deduplicate_crystals(crystals, energies, CrystalDuplicates(energy=1.0, density=1.0))
    assert np.array_equal(groups, [0, 1, 2, 0, 1, 2])


def test_mirror_images_of_an_enantiopure_packing_are_kept_when_asked():
    shape = np.concatenate([FORMAMIDE, [[0.5, 0.7, 1.3], [-0.9, 0.4, -1.2]]])
    numbers = np.array([*NUMBERS, 9, 17])
    crystal = packing(6, "P 21 21 21", shape=shape, numbers=numbers)
    pair = [crystal, rewritten(crystal, 7, mirror=True)]
    assert np.array_equal(deduplicate_crystals(pair, np.zeros(2)), [0, 0])
    assert np.array_equal(deduplicate_crystals(pair, np.zeros(2), allow_inversion=False), [0, 1])


def test_wrong_input_is_refused():
    refuses(InputError, "energies", deduplicate_packings, [packing(1)], np.zeros(2))
    refuses(InputError, "energies", deduplicate_crystals, [packing(1)], np.zeros(2))
    with pytest.raises(InputError, match="different elements"):
        fingerprints([packing(1), packing(1, numbers=np.array([6, 16, 7, 1, 1, 1]))])
