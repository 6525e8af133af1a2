"""The model folder: what is written comes back exactly, and what was changed or cut off is refused."""

import copy
import pickle

import numpy as np
import pytest
import torch
from bead_examples import fake_frames, tree
from refusals import refuses
from safetensors.torch import load_file
from test_cg_student import student

from molflow_sim.cg import CGNet, ForceField, ModelFolder
from molflow_sim.errors import WeightsError
from molflow_sim.registry import MODELS
from molflow_sim.training.weights import save_weights


@pytest.fixture
def folder(tmp_path):
    model = ModelFolder(tmp_path / "model")
    model.save_student(student(fake_frames(), gain=5.0), notes={"frames": 400})
    return model


def test_a_student_comes_back_bit_by_bit(folder):
    frames = fake_frames()
    net, again = student(frames, gain=5.0), folder.load_student()
    x = frames.positions[:20].astype(np.float64)
    for a, b in zip(net.energy_and_forces(x), again.energy_and_forces(x)):
        assert np.array_equal(a, b)
    assert again.topology == net.topology and again.temperature == 300.0 and again.settings == net.settings
    assert isinstance(again, ForceField)


def test_the_stored_weights_keep_the_bound_by_themselves(folder):
    tensors = load_file(folder.path / "student.safetensors")
    weights = [w for name, w in tensors.items() if name.startswith("mlp") and w.ndim == 2]
    assert weights and all(float(torch.linalg.matrix_norm(w.double(), 2)) <= 4.0 for w in weights)


def test_a_branched_topology_comes_back(tmp_path):
    topology = tree([0, 1, 1, 3])
    ModelFolder(tmp_path).save_student(student(fake_frames(topology=topology)))
    assert ModelFolder(tmp_path).load_topology() == topology


def test_a_folder_without_a_model_is_refused(tmp_path):
    for load in (ModelFolder(tmp_path).load_student, ModelFolder(tmp_path).load_topology):
        with pytest.raises(WeightsError):
            load()


@pytest.mark.parametrize(
    "name, damage, words",
    [
        ("student.safetensors", lambda data: data[:-20], "student"),
        ("student.json", lambda data: data[:-20], "student"),
        ("student.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "SHA-256"),
        ("student.json", lambda data: data.replace(b'"temperature": 300.0', b'"temperature": 310.0'), "changed"),
    ],
)
def test_a_truncated_or_changed_file_is_refused(folder, name, damage, words):
    path = folder.path / name
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    refuses(WeightsError, words, folder.load_student)
    if name == "student.json":
        refuses(WeightsError, words, folder.load_topology)


def test_weights_of_another_kind_are_refused(folder, tmp_path):
    save_weights(folder.path, "student", {"x": torch.zeros(1)}, {"kind": "something"})
    with pytest.raises(WeightsError):
        folder.load_student()
    tensors, card = student(fake_frames()).state()
    with pytest.raises(WeightsError, match=r"unknown model 'painn'; choose from .*cgnet"):
        other = ModelFolder(tmp_path / "other")
        other._save("student", tensors, {**card, "kind": "painn"}, None)
        other.load_student()
    del tensors["mean"]
    with pytest.raises(WeightsError, match=r"do not fit the CGnet .* \(missing: mean\): .*train it again$") as caught:
        CGNet.from_state(tensors, card)
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="no CGnet of this version: temperature is missing"):
        CGNet.from_state(tensors, {key: value for key, value in card.items() if key != "temperature"})


class Other(CGNet):
    kind = "other"


def test_a_further_force_field_is_found_by_its_kind(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS.builtin, "other", "test_cg_model:Other")
    frames = fake_frames()
    ModelFolder(tmp_path).save_student(Other.from_data(frames.positions, frames.topology, 300.0))
    assert type(ModelFolder(tmp_path).load_student()) is Other


def test_a_student_can_be_copied_and_pickled_after_use():
    frames = fake_frames()
    net = student(frames)
    x = frames.positions[:3].astype(np.float64)
    energy, _ = net.energy_and_forces(x)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):  # noqa: S301
        assert np.array_equal(twin.energy_and_forces(x)[0], energy)
