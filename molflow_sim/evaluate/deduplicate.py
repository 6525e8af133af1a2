"""Merging duplicates, lowest energy first: thousands of pressed packings, then the relaxed crystals that remain.

Both functions work the same way. Structures are visited in order of energy; each is compared with the
representatives already kept whose energy and density lie within a window, and either joins the lowest-energy one it
equals or becomes a representative itself. Equality is thus always equality with a representative, never a chain of
small steps, and the result does not depend on the order of the input. The windows slide (|ΔE| < width), so that no
pair is lost at the edge of a bin. Thresholds and their reasons: docs/methods/comparison.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from molflow_sim.errors import InputError
from molflow_sim.evaluate.fingerprint import Fingerprints, cell_arrays, fingerprints
from molflow_sim.evaluate.packing_similarity import packing_similarity, prepare
from molflow_sim.units import AMU_PER_A3, KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.packing.packings import RigidPackings


@dataclass(frozen=True)
class PackingDuplicates:
    """Thresholds for converged packings of rigid molecules in one potential.

    Attributes
    ----------
    energy : float
        eV per molecule. Two ends of one minimum differ by the press's convergence and by its cut-off electrostatics.
    density : float
        Relative difference of density.
    distance : float
        Root mean square difference (Å) of the fingerprints' sorted distances.
    largest : float
        Largest difference (Å) of a single entry.
    """

    energy: float = 1.0 * KJ_PER_MOL
    density: float = 0.01
    distance: float = 0.07
    largest: float = 0.25


@dataclass(frozen=True)
class CrystalDuplicates:
    """Thresholds for relaxed crystals.

    Attributes
    ----------
    energy : float
        eV per molecule.
    density : float
        g/cm³.
    n_molecules : int
        Size of the shell that is superposed.
    rmsd : float
        Å; all n molecules must match within this RMSD.
    fingerprint : float
        Å; pairs whose fingerprints differ by more (root mean square) are not superposed at all.
    """

    energy: float = 1.0 * KJ_PER_MOL
    density: float = 0.05
    n_molecules: int = 15
    rmsd: float = 0.3
    fingerprint: float = 0.3


def deduplicate_packings(
    packings: RigidPackings | Sequence[Any] | Fingerprints,
    energies: np.ndarray,
    settings: PackingDuplicates | None = None,
) -> np.ndarray:
    """Merge pressed packings that are the same minimum, by energy, density and fingerprint.

    Parameters
    ----------
    packings : RigidPackings, Fingerprints, or sequence of crystals (see `fingerprints`)
        Packings of the same molecules, S of them.
    energies : ndarray, shape (S,)
        Potential energy in eV per molecule. Packings whose energy is not finite are never merged.
    settings : PackingDuplicates, optional

    Returns
    -------
    ndarray of int, shape (S,)
        Index of each packing's representative, the lowest in energy of its group; its own index for those.

    Raises
    ------
    InputError
        If the numbers of packings and energies differ.
    """
    s = settings or PackingDuplicates()
    energies = np.asarray(energies, dtype=float)
    if len(packings) != len(energies):
        raise InputError(f"{len(packings)} packings but {len(energies)} energies")
    prints = packings if isinstance(packings, Fingerprints) else fingerprints(packings)
    order = np.lexsort((np.arange(len(energies)), energies))
    vectors = np.ascontiguousarray(prints.vectors)
    return _sweep(order, energies, prints.density, vectors, s.energy, s.density, s.distance, s.largest)


def deduplicate_crystals(
    crystals: Sequence[Any],
    energies: np.ndarray,
    settings: CrystalDuplicates | None = None,
    *,
    allow_inversion: bool = True,
) -> np.ndarray:
    """Merge relaxed crystals that are the same, by energy, density and a superposition of molecules.

    Parameters
    ----------
    crystals : sequence of MolecularCrystal or tuples ``(numbers, cell, positions, molecule_index)``
    energies : ndarray, shape (S,)
        eV per molecule.
    settings : CrystalDuplicates, optional
    allow_inversion : bool
        Whether mirror images are duplicates: they are for achiral molecules and racemates, whose enantiomorphic
        packings have the same energy. Set False for an enantiopure molecule.

    Returns
    -------
    ndarray of int, shape (S,)
        Index of each crystal's representative, the lowest in energy of its group; its own index for those.

    Raises
    ------
    InputError
        If the numbers differ.
    """
    s = settings or CrystalDuplicates()
    energies = np.asarray(energies, dtype=float)
    if len(crystals) != len(energies):
        raise InputError(f"{len(crystals)} crystals but {len(energies)} energies")
    prepared = lru_cache(maxsize=None)(lambda i: prepare(crystals[i]))
    density = np.array([_density(c) for c in crystals])
    vectors = fingerprints(crystals).vectors

    def same(k: int, i: int) -> bool:
        if not np.sqrt(np.mean((vectors[k] - vectors[i]) ** 2)) < s.fingerprint:
            return False
        match = packing_similarity(prepared(k), prepared(i), s.n_molecules, allow_inversion=allow_inversion)
        return match.same(s.rmsd)

    representative = np.arange(len(crystals))
    kept: list[int] = []
    for i in np.lexsort((np.arange(len(energies)), energies)).tolist():
        if np.isfinite(energies[i]):
            window = [
                k for k in kept if energies[i] - energies[k] < s.energy and abs(density[i] - density[k]) < s.density
            ]
            match = next((k for k in window if same(k, i)), None)
            if match is not None:
                representative[i] = match
                continue
            kept.append(i)
    return representative


def _density(crystal: Any) -> float:
    from ase.data import atomic_masses

    numbers, cell, _, _ = cell_arrays(crystal)
    return float(atomic_masses[numbers].sum() / abs(np.linalg.det(cell)) * AMU_PER_A3)


@njit(cache=True)
def _sweep(order, energies, density, vectors, energy_width, density_width, distance, largest):
    n, size = vectors.shape
    representative = np.arange(n)
    kept = np.empty(n, np.int64)
    n_kept, start = 0, 0
    for i in order:
        if not np.isfinite(energies[i]):
            continue
        while start < n_kept and energies[i] - energies[kept[start]] >= energy_width:
            start += 1
        found = -1
        for p in range(start, n_kept):
            k = kept[p]
            if abs(density[i] - density[k]) > density_width * density[k]:
                continue
            total = 0.0
            limit = distance * distance * size
            same = True
            for x in range(size):
                d = vectors[i, x] - vectors[k, x]
                total += d * d
                if not (total <= limit and abs(d) <= largest):  # written so that NaN equals nothing
                    same = False
                    break
            if same:
                found = k
                break
        if found >= 0:
            representative[i] = found
        else:
            kept[n_kept] = i
            n_kept += 1
    return representative
