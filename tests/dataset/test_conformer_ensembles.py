"""Ensembles of conformers as they are stored: what goes in comes out, and what is damaged is refused by name."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import without_chemistry
from refusals import refuses

from molflow_sim.dataset import ConformerEnsemble, read_ensembles
from molflow_sim.errors import InputError, NonFiniteError, StoreError
from molflow_sim.io.ensembles import (
    RESOLUTION,
    boltzmann_shares,
    pack_ensembles,
    read_described,
    unpack_described,
    write_packed,
)
from molflow_sim.units import BOLTZMANN


def ensemble(seed: int, atoms: int, conformers: int, size: float = 3.0, split: str = "train") -> ConformerEnsemble:
    rng = np.random.default_rng(seed)
    energies = np.sort(rng.random(conformers))
    energies -= energies[0]
    return ConformerEnsemble(
        smiles="C" * atoms, name=f"made {seed}", numbers=rng.integers(1, 54, atoms),
        positions=size * rng.normal(size=(conformers, atoms, 3)), energies=energies, shares=boltzmann_shares(energies),
        source="gfn2", split=split,
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 6), st.floats(0.1, 200.0)), min_size=1, max_size=5))
def test_a_block_gives_back_its_molecules_to_a_thousandth_of_an_angstrom(shapes):
    written = [ensemble(i, *shape) for i, shape in enumerate(shapes)]
    read = [e for e, _ in unpack_described(pack_ensembles(written), "block")]
    assert len(read) == len(written)
    for a, b in zip(written, read):
        assert (a.smiles, a.name, a.source, a.split) == (b.smiles, b.name, b.source, b.split)
        assert (a.numbers == b.numbers).all()
        centred = a.positions - a.positions.mean(1, keepdims=True)
        assert np.abs(b.positions - centred).max() <= 0.5 * RESOLUTION + 1e-9
        assert np.allclose(a.energies, b.energies, atol=1e-6) and np.allclose(a.shares, b.shares, atol=1e-6)
        assert b.shares.sum() == pytest.approx(1.0, abs=1e-12)


def test_positions_are_read_in_double_precision():
    length = 1800.002  # Å; single precision has steps of 0.0001 Å there
    x = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, length]])
    e = ConformerEnsemble("CC", "", np.array([6, 6]), x[None], np.zeros(1), np.ones(1), "dft", "train")
    read = unpack_described(pack_ensembles([e]), "block")[0][0].positions
    assert read.dtype == np.float64
    assert read[0, 1, 2] - read[0, 0, 2] == pytest.approx(length, abs=1e-9)


def test_shares_are_those_of_boltzmann_and_the_mean_where_an_energy_is_unknown():
    kt = BOLTZMANN * 298.15
    assert boltzmann_shares([0.0, kt * np.log(3.0)]) == pytest.approx([0.75, 0.25])
    assert boltzmann_shares([5.0, 5.0], [2.0, 1.0]) == pytest.approx([2 / 3, 1 / 3])
    assert boltzmann_shares([np.nan, np.nan]) == pytest.approx([0.5, 0.5])
    assert boltzmann_shares([0.0, kt * np.log(3.0), np.nan]) == pytest.approx([0.5, 1 / 6, 1 / 3])


def test_unknown_energies_survive_the_round_trip():
    e = ensemble(0, 4, 2)
    e = ConformerEnsemble(e.smiles, e.name, e.numbers, e.positions, np.full(2, np.nan), e.shares, "measured", "test")
    assert np.isnan(unpack_described(pack_ensembles([e]), "block")[0][0].energies).all()


def test_packing_does_not_depend_on_the_order_and_leaves_no_former_block(tmp_path):
    written = [ensemble(i, 3 + i % 4, 2, split="test" if i == 2 else "train") for i in range(6)]
    for name, order in (("a", written), ("b", written[::-1])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.npz").write_bytes(pack_ensembles(order, [{"seconds": 1.0}] * 6))
        (tmp_path / f"{name}_packed").mkdir()
        (tmp_path / f"{name}_packed" / "conformers_007.npz").write_bytes(b"of a former set")
        write_packed(tmp_path / name, tmp_path / f"{name}_packed")
    a, b = (tmp_path / f"{name}_packed" / "conformers_000.npz" for name in "ab")
    assert a.read_bytes() == b.read_bytes()
    assert [p.name for p in sorted(a.parent.iterdir())] == ["conformers_000.npz", "contents.json"]
    assert len(read_ensembles(a.parent)) == 6
    assert [e.name for e in read_ensembles(a.parent, "test")] == ["made 2"]
    assert len(read_ensembles([a.parent, b.parent])) == 12
    assert read_described(a.parent)[0][1]["seconds"] == 1.0


def test_of_a_molecule_in_two_data_sets_the_ensemble_of_the_first_is_packed(tmp_path):
    small, large = ensemble(3, 5, 2), ensemble(3, 5, 7)
    other = ConformerEnsemble(**{**vars(small), "source": "measured"})
    for name, written in (("a", [small, other]), ("b", [large])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.npz").write_bytes(pack_ensembles(written))
    for order, conformers in (("ab", 2), ("ba", 7)):
        write_packed([tmp_path / name for name in order], tmp_path / "out")
        packed = [(e.source, len(e)) for e in read_ensembles(tmp_path / "out")]
        assert packed == [("gfn2", conformers), ("measured", 2)]


def test_what_is_no_ensemble_is_refused():
    e = ensemble(0, 4, 2)
    rest = (e.energies, e.shares, "gfn2", "train")
    refuses(InputError, "positions of shape", ConformerEnsemble, "C", "", e.numbers[:3], e.positions, *rest)
    refuses(InputError, "positions of shape", ConformerEnsemble, "C", "", e.numbers, e.positions[:1], *rest)
    empty = (e.positions[:0], e.energies[:0], e.shares[:0])
    refuses(InputError, "positions of shape", ConformerEnsemble, "C", "", e.numbers, *empty, "gfn2", "train")
    refuses(NonFiniteError, "NaN", ConformerEnsemble, "C", "", e.numbers, e.positions * np.nan, *rest)
    rest = (e.energies, e.shares, "guess", "train")
    refuses(InputError, "source 'guess'", ConformerEnsemble, "C", "", e.numbers, e.positions, *rest)


@pytest.mark.parametrize("damage", [lambda d: d[:-50], lambda d: b"", lambda d: b"no archive"])
def test_damaged_files_are_named(damage):
    data = pack_ensembles([ensemble(0, 4, 2)])
    refuses(StoreError, r"block_1\.npz is damaged", unpack_described, damage(data), "block_1.npz")


def test_foreign_folders_are_named(tmp_path):
    refuses(InputError, "no such folder", read_ensembles, tmp_path / "nowhere")
    refuses(StoreError, "holds no conformers", read_ensembles, tmp_path)
    (tmp_path / "x.npz").write_bytes(pack_ensembles([ensemble(0, 4, 2)]))
    refuses(InputError, "split must be", read_ensembles, tmp_path, split="training")


def test_reading_needs_no_chemistry_library(tmp_path):
    (tmp_path / "x.npz").write_bytes(pack_ensembles([ensemble(0, 4, 2)]))
    script = """
    import sys
    from molflow_sim.dataset import read_ensembles
    print(*[len(e) for e in read_ensembles(sys.argv[1])])
    """
    assert without_chemistry(script, tmp_path).split() == ["2"]
