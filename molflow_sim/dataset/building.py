"""One shard for each item of a data set, in several processes, resumable, and a row for each item that gave none."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from molflow_sim.dataset.items import Item, Row, lost, reasons_table
from molflow_sim.dataset.processes import ProcessExecutor
from molflow_sim.generators.protocol import whole_number
from molflow_sim.runs.files import write_bytes_atomically
from molflow_sim.runs.identity import digest
from molflow_sim.runs.progress import Progress
from molflow_sim.runs.scheduler import Executor, LocalExecutor
from molflow_sim.runs.store import Store

REPORT_EVERY = 30.0
"""Seconds between lines of progress where there is no terminal."""


@dataclass(frozen=True)
class Kinds:
    """What a data set is made of.

    Attributes
    ----------
    make : callable
        ``make(*shared, item) -> bytes`` of a shard or of a row (`molflow_sim.dataset.items.failed`).
    folders : mapping
        Folder of the store for each kind of item.
    contents : callable
        ``contents(shard, item)``: how many packings or conformers it holds, and rows for those that were left out.
    title, unit : str
        For the lines of progress: "molecules and crystals", "packings".
    """

    make: Callable[..., bytes]
    folders: Mapping[str, str]
    contents: Callable[[bytes, Item], tuple[int, list[Row]]]
    title: str
    unit: str


@dataclass
class Tally:
    """What lies in the folder: items by kind, what they hold together, rows of dropped.csv, and the work.

    Attributes
    ----------
    items : Counter
    contents : int
    rows : list of dict
    computed : int
        Items of this call; the others were there.
    seconds : float
        Computing time of all items over all calls, summed over processes.
    """

    items: Counter[str] = field(default_factory=Counter)
    contents: int = 0
    rows: list[Row] = field(default_factory=list)
    computed: int = 0
    seconds: float = 0.0


def executor_of(processes: int) -> Executor:
    """Where items are computed: in this process if `processes` is 1, else in as many of their own.

    Raises
    ------
    InputError
        Not a whole number of at least 1.
    """
    whole_number("processes", processes, 1)
    return LocalExecutor() if processes == 1 else ProcessExecutor(processes, lost)


class Building:
    """One call that builds a data set, or goes on with one.

    Parameters
    ----------
    store : Store
    items : sequence of Item
    doubles : sequence of dict
        Rows that come before those of the items.
    kinds : Kinds
    bars : Progress
    """

    def __init__(
        self, store: Store, items: Sequence[Item], doubles: Sequence[Row], kinds: Kinds, bars: Progress
    ) -> None:
        self.store, self.items, self.doubles, self.kinds, self.bars = store, items, doubles, kinds, bars
        self.key = digest(store.identity)
        self.tally = Tally()

    def run(self, executor: Executor, shared: tuple[Any, ...]) -> Tally:
        """Compute what is not there; dropped.csv is written also after an interruption."""
        open_items = [item for item in self.items if not self._take_stored(item)]
        before = len(self.items) - len(open_items)
        self.store.write_run(status="running")
        tally = self.tally
        try:
            with self._watch(len(self.items), before) as advance:
                for position, data, seconds in executor.run(self.kinds.make, shared, open_items):
                    self._store(open_items[position], data, seconds)
                    tally.computed += 1
                    advance()
        finally:
            executor.close()
            tally.rows.sort(key=lambda row: row["source"])
            tally.rows = [*self.doubles, *tally.rows]
            write_bytes_atomically(self.store.folder / "dropped.csv", reasons_table(tally.rows))
        tally.seconds = sum(self.store.seconds(stage) for stage in {*self.kinds.folders.values(), "dropped"})
        return tally

    def _take_stored(self, item: Item) -> bool:
        """Count an item that a former call finished; False if it is still to be done."""
        for folder in (self.kinds.folders[item.kind], "dropped"):
            data = self.store.read(_file(folder, item), digest(self.key, item.id))
            if data is not None:
                self._count(item, data)
                return True
        return False

    def _store(self, item: Item, data: bytes, seconds: float) -> None:
        if data != lost(item):  # a lost process may be the machine's fault: the next call tries again
            folder = "dropped" if _is_row(data) else self.kinds.folders[item.kind]
            self.store.write(_file(folder, item), digest(self.key, item.id), data, seconds)
        self._count(item, data)

    def _count(self, item: Item, data: bytes) -> None:
        # The name and place of this call's input; the row may stem from a call with another file.
        here = {"source": item.source, "name": item.name}
        if _is_row(data):
            self.tally.rows.append({**json.loads(data), **here})
            return
        self.tally.items[item.kind] += 1
        contents, rows = self.kinds.contents(data, item)
        self.tally.contents += contents
        self.tally.rows += [{**row, **here} for row in rows]

    @contextmanager
    def _watch(self, total: int, before: int) -> Iterator[Any]:
        """A bar with the time left on a terminal; elsewhere a line now and then."""
        start = last = perf_counter()
        done = 0

        with self.bars.stage(self.kinds.title, total, before) as bar:

            def advance() -> None:
                nonlocal done, last
                done += 1
                bar(1)
                now = perf_counter()
                if now - last >= REPORT_EVERY and not sys.stderr.isatty():
                    last = now
                    left = (now - start) / done * (total - before - done)
                    self.bars.say(
                        f"{before + done} of {total}, {self.tally.contents} {self.kinds.unit}, {len(self.tally.rows)} "
                        f"dropped, about {_clock(left)} left"
                    )

            yield advance


def _file(folder: str, item: Item) -> str:
    return f"{folder}/{item.id}.{'json' if folder == 'dropped' else 'npz'}"


def _is_row(data: bytes) -> bool:
    return data.startswith(b"{")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
