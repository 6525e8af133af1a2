"""The HTML report: one file that works without a network, with plotly.js inside."""

from __future__ import annotations

import json
import re
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.runs.pages import script_json
from molflow_sim.screening.plots import MARKERS, OTHER, group_styles, shown_energies
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.screening.landscape import Landscape, LandscapeEntry

_SYMBOLS = dict(zip(MARKERS, ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")))
_LOSSES = {
    "press": "packing and pressing",
    "compare": "comparing",
    "relax": "relaxation",
    "rank": "ranking",
}
# CPK-like colours, darkened where pure ones vanish on white.
_COLOURS = {
    1: "#d9d9d9", 5: "#f0a58f", 6: "#5f6770", 7: "#3050f8", 8: "#e6331f", 9: "#67b84f", 14: "#d8b08a", 15: "#ff8000",
    16: "#d9b526", 17: "#1fba1f", 35: "#a62929", 53: "#7a1fa2",
}  # fmt: skip


def report_html(landscape: Landscape) -> str:
    """The report as text; every text that came from outside is escaped for where it stands.

    Parameters
    ----------
    landscape : Landscape
        With at least one structure.
    """
    from plotly.offline import get_plotlyjs

    molecule = landscape.molecule
    heading = molecule.name or molecule.formula
    values = {
        "TITLE": escape(f"{heading}: crystal structure landscape"),
        "HEADING": escape(f"{heading}: {len(landscape)} crystal structures"),
        "SMILES": escape(f"{molecule.smiles}  ({molecule.formula})"),
        "FUNNEL": _funnel(landscape),
        "REFERENCE": _reference(landscape),
        "ENERGYNOTE": escape(_energy_note(landscape)),
        "LOSSES": _losses(landscape),
        "NDROPPED": str(len(landscape.dropped)),
        "DROPPED": _dropped(landscape),
        "PROVENANCE": _provenance(landscape),
        "PLOTLY": get_plotlyjs().replace("</script", "<\\/script"),
        "DATA": script_json(_data(landscape)),
    }
    template = files("molflow_sim.screening").joinpath("report.html.template").read_text(encoding="utf-8")
    # One pass, so that nothing inside a value is taken for a place to fill.
    return re.sub(r"@@([A-Z]+)@@", lambda match: values[match.group(1)], template)


def _data(landscape: Landscape) -> dict[str, Any]:
    from ase.data import covalent_radii

    styles = group_styles(landscape)
    energies, axis = shown_energies(landscape)
    kinds = {name: (name if style[0] != OTHER else "others") for name, style in styles.items()}
    hit = landscape.reference.rank if landscape.reference else None
    present = sorted({int(n) for entry in landscape for m in entry.crystal.molecules for n in m.numbers})
    return {
        "axis": axis,
        "energyTitle": axis.split(" (")[0] + ", kJ/mol",
        "reranked": any(e.energy_model != "potential" for e in landscape),
        "model": next((e.energy_model for e in landscape if e.energy_model != "potential"), ""),
        "styles": {
            kind: {"label": kind, "colour": styles[name][0], "symbol": _SYMBOLS[styles[name][1]]}
            for name, kind in kinds.items()
        },
        "elements": {
            n: {"colour": _COLOURS.get(n, "#e080c0"), "radius": round(0.22 + 0.16 * float(covalent_radii[n]), 3)}
            for n in present
        },
        "rows": [
            {**_row(entry, shown), "style": kinds[entry.space_group], "reference": hit == entry.rank}
            for entry, shown in zip(landscape, energies)
        ],
    }


def _row(entry: LandscapeEntry, shown: float) -> dict[str, Any]:
    numbers, positions, bonds = cell_for_viewing(entry)
    return {
        "rank": entry.rank,
        "id": entry.id,
        "shown": round(float(shown), 4),
        "potential": round(entry.potential_relative, 4),
        "density": round(entry.density, 4),
        "space_group": entry.space_group,
        "z": entry.z,
        "z_prime": round(entry.z_prime, 4),
        "converged": entry.converged,
        "copies": entry.copies,
        "stress": round(entry.residual_stress_gpa, 4),
        "max_force": round(entry.max_force, 4),
        "note": entry.note,
        "rmsd": round(entry.reference_rmsd, 4),
        "abc": [round(float(x), 4) for x in entry.crystal.cell_parameters],
        "cell": np.round(entry.crystal.cell, 4).tolist(),
        "elements": numbers.tolist(),
        "xyz": np.round(positions, 3).ravel().tolist(),
        "bonds": bonds.ravel().tolist(),
        "cif": entry.to_cif(),
    }


def cell_for_viewing(entry: LandscapeEntry) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atoms of one cell, molecules whole and centred inside it: numbers (n,), positions (n, 3), bonds (nb, 2)."""
    crystal = entry.crystal
    numbers, positions, owner, species = crystal.unit_cell()
    positions = np.array(positions, dtype=float)
    inverse = np.linalg.inv(crystal.cell)
    bonds = []
    for k, kind in enumerate(species):
        members = np.flatnonzero(owner == k)
        centre = positions[members].mean(axis=0) @ inverse
        positions[members] -= np.floor(centre + 1e-6) @ crystal.cell
        bonds.append(np.asarray(crystal.molecules[int(kind)].bonds, dtype=int).reshape(-1, 2) + members[0])
    return np.asarray(numbers), positions, np.concatenate(bonds)


def _funnel(landscape: Landscape) -> str:
    t = landscape.tally
    steps = [
        (t.get("press", {}).get("candidates"), "candidates"),
        (t.get("press", {}).get("ok"), "pressed well"),
        (t.get("compare", {}).get("distinct"), "distinct packings"),
        (t.get("relax", {}).get("relaxed"), "relaxed"),
        (t.get("relax", {}).get("valid"), "valid"),
        (len(landscape), "ranked"),
    ]
    parts = [f"<div><b>{n:,}</b><span>{escape(name)}</span></div>" for n, name in steps if n is not None]
    seconds = sum(landscape.run.get("timings_s", {}).values())
    if seconds:
        parts.append(f"<div><b>{_duration(seconds)}</b><span>computing</span></div>")
    return "".join(parts)


def _reference(landscape: Landscape) -> str:
    r = landscape.reference
    if r is None:
        return ""
    text = f"Reference {r.name} ({r.space_group}, {r.density:.3f} g/cm³): "
    if r.rank is not None:
        text += f"found at rank {r.rank}, ΔE {_value(r.relative_energy, 2)} kJ/mol, RMSD15 {_value(r.rmsd15, 2)} Å"
        text += f" ({_value(r.rmsd15_to_relaxed, 2)} Å to the relaxed experimental structure). "
    else:
        text += "not found. "
    if r.relaxed_relative_energy is not None:
        text += (
            f"Relaxed, the experimental structure moves by {_value(r.relaxed_drift, 2)} Å (RMSD15) and lies "
            f"{r.relaxed_relative_energy:+.2f} kJ/mol from the best structure here. "
        )
    return f'<p class="note">{escape(text + r.note)}</p>'


def _energy_note(landscape: Landscape) -> str:
    reranked = [e for e in landscape if e.energy_model != "potential"]
    text = (
        "ΔE is in kJ/mol per molecule above the best structure. Click a row or a point to see the structure; click a "
        "heading to sort. “Found” counts the candidates that led to the structure. "
    )
    if reranked:
        text += (
            f"The first {len(reranked)} are ranked by single points with {reranked[0].energy_model} on structures "
            "relaxed with the force field; the others keep the force field's order and have no ΔE in that model."
        )
    return text


def _losses(landscape: Landscape) -> str:
    rows = []
    for stage, counts in landscape.tally.items():
        rows += [[_LOSSES.get(stage, stage), name, f"{n:,}"] for name, n in counts.items()]
    return f'<div class="columns">{_table(["step", "what", "how many"], rows, right=(2,))}</div>'


def _dropped(landscape: Landscape) -> str:
    best = min(entry.potential_energy for entry in landscape)
    rows = []
    for d in landscape.dropped:
        energy = None if d.energy is None else (d.energy - best) / KJ_PER_MOL
        rows.append([d.id, d.stage, d.reason, _value(energy, 2), _value(d.density, 3), d.space_group])
    return _table(["id", "step", "reason", "ΔE, kJ/mol", "density, g/cm³", "space group"], rows, right=(3, 4))


def _provenance(landscape: Landscape) -> str:
    run = landscape.run
    tables = []
    for title in ("settings", "versions", "timings_s"):
        content = run.get(title, {})
        shown = [
            [str(k), json.dumps(v, ensure_ascii=False) if not isinstance(v, str) else v] for k, v in content.items()
        ]
        name = "seconds" if title == "timings_s" else title
        tables.append(_table([name, ""], shown))
    return "".join(tables)


def _table(titles: list[str], rows: list[list[str]], right: tuple[int, ...] = ()) -> str:
    def cell(tag: str, i: int, text: str) -> str:
        kind = "" if i in right else ' class="t"'
        return f"<{tag}{kind}>{escape(str(text))}</{tag}>"

    head = "".join(cell("th", i, t) for i, t in enumerate(titles))
    body = "".join("<tr>" + "".join(cell("td", i, t) for i, t in enumerate(row)) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _value(x: float | None, digits: int) -> str:
    return "–" if x is None or not np.isfinite(x) else f"{x:.{digits}f}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
