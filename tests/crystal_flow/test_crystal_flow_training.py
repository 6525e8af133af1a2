"""Pairs and training of the crystal flow: what goes in, what is learned, and that nothing is lost when killed."""

import csv
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from processes import killed, threads, without_chemistry
from refusals import refuses

from molflow_sim import Molecule, load_model
from molflow_sim.dataset import CrystalDataset, DatasetSettings, build_crystal_dataset
from molflow_sim.errors import InputError, TrainingError
from molflow_sim.models.crystal_flow import CrystalFlowConfig, PairBatches, PairSet, make_pairs
from molflow_sim.models.crystal_flow.network import ContactSettings
from molflow_sim.models.crystal_flow.path import distance, interpolate
from molflow_sim.models.crystal_flow.starts import van_der_waals_volume
from molflow_sim.models.crystal_flow.train import pairs_of, train_crystal_flow, train_on_pairs
from molflow_sim.training import TrainSettings
from molflow_sim.training.batches import validation_rows, with_measured_share

CONFIG = CrystalFlowConfig(
    network=ContactSettings(width=16, radial=8, inner_layers=1, outer_layers=1, outer_cutoff=4.0),
    training=TrainSettings(
        max_steps=100, batch_size=8, learning_rate=5e-3, warmup_steps=5, ema_decay=0.9, log_every=10, device="cpu"
    ),
    starts=2,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> CrystalDataset:
    folder = tmp_path_factory.mktemp("packings")
    settings = DatasetSettings(candidates=24, keep=8, max_atoms=16)
    build_crystal_dataset(
        ["NC=O formamide", "c1ccccc1 benzene"], folder, settings=settings, processes=1, progress=False
    )
    return CrystalDataset(folder)


@pytest.fixture(scope="module")
def pairs(dataset) -> PairSet:
    return make_pairs(dataset, 2, seed=1)


def test_every_crystal_is_paired_with_starts_of_its_own_symmetry(dataset, pairs) -> None:
    assert len(pairs) == 2 * len(pairs.weight) == 2 * len(dataset)
    start, _, excess = pairs.batch(np.arange(len(pairs)))
    assert float(excess.min()) == 0.0 and pairs.weight.sum() == pytest.approx(1.0)
    # Triangular cells, proper rotations, as dense as crystals.
    assert float(torch.triu(start.cell, 1).abs().max()) == 0.0
    torch.testing.assert_close(torch.linalg.det(start.rotation), torch.ones_like(start.rotation[..., 0, 0]))
    filled = van_der_waals_volume(dataset[0].numbers, dataset[0].conformers[0])
    share = filled / start.volume_per_molecule[start.n_atoms == len(dataset[0].numbers)]
    assert 0.62 < float(share.min()) and float(share.max()) < 0.80


def test_ends_are_the_crystals_of_the_data_set(dataset, pairs) -> None:
    _, end, _ = pairs.batch(np.arange(0, len(pairs), 2))
    np.testing.assert_allclose(end.cell.numpy(), [dataset[i].cell for i in range(len(dataset))], atol=1e-4)


def test_transport_shortens_the_paths(pairs) -> None:
    start, end, _ = pairs.batch(np.arange(len(pairs)))
    half = torch.full((len(pairs),), 0.5)
    paired = distance(*interpolate(start, end, half)).mean()
    turned = end.moved(end.cell, (end.centroid + 0.3) % 1.0, end.rotation.transpose(-1, -2))
    assert float(paired) < 0.8 * float(distance(*interpolate(start, turned, half)).mean())


def test_the_volume_agrees_with_the_molecules(dataset) -> None:
    molecule = Molecule.from_smiles("c1ccccc1", n_conformers=1)
    volume = van_der_waals_volume(np.asarray(molecule.numbers), molecule.conformers[0])
    assert volume == pytest.approx(molecule.volume, rel=0.05)


def test_pairs_come_back_from_disk_and_join(tmp_path, pairs) -> None:
    pairs.save(tmp_path / "pairs.npz", {"identity": "x"})
    back = PairSet.load(tmp_path / "pairs.npz")
    assert PairSet.with_card(tmp_path / "pairs.npz")[1] == {"identity": "x"}
    np.testing.assert_allclose(back.end_cell, pairs.end_cell, atol=1e-4)
    both = PairSet.join([pairs, back], [0.75, 0.25])
    assert len(both) == 2 * len(pairs) and both.weight[: len(pairs.weight)].sum() == pytest.approx(0.75)
    a, b = both.batch(np.array([1, len(pairs) + 1]))[0], pairs.batch(np.array([1, 1]))[0]
    torch.testing.assert_close(a.positions(), b.positions(), rtol=0, atol=1e-3)
    whole = (tmp_path / "pairs.npz").read_bytes()
    for damaged in (b"PK not a zip", b"", whole[: len(whole) // 2]):
        (tmp_path / "bad.npz").write_bytes(damaged)
        refuses(TrainingError, r"bad\.npz", PairSet.load, tmp_path / "bad.npz")


def test_batches_depend_on_seed_and_step_alone(pairs) -> None:
    one, two = PairBatches(pairs, 8, seed=2), PairBatches(pairs, 8, seed=2)
    one.batch(0)
    torch.testing.assert_close(one.batch(3)[0].cell, two.batch(3)[0].cell)
    # Squares of the times are spread evenly: one in each eighth.
    assert sorted(np.floor(8 * one.batch(5)[3].numpy() ** 2).astype(int).tolist()) == list(range(8))


def test_a_short_training_learns_writes_curves_and_its_weights_are_used(tmp_path, dataset) -> None:
    flow = train_crystal_flow(dataset, CONFIG, tmp_path, progress=False)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    explained = [float(r["value"]) for r in rows if r["name"] == "explained"]
    assert max(explained[-3:]) > 0.04 + explained[0]
    assert b"<svg" in (tmp_path / "curves.svg").read_bytes()
    assert flow.card["data"]["crystals"] == len(dataset) and flow.card["config"]["training"]["seed"] == 0
    again = load_model(tmp_path)
    for a, b in zip(flow.network.parameters(), again.network.parameters()):
        assert torch.equal(a, b)
    tuned = train_crystal_flow(dataset, CONFIG, tmp_path / "tuned", initial=flow, progress=False)
    assert tuned.card["fine-tuned from"] == flow.card["sha256"]
    with pytest.raises(TrainingError, match="other data or settings"):
        train_crystal_flow(dataset, replace(CONFIG, seed=5), tmp_path, progress=False)


def test_a_killed_training_ends_with_the_same_weights(tmp_path, pairs) -> None:
    pairs.save(tmp_path / "pairs.npz")
    pairs = PairSet.load(tmp_path / "pairs.npz")
    config = replace(CONFIG, training=replace(CONFIG.training, max_steps=60, checkpoint_minutes=0.0))
    config.to_yaml(tmp_path / "config.yaml")
    assert CrystalFlowConfig.from_yaml(tmp_path / "config.yaml") == config
    where = tmp_path / "killed"
    script = (
        "import sys; from molflow_sim.models.crystal_flow import PairSet, CrystalFlowConfig, train_on_pairs;"
        "train_on_pairs(PairSet.load(sys.argv[1]), CrystalFlowConfig.from_yaml(sys.argv[2]), sys.argv[3])"
    )
    command = [sys.executable, "-c", script, tmp_path / "pairs.npz", tmp_path / "config.yaml", where]
    killed(command, (where / "checkpoint.json").exists, 0.3, env={**os.environ, "OMP_NUM_THREADS": "1"})
    with threads(1):
        resumed = train_on_pairs(pairs, config, where, progress=False)
        whole = train_on_pairs(pairs, config, tmp_path / "whole", progress=False)
    assert all(torch.equal(a, b) for a, b in zip(resumed.network.parameters(), whole.network.parameters()))


def test_nonsense_in_the_settings_and_data_without_a_usable_crystal_are_refused(tmp_path, dataset) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("training:\n  max_step: 5\n")
    refuses(InputError, "max_step", CrystalFlowConfig.from_yaml, path)
    path.write_text("training:\n  max_steps: 5\nstarts: 3\n")
    made = CrystalFlowConfig.from_yaml(path)
    assert (made.training.max_steps, made.training.batch_size, made.starts) == (5, 64, 3)
    refuses(InputError, "starts", CrystalFlowConfig, starts=0)
    refuses(TrainingError, "no crystal", make_pairs, dataset, 2, rows=np.zeros(len(dataset), bool))


class Measured:
    """A data set whose crystals are from experiment, all or some of them, or have another number of molecules."""

    def __init__(self, dataset, experimental, several) -> None:
        self.dataset, self.experimental, self.several = dataset, experimental, several
        self.weights, self.relative_energy = dataset.weights, dataset.relative_energy

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int):
        record = self.dataset[i]
        return replace(record, images=2 * record.images) if self.several[i] else record


def test_crystals_of_one_kind_do_where_the_other_kind_has_none_or_no_share(dataset) -> None:
    every, none = np.ones(len(dataset), bool), np.zeros(len(dataset), bool)
    some = np.arange(len(dataset)) < 3
    alone = pairs_of(Measured(dataset, some, some), CONFIG)
    assert len(alone.weight) == len(dataset) - 3 and alone.weight.sum() == pytest.approx(1.0)
    refuses(
        TrainingError, "share of 0", pairs_of, Measured(dataset, every, none), replace(CONFIG, experimental_share=0.0)
    )
    refuses(TrainingError, "one molecule in the asymmetric unit", pairs_of, Measured(dataset, some, every), CONFIG)


def test_measured_crystals_get_their_share_of_the_draws_down_to_none() -> None:
    weights, measured = np.array([1.0, 3.0, 2.0, 2.0]), np.array([True, True, False, False])
    np.testing.assert_allclose(with_measured_share(weights, measured, 0.2), [0.05, 0.15, 0.4, 0.4])
    np.testing.assert_allclose(with_measured_share(weights, measured, 0.0), [0.0, 0.0, 0.5, 0.5])
    np.testing.assert_array_equal(with_measured_share(weights, np.ones(4, bool), 0.0), weights)


def test_training_and_sampling_need_no_chemistry_library(tmp_path, pairs) -> None:
    pairs.save(tmp_path / "pairs.npz")
    script = """
        from molflow_sim.models.crystal_flow import PairSet, CrystalFlowConfig, train_on_pairs
        config = CrystalFlowConfig.from_dict(dict(training=dict(max_steps=2, batch_size=4, device="cpu")))
        flow = train_on_pairs(PairSet.load(sys.argv[1]), config, sys.argv[2])
        print("trained", flow.card["steps"])
    """
    assert "trained 2" in without_chemistry(script, tmp_path / "pairs.npz", tmp_path / "out", also="numba")


def test_whole_molecules_are_set_aside_for_validation_once_there_are_enough(dataset) -> None:
    assert not validation_rows(dataset, 0.5).any()

    class Many:
        keys = tuple(f"molecule {k}" for k in range(200))
        molecule = np.repeat(np.arange(200), 3)

        def __len__(self) -> int:
            return len(self.molecule)

    aside = validation_rows(Many(), 0.2)  # type: ignore[arg-type]
    assert (aside.reshape(200, 3).sum(1) % 3 == 0).all()
    assert 0.1 < aside.mean() < 0.3
    assert (validation_rows(Many(), 0.4) >= aside).all()  # type: ignore[arg-type]
