"""Partial charges of the intermolecular electrostatics: the models, and the cache of those that cost time.

==========  ==================================================================  ===========================
model       what it is                                                          needs
==========  ==================================================================  ===========================
mmff94      MMFF94's bond charge increments; the same for every conformer       RDKit
hf-esp      fitted to the HF/6-31G* potential on Merz-Kollman shells            pyscf
gfn2-esp    fitted to the potential of GFN2-xTB's atomic charges, dipoles and   tblite (extra ``xtb``)
            quadrupoles on the same shells
gfn2        GFN2-xTB's Mulliken charges alone: a weak model of the              tblite (extra ``xtb``)
            electrostatics, kept for comparison
==========  ==================================================================  ===========================

The last three depend on the conformer and are stored in ``$MOLFLOW_CACHE`` (default ``~/.cache/molflow-sim``) as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from molflow_sim.errors import InputError
from molflow_sim.forcefield.esp import equivalent_atoms, fit_charges, hf_potential, inverse_distances, shell_points
from molflow_sim.forcefield.gfn2 import gfn2_multipoles, multipole_potential
from molflow_sim.forcefield.mmff import extract_mmff
from molflow_sim.runs.files import write_bytes_atomically

if TYPE_CHECKING:
    from molflow_sim.systems.molecule import Molecule

# Raised whenever a change here, in esp.py or in gfn2.py changes the charges: old cache entries are then ignored.
_VERSION = 1


def partial_charges(molecule: Molecule, model: str = "mmff94", *, conformer: int = 0, cache: bool = True) -> np.ndarray:
    """Partial charges of a neutral molecule.

    Parameters
    ----------
    molecule : Molecule
        With explicit hydrogens and at least one conformer.
    model : str
        "mmff94", "hf-esp", "gfn2-esp" or "gfn2"; see the module's table.
    conformer : int
        Conformer whose geometry the fitted models use.
    cache : bool
        Read and write the cache on disk.

    Returns
    -------
    (N,) array
        Charges in e. They sum to 0 within rounding, and topologically equivalent atoms have equal charges.

    Raises
    ------
    InputError
        An unknown model, or a conformer that does not exist.
    MissingDependencyError
        The library that the model needs is not installed.
    ParameterError, UnsupportedElementError
        The model cannot describe this molecule.

    Warns
    -----
    UserWarning
        MMFF94's charges do not add up to zero, as for CO2 and CS2: its increments do not fit the molecule.
    """
    if model not in CHARGE_MODELS:
        raise InputError(f"unknown charge model {model!r}; choose one of {', '.join(CHARGE_MODELS)}")
    if not 0 <= conformer < len(molecule.conformers):
        raise InputError(f"conformer {conformer} of {len(molecule.conformers)} does not exist")
    compute = CHARGE_MODELS[model]
    if model == "mmff94":
        return compute(molecule, conformer)
    n = molecule.n_atoms if cache else None
    return cached_charges(molecule, model, conformer, n, lambda: _average(compute(molecule, conformer), molecule))


def cached_charges(
    molecule: Molecule, model: str, conformer: int, n: int | None, compute: Callable[[], np.ndarray]
) -> np.ndarray:
    """The `n` charges of a model for a conformer, from the cache or computed and kept there; None: without it."""
    if n is None:
        return compute()
    path = cache_folder() / "charges" / f"{_cache_key(molecule, model, conformer)}.json"
    charges = _read(path, n)
    if charges is None:
        charges = compute()
        record = {"model": model, "version": _VERSION, "smiles": molecule.smiles, "charges": charges.tolist()}
        with suppress(OSError):  # a folder that cannot be written is no error
            write_bytes_atomically(path, json.dumps(record).encode())
    return charges


def cache_folder() -> Path:
    """Where computed charges are kept: ``$MOLFLOW_CACHE``, or ``~/.cache/molflow-sim``."""
    return Path(os.environ.get("MOLFLOW_CACHE") or Path.home() / ".cache" / "molflow-sim").expanduser()


def _mmff94(molecule: Molecule, conformer: int) -> np.ndarray:
    charges = extract_mmff(molecule.rdmol).charges
    if abs(charges.sum()) > 0.01:
        warnings.warn(
            f"the MMFF94 charges of {molecule.smiles} add up to {charges.sum():+.2f} e instead of 0: MMFF94 does not "
            "describe this molecule; prefer charges='hf-esp' or 'gfn2-esp'",
            stacklevel=3,
        )
    return _neutral(charges)


def _hf_esp(molecule: Molecule, conformer: int) -> np.ndarray:
    symbols, positions = list(molecule.symbols), molecule.conformers[conformer]
    points = shell_points(symbols, positions)
    return _fit(molecule, positions, points, hf_potential(symbols, positions, points))


def _gfn2_esp(molecule: Molecule, conformer: int) -> np.ndarray:
    positions = molecule.conformers[conformer]
    points = shell_points(list(molecule.symbols), positions)
    potential = multipole_potential(positions, gfn2_multipoles(molecule.numbers, positions), points)
    return _fit(molecule, positions, points, potential)


def _gfn2(molecule: Molecule, conformer: int) -> np.ndarray:
    return gfn2_multipoles(molecule.numbers, molecule.conformers[conformer])[0]


CHARGE_MODELS: dict[str, Callable[[Molecule, int], np.ndarray]] = {
    "mmff94": _mmff94,
    "hf-esp": _hf_esp,
    "gfn2-esp": _gfn2_esp,
    "gfn2": _gfn2,
}
"""Charge models by name."""


def _fit(molecule: Molecule, positions: np.ndarray, points: np.ndarray, potential: np.ndarray) -> np.ndarray:
    classes = equivalent_atoms(molecule.rdmol)
    return fit_charges(inverse_distances(points, positions), potential, classes, np.asarray(molecule.numbers) > 1)


def _neutral(charges: np.ndarray) -> np.ndarray:
    """Spread the residual charge evenly; twice, which removes the rounding of the first time."""
    charges = charges - charges.mean()
    return charges - charges.mean()


def _average(charges: np.ndarray, molecule: Molecule) -> np.ndarray:
    """Average over equivalent atoms and make the sum zero."""
    classes = equivalent_atoms(molecule.rdmol)
    mean = np.bincount(classes, charges) / np.bincount(classes)
    return _neutral(mean[classes])


def _cache_key(molecule: Molecule, model: str, conformer: int) -> str:
    digest = hashlib.sha256(f"{model}:{_VERSION}:".encode())
    digest.update(np.ascontiguousarray(molecule.numbers, dtype="<i4").tobytes())
    digest.update(np.ascontiguousarray(equivalent_atoms(molecule.rdmol), dtype="<i4").tobytes())
    rounded = np.rint(np.asarray(molecule.conformers[conformer]) * 1e4)
    digest.update(np.ascontiguousarray(rounded, dtype="<i8").tobytes())
    return digest.hexdigest()[:40]


def _read(path: Path, n: int) -> np.ndarray | None:
    """Charges from a cache file, or None when there is none that can be used."""
    try:
        charges = np.array(json.loads(path.read_text(encoding="utf-8"))["charges"], dtype=float)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    usable = charges.shape == (n,) and np.isfinite(charges).all() and abs(charges.sum()) < 1e-9
    return charges if usable else None
