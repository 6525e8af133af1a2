"""Cells of P 1 crystals: Niggli reduction, the standard frame, and equivalent descriptions of one lattice.

A change of basis P (integer, determinant +1) turns the cell into P L, fractional coordinates s (rows) into s P⁻¹, and
nothing else. Writing the new cell in its standard frame (a along x, b in the xy plane) turns *everything* Cartesian,
the molecules' orientations among it: a cell rebuilt from its six parameters around unchanged Cartesian coordinates is
another crystal.
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
        P, integer with determinant +1.
    cell : ndarray (3, 3); frac : ndarray (M, 3); rotation : ndarray (M, 3, 3)

    Returns
    -------
    cell, frac, rotation : ndarray
        As given, transformed; fractional coordinates in [0, 1).
    """
    standard, turn = standard_frame(change @ cell)
    return standard, np.mod(frac @ np.linalg.inv(change), 1.0), turn @ rotation


def niggli(cell: np.ndarray, tolerance: float = 1e-5) -> np.ndarray:
    """Change of basis to the Niggli-reduced cell.

    The algorithm of Křivý and Gruber (Acta Cryst. A32, 297, 1976) with the tolerance of Grosse-Kunstleve, Sauter and
    Adams (Acta Cryst. A60, 1, 2004).

    Parameters
    ----------
    cell : ndarray (3, 3)
        Rows in Å.
    tolerance : float
        Relative to the cube root of the volume.

    Returns
    -------
    ndarray (3, 3) of int
        P with determinant +1; the reduced cell is P @ cell.

    Raises
    ------
    CrystalError
        If the cell has no volume or the reduction does not end.
    """
    cell = np.asarray(cell, dtype=float)
    volume = float(np.linalg.det(cell))
    if not np.isfinite(cell).all() or abs(volume) < 1e-6:
        raise CrystalError("a cell without volume cannot be reduced")
    eps = tolerance * abs(volume) ** (2.0 / 3.0)
    change = np.eye(3, dtype=int)
    for _ in range(500):
        step = _niggli_step(change @ cell, eps)
        if step is None:
            return change if np.linalg.det(change) > 0 else -change
        change = step @ change
    raise CrystalError("the Niggli reduction of the cell does not converge")


def _niggli_step(rows: np.ndarray, eps: float) -> np.ndarray | None:
    """The next change of basis, None when the cell is reduced."""
    g = rows @ rows.T
    a, b, c, xi, eta, zeta = g[0, 0], g[1, 1], g[2, 2], 2 * g[1, 2], 2 * g[0, 2], 2 * g[0, 1]

    def equal(u: float, v: float) -> bool:
        return abs(u - v) < eps

    if a > b + eps or (equal(a, b) and abs(xi) > abs(eta) + eps):
        return np.array([[0, -1, 0], [-1, 0, 0], [0, 0, -1]])
    if b > c + eps or (equal(b, c) and abs(eta) > abs(zeta) + eps):
        return np.array([[-1, 0, 0], [0, 0, -1], [0, -1, 0]])
    signs = _normalising_signs(xi, eta, zeta, eps)
    if signs is not None:
        return signs
    if abs(xi) > b + eps or (equal(xi, b) and 2 * eta < zeta - eps) or (equal(xi, -b) and zeta < -eps):
        return np.array([[1, 0, 0], [0, 1, 0], [0, -int(np.sign(xi)), 1]])
    if abs(eta) > a + eps or (equal(eta, a) and 2 * xi < zeta - eps) or (equal(eta, -a) and zeta < -eps):
        return np.array([[1, 0, 0], [0, 1, 0], [-int(np.sign(eta)), 0, 1]])
    if abs(zeta) > a + eps or (equal(zeta, a) and 2 * xi < eta - eps) or (equal(zeta, -a) and eta < -eps):
        return np.array([[1, 0, 0], [-int(np.sign(zeta)), 1, 0], [0, 0, 1]])
    total = xi + eta + zeta + a + b
    if total < -eps or (equal(total, 0.0) and 2 * (a + eta) + zeta > eps):
        return np.array([[1, 0, 0], [0, 1, 0], [1, 1, 1]])
    return None


def _normalising_signs(xi: float, eta: float, zeta: float, eps: float) -> np.ndarray | None:
    """Signs that make the three products all positive or none positive; None where they already are."""
    s = np.array([0 if abs(v) < eps else int(np.sign(v)) for v in (xi, eta, zeta)])
    i, j, k = (1 if v > 0 else -1 for v in s)
    if (s != 0).all() and i * j * k > 0:
        signs = np.array([i, j, k])
    else:
        if (s <= 0).all():
            return None
        signs = np.where(s > 0, -1, 1)
        if signs.prod() < 0:
            free = np.flatnonzero(s == 0)
            signs[free[-1]] = -1
    # ξ, η, ζ carry the signs of bc, ac, ab: reversing a vector flips two of them.
    flips = {(1, 1, 1): (1, 1, 1), (1, -1, -1): (-1, 1, 1), (-1, 1, -1): (1, -1, 1), (-1, -1, 1): (1, 1, -1)}
    vector = np.array(flips[int(signs[0]), int(signs[1]), int(signs[2])])
    return None if (vector == 1).all() else np.diag(vector)
