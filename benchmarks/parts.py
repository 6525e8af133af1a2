"""Results of a long benchmark kept one by one, so that a killed or stopped run goes on from there."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from molflow_sim.errors import MolflowError
from molflow_sim.runs.files import write_json

T = TypeVar("T")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of a run that is done piece by piece."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-minutes", type=float, default=float("inf"), help="begin nothing after this time")
    parser.add_argument("--print-only", action="store_true", help="print what is stored and run nothing")


class Parts:
    """A folder of JSON files, one for each result.

    Parameters
    ----------
    output : Path
        The benchmark's output; the folder is beside it and has its name with ``.parts`` behind.
    max_minutes : float
        After this time from now nothing more is begun.
    print_only : bool
        Begin nothing at all.
    """

    def __init__(self, output: Path, max_minutes: float = float("inf"), print_only: bool = False) -> None:
        self.folder = output.with_name(output.name + ".parts")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.print_only = print_only
        self._deadline = time.monotonic() + 60.0 * max_minutes

    def out_of_time(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self._deadline

    def result(
        self, name: str, read: Callable[[Any], T], make: Callable[[], T | None], line: Callable[[T], str] = lambda _: ""
    ) -> T | None:
        """The stored result of this name, or a new one, stored and told of in a line on stderr.

        Parameters
        ----------
        name : str
            Must differ where settings do.
        read : callable
            From what JSON gives to a result. A file that it does not understand is made again.
        make : callable
            A dataclass, a list of them or something that JSON can hold; None where time runs out. What fails is named
            on stderr and has no result.
        line : callable
            What to say of a new result behind its name.
        """
        path = self.folder / f"{name}.json"
        try:
            return read(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError, KeyError):
            pass
        if self.print_only or self.out_of_time():
            return None
        start = time.monotonic()
        try:
            result = make()
        except (MolflowError, RuntimeError) as error:  # RDKit raises the latter for molecules it cannot overlay
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            return None
        if result is not None:
            write_json(path, _plain(result))
            print(f"{name}: {line(result)}, {time.monotonic() - start:.0f} s", file=sys.stderr)
        return result


def _plain(result: Any) -> Any:
    if isinstance(result, list):
        return [_plain(item) for item in result]
    return asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
