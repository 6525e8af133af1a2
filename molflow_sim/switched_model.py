"""What our torch-sim models share: their state from a dictionary, and switches for forces and stress."""

from __future__ import annotations

import torch
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState


class SwitchedModel(ModelInterface):
    """A torch-sim model whose forces and stress can be switched on and off.

    Parameters
    ----------
    device : torch.device
    dtype : torch.dtype
        Of results.
    compute_forces, compute_stress : bool
        What `forward` returns beside the energy.
    """

    def __init__(
        self, device: torch.device, dtype: torch.dtype, *, compute_forces: bool = True, compute_stress: bool = True
    ) -> None:
        super().__init__()
        self._device, self._dtype = device, dtype
        self._compute_forces, self._compute_stress = compute_forces, compute_stress
        self._memory_scales_with = "n_atoms_x_density"

    @property
    def compute_stress(self) -> bool:
        """Whether `forward` returns the stress."""
        return self._compute_stress

    @compute_stress.setter
    def compute_stress(self, value: bool) -> None:
        self._compute_stress = bool(value)

    @property
    def compute_forces(self) -> bool:
        """Whether `forward` returns forces."""
        return self._compute_forces

    @compute_forces.setter
    def compute_forces(self, value: bool) -> None:
        self._compute_forces = bool(value)


def state_of(state: SimState | dict[str, torch.Tensor]) -> SimState:
    """The state itself, or one of a dictionary that may leave out masses and periodicity."""
    if isinstance(state, SimState):
        return state
    return SimState(**{"masses": torch.ones(len(state["positions"])), "pbc": True, **state})
