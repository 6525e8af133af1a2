"""What every coarse-grained force field offers.

A further student is one module: a class with the attributes of `ForceField`, and a line in
`molflow_sim.registry.MODELS` (or an entry point ``molflow.models``), so that model folders, OpenMM, ASE and the command
line find it by the kind in its card.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.training.model import Stored


@runtime_checkable
class ForceField(Stored, Protocol):
    """Free energy of the beads of one molecule as a function of their positions.

    The card of its `state` holds "topology" (JSON text) and "temperature" as well.

    Attributes
    ----------
    kind : str
        Name in `molflow_sim.registry.MODELS`.
    topology : BeadTopology
    temperature : float
        K, at which the free energy holds.
    """

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
