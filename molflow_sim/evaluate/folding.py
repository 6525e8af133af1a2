"""Folded or unfolded: states of a trajectory by its distance from a structure, and how often it goes between them.

A single cut-off counts every jitter at the barrier as a transition. With two, a molecule is folded from when it comes
within the first of the native structure until it goes beyond the second (Northrup and Hynes, J. Chem. Phys. 73, 2700
(1980); for folding, Buchete and Hummer, J. Phys. Chem. B 112, 6057 (2008)).
"""

from __future__ import annotations

import numpy as np

from molflow_sim.errors import InputError, NonFiniteError

FOLDED_BELOW, UNFOLDED_ABOVE = 2.0, 4.0
"""RMSD from the native structure, Å: folded below the first, unfolded above the second, else as it was."""


def folding_states(
    rmsd: np.ndarray, folded_below: float = FOLDED_BELOW, unfolded_above: float = UNFOLDED_ABOVE
) -> np.ndarray:
    """State of every frame, with hysteresis.

    Parameters
    ----------
    rmsd : ndarray, shape (..., T)
        Distance from the native structure along time, one trajectory per row.
    folded_below, unfolded_above : float
        In the unit of `rmsd`; between them a frame has the state of the frame before it.

    Returns
    -------
    ndarray of int8, shape (..., T)
        1 folded, 0 unfolded, −1 not known yet (before a trajectory has been in either state).

    Raises
    ------
    InputError
        No time axis, or cut-offs that are not rising.
    NonFiniteError
        A NaN or infinity.
    """
    values = np.asarray(rmsd, dtype=np.float64)
    if values.ndim < 1:
        raise InputError("folding states need a time series, shape (..., T)")
    if not 0 < folded_below <= unfolded_above:
        raise InputError(f"cut-offs {folded_below} and {unfolded_above}: 0 < folded_below ≤ unfolded_above")
    if not np.isfinite(values).all():
        raise NonFiniteError("an RMSD is NaN or infinite")
    core = np.full(values.shape, -1, dtype=np.int8)
    core[values < folded_below] = 1
    core[values > unfolded_above] = 0
    if not values.shape[-1]:
        return core
    since = np.maximum.accumulate(np.where(core >= 0, np.arange(values.shape[-1]), 0), axis=-1)
    return np.take_along_axis(core, since, axis=-1)


def count_transitions(states: np.ndarray) -> tuple[int, int]:
    """How often trajectories fold and unfold; a first entry into a state from nowhere is no event.

    Parameters
    ----------
    states : ndarray of int, shape (..., T)
        As `folding_states` gives.

    Returns
    -------
    folding, unfolding : int
        Summed over all trajectories.
    """
    before, after = np.asarray(states)[..., :-1], np.asarray(states)[..., 1:]
    return int(((before == 0) & (after == 1)).sum()), int(((before == 1) & (after == 0)).sum())
