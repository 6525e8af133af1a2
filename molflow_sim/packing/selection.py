"""The better part of generated packings, by their energy after a few steps of the potential."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from molflow_sim.errors import InputError
from molflow_sim.packing.packings import PARTED, RigidPackings
from molflow_sim.packing.press import PressSettings, press

if TYPE_CHECKING:
    from molflow_sim.forcefield.parameters import MoleculeParameters

SELECTION_EVALUATIONS = 10
"""Evaluations of the potential; a full press takes about 150."""


def select_low(
    packings: RigidPackings, parameters: MoleculeParameters, n: int, evaluations: int = SELECTION_EVALUATIONS
) -> RigidPackings:
    """Move packings a few steps down the potential and keep those of lowest energy.

    Meant for packings without overlaps (`relieve`): energies of others say nothing.

    Parameters
    ----------
    packings : RigidPackings
    parameters : MoleculeParameters
        Intermolecular parameters of the molecule.
    n : int
        How many to keep.
    evaluations : int
        Of the energy and its gradient, at least 1.

    Returns
    -------
    RigidPackings
        n packings in their former order, as they are after these steps, without energies and with the status
        ``parted``. One whose numbers fail comes last in energy, and as it was.

    Raises
    ------
    InputError
        If `n` exceeds the number of packings, or a number is too small.
    """
    if not 1 <= n <= len(packings) or evaluations < 1:
        raise InputError(f"{n} of {len(packings)} packings cannot be selected with {evaluations} evaluations")
    settings = PressSettings(
        soft_evaluations=0, squeeze_evaluations=0, max_evaluations=evaluations, polish_evaluations=0,
        accept=np.inf, reduce_cells=False,
    )  # fmt: skip
    moved = press(packings, parameters, settings)
    good = moved.ok & np.isfinite(moved.energy)
    energy = np.where(good, moved.energy, np.inf)
    kept = np.sort(np.argsort(energy, kind="stable")[:n])
    both = moved.select(kept), packings.select(kept)
    fields = {
        name: np.where(
            good[kept].reshape(-1, *[1] * (getattr(both[0], name).ndim - 1)), *(getattr(p, name) for p in both)
        )
        for name in ("cell", "centroid", "rotation")
    }
    status = np.where(good[kept], PARTED, both[1].status).astype(np.int8)
    return replace(both[1], **fields, status=status)
