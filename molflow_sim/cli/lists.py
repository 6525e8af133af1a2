"""Lists of molecules (.smi) that verbs of the command line take, and names for what is written of each."""

from __future__ import annotations

import re
from pathlib import Path

from molflow_sim.errors import InputError


def is_list(text: str) -> bool:
    """Whether an argument names a list of molecules."""
    return Path(text).suffix.lower() == ".smi"


def read_list(path: str | Path, *, name: str = "") -> list[tuple[str, str, str]]:
    """(file and line, SMILES, name) of a list of molecules; doubles are kept once.

    Raises
    ------
    InputError
        The file cannot be read or holds no molecule, or a name is given, which is that of one molecule.
    """
    from molflow_sim.dataset.items import read_lines

    if name:
        raise InputError(f"--name is of one molecule, not of a list; {path} has its own")
    lines, file = read_lines(path)
    found: dict[str, tuple[str, str, str]] = {}
    for number, line in enumerate(lines, 1):
        words = line.split(maxsplit=1)
        if words and not line.startswith("#"):
            label = words[1].strip() if len(words) > 1 else f"line{number}"
            found.setdefault(words[0], (f"{file}:{number}", words[0], label))
    if not found:
        raise InputError(f"{path} holds no molecules; give one SMILES a line")
    return list(found.values())


def file_name(label: str, place: str, taken: set[str]) -> str:
    """A name for the molecule's files that no molecule before it has."""
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "_", label).strip("._")[:60]
    if not name or name in taken:
        name = f"{name}_line{place.rsplit(':', 1)[1]}".strip("_")
    taken.add(name)
    return name
