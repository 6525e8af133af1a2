"""Clusters cut out of CIFs and packings: what qualifies, reasons for the rest, the starts, and files that agree."""

import csv
from functools import partial

import numpy as np
import pytest
from refusals import refuses
from scipy.spatial.distance import cdist
from special_positions import UREA, general, special

from molflow_sim import MolecularCluster, MolecularCrystal
from molflow_sim.dataset.clusters import ClusterSettings, build_cluster_dataset, loosened
from molflow_sim.errors import InputError
from molflow_sim.models.cluster_flow.data import Poses, read_clusters


@pytest.fixture(scope="module")
def cifs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifs")
    (folder / "urea.cif").write_text(UREA)
    (folder / "acid.cif").write_text(
        general("CC(=O)O", "P 1 21/c 1", (7, 6, 8, 90, 110, 90), (0.2, 0.15, 0.3)).to_cif()
    )
    (folder / "benzene.cif").write_text(special("inversion").to_cif())
    (folder / "broken.cif").write_text("data_x\n_cell_length_a 5\n")
    return folder


def test_a_cluster_is_that_of_the_crystal_and_what_does_not_qualify_has_a_reason(cifs, tmp_path):
    build = partial(build_cluster_dataset, tmp_path / "data", cifs=cifs, csv=True, progress=False)
    summary = build(settings=ClusterSettings(size=9))
    assert (summary.clusters, summary.molecules, summary.dropped) == (3, 3, 1)
    data = read_clusters(tmp_path / "data")
    assert data.size == 9
    for record in data.records:
        cluster = MolecularCluster.from_crystal(MolecularCrystal.from_cif(cifs / record.source), 9)
        made = record.end.positions(record.body).reshape(-1, 3)
        np.testing.assert_allclose(made, cluster.positions, atol=0.02)
        name = f"{record.name}_cluster8"
        final = MolecularCluster.from_csv(tmp_path / "data" / "FinalPositions" / f"{name}.csv")
        np.testing.assert_allclose(final.positions, made, atol=1e-5)
        start = (tmp_path / "data" / "InitialPositions" / f"{name}_noised.csv").read_text().splitlines()
        assert len(start) == len(made) + 1
    hands = {r.name: set(r.end.hand) for r in data.records}
    assert hands["urea"] == {1.0}, "flat molecules have one hand"
    symmetry = {r.name: len(r.symmetry) for r in data.records}
    assert symmetry["benzene"] == 12 and symmetry["urea"] == 2 and symmetry["acid"] == 1
    with open(tmp_path / "data" / "dropped.csv") as file:
        (row,) = csv.DictReader(file)
    assert row["source"] == "broken.cif" and row["reason"]
    before = (tmp_path / "data" / "clusters.npz").read_bytes()
    assert build(settings=ClusterSettings(size=9)).clusters == 3
    assert (tmp_path / "data" / "clusters.npz").read_bytes() == before


def test_starts_are_as_loose_as_the_settings_say():
    n = 4000
    end = Poses(np.zeros((n, 3)), np.repeat(np.eye(3)[None], n, 0), np.ones(n))
    start = loosened(end, ClusterSettings(translation=2.0, rotation=90.0, inversion=0.5), np.random.default_rng(0))
    assert start.centre.std() == pytest.approx(2.0, rel=0.05) and abs(start.hand.mean()) < 0.05
    angles = np.degrees(np.arccos(np.clip((np.trace(start.rotation, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert angles.max() < 90.001 and angles.mean() == pytest.approx(45.0, abs=2.0)
    x = Poses(end.centre, end.rotation, -end.hand).positions(np.ones((1, 3)))
    assert np.all(x == -1.0)


def test_molecules_on_a_list_are_for_the_test_and_nothing_that_qualifies_is_an_error(cifs, tmp_path):
    (tmp_path / "list.smi").write_text("NC(N)=O\nCC(O)=O\nc1ccccc1\n")
    options = {"cifs": cifs, "exclude": tmp_path / "list.smi", "progress": False}
    build_cluster_dataset(tmp_path / "data", settings=ClusterSettings(size=3), **options)
    assert {r.split for r in read_clusters(tmp_path / "data").records} == {"test"}
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.cif").write_text("data_x\n")
    with pytest.raises(InputError, match="none of 1 crystals qualifies"):
        build_cluster_dataset(tmp_path / "none", cifs=tmp_path / "bad", progress=False)
    with pytest.raises(InputError, match="no crystals are given"):
        build_cluster_dataset(tmp_path / "none", progress=False)
    for wrong in ({"translation": np.nan}, {"rotation": 200.0}, {"seed": -1}, {"size": 1}):
        refuses(InputError, next(iter(wrong)), ClusterSettings, **wrong)


def test_a_crystal_on_which_a_library_fails_is_a_row_and_not_the_end(cifs, tmp_path, monkeypatch):
    def fail(settings, *, name, **_):
        raise RuntimeError(f"inside, at {name}")

    monkeypatch.setattr("molflow_sim.dataset.clusters.record_of", fail)
    with pytest.raises(InputError, match="none of 4 crystals qualifies"):
        build_cluster_dataset(tmp_path / "out", cifs=cifs, progress=False)
    with open(tmp_path / "out" / "dropped.csv") as file:
        reasons = {row["name"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons["urea"] == "RuntimeError: inside, at urea" and "Error" in reasons["broken"]


def test_what_dynamics_and_packed_data_would_not_hear_is_refused(molflow, tmp_path):
    (tmp_path / "a.smi").write_text("CCO\n")
    exclude = ("--exclude", tmp_path / "a.smi", "-o", tmp_path / "out")
    for words in (("clusters", "--md", "CCO"), ("conformers", "--pack", tmp_path)):
        code, _, err = molflow("dataset", *words, *exclude)
        assert code == 2 and "--exclude" in err and not (tmp_path / "out").exists()


def test_packings_of_our_own_search_give_clusters_with_their_energies(molflow, tmp_path):
    (tmp_path / "a.smi").write_text("NC=O formamide\n")
    code, _, err = molflow(
        "dataset", "crystals", tmp_path / "a.smi", "-o", tmp_path / "packings", "-n", 30, "-g", "P-1,P21/c",
        "--processes", 1, "-q",
    )  # fmt: skip
    assert code == 0, err
    code, out, err = molflow(
        "dataset", "clusters", "--from-packings", tmp_path / "packings", "--size", 5, "-o", tmp_path / "clusters"
    )
    assert code == 0 and "of 1 molecules" in out, err
    data = read_clusters(tmp_path / "clusters")
    energies = [r.relative_energy for r in data.records]
    assert min(energies) == 0.0 < max(energies) < 16.0 and not data.records[0].experimental
    for record in data.records:
        x = record.end.positions(record.body)
        assert min(cdist(x[0], y).min() for y in x[1:]) > 1.2, "molecules of a packing do not overlap"
    code, _, err = molflow("dataset", "clusters", "-o", tmp_path / "nothing")
    assert code == 2 and "no crystals are given" in err
