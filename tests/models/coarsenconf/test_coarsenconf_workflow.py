"""CoarsenConf from a data set to conformers: training, resuming, sampling, and what is refused."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conformer_examples import MOLECULES, pairs_of, write_ensembles
from processes import killed

import molflow_sim.models.coarsenconf.batch as batches
from molflow_sim.chemistry.conformers import keeps_stereo
from molflow_sim.chemistry.embedding import embedded
from molflow_sim.errors import InputError, RequestError, StoreError, TrainingError
from molflow_sim.generators.conformers import EtkdgConformers
from molflow_sim.generators.protocol import ConformerRequest
from molflow_sim.geometry.torsions import torsion_angles
from molflow_sim.models.coarsenconf import CoarsenConf, CoarsenConfConfig, CoarsenConfSettings, read_pairs
from molflow_sim.models.coarsenconf.completion import CLOSEST, keeps_shape, parents_of, with_hydrogens
from molflow_sim.models.coarsenconf.data import PairData
from molflow_sim.models.coarsenconf.generator import CoarsenConfGenerator
from molflow_sim.models.coarsenconf.torsions import turned
from molflow_sim.models.coarsenconf.train import train_coarsenconf
from molflow_sim.systems.molecule import Molecule
from molflow_sim.training.model import load_model, save_model
from molflow_sim.training.settings import TrainSettings

SMALL = CoarsenConfSettings.small()
CHIRAL = "C[C@H](N)C(=O)NCCO"


def config(steps: int) -> CoarsenConfConfig:
    return CoarsenConfConfig(
        conf=SMALL,
        training=TrainSettings(max_steps=steps, batch_size=2, device="cpu", log_every=1, validate_every=2),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read_pairs(write_ensembles(tmp_path_factory.mktemp("ensembles")))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network that was not trained but moves atoms a little."""
    torch.manual_seed(3)
    model = CoarsenConf(SMALL)
    with torch.no_grad():
        model.decoder.selection.scale.fill_(0.02)
    model.card["range"] = {"max_heavy_atoms": 30, "max_beads": 8}
    folder = tmp_path_factory.mktemp("weights")
    save_model(folder, model)
    return str(folder)


def molecule(smiles: str) -> Molecule:
    return Molecule.from_smiles(smiles, search=False)


def positions(weights, smiles=CHIRAL, n=4, seed=0, first_index=0, **options):
    drawn = CoarsenConfGenerator(weights=weights, **options).sample(
        ConformerRequest(molecule(smiles)), n, seed=seed, first_index=first_index
    )
    return np.array([m.conformers[0] for m in drawn.systems()])


def test_a_training_leaves_weights_with_a_card_and_goes_on_where_it_was(data, tmp_path, monkeypatch):
    train_coarsenconf(data, config(4), tmp_path / "once", progress=False)
    card = load_model(tmp_path / "once").card
    half = train_coarsenconf(data, replace(config(1), share=0.5), tmp_path / "half", progress=False)
    assert half.card["data"]["train molecules"] == 1
    assert card["data"]["train molecules"] == 2 and card["data"]["validation conformers"] == 3
    assert card["range"] == {"max_heavy_atoms": 13, "max_beads": 4} and {"val_rmsd", "kl"} <= set(card["metrics"])
    assert (tmp_path / "once" / "curves.svg").exists()

    real, calls = batches.collate, []

    def limited(*arguments, **options):
        calls.append(1)
        if len(calls) > 12:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    kept = replace(config(4), training=replace(config(4).training, checkpoint_minutes=0.0))
    monkeypatch.setattr(batches, "collate", limited)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train_coarsenconf(data, kept, tmp_path / "twice", progress=False)
    monkeypatch.setattr(batches, "collate", real)
    train_coarsenconf(data, kept, tmp_path / "twice", progress=False)
    first, again = (load_model(tmp_path / f).state()[0] for f in ("once", "twice"))
    assert len(calls) > 12 and all(torch.allclose(first[name], again[name], atol=1e-6) for name in first)


def test_training_on_from_weights_depends_on_the_seed_alone_with_dropout_as_well(data, tmp_path):
    settings = replace(config(2), conf=replace(config(2).conf, dropout=0.3))
    initial = train_coarsenconf(data, settings, tmp_path / "first", progress=False)
    found = []
    for name in ("one", "two"):
        torch.rand(3)  # whatever has been drawn before
        found.append(train_coarsenconf(data, settings, tmp_path / name, initial=initial, progress=False).state()[0])
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_weights_that_were_never_written_are_told_apart(data, tmp_path):
    first, second = CoarsenConf(SMALL), CoarsenConf(SMALL)
    trained = train_coarsenconf(data, config(1), tmp_path / "on", initial=first, progress=False)
    with pytest.raises(StoreError, match="another training"):
        train_coarsenconf(data, config(1), tmp_path / "on", initial=second, progress=False)
    save_model(tmp_path / "first", first)
    assert trained.card["fine-tuned from"] == first.card["sha256"]


def test_molecules_that_are_too_large_or_on_another_side_leave_nothing_to_train_on(data, tmp_path):
    with pytest.raises(TrainingError, match="at most 5 heavy atoms"):
        train_coarsenconf(data, replace(config(1), max_atoms=5), tmp_path, progress=False)
    with pytest.raises(TrainingError, match="none of 1"):
        train_coarsenconf(PairData(data.of("validation").records), config(1), tmp_path, progress=False)
    with pytest.raises(InputError, match="share"):
        CoarsenConfConfig(share=0.0)


def test_a_conformer_depends_on_its_seed_and_number_alone(weights):
    four = positions(weights)
    assert np.array_equal(positions(weights, n=2, first_index=1), four[1:3])
    assert not np.allclose(positions(weights, seed=1), four)


@pytest.mark.parametrize("start", ["mmff", "torsions"])
def test_other_starts_are_distorted_too(weights, start):
    found = positions(weights, "OCCc1ccc(F)cc1", n=2, start=start)
    again = positions(weights, "OCCc1ccc(F)cc1", n=1, first_index=1, start=start)
    assert np.array_equal(again[0], found[1])


def test_latents_are_drawn_from_the_same_start_unless_the_mean_is_asked_for(weights):
    drawn, mean = positions(weights, n=3), positions(weights, n=3, latent="mean")
    assert 1e-4 < np.abs(drawn - mean).max() < 1.0
    model = load_model(weights)
    record = pairs_of(MOLECULES[0])
    start = np.repeat(record.starts[:1].astype(float), 3, 0)
    noise = np.random.default_rng(0).normal(size=(3, record.graph.n_beads, 3, SMALL.channels))
    several = model.distorted(record.graph, start, False, noise)
    assert np.abs(several[0] - several[1]).max() > 1e-4
    assert np.abs(np.diff(model.distorted(record.graph, start, False), axis=0)).max() < 1e-12


def test_every_conformer_shows_the_stereochemistry_of_its_molecule_also_from_a_wild_network(weights, tmp_path):
    for smiles in (CHIRAL, "C/C=C\\CO", "O[C@@H]1CCCC[C@H]1Cl"):
        mol = molecule(smiles)
        assert keeps_stereo(mol.rdmol, positions(weights, smiles)).all()
    wild = load_model(weights)
    with torch.no_grad():
        wild.decoder.selection.scale.fill_(5.0)
    save_model(tmp_path, wild)
    with pytest.warns(UserWarning, match="stay as RDKit made them"):
        found = positions(str(tmp_path))
    assert keeps_stereo(molecule(CHIRAL).rdmol, found).all()


def test_the_bonds_of_the_start_are_kept_where_only_torsions_are_wanted(weights):
    mol = molecule(MOLECULES[0])
    heavy = np.flatnonzero(mol.numbers > 1)
    near = np.nonzero((pairs_of(MOLECULES[0]).graph.apart > 0) & (pairs_of(MOLECULES[0]).graph.apart <= 2))

    def lengths(x):
        return np.linalg.norm(x[:, heavy][:, near[0]] - x[:, heavy][:, near[1]], axis=-1)

    start = np.array(EtkdgConformers().positions(mol, 3, 0, 0))
    kept = positions(weights, MOLECULES[0], n=3, geometry="start")
    assert np.allclose(lengths(kept), lengths(start), atol=1e-3)
    assert not np.allclose(lengths(positions(weights, MOLECULES[0], n=3)), lengths(start), atol=1e-3)


def test_molecules_of_one_bead_work_and_larger_ones_than_trained_on_are_warned_about(weights, tmp_path):
    assert positions(weights, "Cc1ccccc1", n=2).shape == (2, 15, 3)
    with pytest.warns(UserWarning, match="beads between torsions are beyond the trained range"):
        positions(weights, "CCOCCOCCOCCOCC", n=1)
    with pytest.raises(RequestError, match="choose etkdg or mmff"):
        positions(weights, "CO", n=1)
    with pytest.raises(InputError, match="latent"):
        CoarsenConfGenerator(latent="none")


def test_hydrogens_go_along_with_their_atoms():
    record = pairs_of("OCCc1ccc(F)cc1")
    mol = molecule("OCCc1ccc(F)cc1")
    start = positions_of(mol)
    heavy, parents = parents_of(mol.numbers, mol.bonds)
    whole = with_hydrogens(record.graph, heavy, parents, start, start[heavy])
    assert np.allclose(whole, start, atol=1e-8)
    moved = turned(record.graph, start[heavy], np.full(len(record.graph.torsions), 0.7))
    whole = with_hydrogens(record.graph, heavy, parents, start, moved)
    hydrogens = np.flatnonzero(mol.numbers == 1)
    before, after = (np.linalg.norm(x[hydrogens] - x[heavy][parents[hydrogens]], axis=1) for x in (start, whole))
    assert np.allclose(before, after, atol=1e-8)
    gap = torsion_angles(whole[heavy], record.graph.torsions) - torsion_angles(start[heavy], record.graph.torsions)
    assert np.allclose(np.cos(gap), np.cos(0.7), atol=1e-6)


def positions_of(mol: Molecule) -> np.ndarray:
    return embedded(mol.rdmol, 1, 0)[0]


def test_bent_rings_and_clashes_are_seen():
    graph = pairs_of(MOLECULES[0]).graph
    start = pairs_of(MOLECULES[0]).starts[:3].astype(float)
    moved = start.copy()
    moved[1] *= 1.3
    far = np.argwhere(graph.apart > 4)[0]
    moved[2, far[0]] = moved[2, far[1]] + CLOSEST / 4
    assert keeps_shape(graph, start, moved).tolist() == [True, False, False]


@pytest.mark.slow
def test_a_killed_training_goes_on(tmp_path):
    folder = write_ensembles(tmp_path / "data")
    config(40).to_yaml(tmp_path / "short.yaml")
    out = tmp_path / "mine"
    train = [sys.executable, "-m", "molflow_sim", "train", "coarsenconf", folder, "-o", out]
    command = [*train, "--config", tmp_path / "short.yaml"]
    assert killed(command, lambda: (out / "metrics.csv").exists())
    train_coarsenconf(read_pairs(folder), config(40), out, progress=False)
    assert load_model(out).card["steps"] == 40


def test_the_packages_weights_make_conformers_of_the_right_stereochemistry_near_their_starts():
    mol = molecule(CHIRAL)
    found = positions(None, n=3)
    assert keeps_stereo(mol.rdmol, found).all()
    start = np.array(EtkdgConformers().positions(mol, 3, 0, 0))
    gap = found - found.mean(1, keepdims=True) - start + start.mean(1, keepdims=True)
    assert 0.01 < np.linalg.norm(gap, axis=-1).mean() < 1.5
    card = CoarsenConfGenerator().load().card
    assert {"train molecules", "validation molecules"} <= set(card["data"]) and card["range"]["max_heavy_atoms"] >= 30
