"""Niggli reduction of cells."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from molflow_sim.errors import CrystalError


def reduced_basis(cell: np.ndarray, centring: np.ndarray | None = None) -> np.ndarray:
    """Change of basis to the Niggli-reduced primitive cell, found by spglib.

    Parameters
    ----------
    cell : ndarray (3, 3)
        Rows in Å.
    centring : ndarray (k, 3), optional
        Lattice translations inside the cell (fractional), zero among them or not.

    Returns
    -------
    ndarray (3, 3)
        P with a positive determinant, integer where there is no centring; the reduced cell is P @ cell.

    Raises
    ------
    CrystalError
        If the cell has no volume or cannot be reduced.
    """
    import spglib

    cell = np.asarray(cell, dtype=float)
    if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-6:
        raise CrystalError("a cell without volume cannot be reduced")
    inside = np.zeros((0, 3)) if centring is None else np.mod(centring, 1.0)
    inside = inside[inside.any(1)]
    bases = (np.array(rows) for rows in combinations([*np.eye(3), *inside], 3))
    primitive = next(b for b in bases if abs(abs(np.linalg.det(b)) * (len(inside) + 1) - 1.0) < 1e-6)
    try:
        reduced = spglib.niggli_reduce(primitive @ cell, eps=1e-5)
    except Exception as error:  # spglib raises different errors in different versions
        raise CrystalError(f"the cell cannot be reduced: {error}") from error
    if reduced is None:
        raise CrystalError("the cell cannot be reduced")
    # spglib turns nothing, but the lattice vectors it gives are rounded.
    change = np.rint(reduced @ np.linalg.inv(primitive @ cell)) @ primitive
    return change if np.linalg.det(change) > 0 else -change
