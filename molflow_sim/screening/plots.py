"""The energy-density landscape as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from molflow_sim.runs.figures import new_figure, write_figure

if TYPE_CHECKING:
    from molflow_sim.screening.landscape import Landscape

# Eight hues that stay apart for colour-blind readers (Okabe and Ito 2008, black left for the reference).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
OTHER = "#9AA0A6"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def group_styles(landscape: Landscape) -> dict[str, tuple[str, str]]:
    """Colour and marker of each space group: the most frequent have their own, the others share grey circles."""
    counts: dict[str, int] = {}
    for entry in landscape:
        counts[entry.space_group] = counts.get(entry.space_group, 0) + 1
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    styles = {name: (PALETTE[i], MARKERS[i]) for i, name in enumerate(ordered[: len(PALETTE)])}
    return {name: styles.get(name, (OTHER, "o")) for name in ordered}


def shown_energies(landscape: Landscape) -> tuple[list[float], str]:
    """ΔE of each entry for the axis (the second model's where there is one) and the axis label."""
    reranked = any(entry.energy_model != "potential" for entry in landscape)
    values = [entry.relative_energy for entry in landscape]
    model = next((e.energy_model for e in landscape if e.energy_model != "potential"), "")
    label = f"ΔE by {model} (kJ/mol per molecule)" if reranked else "ΔE (kJ/mol per molecule)"
    return values, label


def landscape_figure(landscape: Landscape, path: Path) -> Path:
    """Draw ΔE against density, colour by space group, and write it in the format of the suffix."""
    energies, label = shown_energies(landscape)
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    styles = group_styles(landscape)
    named = [name for name, style in styles.items() if style[0] != OTHER]
    for name in [*named, None]:
        members = [
            (entry.density, energy, k)
            for k, (entry, energy) in enumerate(zip(landscape, energies))
            if (entry.space_group == name if name else styles[entry.space_group][0] == OTHER)
        ]
        if members:
            colour, marker = styles[name] if name else (OTHER, "o")
            x, y, index = zip(*members)
            spread = [landscape[i].uncertainty for i in index]
            axes.errorbar(x, y, spread, fmt="none", ecolor=colour, elinewidth=0.7, alpha=0.5, zorder=1)
            axes.scatter(
                x, y, s=26, c=colour, marker=marker, linewidths=0.4, edgecolors="white", label=name or "others"
            )
    best = landscape[0]
    axes.annotate("1", (best.density, energies[0]), xytext=(6, -3), textcoords="offset points", fontsize=9)
    if landscape.reference is not None:
        _mark_reference(axes, landscape)
    axes.set_xlabel("density (g/cm³)")
    axes.set_ylabel(label)
    axes.set_title(landscape.molecule.name or landscape.molecule.formula, fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return write_figure(figure, path)


def _mark_reference(axes: object, landscape: Landscape) -> None:
    rank = landscape.reference.rank if landscape.reference else None
    hit = next((e for e in landscape if e.rank == rank), None)
    if hit is not None:
        axes.scatter(  # type: ignore[attr-defined]
            [hit.density],
            [hit.relative_energy],
            s=130,
            facecolors="none",
            edgecolors="black",
            label="experimental form",
        )
