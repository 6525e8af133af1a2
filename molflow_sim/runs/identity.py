"""Identities: short hashes that say what a result was computed from.

A stored batch is used again only if its identity is the one now asked for, so a changed seed, setting,
molecule or version of the code can never be mixed with old results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import molflow_sim
from molflow_sim.runs.files import sha256

# What decides the numbers of a search; reports and command line may change without touching stored results.
_NUMERICAL = ("symmetry", "molecule*.py", "conformers*.py", "crystal*.py", "forcefield", "packing", "relax*.py")


def digest(*parts: Any, length: int = 12) -> str:
    """Hexadecimal hash of any JSON-like values, the same on every machine and run.

    Parameters
    ----------
    *parts : JSON-like
        Numbers, strings, lists, dicts, None; NumPy scalars and arrays are taken by value.
    length : int
        Number of hexadecimal digits kept (12 digits: 48 bits).
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def molecule_identity(molecule: Any) -> str:
    """Hash of a molecule's chemistry, atom order, conformers (to 0.001 Å) and their shares."""
    conformers = np.round(np.asarray(molecule.conformers, dtype=float), 3) + 0.0  # + 0.0 turns -0.0 into 0.0
    shares = np.round(np.asarray(molecule.shares, dtype=float), 6)
    return digest(
        molecule.key, molecule.smiles, np.asarray(molecule.numbers).tolist(), conformers.tolist(), shares.tolist()
    )


def candidate_id(run: str, number: int) -> str:
    """Identity of one candidate: the run's (molecule, settings, seed, code) and its number in it."""
    return digest(run, number, length=10)


@lru_cache(maxsize=1)
def code_version() -> str:
    """Version of the package with a hash of the modules that decide a result's numbers."""
    return f"{molflow_sim.__version__}+{source_digest(*_NUMERICAL)}"


def source_digest(*patterns: str) -> str:
    """Hash (8 digits) of the package's modules that match file patterns; folders are taken with all they hold."""
    root = Path(molflow_sim.__file__).parent
    files = sorted(set(_source_files(root, patterns)))
    text = "".join(f"{file.relative_to(root)}:{sha256(file.read_bytes())}\n" for file in files)
    return sha256(text.encode())[:8]


def _source_files(root: Path, patterns: Iterable[str]) -> Iterable[Path]:
    for pattern in patterns:
        for path in root.glob(pattern):
            yield from path.rglob("*.py") if path.is_dir() else [path]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no stable hash")
