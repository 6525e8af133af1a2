"""What `molflow cg` shows: lines, a progress bar, and the figures of a report."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from molflow_sim.cg.reports.reporting import Report


def line(console: Console) -> Callable[[str], None]:
    """A function that prints a line."""
    return lambda text: say(console, text)


def say(console: Console, text: str) -> None:
    """Print text as it is, on as many columns as it has."""
    console.print(escape(text), highlight=False, soft_wrap=True)


def spent(start: float) -> str:
    """Time since `start` (of time.monotonic) for people."""
    seconds = time.monotonic() - start
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


class Bar:
    """A progress bar with the time left, fed by the run's events."""

    def __init__(self, console: Console, quiet: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Left

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("frames"), TimeElapsedColumn(), TextColumn("left"))
        self._bar = Progress(*columns, Left(), console=console, disable=quiet)
        self._console, self._quiet = console, quiet
        self._task: Any = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._task is not None:
            self._bar.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        if self._task is None:
            if event["report"] and not self._quiet:
                self._console.print(f"carrying on from frame {event['report']}", highlight=False)
            self._bar.start()
            self._task = self._bar.add_task("", total=event["total"], completed=event["report"])
        else:
            self._bar.update(self._task, completed=event["report"])


def show_report(console: Console, made: Report) -> None:
    """The figures of a report for people."""
    from rich.table import Table

    table = Table(title=f"against the reference, {made.coordinates}, {made.bins} × {made.bins} bins")
    for title in ("", "frames", "KL", "MSE, (kcal/mol)²", "coverage", "verdict"):
        table.add_column(title, justify="left" if title in ("", "verdict") else "right")
    for s in (*made.scores, made.halves):
        cells = (f"{s.kl:.3f}", f"{s.free_energy_mse:.3f}", f"{s.coverage:.3f}", s.grade)
        table.add_row(escape(s.label), str(s.frames), *cells)
    console.print(table, highlight=False)
    say(console, f"{made.verdict}\n{made.path}")
