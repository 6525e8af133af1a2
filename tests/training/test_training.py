"""The one way to train: it learns, resumes where it was, keeps averages, and reads no pickles."""

import json
import math

import pytest
import torch
from refusals import refuses
from torch import nn

import molflow_sim.training.weights as module
from molflow_sim.cg.teacher import TeacherSettings
from molflow_sim.errors import InputError, StoreError, TrainingError, WeightsError
from molflow_sim.models.crystal_flow import ContactSettings
from molflow_sim.models.mol_crystal_flow import P1Settings
from molflow_sim.training import TensorBatches, TrainSettings, train
from molflow_sim.training.fit import FitConfig
from molflow_sim.training.loop import discard
from molflow_sim.training.weights import load_weights, save_weights


def data(n: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 3, generator=generator)
    return x, x @ torch.tensor([[1.0], [-2.0], [0.5]])


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def squares(module: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
    x, y = batch
    return {"loss": ((module(x) - y) ** 2).mean(), "largest": (module(x) - y).abs().max()}


SETTINGS = TrainSettings(max_steps=60, batch_size=32, learning_rate=0.1, warmup_steps=5, log_every=10, device="cpu")


def test_a_linear_network_learns_a_linear_function() -> None:
    module = network()
    result = train(module, squares, TensorBatches(data(), 32), SETTINGS, progress=False)
    assert result.steps == 60
    assert result.last("loss") < 5e-2 < 1.0 < next(v for _, name, v in result.metrics if name == "loss")
    assert {name for _, name, _ in result.metrics} == {"loss", "largest"}


class Counting(nn.Linear):
    """The first weights, with a buffer that no file holds and that matters: it grows with every look."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(3, 1)
        self.register_buffer("looks", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.looks += self.training
        noise = torch.randn(len(x), 1) if self.training else 0.0
        return super().forward(x) + 0.01 * torch.sin(self.looks) + 0.01 * noise


class Stop(Exception):
    pass


class Breaking(TensorBatches):
    """Batches that end at a step."""

    def __init__(self, tensors, size: int, last: int) -> None:
        super().__init__(tensors, size)
        self.last = last

    def batch(self, step: int):
        if step == self.last:
            raise Stop
        return super().batch(step)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_stopped_training_goes_on_bit_for_bit(tmp_path, ema_decay) -> None:
    settings = TrainSettings(**{**SETTINGS.__dict__, "checkpoint_minutes": 0.0, "ema_decay": ema_decay})
    whole, resumed = Counting(), Counting()
    expected = train(whole, squares, TensorBatches(data(), 32), settings, progress=False)
    with pytest.raises(Stop):
        train(Counting(), squares, Breaking(data(), 32, 37), settings, tmp_path, progress=False)
    result = train(resumed, squares, TensorBatches(data(), 32), settings, tmp_path, progress=False)
    assert result.steps == 60
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters()))
    assert result.metrics == expected.metrics
    assert [step for step, name, _ in result.metrics if name == "loss"] == [10, 20, 30, 40, 50, 60]


def test_averaged_weights_end_up_in_the_network_and_are_validated(tmp_path) -> None:
    settings = TrainSettings(**{**SETTINGS.__dict__, "ema_decay": 0.9, "validate_every": 20})
    module = network()
    batches = TensorBatches(data(), 32)
    result = train(module, squares, batches, settings, tmp_path, validation=batches, progress=False)
    plain = network()
    train(plain, squares, batches, SETTINGS, progress=False)
    assert not torch.equal(module.weight, plain.weight)
    assert math.isfinite(result.last("val_loss"))
    tensors, _ = load_weights(tmp_path, "checkpoint")
    assert len(tensors) >= 4


def test_the_weights_that_validate_best_are_kept_also_over_a_stop(tmp_path) -> None:
    """Training pulls the weights to one function, validation asks for another that they pass on the way."""
    x, y = data()
    passed = TensorBatches((x, 0.5 * y), 32)
    changes = {"keep_best": True, "validate_every": 2, "checkpoint_minutes": 0.0, "learning_rate": 0.05, "log_every": 2}
    settings = TrainSettings(**{**SETTINGS.__dict__, **changes, "max_steps": 150})
    stops = Breaking((x, y), 32, 57)  # the best weights are behind by then
    with pytest.raises(Stop):
        train(network(), squares, stops, settings, tmp_path, validation=passed, progress=False)
    module = network()
    result = train(module, squares, TensorBatches((x, y), 32), settings, tmp_path, validation=passed, progress=False)
    best = result.lowest("val_loss")
    assert 2 < best < 57
    lowest = result.card(keep_best=True)["metrics"]["val_loss"]
    assert lowest < 0.5 * result.last("val_loss")
    found = sum(squares(module, passed.batch(k))["loss"].item() for k in range(4)) / 4
    assert found == pytest.approx(lowest, rel=1e-5)
    refuses(TrainingError, "validation", train, network(), squares, TensorBatches((x, y), 32), settings, progress=False)


def test_validation_that_is_not_finite_is_no_best_and_does_not_stop_a_training(tmp_path) -> None:
    x, y = data()
    settings = TrainSettings(**{**SETTINGS.__dict__, "checkpoint_minutes": 0.0, "validate_every": 20})
    nothing = TensorBatches((x, torch.full_like(y, math.nan)), 32)
    with pytest.raises(Stop):
        train(network(), squares, Breaking((x, y), 32, 37), settings, tmp_path, validation=nothing, progress=False)
    result = train(
        network(), squares, TensorBatches((x, y), 32), settings, tmp_path, validation=nothing, progress=False
    )
    found = [(step, value) for step, name, value in result.metrics if name == "val_loss"]
    assert [step for step, _ in found] == [20, 40, 60] and all(math.isnan(value) for _, value in found)


def test_double_precision_is_that_of_the_batches_too() -> None:
    module = network()
    settings = TrainSettings(**{**SETTINGS.__dict__, "precision": "64"})
    seen = set()

    def loss(module: nn.Module, batch) -> dict[str, torch.Tensor]:
        seen.update(x.dtype for x in batch)
        return squares(module, batch[:2])

    train(module, loss, TensorBatches((*data(), torch.arange(256)), 32), settings, progress=False)
    assert seen == {torch.float64, torch.int64} and module.weight.dtype == torch.float64


def test_a_folder_with_other_settings_is_refused(tmp_path) -> None:
    train(network(), squares, TensorBatches(data(), 32), SETTINGS, tmp_path, progress=False)
    other = TrainSettings(**{**SETTINGS.__dict__, "learning_rate": 0.2})
    with pytest.raises(StoreError, match=r"another training .settings.learning_rate: there 0.1, here 0.2"):
        train(network(), squares, TensorBatches(data(), 32), other, tmp_path, progress=False)
    with pytest.raises(StoreError, match=r"another training .data: there null, here 7.*--overwrite"):
        train(network(), squares, TensorBatches(data(), 32), SETTINGS, tmp_path, identity={"data": 7}, progress=False)
    (tmp_path / "checkpoint.pt").write_text("of something else")
    discard(tmp_path)
    assert (tmp_path / "checkpoint.pt").exists() and not (tmp_path / "checkpoint.json").exists()
    result = train(network(), squares, TensorBatches(data(), 32), other, tmp_path, progress=False)
    assert result.steps == other.max_steps and result.metrics[0][0] < other.max_steps, "from the first step on"


def test_what_other_code_has_begun_is_not_gone_on_with_and_what_it_has_ended_is_read(tmp_path, monkeypatch) -> None:
    settings = TrainSettings(**{**SETTINGS.__dict__, "checkpoint_minutes": 0.0})
    with pytest.raises(Stop):
        train(network(), squares, Breaking(data(), 32, 37), settings, tmp_path, progress=False)
    batches = TensorBatches(data(), 32)
    with monkeypatch.context() as patch:
        patch.setattr("molflow_sim.runs.folder.code_identity", lambda *_: "other")
        with pytest.raises(StoreError, match=r"unfinished training of other code.*--overwrite"):
            train(network(), squares, batches, settings, tmp_path, progress=False)
    ended = network()
    train(ended, squares, batches, settings, tmp_path, progress=False)
    monkeypatch.setattr("molflow_sim.runs.folder.code_identity", lambda *_: "other")
    module = network()
    with pytest.warns(UserWarning, match="training of other code.*read as it is"):
        train(module, squares, batches, settings, tmp_path, progress=False)
    assert torch.equal(module.weight, ended.weight)


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    x, y = data()
    y[3] = float("nan")
    with pytest.raises(TrainingError, match="not finite"):
        train(network(), squares, TensorBatches((x, y), 256), SETTINGS, progress=False)


def test_weights_of_a_loss_that_is_not_finite_are_no_checkpoint(tmp_path) -> None:
    x, y = data()
    settings = TrainSettings(**{**SETTINGS.__dict__, "checkpoint_minutes": 0.0, "log_every": 50})
    with pytest.raises(TrainingError, match="not finite at step 1"):
        train(network(), squares, TensorBatches((x, y / 0.0), 32), settings, tmp_path, progress=False)


def test_batches_depend_on_seed_and_step_alone() -> None:
    first, second = TensorBatches(data(), 100, seed=3), TensorBatches(data(), 100, seed=3)
    first.batch(0)
    assert torch.equal(first.batch(5)[0], second.batch(5)[0])
    assert not torch.equal(first.batch(5)[0], TensorBatches(data(), 100, seed=4).batch(5)[0])
    epoch = torch.cat([TensorBatches((torch.arange(10),), 5, 0).batch(k)[0] for k in range(2)])
    assert sorted(epoch.tolist()) == list(range(10))


def test_settings_go_through_yaml_and_refuse_nonsense(tmp_path) -> None:
    SETTINGS.to_yaml(tmp_path / "train.yaml")
    assert TrainSettings.from_yaml(tmp_path / "train.yaml") == SETTINGS
    (tmp_path / "bad.yaml").write_text("learning_rat: 1.0\n")
    refuses(InputError, "learning_rat", TrainSettings.from_yaml, tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("max_steps: many\n")
    refuses(InputError, "max_steps must be int", TrainSettings.from_yaml, tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00a")
    refuses(InputError, r"bad\.yaml cannot be read", TrainSettings.from_yaml, tmp_path / "bad.yaml")
    refuses(InputError, "ema_decay", TrainSettings, ema_decay=1.0)
    refuses(InputError, "seed must not be negative", TrainSettings, seed=-1)
    refuses(InputError, "learning_rate", TrainSettings, learning_rate=math.inf)
    refuses(InputError, "energy_scale must be float, got nan", FitConfig.from_dict, {"energy_scale": math.nan})
    refuses(InputError, "energy_scale must be positive, got nan", FitConfig, energy_scale=math.nan)
    refuses(InputError, "could not convert", P1Settings.from_dict, {"length_mean": ["a", 1.0, 2.0]})
    refuses(InputError, "width must be at least 1", ContactSettings, width=0)
    refuses(InputError, "outer_cutoff must be positive", ContactSettings, outer_cutoff=-1.0)
    refuses(InputError, "at least one unit", TeacherSettings, hidden=(-1,))


def test_weights_come_back_as_written(tmp_path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3, dtype=torch.int64)}
    save_weights(tmp_path, "net", tensors, {"seed": 4})
    back, card = load_weights(tmp_path, "net")
    assert card["seed"] == 4
    assert all(torch.equal(tensors[k], back[k]) and tensors[k].dtype == back[k].dtype for k in tensors)


DAMAGES = {
    "changed": lambda numbers, card: numbers.write_bytes(numbers.read_bytes()[:-1] + b"!"),
    "cut": lambda numbers, card: numbers.write_bytes(numbers.read_bytes()[:50]),
    "missing": lambda numbers, card: numbers.unlink(),
    "no card": lambda numbers, card: card.unlink(),
    "card is a list": lambda numbers, card: card.write_text("[]"),
    "other format": lambda numbers, card: card.write_text(json.dumps({**json.loads(card.read_text()), "format": "o"})),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_refused_by_name(tmp_path, damage) -> None:
    save_weights(tmp_path, "net", {"a": torch.ones(100)}, {})
    DAMAGES[damage](tmp_path / "net.safetensors", tmp_path / "net.json")
    with pytest.raises(WeightsError):
        load_weights(tmp_path, "net")


@pytest.mark.parametrize("cut_at", [1, 2, 3])
def test_a_replacement_cut_off_anywhere_leaves_one_whole_pair(tmp_path, monkeypatch, cut_at) -> None:
    """Tensors, card, and the renaming that ends it: killed before any of them, old or new weights are there."""
    save_weights(tmp_path, "net", {"a": torch.zeros(3)}, {"round": 1})
    done = []

    def counted(act):
        def step(*arguments):
            done.append(arguments)
            if len(done) == cut_at:
                raise Stop
            act(*arguments)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_bytes_atomically", counted(module.write_bytes_atomically))
        patch.setattr(module.Path, "replace", counted(module.Path.replace))
        with pytest.raises(Stop):
            save_weights(tmp_path, "net", {"a": torch.ones(3)}, {"round": 2})
    tensors, card = load_weights(tmp_path, "net")
    assert card["round"] == (1 if cut_at < 3 else 2)
    assert torch.equal(tensors["a"], torch.full((3,), float(card["round"] - 1)))
    save_weights(tmp_path, "net", {"a": torch.full((3,), 2.0)}, {"round": 3})
    assert float(load_weights(tmp_path, "net")[0]["a"][0]) == 2.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.json", "net.safetensors"]


def test_weights_that_are_not_finite_are_not_written(tmp_path) -> None:
    refuses(WeightsError, "not finite", save_weights, tmp_path, "net", {"a": torch.tensor([1.0, float("nan")])}, {})
    assert not list(tmp_path.iterdir())
