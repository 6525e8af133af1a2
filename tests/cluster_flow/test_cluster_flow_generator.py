"""The cluster flow as a generator and on the command line."""

import numpy as np
import pytest
import torch
from refusals import refuses
from scipy.spatial.distance import cdist

from molflow_sim import MolecularCluster, Molecule, generate, load_model, parametrize
from molflow_sim.errors import RequestError, WeightsError
from molflow_sim.evaluate import packing_similarity
from molflow_sim.evaluate.clusters import contacts
from molflow_sim.generators.protocol import ClusterRequest, CrystalRequest, Drawn
from molflow_sim.models.cluster_flow import ClusterFlow, ClusterFlowSettings
from molflow_sim.models.cluster_flow.crystals import ClusterFlowCrystals
from molflow_sim.models.cluster_flow.generator import ClusterFlowGenerator
from molflow_sim.packing import press, random_packings
from molflow_sim.testing import validate_generator
from molflow_sim.training.model import save_model

FORMAMIDE = Molecule.from_smiles("NC=O")


def weights(folder, seed=0, **settings):
    """Untrained weights in a folder."""
    torch.manual_seed(seed)
    small = ClusterFlowSettings(width=8, layers=1, radial=4, steps=3, **settings)
    save_model(folder, ClusterFlow(small, {"range": {"max_atoms": 5, "molecules": 17}}))
    return str(folder)


@pytest.mark.filterwarnings("ignore:.*beyond the trained range")
def test_it_keeps_to_the_protocol(tmp_path):
    generator = ClusterFlowGenerator(weights(tmp_path / "a"))
    other = ClusterFlowGenerator(weights(tmp_path / "b", seed=1))
    validate_generator(generator, ClusterRequest(FORMAMIDE, 4), n=6, others=[other])


def test_molecules_keep_their_shape_and_one_that_is_too_large_is_said(tmp_path):
    with pytest.warns(UserWarning, match="6 atoms are beyond the trained range \\(at most 5\\)"):
        (made,) = generate("clusters", FORMAMIDE, 1, copies=5, method="cluster-flow", weights=weights(tmp_path))
    shape = np.sort(cdist(FORMAMIDE.conformers[0], FORMAMIDE.conformers[0]).ravel())
    for x in np.split(made.positions, made.firsts[1:]):
        np.testing.assert_allclose(np.sort(cdist(x, x).ravel()), shape, atol=1e-4)
    assert made.info["weights"].startswith("sha256:") and made.n_molecules == 5


def test_another_density_of_the_start_is_used_and_said(tmp_path):
    folder, water = weights(tmp_path), Molecule.from_smiles("O")
    options = {"copies": 4, "method": "cluster-flow", "weights": folder}
    with pytest.warns(UserWarning, match="starts of 0.5 g/cm³, not 0.1"):
        (loose,) = generate("clusters", water, 1, density=0.1, **options)
    (dense,) = generate("clusters", water, 1, **options)
    assert np.ptp(loose.centres, axis=0).max() > np.ptp(dense.centres, axis=0).max()


def test_molecules_upon_each_other_are_a_reason(tmp_path, monkeypatch):
    generator = ClusterFlowGenerator(weights(tmp_path))
    monkeypatch.setattr(ClusterFlow, "move", lambda self, numbers, start, **_: 0.1 * start)
    drawn = generator.sample(ClusterRequest(Molecule.from_smiles("O"), 3), 2, seed=0)
    assert drawn.systems() == [None, None] and "upon each other" in drawn.reasons[0]


def test_the_weights_that_come_with_the_package_make_separate_whole_molecules():
    (made,) = generate("clusters", FORMAMIDE, 1, copies=17, method="cluster-flow", seed=1)
    assert made.n_molecules == 17 and not contacts(FORMAMIDE.numbers, made.positions.reshape(17, -1, 3)).collision
    assert np.linalg.norm(made.centres - made.centres.mean(0), axis=1).mean() < 8.0


def test_without_weights_it_says_how_to_get_some(monkeypatch, tmp_path):
    monkeypatch.setattr("molflow_sim.generators.trained.packaged", lambda _: tmp_path / "none")
    refuses(WeightsError, "molflow train cluster-flow", ClusterFlowGenerator().load)


def test_what_it_cannot_make_is_refused(tmp_path):
    generator = ClusterFlowGenerator(weights(tmp_path / "a"))
    two = ClusterRequest((FORMAMIDE, Molecule.from_smiles("O")), 2)
    refuses(RequestError, "one molecule", generator.sample, two, 1, seed=0)
    refuses(RequestError, "one molecule", generator.sample, ClusterRequest(FORMAMIDE, periodic=True), 1, seed=0)
    atoms = ClusterFlowGenerator(weights(tmp_path / "b", variant="lerp"))
    refuses(RequestError, "lerp", atoms.sample, ClusterRequest(FORMAMIDE), 1, seed=0)


@pytest.mark.filterwarnings("ignore:.*beyond the trained range")
def test_crystals_of_clusters_keep_to_the_protocol(tmp_path):
    generator = ClusterFlowCrystals(weights(tmp_path / "a"), copies=8)
    other = ClusterFlowCrystals(weights(tmp_path / "b", seed=1), copies=8)
    validate_generator(generator, CrystalRequest(FORMAMIDE), n=6, others=[other])


def test_a_cluster_cut_out_of_a_crystal_becomes_that_crystal(tmp_path, monkeypatch):
    molecule = Molecule.from_smiles("NC=O", n_conformers=1)
    crystal = random_packings(
        molecule, 1, space_groups=["P 1 21/c 1"], seed=1, packing_coefficient=(0.7, 0.74)
    ).crystal(0)  # fmt: skip
    cut = MolecularCluster.from_crystal(crystal)
    drawn = Drawn(np.arange(3, 5), [cut, None], ["", "molecules upon each other from 4 starts"])
    monkeypatch.setattr(ClusterFlowGenerator, "sample", lambda self, request, n, **_: drawn)
    made = ClusterFlowCrystals().sample(CrystalRequest(molecule), 2, seed=0, first_index=3)
    assert made.reasons == ["", "not generated"] and made.index.tolist() == [3, 4]
    match = packing_similarity(crystal, made.crystal(0))
    assert match.n_matched == 15 and match.rmsd < 0.05
    strict = ClusterFlowCrystals(misfit=1e-6).sample(CrystalRequest(molecule), 2, seed=0, first_index=3)
    assert strict.reasons == ["no lattice implied", "not generated"] and strict.systems() == [None, None]
    pressed = press(strict, parametrize(molecule))
    assert pressed.reasons == strict.reasons and np.isnan(pressed.energy).all()


def test_crystals_of_several_independent_molecules_are_refused():
    refuses(
        RequestError, "one independent", ClusterFlowCrystals().sample, CrystalRequest(FORMAMIDE, z_prime=2), 1, seed=0
    )


def test_a_flow_is_trained_from_the_command_line(molflow, tmp_path, data):
    data.save(tmp_path / "data" / "clusters.npz")
    settings = "flow: {width: 8, layers: 1, radial: 4, steps: 2}\ntraining: {batch_size: 2, validate_every: 2}\n"
    (tmp_path / "s.yaml").write_text(settings)
    code, _, err = molflow(
        "train", "cluster-flow", tmp_path / "data", "-o", tmp_path / "mine", "--config", tmp_path / "s.yaml",
        "--steps", 3, "-q",
    )  # fmt: skip
    assert code == 0, err
    assert load_model(tmp_path / "mine").card["steps"] == 3
    words = ("generate", "clusters", "C=O", "--copies", 3, "-n", 2, "--method", "cluster-flow")
    code, out, err = molflow(*words, "--weights", tmp_path / "mine", "-o", tmp_path / "out.extxyz")
    assert code == 0 and "2 clusters (CH2O)3" in out, err
