"""The page of a report: tables as HTML, figures as data for plotly.js, all in one file."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

import molflow_sim
from molflow_sim.cg.frames import BeadFrames
from molflow_sim.cg.reports.folding import folding_html
from molflow_sim.cg.reports.numbers import Score
from molflow_sim.screening.report import script_json

if TYPE_CHECKING:
    from molflow_sim.cg.reports.reporting import Report

_COORDINATES = {
    "phi-psi": "the backbone torsions φ and ψ",
    "tica": "the two slowest coordinates of the reference (TICA)",
    "rmsd-rg": "the RMSD to the reference's first frame and the radius of gyration",
}


def page(
    result: Report,
    reference: BeadFrames,
    samples: dict[str, BeadFrames],
    title: str,
    provenance: dict[str, object],
    data: dict[str, Any],
) -> str:
    """The whole file as text; every text that came from outside is escaped for where it stands.

    Parameters
    ----------
    result : Report
        The numbers.
    reference, samples
        What was compared.
    title : str
        Heading.
    provenance : dict
        Lines to add to the table of origins.
    data : dict
        "surfaces", "panels" and, with a native structure, "profile" for the figures.
    """
    from plotly.offline import get_plotlyjs

    beads = reference.topology
    coordinates = _COORDINATES[result.coordinates]
    if result.folding:
        coordinates = coordinates.replace("the reference's first frame", "the native structure")
    summary = (
        f"{beads.n_beads} beads, {reference.n_frames:,} reference frames at {reference.temperature:g} K; free energies "
        f"over {coordinates}, {result.bins} × {result.bins} bins"
    )
    values = {
        "TITLE": escape(title),
        "SUMMARY": escape(summary),
        "VERDICT": "".join(_verdict(s) for s in result.scores),
        "SCORES": _scores(result, reference),
        "FOLDING": folding_html(result.folding),
        "PROVENANCE": _provenance(reference, samples, provenance),
        "PLOTLY": get_plotlyjs().replace("</script", "<\\/script"),
        "DATA": script_json({**data, "labels": ["reference", *samples]}),
    }
    template = files("molflow_sim.cg.reports").joinpath("report.html.template").read_text(encoding="utf-8")
    # One pass, so that nothing inside a value is taken for a place to fill.
    return re.sub(r"@@([A-Z]+)@@", lambda match: values[match.group(1)], template)


def _verdict(score: Score) -> str:
    return (
        f'<p class="verdict {score.grade}"><b>{escape(score.grade)}</b> '
        f"<span>{escape(score.label)} {escape(score.verdict)}.</span></p>"
    )


def _scores(result: Report, reference: BeadFrames) -> str:
    titles = [
        "",
        "frames",
        "T, K",
        "KL",
        "ΔF², (kcal/mol)²",
        "coverage",
        "mean RMSD, Å",
        "lowest RMSD, Å",
        "mean Rg, Å",
    ]
    titles += ["shift, σ", "broken frames"]
    rows = [
        [
            s.label,
            f"{s.frames:,}",
            f"{s.temperature:g}",
            _number(s.kl, 3),
            _number(s.free_energy_mse, 3),
            f"{s.coverage:.1%}",
            _number(s.rmsd_mean, 2),
            _number(s.rmsd_lowest, 2),
            _number(s.radius_of_gyration, 2),
            _number(s.local_shift, 1),
            f"{s.broken:.2%}",
        ]
        for s in (*result.scores, result.halves)
    ]
    own = ["reference", f"{reference.n_frames:,}", f"{reference.temperature:g}", "", "", ""]
    own += [_number(result.rmsd_reference, 2), "", _number(result.gyration_reference, 2), "", ""]
    rows.insert(-1, own)
    return table(titles, rows, right=tuple(range(1, len(titles))))


def _provenance(reference: BeadFrames, samples: dict[str, BeadFrames], more: dict[str, object]) -> str:
    rows = [["reference", _origin(reference)], *([label, _origin(frames)] for label, frames in samples.items())]
    rows += [[str(key), str(value)] for key, value in more.items()]
    rows.append(["beads", ", ".join(reference.topology.label(i) for i in range(min(reference.topology.n_beads, 40)))])
    rows.append(["molflow-sim", molflow_sim.__version__])
    rows.append(["written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")])
    return table(["origin", ""], rows)


def _origin(frames: BeadFrames) -> str:
    return f"{frames.n_frames:,} frames at {frames.temperature:g} K" + (f", {frames.source}" if frames.source else "")


def table(titles: list[str], rows: list[list[str]], right: tuple[int, ...] = ()) -> str:
    """An HTML table of escaped texts, the columns in `right` flush right."""

    def cell(tag: str, i: int, text: str) -> str:
        kind = "" if i in right else ' class="t"'
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    head = "".join(cell("th", i, t) for i, t in enumerate(titles))
    body = "".join("<tr>" + "".join(cell("td", i, t) for i, t in enumerate(row)) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _number(x: float, digits: int) -> str:
    return f"{x:.{digits}f}" if np.isfinite(x) else "∞"
