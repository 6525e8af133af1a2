"""The metrics of a training as curves."""

from __future__ import annotations

from pathlib import Path

from molflow_sim.errors import TrainingError
from molflow_sim.runs.figures import new_figure, write_figure
from molflow_sim.training.loop import read_metrics

VALIDATION = "val_"


def plot_curves(folder: str | Path, path: str | Path | None = None) -> Path:
    """Draw ``metrics.csv`` of a training's folder, a panel for each metric, validation beside training.

    Parameters
    ----------
    folder : path
        Of a training, finished or not.
    path : path, optional
        Of the figure; ``curves.svg`` in the folder by default.

    Raises
    ------
    TrainingError
        If the folder holds no metrics.
    """
    folder = Path(folder)
    metrics = read_metrics(folder)
    if not metrics:
        raise TrainingError(f"{folder} holds no metrics.csv of a training, or an empty one")
    names = list(dict.fromkeys(name.removeprefix(VALIDATION) for _, name, _ in metrics))
    figure = new_figure(6.4, 2.4 * len(names) + 0.4)
    for place, name in enumerate(names):
        axes = figure.add_subplot(len(names), 1, place + 1)
        for key, label, style in ((name, "training", "-"), (VALIDATION + name, "set aside", "o-")):
            points = [(step, value) for step, found, value in metrics if found == key]
            if points:
                axes.plot(*zip(*points), style, markersize=3, linewidth=1.0, label=label)
        axes.set_ylabel(name)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if place == 0:
            axes.legend(fontsize=8, frameon=False)
    axes.set_xlabel("step")
    return write_figure(figure, folder / "curves.svg" if path is None else Path(path))
