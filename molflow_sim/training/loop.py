"""One way to train every network: Lightning's loop, deterministic batches, checkpoints without pickles."""

from __future__ import annotations

import csv
import io
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from molflow_sim.errors import TrainingError
from molflow_sim.runs.files import write_bytes_atomically
from molflow_sim.training.batches import Batches
from molflow_sim.training.checkpoint import NAME, SafetensorsIO
from molflow_sim.training.settings import TrainSettings
from molflow_sim.training.weights import read_card

Loss = Callable[[nn.Module, Any], dict[str, Tensor]]


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

    def at(self, step: int, name: str) -> float:
        """The value of a metric at a step, NaN if it was not logged there."""
        return next((value for k, key, value in self.metrics if (k, key) == (step, name)), math.nan)

    def lowest(self, name: str) -> int:
        """The (first) step at which a metric was lowest, 0 if it was never logged."""
        found = [(value, k) for k, key, value in self.metrics if key == name]
        return min(found)[1] if found else 0


def train(
    module: nn.Module,
    loss: Loss,
    batches: Batches,
    settings: TrainSettings,
    folder: str | Path | None = None,
    *,
    validation: Batches | None = None,
    validation_batches: int = 4,
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
        Gets ``metrics.csv`` and the checkpoint; a run found here with the same settings goes on where it was.
    validation : Batches, optional
        Looked at with the averaged weights every `settings.validate_every` steps, without gradients unless the loss
        asks for them; logged with the prefix "val_".
    validation_batches : int
        How many of its batches each time.
    progress : bool
        A line now and then on stderr.

    Raises
    ------
    TrainingError
        If the folder holds a training with other settings, the loss stops being finite, or the best weights are to be
        kept and there is no validation set.
    WeightsError
        If its checkpoint is damaged.
    """
    if settings.keep_best and validation is None:
        raise TrainingError("keep_best needs a validation set to judge the weights by")
    start = time.perf_counter()
    shell = _Shell(module, loss, batches, settings, validation, validation_batches)
    path = None if folder is None else Path(folder)
    resume = None
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
        if (path / f"{NAME}.json").exists():
            known = _find(read_card(path, NAME)["tree"], "molflow_settings")
            if known != asdict(settings):
                raise TrainingError(f"{path} holds a training with other settings; choose another folder or remove it")
            resume = str(path / NAME)
            shell.metrics = read_metrics(path)
    callbacks: list[Callback] = [_Keeper(path, settings, start, progress)]
    accelerator = {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}[settings.device]
    precision: Any = {"32": "32-true", "64": "64-true", "bf16-mixed": "bf16-mixed"}[settings.precision]
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            accelerator=accelerator, devices=1, precision=precision, max_steps=settings.max_steps, max_epochs=-1,
            gradient_clip_val=settings.gradient_clip or None, callbacks=callbacks, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            plugins=[SafetensorsIO()], num_sanity_val_steps=0, barebones=False,
            default_root_dir=None if path is None else str(path),
        )  # fmt: skip
        trainer.fit(shell, torch.utils.data.DataLoader(_Endless()), ckpt_path=resume, weights_only=False)
        if path is not None:
            trainer.save_checkpoint(path / NAME, weights_only=False)
            write_metrics(path, shell.metrics)
    shell.use_final()
    module.to("cpu").eval()
    return TrainResult(trainer.global_step, time.perf_counter() - start, shell.metrics)


class _Endless(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """Lightning wants a loader; the batches themselves are asked for by step."""

    def __iter__(self) -> Any:
        while True:
            yield 0


class _Shell(lightning.LightningModule):
    """The network as Lightning sees it."""

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
        self._loss, self._batches, self._settings = loss, batches, settings
        self._validation, self._n_validation = validation, validation_batches
        self.metrics: list[tuple[int, str, float]] = []
        self._average: list[Tensor] | None = None
        self._best: list[Tensor] | None = None
        self._random: Tensor | None = None
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def training_step(self, _: Any, __: int) -> Tensor:
        step = self.trainer.global_step
        values = self._loss(self.network, _move(self._batches.batch(step), self.device))
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        self._count += 1
        return values["loss"]

    def configure_optimizers(self) -> Any:
        s = self._settings
        optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, s.rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def after_step(self, step: int) -> None:
        """Update the average, write the metrics that are due."""
        s = self._settings
        if s.ema_decay:
            now = [p.detach() for p in self.network.parameters()]
            if self._average is None:
                self._average = [p.clone() for p in now]
            # A short memory at the start, so that the first weights are forgotten.
            keep = min(s.ema_decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self._average, now, 1.0 - keep)
        if step % s.log_every == 0 or step == s.max_steps:
            for name, value in self._sums.items():
                self.metrics.append((step, name, float(value) / self._count))
            self._sums, self._count = {}, 0
            last = self.metrics[-1]
            if not all(math.isfinite(v) for k, name, v in self.metrics[-8:] if k == last[0]):
                raise TrainingError(f"the loss is not finite at step {step}; use a smaller learning rate")
        if self._validation is not None and (step % s.validate_every == 0 or step == s.max_steps):
            self._validate(step)

    def _validate(self, step: int) -> None:
        sums: dict[str, float] = {}
        live = self._swap()
        self.network.eval()
        try:
            for k in range(self._n_validation):
                assert self._validation is not None
                values = self._loss(self.network, _move(self._validation.batch(k), self.device))
                for name, value in values.items():
                    sums[name] = sums.get(name, 0.0) + float(value.detach())
            loss = sums["loss"] / self._n_validation
            earlier = (v for _, name, v in self.metrics if name == "val_loss" and math.isfinite(v))
            if self._settings.keep_best and loss < min(earlier, default=math.inf):
                self._best = [p.detach().clone() for p in self.network.parameters()]
        finally:
            self.network.train()
            self._restore(live)
        self.metrics += [(step, f"val_{name}", value / self._n_validation) for name, value in sums.items()]

    def _swap(self) -> list[Tensor] | None:
        if self._average is None:
            return None
        live = [p.detach().clone() for p in self.network.parameters()]
        self.use_average()
        return live

    def _restore(self, live: list[Tensor] | None) -> None:
        if live is not None:
            with torch.no_grad():
                torch._foreach_copy_(list(self.network.parameters()), live)

    def use_average(self) -> None:
        """Put the averaged weights into the network."""
        if self._average is not None:
            with torch.no_grad():
                for p, mean in zip(self.network.parameters(), self._average):
                    p.copy_(mean)

    def use_final(self) -> None:
        """Put the weights that the training ends with into the network."""
        if self._best is not None:
            self._average = self._best
        self.use_average()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["molflow_settings"] = asdict(self._settings)
        checkpoint["molflow_average"] = self._average
        checkpoint["molflow_best"] = self._best
        # For losses that draw random numbers of their own.
        checkpoint["molflow_random"] = torch.get_rng_state()
        # Written with the state, so that a metric is never ahead of the weights.
        checkpoint["molflow_metrics"] = [list(row) for row in self.metrics]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Taken to the device when the training starts.
        self._average, self._best = checkpoint.get("molflow_average"), checkpoint.get("molflow_best")
        self.metrics = [(int(k), str(name), float(v)) for k, name, v in checkpoint["molflow_metrics"]]
        self._random = checkpoint["molflow_random"].to("cpu")

    def on_train_start(self) -> None:
        if self._random is not None:
            torch.set_rng_state(self._random)
        if self._average is not None:
            self._average = [x.to(self.device) for x in self._average]
        if self._best is not None:
            self._best = [x.to(self.device) for x in self._best]


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
            trainer.save_checkpoint(self.folder / NAME, weights_only=False)
            write_metrics(self.folder, shell.metrics)
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
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(("step", "name", "value"))
    table.writerows(metrics)
    write_bytes_atomically(folder / "metrics.csv", text.getvalue().encode())


def read_metrics(folder: Path) -> list[tuple[int, str, float]]:
    """What `write_metrics` wrote; nothing where there is no such file."""
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            return [(int(row["step"]), row["name"], float(row["value"])) for row in csv.DictReader(file)]
    except OSError:
        return []


def _move(batch: Any, device: torch.device) -> Any:
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: _move(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_move(value, device) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(_move(value, device) for value in batch)
    return batch


def _find(tree: Any, name: str) -> Any:
    for key, value in tree["dict"]:
        if key == name:
            return {k: v for k, v in value["dict"]}
    return None
