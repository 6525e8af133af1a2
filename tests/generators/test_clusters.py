"""Clusters from random places and from PACKMOL: what is asked for, apart, and the same for the same seed."""

import numpy as np
import pytest
from refusals import refuses
from scipy.spatial.distance import cdist

from molflow_sim import MolecularCluster, Molecule, generate
from molflow_sim.errors import InputError, MissingDependencyError, NoCandidatesError, PackingError, RequestError
from molflow_sim.generators.clusters import CrystalFlowClusters, PackmolClusters, RandomClusters
from molflow_sim.generators.protocol import ClusterRequest, make_generator
from molflow_sim.packing.clusters import PACKERS, packmol_cluster, random_cluster
from molflow_sim.testing import validate_generator

WATER = Molecule.from_smiles("O")
ACETAMIDE = Molecule.from_smiles("CC(N)=O")
METHODS = ("random", "packmol")


@pytest.fixture(autouse=True)
def packmol(request):
    if "packmol" in request.node.name:
        pytest.importorskip("packmol")


def closest(cluster: MolecularCluster) -> float:
    """Å between the closest atoms of different molecules."""
    d = cluster.positions[:, None] - cluster.positions
    if cluster.cell is not None:
        edge = cluster.cell[0, 0]
        d -= edge * np.rint(d / edge)
    d = np.linalg.norm(d, axis=-1)
    return float(d[cluster.molecule_index[:, None] != cluster.molecule_index].min())


def test_a_request_counts_the_copies_of_each_molecule():
    assert ClusterRequest(WATER).copies == (17,)
    for copies in ("10,5", (10, 5), [10, 5]):
        assert ClusterRequest((WATER, ACETAMIDE), copies).copies == (10, 5)
    assert ClusterRequest([WATER, ACETAMIDE], 3).copies == (3, 3) == ClusterRequest([WATER, ACETAMIDE], "3").copies


@pytest.mark.parametrize(
    "wrong", [{"copies": (1, 2, 3)}, {"copies": 0}, {"copies": "a"}, {"copies": 1.5}, {"density": 0.0}]
)
def test_copies_that_do_not_match_the_molecules_are_refused(wrong):
    with pytest.raises(InputError):
        ClusterRequest((WATER, ACETAMIDE), **wrong)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("periodic", [False, True], ids=["open", "box"])
def test_the_molecules_asked_for_lie_apart_at_the_density_asked_for(method, periodic):
    cluster = PACKERS[method]((ACETAMIDE, WATER), (6, 4), density=0.5, periodic=periodic, seed=2)
    assert np.array_equal(cluster.order, [0] * 6 + [1] * 4)
    assert closest(cluster) > 1.98  # PACKMOL keeps its tolerance to 0.01 Å
    if periodic:
        assert cluster.density == pytest.approx(0.5) and cluster.cell[0, 0] == cluster.cell[1, 1]
    else:
        volume = cluster.masses.sum() / 0.602214076 / 0.5
        radius = np.linalg.norm(cluster.centres, axis=1).max()
        assert cluster.cell is None and radius < (0.75 * volume / np.pi) ** (1 / 3) + 1e-6
    shapes = [np.sort(cdist(x, x).ravel()) for x in np.split(cluster.positions, cluster.firsts[1:])[:6]]
    conformers = [np.sort(cdist(x, x).ravel()) for x in ACETAMIDE.conformers]
    assert all(min(np.abs(s - c).max() for c in conformers) < 1e-3 for s in shapes), "molecules stay rigid"


def test_molecules_come_in_their_conformers_shares_and_in_both_hands():
    peroxide = Molecule.from_smiles("OO")
    cluster = random_cluster([peroxide], [40], density=0.1)
    bodies = np.split(cluster.positions, cluster.firsts[1:])
    order = np.argsort(peroxide.numbers)  # H, H, O, O
    hands = [np.sign(np.linalg.det(x[order][1:] - x[order][0])) for x in bodies]
    assert 8 < hands.count(1.0) < 32


@pytest.mark.parametrize("method", METHODS)
def test_generators_of_clusters_keep_to_the_protocol(method):
    generator = make_generator("clusters", method)
    validate_generator(generator, ClusterRequest((ACETAMIDE, WATER), (2, 2)), n=6)


def test_no_place_is_a_reason_and_not_an_error():
    drawn = RandomClusters().sample(ClusterRequest(ACETAMIDE, 20, density=2.0, periodic=True), 1, seed=0)
    assert drawn.systems() == [None] and "ask for a lower density" in drawn.reasons[0]
    refuses(PackingError, "20 molecules at 2 g", random_cluster, [ACETAMIDE], [20], density=2.0, periodic=True)
    refuses(
        NoCandidatesError, "lower density", generate, "clusters", ACETAMIDE, 1, copies=20, density=2.0, periodic=True
    )


def test_packmol_that_finds_no_packing_or_is_too_slow_says_so():
    with pytest.raises(PackingError, match="found no packing"):
        packmol_cluster([WATER], [6], density=30.0)
    with pytest.raises(PackingError, match="not within"):
        packmol_cluster([ACETAMIDE], [12], density=0.9, timeout=0.001)


def test_without_packmol_the_command_that_installs_it_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "packmol.cli", None)
    refuses(MissingDependencyError, r"molflow-sim\[packmol\]", packmol_cluster, [WATER], [2])


def test_generate_gives_clusters_with_their_provenance():
    found = generate("clusters", ["CC(N)=O", "O"], 2, copies=(3, 2), seed=4, periodic=True, density=0.3)
    assert [c.info["candidate"] for c in found] == [0, 1] and found[0].info["generator"] == "random"
    assert found[0].formula == "(C2H5NO)3(H2O)2" and found[0].info["density_g_per_cm3"] == pytest.approx(0.3)
    refuses(InputError, "tolerance", generate, "clusters", "O", 1, tolerance=-1.0)
    refuses(InputError, "only crystals", generate, "clusters", "O", 1, press=True)
    assert PackmolClusters().identity() != RandomClusters().identity()


def test_pieces_of_packings_keep_to_the_protocol():
    validate_generator(CrystalFlowClusters(pool=2), ClusterRequest(ACETAMIDE, 5), n=6)


def test_the_lowest_of_more_packings_lies_lower_and_is_dense_and_free_of_contacts():
    request = ClusterRequest(ACETAMIDE, 17)
    (one,), (many,) = (CrystalFlowClusters(pool=k).sample(request, 1, seed=0).systems() for k in (1, 12))
    assert one.n_molecules == many.n_molecules == 17 and one.cell is None
    assert min(closest(one), closest(many)) > 1.5
    assert many.info["lattice_energy_kj_per_mol"] < one.info["lattice_energy_kj_per_mol"] < 0.0


def test_pieces_of_packings_are_open_and_of_one_molecule_and_a_density_is_ignored_aloud():
    pieces = CrystalFlowClusters(pool=1)
    refuses(RequestError, "one molecule", pieces.sample, ClusterRequest((WATER, ACETAMIDE), 4), 1, seed=0)
    refuses(RequestError, "one molecule", pieces.sample, ClusterRequest(WATER, 4, periodic=True), 1, seed=0)
    with pytest.warns(UserWarning, match="their own density"):
        pieces.sample(ClusterRequest(ACETAMIDE, 4, density=0.8), 1, seed=0)
    refuses(InputError, "pool", CrystalFlowClusters, pool=0)
