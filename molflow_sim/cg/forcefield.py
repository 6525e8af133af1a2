"""What every coarse-grained force field offers.

A further student is one module: a class with the attributes of `ForceField`, and a line in
`molflow_sim.registry.MODELS` (or an entry point ``molflow.models``), so that model folders, OpenMM, ASE and the command
line find it by the kind in its card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from torch import Tensor

from molflow_sim.cg.topology import BeadTopology


@runtime_checkable
class ForceField(Protocol):
    """Free energy of the beads of one molecule as a function of their positions.

    Attributes
    ----------
    kind : str
        Name in `molflow_sim.registry.MODELS`.
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
