"""How a network is trained, as a dataclass with a YAML form."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from molflow_sim.errors import InputError
from molflow_sim.registry import build
from molflow_sim.runs.files import write_bytes_atomically


class YamlSettings:
    """Reading and writing of a frozen dataclass as a YAML mapping."""

    def to_yaml(self, path: str | Path) -> None:
        """Write every setting as ``name: value``."""
        import yaml

        text = yaml.safe_dump(asdict(self), sort_keys=False)  # type: ignore[call-overload]
        write_bytes_atomically(Path(path), text.encode())

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read settings; what the file does not name keeps its default.

        Raises
        ------
        InputError
            If the file cannot be read, names an unknown setting, or a value has the wrong type.
        """
        import yaml

        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"settings {path} cannot be read: {error}") from None
        except yaml.YAMLError as error:
            raise InputError(f"settings {path} are not YAML: {error}") from None
        return cls.from_dict({} if data is None else data, str(path))

    @classmethod
    def from_dict(cls, data: Any, where: str = "settings") -> Self:
        """Build from a mapping, checked against the dataclass.

        A field that holds settings itself takes a mapping; what that leaves out keeps the field's default.

        Raises
        ------
        InputError
            As `from_yaml`.
        """
        return build(cls, data, where)


def at_least(settings: Any, least: float, *names: str) -> None:
    """Refuse settings that are lower, infinite or no number."""
    for name in names:
        if not least <= (value := getattr(settings, name)) < math.inf:
            raise InputError(f"{name} must {f'be at least {least:g}' if least else 'not be negative'}, got {value}")


def positive(settings: Any, *names: str) -> None:
    """Refuse settings that are zero, negative, infinite or no number."""
    for name in names:
        if not 0.0 < (value := getattr(settings, name)) < math.inf:
            raise InputError(f"{name} must be positive, got {value}")


def one_of(settings: Any, **choices: tuple[str, ...]) -> None:
    """Refuse settings that are none of their choices."""
    for name, known in choices.items():
        if (value := getattr(settings, name)) not in known:
            raise InputError(f"{name} must be one of {', '.join(known)}, got {value!r}")


@dataclass(frozen=True)
class TrainSettings(YamlSettings):
    """How long and how a network is trained.

    Attributes
    ----------
    max_steps : int
        Optimiser steps in all.
    batch_size : int
        Read by whoever makes the batches.
    learning_rate, weight_decay : float
        Of AdamW; the rate rises linearly over `warmup_steps` and falls to zero along a cosine.
    gradient_clip : float
        Largest norm of the gradient, 0 for no limit.
    ema_decay : float
        Decay of the exponential moving average of the weights, 0 for none.
    precision : str
        "32", "64" or "bf16-mixed".
    device : str
        "auto" (an accelerator where there is one), "cpu" or "cuda".
    checkpoint_minutes : float
        Time between checkpoints: what a killed run loses at most.
    log_every, validate_every : int
        Steps between lines of the metrics, and between looks at the validation set.
    keep_best : bool
        End with the (averaged) weights of the lowest validation loss instead of the last ones; needs a validation set.
    seed : int
    """

    max_steps: int = 10_000
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 200
    gradient_clip: float = 1.0
    ema_decay: float = 0.0
    precision: str = "32"
    device: str = "auto"
    checkpoint_minutes: float = 5.0
    log_every: int = 50
    validate_every: int = 500
    keep_best: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        at_least(self, 1, "max_steps", "batch_size", "log_every", "validate_every")
        rates = ("learning_rate", "weight_decay", "gradient_clip", "warmup_steps", "checkpoint_minutes")
        at_least(self, 0, *rates, "seed")
        if not 0.0 <= self.ema_decay < 1.0:
            raise InputError(f"ema_decay must lie in [0, 1), got {self.ema_decay}")
        one_of(self, precision=("32", "64", "bf16-mixed"), device=("auto", "cpu", "cuda"))

    def identity(self) -> dict[str, Any]:
        """The settings that decide the weights: all but where and how often it is looked at and stored."""
        return {k: v for k, v in asdict(self).items() if k not in ("device", "checkpoint_minutes", "log_every")}

    def rate(self, step: int) -> float:
        """Factor on the learning rate at a step: linear rise, then half a cosine down to zero."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        rest = max(1, self.max_steps - self.warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - self.warmup_steps) / rest)))
