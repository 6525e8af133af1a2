"""Point sets laid on one another."""

from __future__ import annotations

import numpy as np


def kabsch(x: np.ndarray, y: np.ndarray, improper: bool = False) -> np.ndarray:
    """The orthogonal matrix M (3, 3) that minimises ``|M x - y|`` for centred point sets x, y (n, 3).

    Its determinant is +1, or -1 with `improper` (Kabsch, Acta Cryst. A32, 922, 1976).
    """
    u, _, vt = np.linalg.svd(y.T @ x)
    wanted = -1.0 if improper else 1.0
    u[:, 2] *= wanted * np.sign(np.linalg.det(u) * np.linalg.det(vt))
    return u @ vt
