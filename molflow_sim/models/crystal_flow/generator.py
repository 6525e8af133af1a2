"""The crystal flow as a generator: random packings moved along the flow, the lower ones kept."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from molflow_sim.errors import InputError, MolflowError
from molflow_sim.generators.protocol import CrystalRequest, served
from molflow_sim.generators.trained import TrainedGenerator
from molflow_sim.models.crystal_flow.model import STEPS, CrystalFlow
from molflow_sim.packing.random_packing import random_packings
from molflow_sim.packing.relief import RELIEF_EVALUATIONS, relieve
from molflow_sim.packing.selection import select_low

if TYPE_CHECKING:
    from molflow_sim.forcefield.parameters import MoleculeParameters
    from molflow_sim.packing import RigidPackings
    from molflow_sim.systems.molecule import Molecule

SELECTED_TOGETHER = 10
"""Candidates whose draws compete: a choice of the lowest among many, which still follows from a candidate's number."""


@dataclass(frozen=True)
class FlowGenerator(TrainedGenerator):
    """A trained crystal flow (a `molflow_sim.generators.protocol.Generator`).

    Random packings are drawn and moved along the flow, what still overlaps is moved apart, and the lower ones are kept.
    Every packing keeps its space group and site exactly. What is drawn and not kept is the part of highest energy
    after a few steps of the potential (`molflow_sim.packing.selection`), among the draws for ten candidates whose
    numbers follow one another.

    Attributes
    ----------
    weights : str or None
        See `TrainedGenerator`.
    draws : int
        Packings drawn for each one kept; 1 takes them as the flow makes them, and needs no potential. A molecule that
        the potential does not know is done with 1, with a warning.
    steps : int
        Euler steps.
    excess : float
        Energy above the molecule's lowest packing to aim for, in 10 kJ/mol per molecule.
    relief : int
        Evaluations of the soft overlap at the end, see `relieve`; 0 leaves the packings as the flow made them.

    Raises
    ------
    InputError
        A number out of range.

    Warns
    -----
    UserWarning
        In `sample`, if the molecule is smaller or larger than those trained on; the message gives the range.
    """

    kind: ClassVar[str] = "crystals/flow"
    model: ClassVar[str] = CrystalFlow.kind
    draws: int = 3
    steps: int = STEPS
    excess: float = 0.0
    relief: int = RELIEF_EVALUATIONS

    def __post_init__(self) -> None:
        if self.draws < 1 or self.steps < 1:
            raise InputError(f"steps and draws must be at least 1, got {self.steps} and {self.draws}")

    def sample(self, request: CrystalRequest, n: int, *, seed: int, first_index: int = 0) -> RigidPackings:
        """See `Generator.sample`."""
        return self.draw(self.load(), request, n, seed=seed, first_index=first_index)

    def draw(
        self, flow: CrystalFlow, request: CrystalRequest, n: int, *, seed: int, first_index: int = 0
    ) -> RigidPackings:
        """As `sample`, by a flow at hand instead of the one of `weights`."""
        asked = served(request, CrystalRequest, self.kind, n)
        _warn_of_size(flow, asked.molecule)
        parameters = _parameters(asked.molecule) if self.draws > 1 else None
        draws = 1 if parameters is None else self.draws
        together = 1 if draws == 1 else SELECTED_TOGETHER
        first, last = first_index // together * together, -(-(first_index + n) // together) * together
        start = random_packings(
            asked.molecule, (last - first) * draws, space_groups=asked.space_groups, z_prime=asked.z_prime, seed=seed,
            first_index=first * draws, packing_coefficient=flow.packing_coefficient,
        )  # fmt: skip
        made = relieve(flow.integrate(start, steps=self.steps, excess=self.excess), self.relief)
        if parameters is None:
            return made
        kept = replace(select_low(made, parameters, together, of=together * draws), index=np.arange(first, last))
        return kept.select(slice(first_index - first, first_index - first + n))


def _warn_of_size(flow: CrystalFlow, molecule: Molecule) -> None:
    low, high = flow.card.get("data", {}).get("atoms", (0, 10**6))
    if not low <= molecule.n_atoms <= high:
        warnings.warn(
            f"{molecule.smiles or molecule.formula} has {molecule.n_atoms} atoms; the flow was trained on "
            f"molecules of {low} to {high} and may do no better than random packings",
            stacklevel=4,
        )


def _parameters(molecule: Molecule) -> MoleculeParameters | None:
    """Force-field parameters for the selection; None, with a warning, for a molecule that has none."""
    from molflow_sim.forcefield import parametrize

    try:
        return parametrize(molecule)
    except MolflowError as error:
        warnings.warn(f"packings are proposed as the flow draws them, not by energy: {error.reason}", stacklevel=4)
        return None
