"""MolCrystalFlow by name: generated from, trained, and shipped with weights that say what they are."""

import copy
from dataclasses import asdict
from importlib.resources import files

import numpy as np
import pytest
from crystal_examples import molecule
from p1_examples import NAMES, TINY, record
from refusals import refuses

from molflow_sim import generate
from molflow_sim.errors import InputError, RequestError, TrainingError
from molflow_sim.generators.protocol import CrystalRequest, make_generator
from molflow_sim.models.mol_crystal_flow import MolCrystalFlow, MolCrystalFlowConfig, train_mol_crystal_flow
from molflow_sim.packing import RigidPackings
from molflow_sim.training import TrainSettings
from molflow_sim.training.model import load_model, shared_model

UREA, ASPIRIN = "NC(N)=O", "CC(=O)Oc1ccccc1C(=O)O"


def drawn(n: int, first: int = 0, seed: int = 0, **options) -> RigidPackings:
    made = make_generator("crystals", "mol-crystal-flow", steps=3, **options)
    return copy.deepcopy(made).sample(CrystalRequest(molecule(ASPIRIN)), n, seed=seed, first_index=first)


def test_a_candidate_is_the_same_however_many_are_drawn_with_it():
    whole = drawn(35, seed=2)
    for first, n in ((0, 1), (15, 2), (30, 5)):
        part = drawn(n, first, seed=2)
        assert part.index.tolist() == list(range(first, first + n))
        for name in ("cell", "centroid", "rotation", "conformer"):
            assert np.array_equal(getattr(part, name), getattr(whole, name)[first : first + n])
    assert not np.array_equal(drawn(1, seed=3).cell, whole.cell[:1])


def test_it_makes_crystals_in_p1_with_as_many_molecules_as_are_asked_for():
    for options, z in (({}, 4), ({"z": 2}, 2)):
        packings = drawn(3, **options)
        assert (packings.z == z).all() and set(packings.space_groups) == {"P 1"} and packings.reasons == [""] * 3
    made = make_generator("crystals", "mol-crystal-flow", steps=3)
    assert (made.sample(CrystalRequest(molecule(UREA), "P 1", 3), 2, seed=0).z == 3).all()
    with pytest.raises(RequestError, match="P 1 only, not in P 1 21/c 1"):
        made.sample(CrystalRequest(molecule(UREA), "P21/c"), 2, seed=0)
    for wrong in ({"z": 0}, {"steps": 0}, {"hands": "left"}):
        with pytest.raises(InputError):
            make_generator("crystals", "mol-crystal-flow", **wrong)


def test_a_sample_that_is_no_crystal_is_a_row_with_its_reason(monkeypatch):
    plain = MolCrystalFlow._carried

    def spoilt(self, *arguments):
        cell, frac, orientation = plain(self, *arguments)
        frac[1] = np.nan
        return cell, frac, orientation

    monkeypatch.setattr(MolCrystalFlow, "_carried", spoilt)
    packings = drawn(3)
    assert packings.reasons == ["", "not finite", ""]
    assert [system is None for system in packings.systems()] == [False, True, False]


def test_the_identity_follows_weights_and_options():
    made = [make_generator("crystals", "mol-crystal-flow", **o).identity() for o in ({}, {"z": 2}, {"hands": "same"})]
    assert len({str(i) for i in made}) == 3
    assert made[0]["weights"] == shared_model("mol-crystal-flow").card["sha256"]


def test_generated_crystals_tell_their_method_and_hold_whole_molecules():
    found = generate("crystals", molecule(ASPIRIN), 2, method="mol-crystal-flow", seed=1, z=2)
    for k, c in enumerate(found):
        assert (c.info["candidate"], c.info["generator"], c.info["z"]) == (k, "mol-crystal-flow", 2)
        assert c.z == 2 and c.info["weights"].startswith("sha256:")
        assert all(np.linalg.det(unit.orientation) == pytest.approx(1.0) for unit in c.asymmetric_unit)


def test_the_shipped_weights_are_small_and_say_what_they_were_trained_on():
    folder = files("molflow_sim") / "pretrained" / "mol-crystal-flow"
    model = load_model(folder)
    assert isinstance(model, MolCrystalFlow) and len((folder / "mol_crystal_flow.safetensors").read_bytes()) < 15e6
    for name in ("config", "data", "steps", "metrics", "range", "version", "about"):
        assert model.card[name]
    text = (folder / "mol_crystal_flow_data.txt").read_text()
    names = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(names) == model.card["data"]["training molecules and crystals"]


class Records(list):
    """Five crystals in the shape of a data set."""

    def __init__(self) -> None:
        super().__init__(record(name) for name in NAMES)
        self.keys, self.molecule = tuple(NAMES), np.arange(5)
        self.energy, self.experimental = -np.arange(1.0, 6.0), np.array([True, False, False, False, False])

    def weights(self, scale: float) -> np.ndarray:
        return np.ones(5)


def test_training_goes_from_a_data_set_to_weights_that_generate(tmp_path):
    run = TrainSettings(max_steps=4, batch_size=8, device="cpu", warmup_steps=1, log_every=2)
    config = MolCrystalFlowConfig(flow=TINY, training=run)
    first, again = (train_mol_crystal_flow(Records(), config, tmp_path / name, progress=False) for name in ("a", "b"))
    assert first.card["sha256"] == again.card["sha256"]
    assert first.card["data"]["crystals"] == 5 and first.card["range"] == {"max_atoms": 21, "max_z": 4}
    samples = load_model(tmp_path / "a").sample(molecule(UREA), 2, 2)
    assert np.array_equal(samples.cell, again.sample(molecule(UREA), 2, 2).cell)
    packings = make_generator("crystals", "mol-crystal-flow", weights=str(tmp_path / "a")).sample(
        CrystalRequest(molecule(UREA)), 2, seed=0
    )
    assert len(packings) == 2
    other = MolCrystalFlowConfig.from_dict({**asdict(config), "flow": TINY, "training": run, "energy_scale": 2.0})
    with pytest.raises(TrainingError, match="other data or settings"):
        train_mol_crystal_flow(Records(), other, tmp_path / "a", progress=False)


def test_a_config_comes_back_from_yaml_and_wrong_ones_are_named(tmp_path):
    config = MolCrystalFlowConfig(flow=TINY, draws=2)
    config.to_yaml(tmp_path / "p1.yaml")
    assert MolCrystalFlowConfig.from_yaml(tmp_path / "p1.yaml") == config
    for wrong, words in (({"draws": 3}, "draws must divide"), ({"energy_scale": 0.0}, "energy_scale")):
        refuses(InputError, words, MolCrystalFlowConfig.from_dict, wrong)
