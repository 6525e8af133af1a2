"""Batches in several processes of this machine, one thread each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from molflow_sim.runs.scheduler import BatchFunction, _timed


class ProcessExecutor:
    """A pool of fresh (spawned) processes that run batches with one thread each; see `runs.scheduler.Executor`.

    Workers end with the process that started them, however that ends. A batch that takes its process down (killed
    for memory, a crash in a library) is tried once more alone; then `on_death` provides its result.

    Parameters
    ----------
    processes : int
    on_death : callable
        ``on_death(item) -> bytes``.
    """

    def __init__(self, processes: int, on_death: Callable[[Any], bytes]) -> None:
        self._processes = processes
        self._on_death = on_death
        self._pool: ProcessPoolExecutor | None = None

    def run(
        self, function: BatchFunction, shared: tuple[Any, ...], items: Sequence[Any]
    ) -> Iterator[tuple[int, bytes, float]]:
        """Yield (position in `items`, result of ``function(*shared, item)``, seconds) in order of completion."""
        waiting = deque(range(len(items)))
        suspects: deque[int] = deque()  # in flight when a process died; run one at a time
        flying: dict[Future, int] = {}
        tried_alone: set[int] = set()
        while waiting or suspects or flying:
            alone = bool(suspects)
            while (not flying and suspects) or (not alone and waiting and len(flying) < 2 * self._processes):
                position = suspects.popleft() if alone else waiting.popleft()
                if alone:
                    tried_alone.add(position)
                try:
                    future = self._start().submit(_timed, function, shared, items[position])
                except BrokenProcessPool:  # a process died since the last look
                    (suspects if alone else waiting).appendleft(position)
                    tried_alone.discard(position)
                    break
                flying[future] = position
            done, _ = wait(flying, return_when=FIRST_COMPLETED)
            broken = not flying
            for future in done:
                position = flying.pop(future)
                try:
                    data, seconds = future.result()
                except BrokenProcessPool:
                    broken = True
                    if position in tried_alone:
                        yield position, self._on_death(items[position]), 0.0
                    else:
                        suspects.append(position)
                else:
                    yield position, data, seconds
            if broken:
                suspects.extend(sorted(flying.values()))
                flying.clear()
                self.close()

    def close(self) -> None:
        """End the processes, what they are at included."""
        if self._pool is not None:
            processes = list((getattr(self._pool, "_processes", None) or {}).values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            self._pool = None

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._processes, mp_context=context, initializer=_prepare)
        return self._pool


def _prepare() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    import torch

    torch.set_num_threads(1)  # compiled loops follow torch's number, see `molflow_sim.threads`


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
