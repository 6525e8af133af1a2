"""What every coarse-grained force field offers, and the list of those that there are.

A further student is one module: a class with the attributes of `ForceField`, and a line in `KINDS` (or a call of
`register`), so that model folders, OpenMM, ASE and the command line find it by the kind in its card.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from torch import Tensor

from molflow_sim.cg.topology import BeadTopology
from molflow_sim.errors import WeightsError


@runtime_checkable
class ForceField(Protocol):
    """Free energy of the beads of one molecule as a function of their positions.

    Attributes
    ----------
    kind : str
        Name in `KINDS`.
    topology : BeadTopology
    temperature : float
        K, at which the free energy holds.
    """

    kind: str
    topology: BeadTopology
    temperature: float

    def energy(self, positions: Tensor) -> Tensor:
        """Energies (...,) in eV of positions (..., B, 3) in Å, differentiable, in the dtype of the positions."""
        ...

    def energy_and_forces(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The fast path: energies (R,) in eV and forces (R, B, 3) in eV/Å of positions (R, B, 3) in Å, float64.

        Safe to call from several threads.

        Raises
        ------
        NonFiniteError
            Positions that are not finite, or beads at one point.
        """
        ...

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and a card that JSON can hold, with "kind", "topology" (JSON text) and "temperature"."""
        ...

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> Self:
        """Rebuild from what `state` gave.

        Raises
        ------
        WeightsError
            Tensors or a card of something else.
        """
        ...


KINDS: dict[str, str | type[ForceField]] = {"cgnet": "molflow_sim.cg.student.cgnet:CGNet"}
"""Force fields by kind: the class, or where it is (imported on first use)."""


def register(kind: str, cls: type[ForceField]) -> None:
    """Make a force field known under a kind."""
    KINDS[kind] = cls


def force_field_class(kind: str) -> type[ForceField]:
    """The class of a kind.

    Raises
    ------
    WeightsError
        An unknown kind.
    """
    known = KINDS.get(kind)
    if known is None:
        raise WeightsError(f"unknown kind of force field {kind!r}; known are {', '.join(sorted(KINDS))}")
    if isinstance(known, str):
        module, name = known.split(":")
        found: type[ForceField] = getattr(import_module(module), name)
        return found
    return known
