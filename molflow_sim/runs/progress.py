"""Progress of the stages on the terminal, with the time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any


class Progress:
    """Bars with the time left on a terminal, one line per finished stage elsewhere, nothing when not asked for.

    Everything goes to standard error, so that standard output stays for results.
    """

    def __init__(self, enabled: bool) -> None:
        self._console: Any = None
        if enabled:
            from rich.console import Console

            self._console = Console(stderr=True)

    @contextmanager
    def stage(self, title: str, total: int, done: int = 0) -> Iterator[Any]:
        """Show one stage; yields a function to call with the number of items just finished."""
        if self._console is None:
            yield lambda n: None
            return
        if not self._console.is_terminal:
            start = perf_counter()
            yield lambda n: None
            note = f", {done} of them from before" if done else ""
            self._console.print(
                f"{title}: {total}{note} ({perf_counter() - start:.1f} s)",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=self._console) as bars:
            task = bars.add_task(title, total=total, completed=done)
            yield lambda n: bars.advance(task, n)

    def say(self, text: str) -> None:
        """One line of information."""
        if self._console is not None:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
