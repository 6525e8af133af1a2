"""Threads of the compiled loops, and torch kept to one thread for tensors that are too small to share.

Compiled loops release the interpreter lock and run on torch's number of threads in a pool of Python threads. The many
small torch operations around them lose far more to OpenMP's barriers than they win, on a busy machine above all.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_wanted = threading.local()
_LOADERS = ("scipy.linalg", "tblite.interface", "pyscf.lib")
"""Modules that bring further libraries with threads."""


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch use one thread inside; `share` still uses as many as torch had outside. May be nested."""
    outer = getattr(_wanted, "n", None)
    if outer is not None:
        yield
        return
    _wanted.n = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(_wanted.n)
        _wanted.n = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep the small matrix products of compiled loops on the thread that calls them."""
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@contextmanager
def one_openmp_thread() -> Iterator[None]:
    """Keep tblite and pyscf on the thread that calls them: sums over OpenMP's threads have other last bits each time.

    They must have been imported before.
    """
    with _libraries().limit(limits=1, user_api="openmp"):
        yield


def _libraries() -> Any:
    """The libraries with threads that are loaded; looking for them takes longer than a small gradient."""
    return _found(tuple(name in sys.modules for name in _LOADERS))


@lru_cache(maxsize=4)
def _found(loaded: tuple[bool, ...]) -> Any:
    from threadpoolctl import ThreadpoolController  # a machine that only trains has it not

    return ThreadpoolController()


def share(n_items: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(first, last)`` on runs of `n_items` items, on torch's number of threads."""
    n_threads = min(getattr(_wanted, "n", None) or torch.get_num_threads(), n_items)
    if n_threads <= 1:
        work(0, n_items)
        return
    n_parts = min(n_items, 4 * n_threads)
    cuts = [n_items * p // n_parts for p in range(n_parts + 1)]
    list(_pool(n_threads).map(work, cuts[:-1], cuts[1:]))


def _pool(n_threads: int) -> ThreadPoolExecutor:
    """A pool of this process: threads do not survive a fork."""
    key = (os.getpid(), n_threads)
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(n_threads, thread_name_prefix="molflow-pairs")
    return _pools[key]
