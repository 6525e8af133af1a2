"""Clusters of anybody, ranked: relaxed, merged whatever molecules are called, with reasons for what is left out."""

import csv
from functools import partial

import ase.io
import numpy as np
import pytest
from refusals import refuses
from scipy.spatial.transform import Rotation
from special_positions import special

from molflow_sim import MolecularCluster, Molecule, rank
from molflow_sim.errors import InputError, NoCandidatesError
from molflow_sim.packing.clusters import random_cluster
from molflow_sim.relax import clusters
from molflow_sim.screening import rank_clusters
from molflow_sim.screening.clusters import same_cluster
from molflow_sim.systems.collect import find_crystals

WATER, FORMAMIDE = Molecule.from_smiles("O"), Molecule.from_smiles("NC=O")


def loose(seed: int, molecules=(FORMAMIDE,), copies=(3,)) -> MolecularCluster:
    return random_cluster(molecules, copies, density=0.6, seed=seed)


def disguised(cluster: MolecularCluster, seed: int = 0) -> MolecularCluster:
    """Turned, moved, mirrored, and its molecules in another order."""
    rng = np.random.default_rng(seed)
    x = cluster.positions.reshape(cluster.n_molecules, -1, 3)[rng.permutation(cluster.n_molecules)]
    return cluster.with_positions(-x.reshape(-1, 3) @ Rotation.random(random_state=seed).as_matrix().T + 3.0)


def test_a_cluster_in_disguise_is_the_same_and_another_is_not():
    cluster = loose(1)
    assert same_cluster(cluster, disguised(cluster)) and not same_cluster(cluster, loose(2))
    mixture = loose(1, (FORMAMIDE, WATER), (2, 2))
    turned = mixture.with_positions(mixture.positions @ Rotation.random(random_state=1).as_matrix().T)
    assert same_cluster(mixture, turned) and not same_cluster(mixture, loose(2, (FORMAMIDE, WATER), (2, 2)))


def test_clusters_are_relaxed_merged_ranked_and_written_and_a_second_call_repeats_nothing(tmp_path, molflow):
    frames = [c.to_ase() for c in (loose(1), loose(2), disguised(loose(1)), loose(3))]
    ase.io.write(tmp_path / "a.extxyz", frames)
    words = ("rank", tmp_path / "a.extxyz", "-o", tmp_path / "out", "--relax", "--energy", "potential")
    code, out, err = molflow(*words)
    assert code == 0, err
    with open(tmp_path / "out" / "ranking.csv") as file:
        rows = list(csv.DictReader(file))
    energies = [float(r["relative_energy_kj_per_mol"]) for r in rows]
    assert energies == sorted(energies) and energies[0] == 0.0 and all(r["converged"] == "True" for r in rows)
    assert sum(int(r["copies"]) for r in rows) == 4 and len(rows) <= 3, "the disguised one is merged"
    lowest = ase.io.read(tmp_path / "out" / "structures" / "rank_001.extxyz")
    assert MolecularCluster.from_atoms(lowest).n_molecules == 3 and lowest.info["rank"] == 1
    assert "clusters ranked" in out and "a.extxyz:" in (tmp_path / "out" / "report.html").read_text()
    before = (tmp_path / "out" / "store" / "manifest.jsonl").read_text()
    assert molflow(*words)[0] == 0
    assert (tmp_path / "out" / "store" / "manifest.jsonl").read_text() == before


def test_as_given_energies_are_those_of_the_atoms_and_nothing_moves(tmp_path):
    start = loose(1)
    found = list(find_crystals([start.to_ase(), start.with_positions(1.02 * start.positions).to_ase()][:1]))
    ranking = rank_clusters(found, "potential", output=tmp_path / "out", progress=False)
    from molflow_ase import ClusterCalculator

    atoms = start.to_ase()
    atoms.calc = ClusterCalculator(start)
    (entry,) = ranking.entries
    assert 3 * entry.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    np.testing.assert_allclose(entry.cluster.positions, start.positions)


def test_best_ranks_clusters_too(tmp_path):
    water = random_cluster([WATER], [2], density=0.3, seed=1)
    ranking = rank_clusters(list(find_crystals(water)), "best", True, output=tmp_path / "out", progress=False)
    (entry,) = ranking.entries
    assert entry.converged and entry.energy != entry.potential_energy


def test_what_cannot_be_ranked_together_is_said(tmp_path, molflow):
    refuses(InputError, "rank_clusters", rank, loose(1))
    both = list(find_crystals([loose(1), loose(2, copies=(2,))]))
    refuses(InputError, "energies are compared between clusters of the same", rank_clusters, both, "potential")
    refuses(InputError, "not by 'fit'", rank_clusters, both[:1], "fit")
    refuses(InputError, "no clusters are given", rank_clusters, [])
    refuses(InputError, "top", rank_clusters, both[:1], "potential", top=-1)
    crystal = list(find_crystals(special("inversion")))
    refuses(NoCandidatesError, "is a cluster", rank_clusters, crystal, "potential")
    mixed = rank_clusters([*both[:1], *crystal], "potential", output=tmp_path / "out", progress=False)
    assert len(mixed.entries) == 1 and "a crystal among clusters" in mixed.dropped[0].reason
    ase.io.write(tmp_path / "a.extxyz", loose(1).to_ase())
    code, _, err = molflow("rank", tmp_path / "a.extxyz", "-o", tmp_path / "o", "--relax", "-T", 300)
    assert code == 2 and "no lattice vibrations" in err


def test_a_cluster_on_which_a_library_fails_has_a_reason_and_is_tried_again(tmp_path, monkeypatch):
    found = list(find_crystals([loose(1), loose(2)]))
    single = clusters.single_point

    def fail(cluster, model):
        if np.array_equal(cluster.positions, found[1].cluster.positions):
            raise RuntimeError("out of memory")
        return single(cluster, model)

    call = partial(rank_clusters, found, "potential", output=tmp_path / "out", progress=False)
    with monkeypatch.context() as patched:
        patched.setattr(clusters, "single_point", fail)
        ranking = call()
    assert len(ranking.entries) == 1 and ranking.dropped[0].reason == "RuntimeError: out of memory"
    assert len(call().entries) == 2


def test_energies_of_other_packages_rank_clusters_of_several_molecules_where_the_force_field_leaves_them(tmp_path):
    pytest.importorskip("tblite", reason="GFN2-xTB needs the extra xtb")
    from tblite.ase import TBLite

    start = loose(1, (FORMAMIDE, WATER), (1, 2))
    found = list(find_crystals([start.to_ase()]))
    (plain,) = rank_clusters(found, "gfn2-xtb", output=tmp_path / "plain", progress=False).entries
    atoms = start.to_ase()
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    assert 3 * plain.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    (relaxed,) = rank_clusters(found, "gfn2-xtb", relax=True, output=tmp_path / "relaxed", progress=False).entries
    assert relaxed.converged and relaxed.energy < plain.energy and relaxed.max_force < 0.02
