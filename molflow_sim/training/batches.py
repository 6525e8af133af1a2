"""Batches that depend on the seed and the step alone, so that a resumed run sees what an undisturbed one would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from molflow_sim.errors import TrainingError
from molflow_sim.runs.files import sha256

FEWEST_FOR_VALIDATION = 20
"""Molecules; with fewer none is set aside."""


class Batches(Protocol):
    """A source of batches."""

    def batch(self, step: int) -> Any:
        """The batch of an optimiser step: tensors, or nested tuples, lists and dicts of them."""
        ...


class Movable:
    """A dataclass of tensors and of such dataclasses."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Every floating tensor moved (and cast) as by `torch.Tensor.to`; the others only change device."""
        changed: dict[str, Any] = {}
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if isinstance(value, Movable):
                changed[f.name] = value.to(*args, **kwargs)
            elif isinstance(value, Tensor):
                moved = value.to(*args, **kwargs)
                changed[f.name] = moved if value.is_floating_point() else moved.to(value.dtype)
        return replace(self, **changed)  # type: ignore[type-var]


class TensorBatches:
    """Shuffled epochs over tensors of equal length.

    Parameters
    ----------
    tensors : sequence of Tensor, shape (n, ...)
    batch_size : int
        Larger than n means n.
    seed : int

    Raises
    ------
    TrainingError
        If there is nothing, or the lengths differ.
    """

    def __init__(self, tensors: Sequence[Tensor], batch_size: int, seed: int = 0) -> None:
        self.tensors = tuple(tensors)
        lengths = {len(x) for x in self.tensors}
        if len(lengths) != 1 or lengths == {0}:
            raise TrainingError(f"batches need tensors of one length above zero, got {sorted(lengths)}")
        self.n = lengths.pop()
        self.size = min(batch_size, self.n)
        self.seed = seed
        self._order: tuple[int, Tensor] | None = None

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch; the incomplete last one is left out."""
        return self.n // self.size

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Rows of every tensor."""
        epoch, place = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._order = (epoch, torch.randperm(self.n, generator=generator))
        rows = self._order[1][place * self.size : (place + 1) * self.size]
        return tuple(x[rows] for x in self.tensors)


def data_identity(data: Any, *settings: Any) -> str:
    """Hash of the molecules and energies of a `CrystalDataset` and of the settings that decide what is made of it."""
    names = [f"{data.keys[m]}:{energy:.6f}" for m, energy in zip(data.molecule, data.energy)]
    return sha256(repr((names, *settings)).encode())


def molecule_counts(data: Any, aside: np.ndarray) -> dict[str, int]:
    """How many molecules are trained on and how many are set aside, for a card."""
    sides = {"molecules": ~aside, "validation molecules": aside}
    return {name: len(np.unique(data.molecule[rows])) for name, rows in sides.items()}


def with_measured_share(weights: np.ndarray, measured: np.ndarray, share: float) -> np.ndarray:
    """Sampling weights (n,) of which the `measured` crystals have a share, where there are both kinds."""
    weights = np.array(weights)
    if measured.any() and not measured.all():
        for rows, part in ((measured, share), (~measured, 1.0 - share)):
            weights[rows] *= part / weights[rows].sum()
    return weights


def validation_rows(data: Any, share: float) -> np.ndarray:
    """Boolean (n,): rows of a `CrystalDataset` whose molecules are set aside for validation, by their keys' hash."""
    if len(data.keys) < FEWEST_FOR_VALIDATION:
        return np.zeros(len(data), bool)
    aside = np.array([int(sha256(key.encode())[:8], 16) < share * 2**32 for key in data.keys])
    rows: np.ndarray = aside[data.molecule]
    return rows
