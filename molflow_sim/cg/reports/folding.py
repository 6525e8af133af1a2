"""Folding in a report: free energy over the RMSD to a native structure, share of native frames, transitions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from molflow_sim.cg.frames import BeadFrames
from molflow_sim.cg.reports.numbers import rmsd
from molflow_sim.evaluate.folding import FOLDED_BELOW, UNFOLDED_ABOVE, count_transitions, folding_states
from molflow_sim.evaluate.free_energy import coverage, free_energy, free_energy_mse, histogram, kl_divergence

BIN_WIDTH = 0.25
"""Å, of the free energy over RMSD."""


@dataclass(frozen=True)
class Folding:
    """Folding in one set of frames.

    Parameters
    ----------
    label : str
        Name of the frames.
    native : float
        Share of frames within `FOLDED_BELOW` of the native structure (RMSD of the beads after superposition).
    native_error : float
        Standard error of that share, from the spread over copies; NaN without time series or with one alone.
    kl, free_energy_mse, coverage : float
        Of the distribution over RMSD against the reference's, as for the surfaces; 0, 0 and 1 for the reference itself.
    folding, unfolding : int or None
        Transitions with hysteresis between `FOLDED_BELOW` and `UNFOLDED_ABOVE`; None where the frames are no time
        series.
    copies : int
        Time series that were looked at.
    crossed : int
        Those of them that folded or unfolded at least once.
    """

    label: str
    native: float
    native_error: float
    kl: float
    free_energy_mse: float
    coverage: float
    folding: int | None
    unfolding: int | None
    copies: int
    crossed: int


def folding_numbers(
    native: BeadFrames, reference: BeadFrames, samples: dict[str, BeadFrames]
) -> tuple[tuple[Folding, ...], dict[str, Any]]:
    """Numbers, the reference's first, and the free energies over RMSD for the page.

    Parameters
    ----------
    native : BeadFrames
        Its first frame is the native structure.
    reference, samples
        As in `reporting.report`.
    """
    sets = {"reference": reference, **samples}
    values = {label: rmsd(frames, native) for label, frames in sets.items()}
    # Beyond what the reference visits there is nothing to compare with; the share of samples there still shows.
    highest = BIN_WIDTH * math.ceil(max(v.max() for v in values.values()) / BIN_WIDTH + 1e-9)
    n = round(highest / BIN_WIDTH)
    shares = {label: histogram(v, n, [(0.0, highest)])[0] for label, v in values.items()}
    found = tuple(_summary(label, sets[label], values[label], shares["reference"], shares[label]) for label in sets)
    curves = []
    for label, p in shares.items():
        f = free_energy(p, sets[label].temperature)
        curves.append([round(float(v), 3) if math.isfinite(v) else None for v in f])
    centres = [round(BIN_WIDTH * (k + 0.5), 4) for k in range(n)]
    return found, {"x": centres, "curves": curves, "labels": list(sets), "cuts": [FOLDED_BELOW, UNFOLDED_ABOVE]}


def _summary(label: str, frames: BeadFrames, values: np.ndarray, p: np.ndarray, q: np.ndarray) -> Folding:
    native = values < FOLDED_BELOW
    series = np.cumsum(frames.lengths)[:-1] if frames.lengths else None
    folding = unfolding = None
    copies = crossed = 0
    error = math.nan
    if series is not None:
        events = [count_transitions(folding_states(part)) for part in np.split(values, series)]
        folding, unfolding = (sum(counts) for counts in zip(*events))
        copies, crossed = len(events), sum(any(counts) for counts in events)
        if copies > 1:
            means = np.array([part.mean() for part in np.split(native, series)])
            error = float(means.std(ddof=1) / math.sqrt(copies))
    return Folding(
        label=label,
        native=float(native.mean()),
        native_error=error,
        kl=kl_divergence(p, q),
        free_energy_mse=free_energy_mse(p, q, frames.temperature),
        coverage=coverage(p, q),
        folding=folding,
        unfolding=unfolding,
        copies=copies,
        crossed=crossed,
    )


def folding_line(found: Folding) -> str:
    """One line of text on one set of frames."""
    error = "" if math.isnan(found.native_error) else f" ± {100 * found.native_error:.1f}"
    text = f"{found.label}: {100 * found.native:.1f}{error} % native"
    if found.folding is not None:
        text += f", {found.folding} folding and {found.unfolding} unfolding events in {found.copies} copies"
        text += f" ({found.crossed} of them crossed)"
    return text
