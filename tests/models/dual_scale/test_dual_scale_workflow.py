"""From frames to weights to whole molecules: training that is killed, hydrogens, relaxation, failures with reasons."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from frame_examples import write_frames
from hypothesis import given
from hypothesis import strategies as st

from molflow_sim import Molecule, generate
from molflow_sim.dataset.train import train
from molflow_sim.errors import RequestError, StoreError
from molflow_sim.flow.placing import sphere_radius
from molflow_sim.generators.protocol import ClusterRequest
from molflow_sim.models.dual_scale import DualScale, DualScaleConfig, DualScaleSettings, read_frames, train_dual_scale
from molflow_sim.models.dual_scale.blocks import block_rows, joined
from molflow_sim.models.dual_scale.completion import completed, failure, relaxed, with_hands, with_hydrogens
from molflow_sim.models.dual_scale.generator import DualScaleGenerator, _warn_of_others
from molflow_sim.models.dual_scale.paths import PathBatches
from molflow_sim.packing.clusters import random_cluster
from molflow_sim.systems.cluster import MolecularCluster
from molflow_sim.testing import validate_generator
from molflow_sim.training import TrainSettings
from molflow_sim.training.model import load_model, packaged
from molflow_sim.units import AMU_PER_A3

CONFIG = DualScaleConfig(
    flow=DualScaleSettings.small(),
    bead_batch=2,
    training=TrainSettings(max_steps=6, checkpoint_minutes=0.0, validate_every=3, ema_decay=0.9, device="cpu"),
)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_frames(tmp_path_factory.mktemp("frames") / "butane.npz", "CCCC", copies=3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, source):
    folder = tmp_path_factory.mktemp("weights")
    train("dual-scale", source, folder, config=CONFIG, progress=False)
    return folder


def test_a_killed_training_ends_with_the_same_weights_bit_for_bit(tmp_path, source, weights, monkeypatch):
    whole = load_model(weights).state_dict()
    draw = PathBatches.batch

    def stop(self, step):
        if step == 4:
            raise Killed
        return draw(self, step)

    monkeypatch.setattr(PathBatches, "batch", stop)
    with pytest.raises(Killed):
        train("dual-scale", source, tmp_path, config=CONFIG, progress=False)
    monkeypatch.undo()
    resumed = train("dual-scale", source, tmp_path, config=CONFIG, progress=False).state_dict()
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_a_folder_that_holds_a_training_on_other_frames_is_refused(tmp_path, source, weights):
    other = read_frames(write_frames(tmp_path / "other.npz", "CCCC", copies=3, seed=1))
    with pytest.raises(StoreError):
        train_dual_scale(other, CONFIG, weights, progress=False)


def test_the_card_tells_spreads_range_and_frames(weights):
    card = load_model(weights, "dual-scale").card
    assert card["range"] == {"molecules": 3, "heavy_atoms": 4} and card["data"]["systems"] == ["3 x CCCC"]
    assert card["settings"]["atoms"]["sigma"] > 0.3 and card["data"]["frames"] == 32


def test_the_command_line_trains_on_frames_and_generates_with_the_weights(molflow, tmp_path, source):
    CONFIG.to_yaml(tmp_path / "config.yaml")
    code, _, _ = molflow("train", "dual-scale", source, "-o", tmp_path / "mine", "--config", tmp_path / "config.yaml")
    assert code == 0 and isinstance(load_model(tmp_path / "mine"), DualScale)


def test_the_generator_keeps_its_protocol(weights):
    generator = DualScaleGenerator(weights=str(weights), relax=0, check=False)
    validate_generator(generator, ClusterRequest(Molecule.from_smiles("CCCC", n_conformers=1), copies=3), n=6)


def test_clusters_come_with_all_their_atoms_and_a_box_is_refused(weights):
    clusters = generate("clusters", "CCCC", 2, method="dual-scale", weights=weights, copies=3, relax=20, check=False)
    assert all(len(c.numbers) == 42 and (c.numbers == 1).sum() == 30 for c in clusters)
    with pytest.raises(RequestError, match="open space"):
        generate("clusters", "CCCC", 1, method="dual-scale", weights=weights, copies=3, periodic=True)


def test_a_larger_cluster_comes_in_blocks_that_are_apart(weights):
    asked = {"method": "dual-scale", "weights": weights, "relax": 0, "check": False, "seed": 2}
    (whole,) = generate("clusters", "CCCC", 1, copies=7, block=3, density=0.3, **asked)
    owner = whole.molecule_index
    between = np.linalg.norm(whole.positions[:, None] - whole.positions, axis=2)
    rows = block_rows(np.zeros(7, int), 3)
    assert sorted(np.concatenate(rows)) == list(range(7)) and max(map(len, rows)) == 3
    block = np.empty(7, int)
    for k, own in enumerate(rows):
        block[own] = k
    apart = block[owner][:, None] != block[owner]
    assert between[apart].min() > 1.99
    with pytest.warns(UserWarning, match="beyond the trained range"):
        generate("clusters", "CCCC", 1, copies=7, block=0, **asked)


def test_joined_and_relaxed_blocks_lie_in_a_sphere_of_the_density_asked_for():
    butane = Molecule.from_smiles("CCCC", n_conformers=1)
    order, rows = np.zeros(12, int), block_rows(np.zeros(12, int), 3)
    blocks = [random_cluster([butane], [3], density=0.3, seed=k) for k in range(4)]
    for density in (0.2, 0.4):
        whole = joined((butane,), order, rows, blocks, density, np.random.default_rng(0))
        radius = sphere_radius(AMU_PER_A3 * float(whole.masses.sum()) / density)
        assert np.linalg.norm(whole.positions, axis=1).max() < radius + 0.3
        assert failure(whole) == ""


def test_every_block_is_drawn_again_by_itself_and_more_often_where_there_are_many(weights, monkeypatch):
    drawn, refused = [], []
    sample = DualScale.sample
    monkeypatch.setattr(DualScale, "sample", lambda *a, **k: drawn.append(k["draw"]) or sample(*a, **k))
    monkeypatch.setattr("molflow_sim.models.dual_scale.completion.wrong_stereo", lambda _: "")

    def faulty(cluster):
        if cluster.n_molecules == 3 and len(refused) % 3 < 2:  # two of three draws of a block
            refused.append(cluster)
            return "a fault"
        refused.append(None)
        return ""

    monkeypatch.setattr("molflow_sim.models.dual_scale.completion.failure", faulty)
    request = ClusterRequest(Molecule.from_smiles("CCCC", n_conformers=1), copies=12)
    made = DualScaleGenerator(weights=str(weights), relax=0).sample(request, 1, seed=0)
    assert made.systems()[0] is not None
    assert drawn == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    monkeypatch.setattr("molflow_sim.models.dual_scale.completion.failure", lambda _: "a fault")
    drawn.clear()
    assert DualScaleGenerator(weights=str(weights), relax=0).sample(request, 1, seed=0).reasons == ["a fault"]
    assert drawn == [0, 4, 8, 12, 16, 20]


@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=3), most=st.integers(1, 9))
def test_blocks_hold_every_molecule_once_and_all_species_evenly(counts, most):
    order = np.repeat(np.arange(len(counts)), counts)
    rows = block_rows(order, most)
    assert sorted(np.concatenate(rows)) == list(range(len(order))) and max(map(len, rows)) <= most
    shares = np.array([np.bincount(order[r], minlength=len(counts)) for r in rows])
    assert (np.ptp(shares, axis=0) <= 1).all()


def test_no_conformers_are_searched_for_that_the_flow_does_not_use(weights):
    (cluster,) = generate("clusters", "CCCC", 1, method="dual-scale", weights=weights, copies=3, relax=0, check=False)
    assert len(cluster.species[0].conformers) == 1 and np.isnan(cluster.species[0].energies).all()


def test_nor_by_the_command_line(molflow, tmp_path, weights, monkeypatch):
    monkeypatch.setattr("molflow_sim.systems.molecule.crystal_conformers", lambda *_: pytest.fail("a search"))
    (tmp_path / "butane.smi").write_text("CCCC\n")
    options = ["--copies", 3, "-n", 1, "--method", "dual-scale", "--weights", weights, "--option", "relax=0"]
    for molecule in ("CCCC", tmp_path / "butane.smi"):
        out = tmp_path / f"{Path(molecule).stem}.extxyz"
        code, _, err = molflow("generate", "clusters", molecule, *options, "--option", "check=false", "-o", out)
        assert code == 0, err


def test_a_molecule_that_was_not_trained_on_is_named(weights):
    generator = DualScaleGenerator(weights=str(weights), relax=0, check=False)
    with pytest.warns(UserWarning, match="CCO was not trained on"):
        generator.sample(ClusterRequest(Molecule.from_smiles("CCO", n_conformers=1), copies=2), 1, seed=0)


def test_another_stereoisomer_of_what_was_trained_on_is_said_to_be_one(weights, monkeypatch):
    flow = DualScaleGenerator(weights=str(weights)).load()
    monkeypatch.setitem(flow.card, "data", {"systems": ["2 x C[C@H](N)C(=O)O"]})
    with pytest.warns(UserWarning, match="another stereoisomer than trained on"):
        _warn_of_others(flow, ["C[C@@H](N)C(=O)O"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _warn_of_others(flow, ["C[C@H](N)C(=O)O"])


# ------------------------------------------------------------------ completion


@pytest.mark.parametrize("smiles", ["CCO", "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "FC=C", "C"])
def test_hydrogens_come_back_where_they_were(smiles):
    molecule = Molecule.from_smiles(smiles, n_conformers=1)
    heavy = molecule.numbers > 1
    x = with_hydrogens(molecule.rdmol, molecule.conformers[0][heavy])
    assert np.array_equal(x[heavy], molecule.conformers[0][heavy])
    i, j = molecule.bonds.T
    lengths = [np.linalg.norm(p[i] - p[j], axis=1) for p in (x, molecule.conformers[0])]
    assert np.abs(lengths[0] - lengths[1]).max() < 0.1
    apart = np.linalg.norm(x[:, None] - x[None], axis=-1)[np.triu_indices(len(x), 1)]
    assert apart.min() > 0.9


def two(smiles: str, shift: float) -> MolecularCluster:
    molecule = Molecule.from_smiles(smiles, n_conformers=1)
    x = molecule.conformers[0][molecule.numbers > 1]
    return completed([molecule], np.zeros(2, int), np.concatenate([x, x + np.array([0.0, 0.0, shift])]))


def test_relaxation_parts_molecules_that_overlap_and_keeps_their_hands():
    cluster = two("C[C@H](N)C(=O)O", 2.5)
    assert "clash" in failure(cluster)
    assert failure(relaxed(cluster)) == ""


def test_a_centre_on_the_wrong_side_of_its_neighbours_is_put_right():
    molecule = Molecule.from_smiles("CC[C@H](N)C(=O)O", n_conformers=1)
    heavy = molecule.conformers[0][molecule.numbers > 1]
    assert np.array_equal(with_hands(molecule.rdmol, heavy), heavy)
    righted = completed([molecule], np.zeros(1, int), heavy * [1, 1, -1])
    assert failure(righted) == "" and failure(relaxed(righted)) == ""


def test_a_centre_in_the_plane_of_its_neighbours_gets_the_hand_that_was_asked_for():
    molecule = Molecule.from_smiles("CC[C@H](N)C(=O)O", n_conformers=1)
    heavy = molecule.conformers[0][molecule.numbers > 1].copy()
    heavy[2] = heavy[[1, 3, 4]].mean(0)
    righted = completed([molecule], np.zeros(1, int), heavy)
    assert failure(righted) == "" and failure(relaxed(righted)) == ""


def test_a_wrong_hand_a_wrong_double_bond_and_a_speared_ring_are_named():
    hand = two("C[C@H](N)C(=O)O", 9.0)
    assert failure(hand) == ""
    assert "stereochemistry" in failure(hand.with_positions(hand.positions * [1, 1, -1]))
    z = two(r"F/C=C\F", 9.0)
    e = Molecule.from_smiles("F/C=C/F", n_conformers=1)
    assert "stereochemistry" in failure(replace(z, species=(e,)))
    flat = two("c1ccccc1", 9.0)
    ring = flat.positions[:12] - flat.positions[:6].mean(0)
    normal = np.linalg.svd(ring)[2][2]
    ethane = Molecule.from_smiles("CC", n_conformers=1)
    x = ethane.conformers[0]
    axis = x[1] - x[0]
    turn = _onto(axis / np.linalg.norm(axis), normal)
    speared = MolecularCluster((flat.species[0], ethane), np.array([0, 1]), np.concatenate([ring, x @ turn.T]))
    assert "clash" in failure(speared) or "speared" in failure(speared)


def _onto(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The rotation that takes one unit vector to another."""
    v, c = np.cross(a, b), float(a @ b)
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + k + k @ k / (1.0 + c)


@pytest.mark.parametrize(("name", "molecule"), [("", "Y6"), ("-benzene", "benzene")])
def test_the_shipped_weights_are_small_and_say_what_they_hold_for(name, molecule):
    folder = packaged(f"dual-scale{name}")
    flow = load_model(folder, "dual-scale")
    assert len((folder / "dual_scale.safetensors").read_bytes()) < 2e6
    assert len(flow.card["data"]["systems"]) == 1 and molecule in flow.card["holds"]


@pytest.mark.parametrize("draw", [0, 2])
def test_molecules_of_y6_that_the_flow_puts_into_one_another_come_apart(draw):
    """The potential alone left them in one another: overlaps of 1.6 and 2.1 Å, with one and four speared rings."""
    end = "c(/C=C%d\\C(=O)c%dcc(F)c(F)cc%dC%d=C(C#N)C#N)s"
    left, right = end % (2, 3, 3, 2), end % (7, 8, 8, 7)
    smiles = (
        f"CCCCCCCCCCCc1{left}c2c1sc1c3c4nsnc4c4c5sc6c(CCCCCCCCCCC){right}c6c5n(C[C@@H](CC)CCCC)c4c3n(C[C@H](CC)CCCC)c21"
    )
    molecule, order = Molecule.from_smiles(smiles, n_conformers=1), np.zeros(5, int)
    flow = load_model(packaged("dual-scale"), "dual-scale")
    heavy = flow.sample(flow.graph([molecule.rdmol], order), 1, 0, draw=draw).atoms
    whole = completed([molecule], order, heavy)
    assert "clash" in failure(whole)
    assert failure(relaxed(whole)) == ""


def test_benzene_comes_out_of_the_package_as_whole_molecules():
    asked = {"method": "dual-scale", "weights": "benzene", "copies": 17}
    (cluster,) = generate("clusters", "c1ccccc1", 1, **asked, relax=30, check=False)
    i, j = cluster.bonds.T
    lengths = np.linalg.norm(cluster.positions[i] - cluster.positions[j], axis=1)
    heavy = (cluster.numbers[i] > 1) & (cluster.numbers[j] > 1)
    assert np.abs(lengths[heavy] - 1.39).max() < 0.1 and np.abs(lengths[~heavy] - 1.09).max() < 0.1
