"""Structures of a batch done together, or one by one where that fails: each failure a row with its reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from molflow_sim.errors import MolflowError

FAILURES = (MolflowError, RuntimeError, ValueError, FloatingPointError)
"""What a structure may fail with: a row with a reason, not the end of a run."""


def together(
    step: Callable[[Sequence[Any]], Sequence[Any]],
    crystals: Sequence[Any],
    failed: Callable[[str], Any],
    words: str = "",
) -> list[Any]:
    """A step on all crystals at once, or on each alone where that fails, to find the one that spoilt the batch.

    What `failed` makes of the reason stands for a crystal that fails alone; `words` go before an error not of ours.
    """

    def one(crystal: Any) -> Any:
        try:
            return step([crystal])[0]
        except FAILURES as error:
            return failed(reason_of(error, words))

    try:
        return list(step(crystals))
    except FAILURES:
        return [one(crystal) for crystal in crystals]


def reason_of(error: Exception, words: str = "") -> str:
    """Why a structure failed, in a line; `words` go before an error that is not ours."""
    return error.reason if isinstance(error, MolflowError) else f"{words}{type(error).__name__}: {error}"
