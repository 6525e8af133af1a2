"""Whether the density of a run still drifts: what was sampled is then not in equilibrium."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEAST = 0.01
"""A relative change between the halves of a run below which it is called steady whatever the noise."""
BLOCKS = 5
"""Blocks in each half, whose scatter gives the error of its mean."""


class Drift(NamedTuple):
    """Mean, change from the first to the second half over the size of the mean, its error, and the verdict."""

    density: float
    change: float
    error: float
    drifting: bool


def drift(density: np.ndarray) -> Drift:
    """Compare the halves of a series.

    Drifting means that the change exceeds both 1 % and twice its error (from block averages). Fewer than four values
    tell nothing: they have an error of 100 % and count as drifting.
    """
    x = np.asarray(density, dtype=float)
    if len(x) < 4:
        return Drift(float(x.mean()), 0.0, 1.0, True)
    halves = np.array_split(x, 2)
    means = [h.mean() for h in halves]
    errors = []
    for half in halves:
        blocks = [b.mean() for b in np.array_split(half, min(BLOCKS, len(half)))]
        errors.append(np.std(blocks, ddof=1) / np.sqrt(len(blocks)))
    change, error = float((means[1] - means[0]) / abs(means[0])), float(np.hypot(*errors) / abs(means[0]))
    return Drift(float(x.mean()), change, error, bool(abs(change) > max(LEAST, 2.0 * error)))
