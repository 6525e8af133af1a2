"""Cells of P 1 crystals: the standard frame and equivalent descriptions of one lattice.

A change of basis P (determinant positive, integer unless the new cell is smaller) turns the cell into P L, fractional
coordinates s (rows) into s P⁻¹, and nothing else. Writing the new cell in its standard frame (a along x, b in the xy
plane) turns *everything* Cartesian, the molecules' orientations among it: a cell rebuilt from its six parameters around
unchanged Cartesian coordinates is another crystal.
"""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

from molflow_sim.errors import CrystalError

_SIGNS = [np.diag(s) for s in product((1, -1), repeat=3)]
_ORDERS = [np.eye(3, dtype=int)[list(p)] for p in permutations(range(3))]
RELABELLINGS = np.array([s @ p for p in _ORDERS for s in _SIGNS if round(np.linalg.det(s @ p)) == 1])
"""The 24 proper signed permutations of the basis vectors (24, 3, 3); the first four keep their order."""


def standard_frame(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cell in the standard frame and the rotation that takes the old Cartesian frame there.

    Parameters
    ----------
    cell : ndarray (..., 3, 3)
        Rows, right-handed.

    Returns
    -------
    standard : ndarray (..., 3, 3)
        Lower triangular with a positive diagonal.
    turn : ndarray (..., 3, 3)
        Proper; ``standard = cell @ turnᵀ``, orientations become ``turn @ R``.

    Raises
    ------
    CrystalError
        If the cell has no volume or is left-handed.
    """
    cell = np.asarray(cell, dtype=float)
    if not np.isfinite(cell).all() or (np.linalg.det(cell) < 1e-6).any():
        raise CrystalError("the cell must be finite and right-handed, with a volume")
    standard = np.linalg.cholesky(cell @ np.swapaxes(cell, -1, -2))
    return standard, np.swapaxes(np.linalg.solve(cell, standard), -1, -2)


def change_basis(
    change: np.ndarray, cell: np.ndarray, frac: np.ndarray, rotation: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same crystal in another basis, in the standard frame.

    Parameters
    ----------
    change : ndarray (3, 3)
        P, with a positive determinant.
    cell : ndarray (3, 3); frac : ndarray (M, 3); rotation : ndarray (M, 3, 3)

    Returns
    -------
    cell, frac, rotation : ndarray
        As given, transformed; fractional coordinates in [0, 1).
    """
    standard, turn = standard_frame(change @ cell)
    return standard, np.mod(frac @ np.linalg.inv(change), 1.0), turn @ rotation
