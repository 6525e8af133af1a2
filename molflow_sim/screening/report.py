"""The HTML report: one file that works without a network, with plotly.js inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.evaluate.powder import WIDTH, PowderTarget, limits, peaks
from molflow_sim.io.powder_read import CU_K_ALPHA
from molflow_sim.runs.pages import render
from molflow_sim.screening.plots import MARKERS, OTHER, group_styles, shown_energies
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.screening.landscape import Landscape, LandscapeEntry

_SYMBOLS = dict(zip(MARKERS, ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")))
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
    molecule = landscape.molecule
    return render(
        "molflow_sim.screening", "report.html.template", _data(landscape),
        title=f"{molecule.name or molecule.formula}: crystal structure landscape", molecule=molecule,
        landscape=landscape, reranked=[e for e in landscape if e.energy_model != "potential"],
        refined=[e for e in landscape if e.relaxed_on != "potential"],
        lowest=min(entry.potential_energy for entry in landscape), kj_per_mol=KJ_PER_MOL,
    )  # fmt: skip


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
        "powder": _powder(landscape),
        "rows": [
            {
                **_row(entry, shown, landscape.wavelength),
                "style": kinds[entry.space_group],
                "reference": hit == entry.rank,
            }
            for entry, shown in zip(landscape, energies)
        ],
    }


def _powder(landscape: Landscape) -> dict[str, Any]:
    """Grid of the powder patterns, width of a peak, and the measured pattern without background, highest point 100."""
    factor = landscape.wavelength / CU_K_ALPHA
    lower, upper = limits(landscape.wavelength)
    shown: dict[str, Any] = {"lower": lower, "upper": upper, "step": 0.03 * factor, "width": WIDTH * factor}
    shown |= {"wavelength": landscape.wavelength, "measured": None}
    if landscape.measured is not None:
        target = PowderTarget(landscape.measured)
        x, y = target.scale.grid[::2], target.net[::2]
        rows = {"x": np.round(x, 3).tolist(), "y": np.round(100.0 * y / y.max(), 2).tolist()}
        shown["measured"] = {"name": landscape.measured.name, **rows}
    return shown


def _row(entry: LandscapeEntry, shown: float, wavelength: float) -> dict[str, Any]:
    numbers, positions, bonds = cell_for_viewing(entry)
    strain = np.reshape(entry.pxrd_strain, (3, 3)) if entry.pxrd_strain else None
    return {
        "rank": entry.rank,
        "id": entry.id,
        "source": entry.source,
        "shown": round(float(shown), 4),
        "potential": round(entry.potential_relative, 4),
        "uncertainty": _known(entry.uncertainty),
        "free": _known(entry.free_energy_relative),
        "vibrational": _known(entry.vibrational_free_energy),
        "static_rank": entry.static_rank or None,
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
        "packing": round(entry.packing_coefficient, 4),
        "hydrogen_bonds": entry.hydrogen_bonds,
        "pxrd": round(entry.pxrd_similarity, 4),
        "peaks": [x for peak in peaks(entry.crystal, wavelength, strain) for x in peak],
        "abc": [round(float(x), 4) for x in entry.crystal.cell_parameters],
        "cell": np.round(entry.crystal.cell, 4).tolist(),
        "elements": numbers.tolist(),
        "xyz": np.round(positions, 3).ravel().tolist(),
        "bonds": bonds.ravel().tolist(),
        "cif": entry.to_cif(),
    }


def _known(value: float) -> float | None:
    """kJ/mol to two decimals, nothing where there is no value."""
    return None if value != value else round(value, 2)


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
