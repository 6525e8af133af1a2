"""One way to train every network: Lightning's loop, deterministic batches, checkpoints without pickles."""

from __future__ import annotations

import csv
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.callbacks import Callback
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from molflow_sim.errors import TrainingError
from molflow_sim.runs.files import write_bytes_atomically
from molflow_sim.runs.folder import JobFolder
from molflow_sim.runs.identity import modules_of
from molflow_sim.training.batches import Batches, Movable
from molflow_sim.training.checkpoint import NAME, SafetensorsIO, stored_step
from molflow_sim.training.settings import TrainSettings
from molflow_sim.training.weights import files_of

Loss = Callable[[nn.Module, Any], dict[str, Tensor]]
_CODE = ("molflow_sim.training.loop:_Shell", "molflow_sim.training.settings:TrainSettings")
"""What decides the weights besides the modules of the network, of its loss and of the batches."""


@dataclass
class TrainResult:
    """What a training leaves behind besides the weights.

    Attributes
    ----------
    steps : int
        Optimiser steps done in all, those before a resume included.
    seconds : float
        Wall time of this call.
    metrics : list of (step, name, value)
        As in ``metrics.csv``.
    """

    steps: int
    seconds: float
    metrics: list[tuple[int, str, float]] = field(default_factory=list)

    def last(self, name: str) -> float:
        """The last value of a metric, NaN if it was never logged."""
        return next((value for _, key, value in reversed(self.metrics) if key == name), math.nan)

    def lowest(self, name: str) -> int:
        """The (first) step at which a metric was lowest, 0 if it was never logged."""
        found = [(value, k) for k, key, value in self.metrics if key == name]
        return min(found)[1] if found else 0

    def card(self, keep_best: bool) -> dict[str, Any]:
        """What a model's card says of its training: steps, those of the weights kept, and the metrics there."""
        kept = self.lowest("val_loss") if keep_best else self.steps
        metrics = {name: v for step, name, v in self.metrics if step == kept and math.isfinite(v)}
        return {"steps": self.steps, "weights of step": kept, "metrics": metrics}


def train(
    module: nn.Module,
    loss: Loss,
    batches: Batches,
    settings: TrainSettings,
    folder: str | Path | None = None,
    *,
    validation: Batches | None = None,
    validation_batches: int = 4,
    identity: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> TrainResult:
    """Train a network; afterwards it holds the (averaged) weights, on the CPU and in evaluation mode.

    Parameters
    ----------
    module : nn.Module
        Changed in place.
    loss : callable
        ``loss(module, batch)`` gives a dict with "loss" (scalar to minimise) and anything else to be logged.
    batches : Batches
    settings : TrainSettings
    folder : path, optional
        Gets ``metrics.csv`` and the checkpoint; the same training found here goes on where it was, unless other code
        of the network, its loss, the batches or this loop began it.
    validation : Batches, optional
        Looked at with the averaged weights every `settings.validate_every` steps, without gradients unless the loss
        asks for them; logged with the prefix "val_".
    validation_batches : int
        How many of its batches each time.
    identity : mapping, optional
        What, besides the settings, makes this training this one (JSON values): data, network, initial weights.
    progress : bool
        A line now and then on stderr.

    Raises
    ------
    StoreError
        If the folder holds another training, an unfinished one of other code, or is being written by another process.
    TrainingError
        If the loss stops being finite, or the best weights are to be kept and there is no validation set.
    WeightsError
        If its checkpoint is damaged.
    """
    if settings.keep_best and validation is None:
        raise TrainingError("keep_best needs a validation set to judge the weights by")
    start = time.perf_counter()
    shell = _Shell(module, loss, batches, settings, validation, validation_batches)
    path = None if folder is None else Path(folder)
    accelerator = {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}[settings.device]
    precision: Any = {"32": "32-true", "64": "64-true", "bf16-mixed": "bf16-mixed"}[settings.precision]
    code = (*_CODE, *modules_of(type(module), loss, type(batches), type(validation)))
    job = None if path is None else _Job(path, {"settings": settings.identity(), **(identity or {})}, code=code)
    with job or nullcontext(), warnings.catch_warnings(), _quiet():
        if job is not None:
            job.check_code(stored_step(job.folder) >= settings.max_steps)
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            accelerator=accelerator, devices=1, precision=precision, max_steps=settings.max_steps, max_epochs=-1,
            gradient_clip_val=settings.gradient_clip or None, callbacks=[_Keeper(path, settings, start, progress)],
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            plugins=[SafetensorsIO()], num_sanity_val_steps=0, barebones=False,
            default_root_dir=None if path is None else str(path),
        )  # fmt: skip
        resume = str(path / NAME) if path is not None and (path / f"{NAME}.json").exists() else None
        trainer.fit(shell, torch.utils.data.DataLoader(_Endless()), ckpt_path=resume, weights_only=False)
        if path is not None:
            shell.write(path)
    module.load_state_dict(shell.final().state_dict())
    module.to("cpu").eval()
    return TrainResult(trainer.global_step, time.perf_counter() - start, shell.metrics)


class _Job(JobFolder):
    """The folder of a training: one process at a time, and one training."""

    replace = "--overwrite (overwrite=True) to train anew"

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], overwrite: bool = False, code: Sequence[str] = ()
    ) -> None:
        outputs = (*files_of(NAME), "metrics.csv")
        super().__init__(folder, identity, outputs, overwrite=overwrite, name="training", among=True, code=code)


def discard(folder: str | Path) -> None:
    """Remove what a former training would go on from; its weights stay until new ones are written.

    Raises
    ------
    StoreError
        A training is running there.
    """
    if (path := Path(folder)).is_dir():
        _Job(path, {"discarded": True}, overwrite=True).close()


class _Endless(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """Lightning wants a loader; the batches themselves are asked for by step."""

    def __iter__(self) -> Any:
        while True:
            yield 0


class _Shell(lightning.LightningModule):
    """The networks as Lightning sees (and stores) them: trained, averaged, and best so far."""

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        batches: Batches,
        settings: TrainSettings,
        validation: Batches | None,
        validation_batches: int,
    ) -> None:
        super().__init__()
        self.network = network
        # What Lightning's EMAWeightAveraging is made of, which has no decay that grows and copies the data, too.
        self.average = AveragedModel(network, multi_avg_fn=self._mix) if settings.ema_decay else None
        self.best = deepcopy(network) if settings.keep_best else None
        self._loss, self._batches, self._settings = loss, batches, settings
        self._validation, self._n_validation = validation, validation_batches
        self.metrics: list[tuple[int, str, float]] = []
        self._random: Tensor | None = None
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def training_step(self, _: Any, __: int) -> Tensor:
        values = self._loss(self.network, self._drawn(self._batches, self.trainer.global_step))
        for name, value in values.items():
            self._sums[name] = value.detach() + (self._sums[name].to(value) if name in self._sums else 0)
        self._count += 1
        return values["loss"]

    def _drawn(self, batches: Batches, step: int) -> Any:
        """A batch where the network is, in double precision where that is."""
        batch = move_data_to_device(batches.batch(step), self.device)
        if self._settings.precision == "64":
            batch = apply_to_collection(batch, (Tensor, Movable), _in_double)
        return batch

    def configure_optimizers(self) -> Any:
        s = self._settings
        optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, s.rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _mix(self, mean: Any, now: Any, n: Any) -> None:
        # A short memory at the start, so that the first weights are forgotten.
        keep = min(self._settings.ema_decay, (2 + int(n)) / (11 + int(n)))
        torch._foreach_lerp_(mean, now, 1.0 - keep)

    def after_step(self, step: int) -> None:
        """Update the average, write the metrics that are due."""
        s = self._settings
        if self.average is not None:
            self.average.update_parameters(self.network)
        if step % s.log_every == 0 or step == s.max_steps:
            self.metrics += [(step, name, value) for name, value in self._means(step).items()]
            self._sums, self._count = {}, 0
        if self._validation is not None and (step % s.validate_every == 0 or step == s.max_steps):
            self._validate(self._validation, step)

    def _means(self, step: int) -> dict[str, float]:
        means = {name: float(value) / self._count for name, value in self._sums.items()}
        if not all(map(math.isfinite, means.values())):
            raise TrainingError(f"the loss is not finite at step {step}; use a smaller learning rate")
        return means

    @torch.no_grad()
    def _validate(self, batches: Batches, step: int) -> None:
        network = self.network if self.average is None else self.average.module
        network.eval()
        sums: dict[str, float] = {}
        for k in range(self._n_validation):
            values = self._loss(network, self._drawn(batches, k))
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value) / self._n_validation
        network.train()
        if self.best is not None and sums["loss"] < self._lowest():
            self.best.load_state_dict(network.state_dict())
        self.metrics += [(step, f"val_{name}", value) for name, value in sums.items()]

    def _lowest(self) -> float:
        return min((v for _, name, v in self.metrics if name == "val_loss" and math.isfinite(v)), default=math.inf)

    def final(self) -> nn.Module:
        """The network with the weights that the training ends with."""
        if self.best is not None and self._lowest() < math.inf:
            return self.best
        return self.network if self.average is None else self.average.module

    def write(self, folder: Path) -> None:
        """Write the checkpoint and the metrics up to it, unless the loss since the last of them is not finite."""
        self._means(self.trainer.global_step)
        self.trainer.save_checkpoint(folder / NAME, weights_only=False)
        write_metrics(folder, self.metrics)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # What Lightning leaves out: random numbers of the losses, buffers that a model's files do not hold.
        checkpoint["molflow_random"] = torch.get_rng_state()
        checkpoint["molflow_buffers"] = dict(self.named_buffers())
        # Written with the state, so that a metric is never ahead of the weights.
        checkpoint["molflow_metrics"] = [list(row) for row in self.metrics]
        checkpoint["molflow_sums"] = (self._sums, self._count)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.metrics = [(int(k), str(name), float(v)) for k, name, v in checkpoint["molflow_metrics"]]
        self._sums, self._count = checkpoint["molflow_sums"]
        self._random = checkpoint["molflow_random"].to("cpu")
        for name, buffer in self.named_buffers():
            buffer.copy_(checkpoint["molflow_buffers"][name])

    def on_train_start(self) -> None:
        if self._random is not None:
            torch.set_rng_state(self._random)


def _in_double(x: Tensor | Movable) -> Tensor | Movable:
    return x.to(torch.float64) if isinstance(x, Movable) or x.is_floating_point() else x


class _Keeper(Callback):
    """Checkpoints by the clock, and a word to whoever waits."""

    def __init__(self, folder: Path | None, settings: TrainSettings, start: float, progress: bool) -> None:
        self.folder, self.settings, self.progress = folder, settings, progress
        self.start = self.saved = self.told = start
        self.first: int | None = None

    def on_train_batch_end(self, trainer: Any, shell: Any, *_: Any) -> None:
        step, now = trainer.global_step, time.perf_counter()
        if self.first is None:
            self.first = step - 1
        shell.after_step(step)
        if self.folder is not None and now - self.saved > 60.0 * self.settings.checkpoint_minutes:
            shell.write(self.folder)
            self.saved = time.perf_counter()
        if self.progress and now - self.told > 15.0:
            self.told = now
            rest = (now - self.start) / (step - self.first) * (self.settings.max_steps - step)
            latest = {name: value for _, name, value in shell.metrics[-12:]}
            text = ", ".join(f"{name} {value:.4g}" for name, value in latest.items())
            print(f"step {step} of {self.settings.max_steps}, {rest / 60:.1f} min left; {text}", file=sys.stderr)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning tells of devices and products; whoever trains here asked for neither."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def write_metrics(folder: Path, metrics: list[tuple[int, str, float]]) -> None:
    """``metrics.csv``: step, name, value."""
    rows = [f"{step},{name},{value}\n" for step, name, value in metrics]
    write_bytes_atomically(folder / "metrics.csv", "".join(["step,name,value\n", *rows]).encode())


def read_metrics(folder: Path) -> list[tuple[int, str, float]]:
    """What `write_metrics` wrote, nothing where there is no such file; TrainingError where something else is in it."""
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            return [(int(row["step"]), row["name"], float(row["value"])) for row in csv.DictReader(file)]
    except OSError:
        return []
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{folder / 'metrics.csv'} is no table of a training's metrics: {error}") from None
