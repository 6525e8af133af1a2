"""Networks that wheels of other packages carry: their files, pinned, and the elements they know."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path

from molflow_sim.errors import MissingDependencyError, UnsupportedElementError, WeightsError
from molflow_sim.runs.files import sha256


def file_of(package: str, file: str, wheel: str) -> Path:
    """Where a package keeps a file; the package itself is not imported.

    Parameters
    ----------
    package : str
        Name it is imported by.
    file : str
        Path inside it.
    wheel : str
        What pip installs, as in ``name==1.2``.

    Raises
    ------
    MissingDependencyError
        The wheel is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(wheel)
    return Path(next(iter(spec.submodule_search_locations))) / file


def read_pinned(path: Path, digest: str, wheel: str) -> bytes:
    """What a file of a wheel holds.

    Raises
    ------
    WeightsError
        It cannot be read, or its SHA-256 is not `digest`: another file is another energy.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"the weights of {wheel} cannot be read: {error}") from error
    if sha256(data) != digest:
        raise WeightsError(
            f"{path} is not the file of {wheel} (its SHA-256 differs); install it again with: "
            f"pip install --force-reinstall --no-deps {wheel}"
        )
    return data


def refuse_unknown(network: str, numbers: Iterable[int], known: Sequence[int]) -> None:
    """Refuse atomic numbers that a network was not trained on.

    Raises
    ------
    UnsupportedElementError
        Names the elements, and those that it knows.
    """
    from ase.data import chemical_symbols

    unknown = sorted({int(z) for z in numbers} - set(known))
    if unknown:
        names, elements = (", ".join(chemical_symbols[z] for z in some) for some in (unknown, known))
        raise UnsupportedElementError(f"{network} does not know {names}; its elements are {elements}")
