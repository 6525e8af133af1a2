"""Curves of a training: every metric has its panel, and the file opens as a picture."""

import xml.etree.ElementTree as ElementTree

from refusals import refuses

from molflow_sim.errors import TrainingError
from molflow_sim.training import plot_curves
from molflow_sim.training.loop import write_metrics

METRICS = [(step, name, 1.0 / step) for step in (10, 20, 30) for name in ("loss", "explained", "val_loss")]


def test_curves_are_drawn_and_the_same_twice_and_a_folder_without_metrics_is_named(tmp_path) -> None:
    refuses(TrainingError, r"metrics\.csv", plot_curves, tmp_path)
    (tmp_path / "metrics.csv").write_text("step,name,value\n1,loss\n")
    refuses(TrainingError, "no table", plot_curves, tmp_path)
    write_metrics(tmp_path, METRICS)
    path = plot_curves(tmp_path)
    picture = path.read_bytes()
    assert path == tmp_path / "curves.svg" and ElementTree.fromstring(picture).tag.endswith("svg")
    # One axes a metric, validation in the panel of its training.
    assert picture.count(b'id="axes_') == 2
    assert plot_curves(tmp_path).read_bytes() == picture
    assert plot_curves(tmp_path, tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
