"""Figures without a display, written whole and the same every time."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from molflow_sim.runs.files import write_bytes_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, independent of pyplot and of any window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_figure(figure: Figure, path: Path) -> Path:
    """Write a figure atomically in the format of the suffix (SVG without one); the same figure gives the same file."""
    import matplotlib

    buffer = io.BytesIO()
    kind = path.suffix.lstrip(".") or "svg"
    with matplotlib.rc_context({"svg.hashsalt": "molflow", "svg.fonttype": "path"}):
        figure.savefig(buffer, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else None)
    write_bytes_atomically(path, buffer.getvalue())
    return path
