"""A cheap packing fingerprint: sorted distances around a molecule, in Å.

Two descriptions of one packing (another cell, origin, setting, or the mirror image) have the same fingerprint,
because it holds only distances, taken from every molecule of the cell and averaged over them. It is made of sorted
distance lists, so moving every atom by at most δ changes no entry by more than 2δ: tolerances are lengths.

The fingerprint is necessary, not sufficient: equal packings have equal fingerprints, and the pairs it lets through
are decided by `molflow_sim.evaluate.packing_similarity` where certainty is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numba import njit

from molflow_sim.errors import InputError

if TYPE_CHECKING:
    from molflow_sim.packing.packings import RigidPackings

N_CENTRES = 16
"""Number of neighbouring molecular centres kept per molecule."""
N_CONTACTS = 24
"""Number of shortest intermolecular distances kept per molecule and pair of elements."""
CONTACT_RANGE = 8.0
"""Intermolecular atom distances are listed up to this length (Å); shorter lists are filled with it."""


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """Fingerprints of a batch of crystals of the same molecules.

    Attributes
    ----------
    centres : ndarray, shape (S, 16)
        Distances (Å) from a molecule's centre to its nearest neighbours' centres, ascending.
    contacts : ndarray, shape (S, P, 24)
        Shortest intermolecular atom distances (Å), ascending, for each of P pairs of elements.
    density : ndarray, shape (S,)
        Atoms used per Å³.
    """

    centres: np.ndarray
    contacts: np.ndarray
    density: np.ndarray

    def __len__(self) -> int:
        return len(self.centres)

    @property
    def vectors(self) -> np.ndarray:
        """All lists of a crystal in one row, shape (S, 16 + 24 P), in Å."""
        flat = self.contacts.reshape(len(self), int(np.prod(self.contacts.shape[1:])))
        return np.concatenate([self.centres, flat], axis=1)


def reduce_lattice(cell: np.ndarray) -> np.ndarray:
    """Shortest basis of the same lattice (rows, Å), by Semaev's reduction; handedness is kept.

    Parameters
    ----------
    cell : ndarray, shape (3, 3)
        Cell vectors as rows.

    Returns
    -------
    ndarray, shape (3, 3)
        A Minkowski-reduced basis (Semaev, CaLC 2001, LNCS 2146, 181), which has no angle far from 60-120°.
    """
    return _reduce(np.ascontiguousarray(cell, dtype=np.float64))


def fingerprint(crystal: Any) -> Fingerprints:
    """Fingerprint of one crystal (a batch of one); see `fingerprints`."""
    return fingerprints([crystal])


def fingerprints(crystals: Sequence[Any] | RigidPackings) -> Fingerprints:
    """Fingerprints of crystals that hold the same molecules.

    Parameters
    ----------
    crystals : RigidPackings or sequence
        Packings, MolecularCrystals (anything with ``cell`` and ``unit_cell()``), or tuples
        ``(numbers (n,), cell (3, 3), positions (n, 3) Å, molecule_index (n,))`` with whole molecules.

    Returns
    -------
    Fingerprints
        In the order given. Hydrogens are left out where a molecule has three or more other atoms. A crystal
        that is not finite, or has less than 2 Å³ per atom, gets NaN, which equals nothing.

    Raises
    ------
    InputError
        If the crystals do not hold the same elements, so that their fingerprints could not be compared.
    """
    if len(crystals) == 0:
        return Fingerprints(np.empty((0, N_CENTRES)), np.empty((0, 0, N_CONTACTS)), np.empty(0))
    if hasattr(crystals, "placements"):
        rows = list(_packing_rows(cast("RigidPackings", crystals)))
    else:
        rows = [(*_heavy(*cell_arrays(c)), None) for c in crystals]
    elements = np.unique(rows[0][0])
    if any(not np.array_equal(np.unique(r[0]), elements) for r in rows):
        raise InputError("fingerprints compare crystals of the same molecules; these hold different elements")
    n_pairs = len(elements) * (len(elements) + 1) // 2
    centres = np.empty((len(rows), N_CENTRES))
    contacts = np.empty((len(rows), n_pairs, N_CONTACTS))
    density = np.empty(len(rows))
    for s, (numbers, cell, positions, molecule, centrals) in enumerate(rows):
        volume = abs(np.linalg.det(cell)) if np.all(np.isfinite(cell)) else 0.0
        if volume < 2.0 * len(numbers) or not np.all(np.isfinite(positions)):
            centres[s], contacts[s], density[s] = np.nan, np.nan, np.nan
            continue
        kind = np.searchsorted(elements, numbers)
        density[s] = len(numbers) / volume
        around = np.unique(molecule) if centrals is None else centrals
        _fingerprint(cell, positions, kind, molecule, around, CONTACT_RANGE, centres[s], contacts[s])
    return Fingerprints(centres, contacts, density)


def environments(kind: np.ndarray, cell: np.ndarray, positions: np.ndarray, molecule: np.ndarray) -> np.ndarray:
    """Fingerprint of every molecule of one crystal, shape (M, 16 + 24 P), in Å: equal for equivalent molecules.

    `kind` (n,) numbers the elements and `molecule` (n,) the molecules from 0; `cell` (3, 3), `positions` (n, 3) in Å.
    """
    n_kinds = int(kind.max()) + 1
    rows = np.empty((int(molecule.max()) + 1, N_CENTRES + n_kinds * (n_kinds + 1) // 2 * N_CONTACTS))
    for m, row in enumerate(rows):
        contacts = row[N_CENTRES:].reshape(-1, N_CONTACTS)
        around = np.array([m])
        _fingerprint(
            np.ascontiguousarray(cell), positions, kind, molecule, around, CONTACT_RANGE, row[:N_CENTRES], contacts
        )
    return rows


def cell_arrays(crystal: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(numbers, cell, positions, molecule_index) of a crystal given as an object or already as that tuple."""
    if isinstance(crystal, tuple):
        numbers, cell, positions, molecule = crystal
    else:
        numbers, positions, molecule = crystal.unit_cell()[:3]
        cell = crystal.cell
    return np.asarray(numbers), np.asarray(cell, float), np.asarray(positions, float), np.asarray(molecule)


def compared_atoms(numbers: np.ndarray, molecule: np.ndarray) -> np.ndarray:
    """Which atoms a packing comparison uses, shape (n,) bool.

    Hydrogens are left out, as is usual in the field because X-rays place them badly, unless a molecule has fewer
    than three other atoms: then its orientation would not be seen (water, methanol, methane).
    """
    heavy = np.asarray(numbers) != 1
    counts = np.bincount(molecule, weights=heavy, minlength=int(np.max(molecule, initial=-1)) + 1)
    return heavy | (counts < 3)[molecule]


def _heavy(numbers, cell, positions, molecule):
    keep = compared_atoms(numbers, molecule)
    _, index = np.unique(molecule[keep], return_inverse=True)
    return numbers[keep], np.ascontiguousarray(cell), np.ascontiguousarray(positions[keep]), index


def _packing_rows(packings: RigidPackings) -> Iterator[tuple]:
    """Unit cells of rigid packings; copies made by symmetry look alike, so only the first of each is a centre."""
    numbers = np.asarray(packings.molecule.numbers)
    keep = compared_atoms(numbers, np.zeros(len(numbers), int))
    n_unit = packings.centroid.shape[1]
    for i in range(len(packings)):
        place = packings.placements[packings.placement[i]]
        x = packings.rotation[i] @ packings.conformers[packings.conformer[i]][keep].T  # (M, 3, N)
        centre = packings.centroid[i] @ np.swapaxes(place.frac_rot, 1, 2) + place.frac_tran[:, None]  # (G, M, 3)
        body = np.einsum("gxy,myn->gmnx", place.cart_rot, x)
        positions = ((centre @ packings.cell[i])[:, :, None] + body).reshape(-1, 3)
        n_mol = len(place.frac_rot) * n_unit
        index = np.repeat(np.arange(n_mol), int(keep.sum()))
        yield np.tile(numbers[keep], n_mol), packings.cell[i], positions, index, np.arange(n_unit)


@njit(cache=True)
def _reduce(cell):
    b = cell.copy()
    for _ in range(200):
        # Order by length, then shorten the longest against the plane of the other two.
        for i in range(2):
            for j in range(2 - i):
                if np.dot(b[j], b[j]) > np.dot(b[j + 1], b[j + 1]) + 1e-12:
                    for k in range(3):
                        b[j, k], b[j + 1, k] = b[j + 1, k], b[j, k]
        mu = np.rint(np.dot(b[0], b[1]) / np.dot(b[0], b[0]))
        if mu != 0.0:
            b[1] -= mu * b[0]
            continue
        g00, g01, g11 = np.dot(b[0], b[0]), np.dot(b[0], b[1]), np.dot(b[1], b[1])
        r0, r1 = np.dot(b[0], b[2]), np.dot(b[1], b[2])
        det = g00 * g11 - g01 * g01
        x0 = np.rint((r0 * g11 - r1 * g01) / det)
        x1 = np.rint((r1 * g00 - r0 * g01) / det)
        best, p, q = np.dot(b[2], b[2]) - 1e-10, 0.0, 0.0
        for u in range(-1, 2):
            for v in range(-1, 2):
                w = b[2] - (x0 + u) * b[0] - (x1 + v) * b[1]
                d = np.dot(w, w)
                if d < best:
                    best, p, q = d, x0 + u, x1 + v
        if p == 0.0 and q == 0.0:
            break
        b[2] -= p * b[0] + q * b[1]
    if np.linalg.det(b) * np.linalg.det(cell) < 0.0:
        b = -b
    return b


@njit(cache=True)
def _keep_shortest(row, filled, value):
    """Insert `value` into the ascending list `row`, whose first `filled` entries are set; return the new count."""
    size = row.shape[0]
    if filled == size and value >= row[size - 1]:
        return filled
    k = filled if filled < size else size - 1
    while k > 0 and row[k - 1] > value:
        row[k] = row[k - 1]
        k -= 1
    row[k] = value
    return min(filled + 1, size)


@njit(cache=True)
def _fingerprint(cell, positions, kind, molecule, around, reach, centres_out, contacts_out):
    lattice = _reduce(cell)
    volume = abs(np.linalg.det(lattice))
    n_atoms = positions.shape[0]
    n_mol = molecule.max() + 1
    centre = np.zeros((n_mol, 3))
    count = np.zeros(n_mol)
    for a in range(n_atoms):
        centre[molecule[a]] += positions[a]
        count[molecule[a]] += 1.0
    radius = np.zeros(n_mol)
    for m in range(n_mol):
        centre[m] /= count[m]
    for a in range(n_atoms):
        radius[molecule[a]] = max(radius[molecule[a]], np.linalg.norm(positions[a] - centre[molecule[a]]))
    inverse = np.linalg.inv(lattice)
    # Enough images for every contact within reach and, by volume, for twice the neighbours asked for.
    sphere = (3.0 * 2.0 * (centres_out.shape[0] + 1) * volume / n_mol / (4.0 * np.pi)) ** (1.0 / 3.0)
    cutoff = max(reach + 2.0 * radius.max(), sphere + 2.0)
    span = np.empty(3, np.int64)
    for k in range(3):
        span[k] = int(np.ceil(cutoff * np.linalg.norm(inverse[:, k]))) + 1
    n_pairs = contacts_out.shape[0]
    size = contacts_out.shape[1]
    contacts_out[:] = 0.0
    centres_out[:] = 0.0
    rows = np.empty((n_pairs, size))
    filled = np.empty(n_pairs, np.int64)
    near = np.empty(centres_out.shape[0])
    first = np.zeros(n_mol + 1, np.int64)
    order = np.argsort(molecule, kind="mergesort")
    for a in range(n_atoms):
        first[molecule[a] + 1] += 1
    for m in range(n_mol):
        first[m + 1] += first[m]
    shift = np.empty(3)
    share = 1.0 / around.shape[0]
    for m in around:
        rows[:] = reach
        filled[:] = size  # a list shorter than `size` ends in `reach`
        near[:] = cutoff
        for other in range(n_mol):
            delta = centre[other] - centre[m]
            base = np.rint(delta @ inverse)
            for i in range(-span[0], span[0] + 1):
                for j in range(-span[1], span[1] + 1):
                    for k in range(-span[2], span[2] + 1):
                        for x in range(3):
                            shift[x] = (
                                (i - base[0]) * lattice[0, x]
                                + (j - base[1]) * lattice[1, x]
                                + (k - base[2]) * lattice[2, x]
                            )
                        dx, dy, dz = delta[0] + shift[0], delta[1] + shift[1], delta[2] + shift[2]
                        d = np.sqrt(dx * dx + dy * dy + dz * dz)
                        if d > cutoff or (other == m and d < 1e-6):
                            continue
                        _keep_shortest(near, near.shape[0], d)
                        if d > reach + radius[m] + radius[other]:
                            continue
                        for p in range(first[m], first[m + 1]):
                            a = order[p]
                            for q in range(first[other], first[other + 1]):
                                c = order[q]
                                ex = positions[c, 0] + shift[0] - positions[a, 0]
                                ey = positions[c, 1] + shift[1] - positions[a, 1]
                                ez = positions[c, 2] + shift[2] - positions[a, 2]
                                r2 = ex * ex + ey * ey + ez * ez
                                if r2 < reach * reach:
                                    lo, hi = min(kind[a], kind[c]), max(kind[a], kind[c])
                                    pair = hi * (hi + 1) // 2 + lo
                                    if r2 < rows[pair, size - 1] ** 2:
                                        _keep_shortest(rows[pair], size, np.sqrt(r2))
        centres_out += near * share
        contacts_out += rows * share
