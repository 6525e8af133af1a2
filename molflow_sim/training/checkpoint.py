"""Lightning checkpoints as safetensors + JSON, so that resuming never reads a pickle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io import CheckpointIO
from torch import Tensor

from molflow_sim.errors import WeightsError
from molflow_sim.training.weights import load_weights, read_card, save_weights

NAME = "checkpoint"


def stored_step(folder: Path) -> int:
    """The step of the checkpoint in a folder, 0 without one.

    Raises
    ------
    WeightsError
        It is damaged.
    """
    if not (folder / f"{NAME}.json").exists():
        return 0
    try:
        return int(dict(read_card(folder, NAME)["tree"]["dict"])["global_step"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{folder / NAME}.json is no checkpoint of a training: {error}") from error


class SafetensorsIO(CheckpointIO):
    """Writes the nested dictionary that Lightning hands over: tensors to safetensors, the rest to JSON."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write atomically; `path` only tells the folder."""
        tensors: dict[str, Tensor] = {}
        tree = _take_apart(checkpoint, tensors)
        save_weights(Path(path).parent, NAME, tensors, {"kind": "checkpoint", "tree": tree})

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read back; raises WeightsError where the files are damaged."""
        tensors, card = load_weights(Path(path).parent, NAME)
        result: dict[str, Any] = _put_together(card["tree"], tensors)
        return result

    def remove_checkpoint(self, path: Any) -> None:
        """Nothing: the one checkpoint is replaced, never removed."""


def _take_apart(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        key = f"t{len(tensors):05d}"
        tensors[key] = value
        return {"tensor": key}
    if isinstance(value, dict):
        # Keys of optimiser states are integers; JSON keeps pairs.
        return {"dict": [[_take_apart(k, tensors), _take_apart(v, tensors)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_take_apart(v, tensors) for v in value]}
    if isinstance(value, list):
        return [_take_apart(v, tensors) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}  # which JSON has no word for
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")


def _put_together(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_put_together(v, tensors) for v in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        if "float" in value:
            return float(value["float"])
        if "tuple" in value:
            return tuple(_put_together(v, tensors) for v in value["tuple"])
        return {_put_together(k, tensors): _put_together(v, tensors) for k, v in value["dict"]}
    return value
