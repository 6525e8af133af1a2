"""One page that says whether to believe a coarse-grained model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from molflow_sim import __version__
from molflow_sim.cg.frames import BeadFrames
from molflow_sim.cg.reports import numbers as numbers
from molflow_sim.cg.reports.folding import Folding, folding_line, folding_numbers
from molflow_sim.cg.reports.numbers import Plane, Score
from molflow_sim.errors import InputError, MappingError, TrajectoryError
from molflow_sim.evaluate.folding import FOLDED_BELOW, UNFOLDED_ABOVE
from molflow_sim.evaluate.free_energy import free_energy, histogram, kl_divergence
from molflow_sim.runs.files import write_bytes_atomically
from molflow_sim.runs.pages import render
from molflow_sim.units import BOLTZMANN, KCAL_PER_MOL

__all__ = ["Folding", "Report", "Score", "report"]

_SHOWN = 12
_FEWEST = 20


@dataclass(frozen=True)
class Report:
    """The numbers of a report.

    Parameters
    ----------
    path : Path or None
        The HTML file.
    coordinates : str
        Plane of the free energies: "phi-psi", "tica" or "rmsd-rg".
    bins : int
        Bins along each axis.
    scores : tuple of Score
        One per set of samples, in the order given.
    halves : Score
        The second half of the reference against its first: what the reference's own length allows to tell.
    rmsd_reference, gyration_reference : float
        Mean RMSD to the native structure, or else its own first frame, and mean radius of gyration of the reference, Å.
    verdict : str
        A line per set of samples.
    folding : tuple of Folding
        With a native structure: the reference's numbers, then one per set of samples; else empty.
    """

    path: Path | None
    coordinates: str
    bins: int
    scores: tuple[Score, ...]
    halves: Score
    rmsd_reference: float
    gyration_reference: float
    verdict: str
    folding: tuple[Folding, ...] = ()


def report(
    samples: BeadFrames | Mapping[str, BeadFrames],
    reference: BeadFrames,
    path: str | Path | None = None,
    *,
    native: BeadFrames | None = None,
    coordinates: str = "auto",
    bins: int | None = None,
    lag: int = 10,
    title: str = "Coarse-grained model",
    provenance: Mapping[str, object] | None = None,
) -> Report:
    """Compare samples of a model with a reference and write one HTML file that needs no network.

    Parameters
    ----------
    samples : BeadFrames, or label -> BeadFrames
        Frames of the model's simulation, of the flow, ...; in the order in which they are to be shown.
    reference : BeadFrames
        Mapped all-atom frames, best not the ones that the model was fitted to.
    path : path, optional
        The HTML file; by default only the numbers are computed.
    native : BeadFrames, optional
        Its first frame is the folded structure: RMSD is measured to it, and the free energy over that RMSD, the share
        of native frames and (in time series) folding and unfolding events are reported.
    coordinates : str
        "phi-psi"; "tica" (of the reference, by deeptime); "rmsd-rg" (RMSD to the native structure, or else the
        reference's first frame, and radius of gyration); "auto" takes the first of these that the beads, the frames
        and the installation allow, and passes over "tica" where there is a native structure.
    bins : int, optional
        Bins along each axis; default 60 for φ/ψ, else 10 to 60 by the number of reference frames.
    lag : int
        Lag time of TICA, in frames of the reference.
    title : str
        Heading.
    provenance : mapping, optional
        More lines for the table of origins (settings, seeds, files).

    Returns
    -------
    Report

    Raises
    ------
    MappingError
        Samples or a native structure of other beads than the reference's.
    TrajectoryError
        Fewer than 20 frames on either side.
    InputError
        No samples, unknown coordinates, or coordinates that these frames do not have.
    MissingDependencyError
        "tica" is asked for and deeptime is not installed.
    """
    labelled = {"model": samples} if isinstance(samples, BeadFrames) else dict(samples)
    if not labelled:
        raise InputError("there are no samples to compare with the reference")
    if lag < 1 or (bins is not None and bins < 2):
        raise InputError("the lag must be at least one frame and there must be at least two bins")
    for label, frames in {"reference": reference, **labelled}.items():
        if len(frames) < _FEWEST:
            raise TrajectoryError(f"{label}: {len(frames)} frames are too few for a free energy (fewest: {_FEWEST})")
    for label, frames in {**labelled, "native structure": native or reference}.items():
        if not frames.topology.has_beads_of(reference.topology):
            raise MappingError(f"{label}: its beads are not those of the reference")
    plane = numbers.choose_plane(reference, [reference, *labelled.values()], coordinates, bins, lag, native)
    known = plane.project(reference)
    p = plane.probabilities(known)
    middle = len(reference) // 2
    first, second = (plane.probabilities(known[part]) for part in (slice(middle), slice(middle, None)))
    halves = numbers.score("second half of the reference", reference[middle:], reference, plane, first, second, native)
    probabilities = {label: plane.probabilities(plane.project(frames)) for label, frames in labelled.items()}
    scores = []
    for label, frames in labelled.items():
        own = numbers.score(label, frames, reference, plane, p, probabilities[label], native)
        scores.append(replace(own, **numbers.graded(own, halves, reference)))
    folding, profile = ((), None) if native is None else folding_numbers(native, reference, labelled)
    path = None if path is None else Path(path)
    result = Report(
        path=path,
        coordinates=plane.kind,
        bins=plane.bins,
        scores=tuple(scores),
        halves=halves,
        rmsd_reference=float(numbers.rmsd(reference, numbers.origin_of_rmsd(reference, native)[0]).mean()),
        gyration_reference=float(numbers.radius_of_gyration(reference).mean()),
        verdict="\n".join([*(f"{s.label}: {s.verdict}" for s in scores), *map(folding_line, folding)]),
        folding=folding,
    )
    if path is not None:
        everything, beads = {"reference": reference, **labelled}, reference.topology
        data = {
            "labels": list(everything),
            "surfaces": _surfaces(plane, p, reference, probabilities, labelled),
            "panels": _distributions(reference, labelled, native),
            "profile": profile,
        }
        about = {
            **(provenance or {}),
            "beads": ", ".join(beads.label(i) for i in range(min(beads.n_beads, 40))),
            "molflow-sim": __version__,
            "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        }
        text = render(
            "molflow_sim.cg.reports", "report.html.template", data, title=title, result=result, reference=reference,
            beads=beads, frames=everything, provenance=about, cuts=(f"{FOLDED_BELOW:g}", f"{UNFOLDED_ABOVE:g}"),
        )  # fmt: skip
        write_bytes_atomically(path, text.encode("utf-8"))
    return result


def _surfaces(
    plane: Plane,
    p: np.ndarray,
    reference: BeadFrames,
    probabilities: dict[str, np.ndarray],
    samples: dict[str, BeadFrames],
) -> dict[str, Any]:
    """Free energies and differences for the page: rows along the second coordinate, as a heat map wants them."""
    maps = [{"label": "reference", "f": _rounded(free_energy(p, reference.temperature)).T.tolist()}]
    for label, q in probabilities.items():
        common = (p > 0) & (q > 0)
        difference = np.full(p.shape, math.nan)
        kT = BOLTZMANN * reference.temperature / KCAL_PER_MOL
        difference[common] = kT * np.log(p[common] / q[common])
        f = free_energy(q, samples[label].temperature)
        maps.append({"label": label, "f": _rounded(f).T.tolist(), "difference": _rounded(difference).T.tolist()})
    centres = []
    for low, high in plane.ranges:
        edges = np.linspace(low, high, plane.bins + 1)
        centres.append(_rounded(0.5 * (edges[1:] + edges[:-1]), 4).tolist())
    finite = free_energy(p, reference.temperature)
    return {
        "x": centres[0],
        "y": centres[1],
        "names": list(plane.names),
        "maps": maps,
        "highest": round(float(np.ceil(finite[np.isfinite(finite)].max())), 1),
        "periodic": plane.kind == "phi-psi",
    }


def _distributions(
    reference: BeadFrames, samples: dict[str, BeadFrames], native: BeadFrames | None
) -> list[dict[str, Any]]:
    """Overlaid histograms; of each kind the `_SHOWN` that differ most."""
    everything = (reference, *samples.values())
    panels = []
    for kind, label, function in numbers.local_coordinates(reference.topology):
        panels.append(_panel(kind, label, [function(f.positions) for f in everything]))
    origin, named = numbers.origin_of_rmsd(reference, native)
    panels.append(_panel("shape", f"RMSD to {named}", [numbers.rmsd(f, origin) for f in everything]))
    panels.append(_panel("shape", "radius of gyration", [numbers.radius_of_gyration(f) for f in everything]))
    shown = []
    for kind in ("bond", "angle", "dihedral", "shape"):
        ours = [panel for panel in panels if panel["kind"] == kind]
        worst = sorted(range(len(ours)), key=lambda n: -ours[n]["kl"])[:_SHOWN]
        shown += [{**ours[n], "of": len(ours)} for n in sorted(worst)]
    return shown


def _panel(kind: str, label: str, values: list[np.ndarray]) -> dict[str, Any]:
    everything = np.concatenate(values)
    if kind == "dihedral":
        ends = (-180.0, 180.0)
    else:  # tails beyond the reference's range are shown, single wild frames are not
        low, high = np.quantile(everything, [0.0005, 0.9995])
        ends = (float(low) - 1e-6, float(high) + 1e-6)
    curves, edges = [], np.zeros(1)
    for value in values:
        shares, (edges,) = histogram(value, 60, [ends])
        curves.append(shares)
    width = edges[1] - edges[0]
    return {
        "kind": kind,
        "label": label,
        "unit": "°" if kind in ("angle", "dihedral") else "Å",
        "x": _rounded(0.5 * (edges[1:] + edges[:-1]), 4).tolist(),
        "curves": [_rounded(c / width, 6).tolist() for c in curves],
        "kl": max(kl_divergence(curves[0], c) for c in curves[1:]),
    }


def _rounded(values: np.ndarray, digits: int = 3) -> np.ndarray:
    return np.round(np.where(np.isfinite(values), values, math.nan), digits)
