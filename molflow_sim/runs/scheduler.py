"""Where batches run: in this process (numba and torch use its cores), or on a Dask cluster.

Workers only compute; the driver stores what they return, so a lost worker loses at most its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from time import perf_counter
from typing import Any, Protocol

from molflow_sim.errors import InputError, MissingDependencyError, MolflowError

# A batch uses all cores of its process; two at once would only get in each other's way.
_ONE_AT_A_TIME = Lock()

BatchFunction = Callable[..., bytes]


class Executor(Protocol):
    """Runs batches and hands back each result as it is done."""

    def run(
        self, function: BatchFunction, shared: tuple[Any, ...], items: Sequence[Any]
    ) -> Iterator[tuple[int, bytes, float]]:
        """Yield (position in `items`, result of ``function(*shared, item)``, seconds) in order of completion."""

    def close(self) -> None:
        """Release connections."""


class LocalExecutor:
    """One batch after another in this process."""

    def run(
        self, function: BatchFunction, shared: tuple[Any, ...], items: Sequence[Any]
    ) -> Iterator[tuple[int, bytes, float]]:
        """See `Executor.run`."""
        for position, item in enumerate(items):
            yield position, *_timed(function, shared, item)

    def close(self) -> None:
        """Nothing to release."""


class DaskExecutor:
    """Batches on a Dask cluster; molflow-sim of the same version must be installed on its workers.

    A worker process runs one batch at a time, whatever its number of threads.

    Parameters
    ----------
    scheduler : str
        Address, e.g. ``tcp://10.0.0.1:8786``.

    Raises
    ------
    MissingDependencyError
        If dask.distributed is not installed.
    InputError
        If no scheduler answers at the address.
    """

    def __init__(self, scheduler: str, *, timeout: float = 15.0) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise MissingDependencyError("dask.distributed", "dask") from error
        try:
            self._client = Client(scheduler, timeout=timeout, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"no Dask scheduler answers at {scheduler} ({error})") from error

    def run(
        self, function: BatchFunction, shared: tuple[Any, ...], items: Sequence[Any]
    ) -> Iterator[tuple[int, bytes, float]]:
        """See `Executor.run`; a MolflowError where a batch kills one worker after another."""
        from distributed import KilledWorker, as_completed

        common = self._client.scatter(shared, broadcast=True, hash=False) if shared else []
        futures = {
            self._client.submit(_call, function, item, *common, pure=False, retries=2): position
            for position, item in enumerate(items)
        }
        try:
            for future, (data, seconds) in as_completed(futures, loop=self._client.loop, with_results=True):
                yield futures.pop(future), data, seconds  # let go, so that workers may forget the result
        except KilledWorker as error:
            raise MolflowError(
                f"one batch ended several Dask workers ({error}): give them more memory; the same call carries on"
            ) from error
        finally:
            self._client.cancel(list(futures))

    def close(self) -> None:
        """Leave the cluster (it goes on running)."""
        self._client.close()


def executor_for(scheduler: str | None) -> Executor:
    """The executor of a scheduler address; None runs in this process."""
    return LocalExecutor() if scheduler is None else DaskExecutor(scheduler)


def _timed(function: BatchFunction, shared: tuple[Any, ...], item: Any) -> tuple[bytes, float]:
    start = perf_counter()
    return function(*shared, item), perf_counter() - start


def _call(function: BatchFunction, item: Any, *shared: Any) -> tuple[bytes, float]:
    with _ONE_AT_A_TIME:
        return _timed(function, shared, item)
