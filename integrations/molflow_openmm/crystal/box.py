"""Supercells and periodic boxes in the form OpenMM asks for.

OpenMM wants box vectors a = (ax, 0, 0), b = (bx, by, 0), c = (cx, cy, cz) with ax, by, cz > 0, ax ≥ 2|bx|,
ax ≥ 2|cx|, by ≥ 2|cy|. The standard frame used here (a along x, b in the xy plane) is already triangular, so
reducing means subtracting whole lattice vectors: the lattice, and every Cartesian position, stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from molflow_sim.errors import InputError

MARGIN = 1e-6
"""Relative; keeps rounding from making a box that just fits too small for OpenMM."""


SHRINK_ROOM = 0.94
"""A box chosen here still holds the cutoff when a barostat shrinks each of its edges to this fraction."""


def reduced_box(cell: np.ndarray) -> np.ndarray:
    """The same lattice as box vectors in OpenMM's reduced form.

    Parameters
    ----------
    cell : ndarray, shape (3, 3)
        Lattice vectors as rows, lower triangular with a positive diagonal, any length unit.

    Returns
    -------
    ndarray, shape (3, 3)
        Reduced rows in the same unit, spanning the same lattice.
    """
    box = np.tril(np.asarray(cell, dtype=float))
    box[2] -= box[1] * np.rint(box[2, 1] / box[1, 1])
    box[2] -= box[0] * np.rint(box[2, 0] / box[0, 0])
    box[1] -= box[0] * np.rint(box[1, 0] / box[0, 0])
    return box


def box_like(box: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Undo the lattice-vector jumps of a reduced box, so that it can be compared with a reference cell.

    A flexible barostat reduces the box again after each change; a vector can then jump by a whole lattice vector.

    Parameters
    ----------
    box, reference : ndarray, shape (3, 3)
        Two settings of nearly the same lattice, rows.

    Returns
    -------
    ndarray, shape (3, 3)
        The lattice of `box`, with the basis vectors that are closest to those of `reference`.
    """
    change = np.rint(np.asarray(reference) @ np.linalg.inv(box))
    if not np.isclose(abs(np.linalg.det(change)), 1.0):  # no such basis: the lattice has changed too much
        return np.asarray(box, dtype=float)
    return change @ box


def smallest_supercell(cell: np.ndarray, cutoff: float, extent: float) -> tuple[int, int, int]:
    """Fewest repeats along a, b, c for which a pair cutoff is exact in OpenMM.

    Two conditions: the box is at least twice the cutoff along each diagonal element (OpenMM's nearest-image rule),
    and at least the cutoff plus the longest intramolecular distance. OpenMM excludes a pair of atoms with all of
    its images, so the second keeps an atom's excluded partner from being wanted again as another copy's atom.

    Parameters
    ----------
    cell : ndarray, shape (3, 3)
        Unit cell rows in Å, lower triangular.
    cutoff : float
        Pair cutoff, Å.
    extent : float
        Longest distance between two atoms of one molecule, Å.

    Returns
    -------
    tuple of int
        Repeats along the three axes.
    """
    need = max(2.0 * cutoff, cutoff + extent) * (1.0 + MARGIN)
    a, b, c = np.maximum(1, np.ceil(need / np.diag(cell))).astype(int).tolist()
    return a, b, c


def largest_cutoff(cell: np.ndarray, supercell: Sequence[int], extent: float) -> float:
    """Largest cutoff in Å that `smallest_supercell` would accept for this supercell."""
    width = float(np.min(np.diag(cell) * np.asarray(supercell))) / (1.0 + MARGIN)
    return min(width / 2.0, width - extent)


def check_supercell(supercell: Sequence[int]) -> tuple[int, int, int]:
    """Three positive whole numbers, or `InputError`."""
    try:
        a, b, c = (int(n) for n in supercell)
        if (a, b, c) == tuple(supercell) and min(a, b, c) >= 1:
            return a, b, c
    except (TypeError, ValueError):
        pass
    raise InputError(f"supercell must be three positive whole numbers such as 3,2,2; got {supercell!r}")


def repeat(cell: np.ndarray, positions: np.ndarray, supercell: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Copies of a unit cell, one whole cell after another.

    Parameters
    ----------
    cell : ndarray, shape (3, 3)
        Unit cell rows, Å.
    positions : ndarray, shape (n, 3)
        Cartesian positions of one unit cell with whole molecules, Å.
    supercell : sequence of int
        Repeats along a, b, c.

    Returns
    -------
    cell : ndarray, shape (3, 3)
        Supercell rows, not reduced.
    positions : ndarray, shape (n_cells * n, 3)
        Cartesian positions, Å; cells in the order of ``numpy.ndindex(*supercell)``.
    """
    shifts = np.array(list(np.ndindex(*supercell)), dtype=float) @ cell
    return np.asarray(supercell, dtype=float)[:, None] * cell, (shifts[:, None] + positions[None]).reshape(-1, 3)
