"""From ensembles to pairs: starts, names, hands, beads, torsions, and the archive that needs no RDKit."""

from dataclasses import replace

import numpy as np
import pytest
from conformer_examples import MOLECULES, ensemble, pairs_of, write_ensembles
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import without_chemistry
from rdkit import Chem

from molflow_sim.errors import StoreError
from molflow_sim.geometry.superposition import kabsch
from molflow_sim.geometry.torsions import torsion_angles
from molflow_sim.io.ensembles import pack_ensembles, unpack_described
from molflow_sim.models.coarsenconf.batch import PairBatches, end_of, made_pair
from molflow_sim.models.coarsenconf.data import FILE, prepare, read_pairs
from molflow_sim.models.coarsenconf.graphs import conformer_graph
from molflow_sim.models.coarsenconf.matching import partner
from molflow_sim.models.coarsenconf.settings import CoarsenConfSettings
from molflow_sim.models.coarsenconf.torsions import turned, with_torsions_of

SMALL = CoarsenConfSettings.small()


def graph(smiles: str):
    return conformer_graph(Chem.AddHs(Chem.MolFromSmiles(smiles)))


def rmsd(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    return float(np.sqrt(((x @ kabsch(x, y).T - y) ** 2).sum(1).mean()))


def test_beads_are_decoded_breadth_first_from_the_largest_and_hang_on_earlier_ones():
    # beads: CH3-CH2 | CH2 | phenyl | O-CH3; the ring has most atoms
    g = graph("CCCc1ccc(OC)cc1")
    assert g.n_beads == 4
    first = g.owner[g.rank == 0]
    assert (first == first[0]).all() and (g.rank == 0).sum() == 6
    for i in range(g.n):
        if g.rank[i] == 0:
            assert g.anchor[i] == i
        else:
            assert g.rank[g.anchor[i]] < g.rank[i]
    far = g.rank[[0, 1]]
    assert (far == 3).all()


def test_a_molecule_without_torsions_is_one_bead():
    g = graph("c1ccccc1C")
    assert g.n_beads == 1 and len(g.torsions) == 0 and g.sides.shape == (0, 7)
    assert prepare([ensemble("c1ccccc1C", 1)])[0].starts.shape[1:] == (7, 3)


def test_a_molecule_and_its_mirror_image_have_the_same_features():
    left, right = graph("C[C@H](N)C(=O)NCCO"), graph("C[C@@H](N)C(=O)NCCO")
    assert np.array_equal(left.nodes, right.nodes)
    cis, trans = graph("C/C=C\\CO"), graph("C/C=C/CO")
    assert not np.array_equal(cis.bond_features, trans.bond_features)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-3.1, 3.1), min_size=5, max_size=5))
def test_turning_changes_torsions_by_what_was_asked_and_nothing_else(angles):
    record = pairs_of(MOLECULES[0])
    g, x = record.graph, record.starts[0].astype(float)
    by = np.array(angles[: len(g.torsions)])
    y = turned(g, x, by)
    gap = torsion_angles(y, g.torsions) - torsion_angles(x, g.torsions) - by
    assert np.allclose(np.cos(gap), 1.0, atol=1e-8)
    near = np.nonzero((g.apart > 0) & (g.apart <= 2))
    assert np.allclose(*(np.linalg.norm(z[near[0]] - z[near[1]], axis=1) for z in (x, y)), atol=1e-8)
    assert rmsd(with_torsions_of(g, y, x), x) < 1e-6


def test_a_true_conformer_takes_the_names_and_the_hand_that_lie_best_on_a_start():
    base = ensemble("Cc1ccc(CCO)cc1", 2)
    record = prepare([base])[0]
    g = record.graph
    k, s = np.unravel_index(record.match.rmsd.argmin(), record.match.rmsd.shape)
    other = next(p for p in g.symmetries if not np.array_equal(p, np.arange(g.n)))
    heavy = np.flatnonzero(base.numbers > 1)
    renamed = base.positions.copy()
    renamed[:, heavy] = renamed[:, heavy][:, other]
    mirrored = replace(base, positions=renamed * np.array([1, 1, -1], np.float32))
    again = prepare([mirrored])[0]
    assert np.allclose(again.match.rmsd, record.match.rmsd, atol=1e-4)
    start = record.starts[s]
    assert rmsd(end_of(again, k, s, start), start) == pytest.approx(record.match.rmsd[k, s], abs=1e-4)
    # a molecule with a hand keeps it
    chiral = ensemble(MOLECULES[2], 2)
    wrong = replace(chiral, positions=chiral.positions * np.array([1, 1, -1], np.float32))
    assert prepare([wrong])[0].match.rmsd.min() > prepare([chiral])[0].match.rmsd.min() + 0.1
    assert (prepare([chiral])[0].match.hand == 1).all()


def test_made_starts_have_the_true_torsions_but_for_the_noise():
    record = pairs_of(MOLECULES[0])
    item = made_pair(record, 0.0, np.random.default_rng(0))
    gap = torsion_angles(item.start, record.graph.torsions) - torsion_angles(item.ends[0], record.graph.torsions)
    assert np.allclose(np.cos(gap), 1.0, atol=1e-8)
    loose = [made_pair(record, 60.0, np.random.default_rng(k)) for k in range(5)]
    assert np.mean([rmsd(i.start, i.ends[0]) for i in loose]) > rmsd(item.start, item.ends[0]) + 0.1


def test_matchings_choose_what_they_say():
    table = np.array([[0.1, 2.0, 0.9], [1.0, 0.5, 0.8]])
    rng = np.random.default_rng(0)

    def many(**changes):
        s = replace(SMALL, reach=100.0, **changes)
        return {partner(table, s, rng) for _ in range(200)}

    assert many(matching="nearest") == {(0, 0), (1, 1), (1, 2)}
    assert many(matching="assigned") == {(0, 0), (1, 1)}
    assert len(many(matching="random")) == 6
    assert many(matching="soft", softness=0.01) == many(matching="nearest")
    assert (0, 2) in many(matching="soft", softness=0.5)
    assert {s for _, s in {partner(table, replace(SMALL, reach=0.05), rng) for _ in range(200)}} == {0}


def test_batches_depend_on_seed_and_step_alone():
    records = [pairs_of(s) for s in MOLECULES[:2]]
    a, b = (PairBatches(records, SMALL, 4, 0) for _ in range(2))
    a.batch(1)
    assert np.array_equal(a.batch(3).start, b.batch(3).start) and np.array_equal(a.batch(3).noise, b.batch(3).noise)
    assert not np.array_equal(a.batch(3).noise, PairBatches(records, SMALL, 4, 1).batch(3).noise)


def test_an_archive_gives_the_pairs_back_and_is_added_to(tmp_path):
    folder = write_ensembles(tmp_path / "data")
    first = read_pairs(folder)
    archive = (folder / FILE).read_bytes()
    again = read_pairs(folder / FILE)
    assert again.identity == first.identity and (folder / FILE).read_bytes() == archive
    assert [len(first.of(s)) for s in ("train", "validation", "test")] == [2, 1, 0]
    for a, b in zip(first.records, again.records):
        assert np.array_equal(a.starts, b.starts) and np.array_equal(a.graph.pair_features, b.graph.pair_features)
        assert np.allclose(a.match.local, b.match.local, atol=1e-6)
    block = folder / "conformers_000.npz"
    changed = [replace(e, split="train") for e, _ in unpack_described(block.read_bytes(), "block")]
    block.write_bytes(pack_ensembles(changed))
    more = read_pairs(folder)
    assert len(more.of("train")) == 3 and read_pairs(folder / FILE).identity == more.identity != first.identity
    assert all(np.array_equal(a.starts, b.starts) for a, b in zip(more.records, first.records))
    block.write_bytes(pack_ensembles([replace(e, split="test") for e in changed]))
    assert not len(read_pairs(folder)) and not (folder / FILE).exists(), "nothing is left to train on"
    block.write_bytes(pack_ensembles(changed))
    (folder / FILE).write_bytes(archive[:100])
    with pytest.raises(StoreError, match="remove it"):
        read_pairs(folder)


def test_training_needs_no_chemistry_library(tmp_path):
    folder = write_ensembles(tmp_path / "data")
    read_pairs(folder)
    script = """
        import sys
        from dataclasses import replace
        from molflow_sim.models.coarsenconf import CoarsenConfConfig, CoarsenConfSettings, read_pairs, train_coarsenconf
        from molflow_sim.training.settings import TrainSettings

        short = TrainSettings(max_steps=2, batch_size=2, device="cpu")
        config = CoarsenConfConfig(conf=CoarsenConfSettings.small(), training=short)
        model = train_coarsenconf(read_pairs(sys.argv[1]), config, sys.argv[2], progress=False)
        print("trained", model.card["steps"])
    """
    assert without_chemistry(script, folder / FILE, tmp_path / "mine").strip() == "trained 2"
