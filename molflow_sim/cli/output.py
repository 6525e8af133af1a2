"""What verbs show: lines, the progress of a simulation, and the figures of a coarse-graining report."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from molflow_sim.cg.reports.reporting import Report


def say(text: str) -> None:
    """Print text as it is, on as many columns as it has."""
    Console().print(escape(text), highlight=False, soft_wrap=True)


def spent(start: float) -> str:
    """Time since `start` (of time.monotonic) for people."""
    seconds = time.monotonic() - start
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


class Bar:
    """A progress bar with the time left, fed by the events of a simulation.

    Parameters
    ----------
    key, unit : str
        What of an event counts, and how it is called: ``{key: 3, "total": 10}`` is 3 of 10 units.
    quiet : bool
        Show nothing.
    heading : callable, optional
        Called with the first event before the bar is shown.
    """

    def __init__(
        self, key: str, unit: str, quiet: bool = False, heading: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Left

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn(), TextColumn("left"))
        self._bar = Progress(*columns, Left(), console=Console(), disable=quiet)
        self._quiet, self._key, self._unit, self._heading = quiet, key, unit, heading
        self._task: Any = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._task is not None:
            self._bar.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        done = event[self._key]
        if self._task is not None:
            self._bar.update(self._task, completed=done)
            return
        if self._heading is not None:
            self._heading(event)
        if done and not self._quiet:
            self._bar.console.print(f"carrying on from {self._unit.rstrip('s')} {done}", highlight=False)
        self._bar.start()
        self._task = self._bar.add_task("", total=event["total"], completed=done)


def show_report(made: Report) -> None:
    """The figures of a report for people."""
    from rich.table import Table

    table = Table(title=f"against the reference, {made.coordinates}, {made.bins} × {made.bins} bins")
    for title in ("", "frames", "KL", "MSE, (kcal/mol)²", "coverage", "verdict"):
        table.add_column(title, justify="left" if title in ("", "verdict") else "right")
    for s in (*made.scores, made.halves):
        cells = (f"{s.kl:.3f}", f"{s.free_energy_mse:.3f}", f"{s.coverage:.3f}", s.grade)
        table.add_row(escape(s.label), str(s.frames), *cells)
    Console().print(table, highlight=False)
    say(f"{made.verdict}\n{made.path}")
