"""One line for each thing that must be refused."""

from collections.abc import Callable
from typing import Any

import pytest


def refuses(error: type[Exception], words: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Check that ``call(*arguments, **options)`` raises `error` with a message that holds the pattern `words`."""
    __tracebackhide__ = True
    with pytest.raises(error, match=words):
        call(*arguments, **options)
