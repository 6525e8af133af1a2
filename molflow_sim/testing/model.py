"""Checks that every model must pass."""

from __future__ import annotations

import copy
import json
import tempfile
from typing import Any

import torch
from torch import Tensor

from molflow_sim.errors import WeightsError
from molflow_sim.registry import MODELS
from molflow_sim.training.model import Model, load_model, save_model


def validate_model(model: Model, batch: Any) -> None:
    """Hold a model to its protocol: a repeatable loss, weights that come back bit for bit, and a step that learns.

    Parameters
    ----------
    model : Model
        A `torch.nn.Module`; it is not changed.
    batch : object
        What its loss takes.

    Raises
    ------
    ValueError
        Names the failed check and what was found.
    """
    if not isinstance(model, Model) or not isinstance(model, torch.nn.Module):
        raise ValueError(f"protocol: {type(model).__name__} is no module with kind, card, loss, state and from_state")
    model = copy.deepcopy(model)
    first = _loss(model, batch)
    if not torch.equal(_loss(model, batch), first):
        raise ValueError("loss: the same batch gives another loss when asked again")
    tensors, card = model.state()
    if card.get("kind") != model.kind or json.loads(json.dumps(card)).keys() != card.keys():
        raise ValueError(f"state: the card is not JSON with the kind {model.kind!r}")
    _same_model("state", type(model).from_state(tensors, json.loads(json.dumps(card))), tensors, batch, first)
    if model.kind in MODELS.names() and MODELS.get(model.kind) is type(model):
        with tempfile.TemporaryDirectory() as folder:
            save_model(folder, model)
            _same_model("files", load_model(folder), tensors, batch, first)
    try:
        type(model).from_state(dict(list(tensors.items())[1:]), card)
    except WeightsError:
        pass
    else:
        raise ValueError("state: weights with a tensor missing are not refused")
    _learns(model, batch, first)


def _loss(model: Any, batch: Any) -> Tensor:
    loss: Tensor = model.loss(batch)["loss"]
    if loss.dim() or not bool(torch.isfinite(loss)):
        raise ValueError(f"loss: it is no finite number but {loss}")
    return loss.detach()


def _same_model(check: str, twin: Any, tensors: dict[str, Tensor], batch: Any, loss: Tensor) -> None:
    again, _ = twin.state()
    for name, value in tensors.items():
        if name not in again or again[name].dtype != value.dtype or not torch.equal(again[name], value):
            raise ValueError(f"{check}: the tensor {name} does not come back as it was")
    if not torch.equal(_loss(twin, batch), loss):
        raise ValueError(f"{check}: the loss differs after the weights were read back")


def _learns(model: Any, batch: Any, before: Tensor) -> None:
    """Steps down the gradient, shorter and shorter: one of them must lower the loss."""
    model.loss(batch)["loss"].backward()
    moved = [p for p in model.parameters() if p.grad is not None]
    size = sum(float((p.grad**2).sum()) for p in moved) ** 0.5
    if not 0.0 < size < float("inf"):
        raise ValueError(f"gradients: their norm is {size}")
    start = [p.detach().clone() for p in moved]
    for k in range(1, 13):
        with torch.no_grad():
            for p, value in zip(moved, start):
                p.copy_(value - 4.0 * 0.25**k / size * p.grad)
        if _loss(model, batch) < before:
            return
    raise ValueError("learning: no step down the gradient lowers the loss")
