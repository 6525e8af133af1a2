"""The better part of generated packings, by their energy after a few steps of the potential."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from molflow_sim.errors import InputError
from molflow_sim.packing.packings import RigidPackings
from molflow_sim.packing.press import PressSettings, press

if TYPE_CHECKING:
    from molflow_sim.forcefield.parameters import MoleculeParameters

SELECTION_EVALUATIONS = 3
"""Evaluations of the energy and its gradient; a full press takes about 150."""


def select_low(
    packings: RigidPackings, parameters: MoleculeParameters, n: int, *, of: int | None = None
) -> RigidPackings:
    """The packings that have the lowest energy after a few steps of the potential, as they were before them.

    Meant for packings without overlaps (`relieve`): energies of others say nothing. The steps relieve what contacts
    are still too short; they are not kept, since so few of them mostly make the cell too large.

    Parameters
    ----------
    packings : RigidPackings
    parameters : MoleculeParameters
        Intermolecular parameters of the molecule.
    n : int
        How many to keep, of all or of every `of` that follow one another.
    of : int, optional
        Packings among which `n` are kept; all of them unless given. It must divide their number.

    Returns
    -------
    RigidPackings
        The packings kept in their former order. One whose numbers fail comes last in energy.

    Raises
    ------
    InputError
        If `n` exceeds the number of packings or is below 1, or `of` does not divide it.
    """
    of = of or len(packings)
    if not 1 <= n <= of or len(packings) % of:
        raise InputError(f"{n} of every {of} among {len(packings)} packings cannot be selected")
    settings = PressSettings(
        soft_evaluations=0, squeeze_evaluations=0, max_evaluations=SELECTION_EVALUATIONS, polish_evaluations=0,
        accept=np.inf, reduce_cells=False,
    )  # fmt: skip
    moved = press(packings, parameters, settings)
    blocks = [first + lowest_rows(moved.select(slice(first, first + of)), n) for first in range(0, len(moved), of)]
    return packings.select(np.concatenate(blocks))


def lowest_rows(packings: RigidPackings, n: int) -> np.ndarray:
    """Rows (n,), in order, of the packings of lowest energy; those whose press failed come last."""
    energy = np.where(packings.ok, packings.energy, np.inf)
    return np.sort(np.argsort(energy, kind="stable")[:n])
