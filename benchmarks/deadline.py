"""A time limit on pure Python code that works in any thread."""

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class TimeLimitError(Exception):
    """Raised inside `time_limit` when the time is over."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitError` in this thread if the block runs longer than `seconds`.

    Signals reach only the main thread, and workers run tasks in others, so the exception is set asynchronously; it
    appears at the next Python instruction, which suits loops of short array operations.
    """
    lock = threading.Lock()
    state = {"done": False, "fired": False}
    target = threading.get_ident()

    def fire() -> None:
        with lock:
            if not state["done"]:
                state["fired"] = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(target), ctypes.py_object(TimeLimitError))

    timer = threading.Timer(seconds, fire)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            state["done"] = True
        timer.cancel()
    if state["fired"]:
        # Sent while the block was ending: wait for it here, so that it cannot surface in the caller's code.
        while True:
            time.sleep(0.001)
