"""Compiled RMSDs of many conformers of one molecule, over the permutations that map it on itself.

The largest eigenvalue of the quaternion matrix comes from its characteristic polynomial by Newton's method (D. L.
Theobald, Acta Cryst. A61, 478 (2005)).
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from molflow_sim.threads import share


def rmsd_matrix(a: np.ndarray, b: np.ndarray | None, permutations: np.ndarray) -> np.ndarray:
    """Smallest RMSD between conformers, over proper rotations and permutations.

    Parameters
    ----------
    a : ndarray (K, n, 3)
        Å.
    b : ndarray (L, n, 3), optional
        Without it, `a` against itself, in half the time.
    permutations : ndarray (M, n) of int
        ``b[:, permutation]`` is laid over `a`.

    Returns
    -------
    ndarray (K, L), Å
    """
    x = _centred(a)
    y = x if b is None else _centred(b)
    out = np.zeros((len(x), len(y)))
    sizes = (x * x).sum((1, 2)), (y * y).sum((1, 2))
    orders = np.ascontiguousarray(permutations, dtype=np.int64)
    share(len(x), lambda first, last: _rows(first, last, x, y, *sizes, orders, b is None, out))  # type: ignore
    return out + out.T if b is None else out


def _centred(positions: np.ndarray) -> np.ndarray:
    x = np.asarray(positions, dtype=float)  # before the mean is taken: single precision would round it
    return np.ascontiguousarray(x - x.mean(1, keepdims=True))


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _rows(first, last, x, y, size_x, size_y, orders, upper, out):
    n = x.shape[1]
    for k in range(first, last):
        for l in range(k + 1 if upper else 0, len(y)):
            half = 0.5 * (size_x[k] + size_y[l])
            best = 0.0
            for order in orders:
                best = max(best, _overlap(x[k], y[l], order, n, half))
            out[k, l] = math.sqrt(max(2.0 * (half - best), 0.0) / n)


@nb.njit
def _overlap(x, y, order, n, half):
    """Largest Σ x · R y over rotations R; `half` is (Σ x² + Σ y²)/2, which it cannot exceed."""
    xx = xy = xz = yx = yy = yz = zx = zy = zz = 0.0
    for i in range(n):
        a, b, c = x[i, 0], x[i, 1], x[i, 2]
        u, v, w = y[order[i], 0], y[order[i], 1], y[order[i], 2]
        xx += a * u
        xy += a * v
        xz += a * w
        yx += b * u
        yy += b * v
        yz += b * w
        zx += c * u
        zy += c * v
        zz += c * w
    # λ⁴ + c2 λ² + c1 λ + c0: c2 = -2 |S|², c1 = -8 det S, c0 = det of the quaternion matrix
    c2 = -2.0 * (xx * xx + xy * xy + xz * xz + yx * yx + yy * yy + yz * yz + zx * zx + zy * zy + zz * zz)
    det = xx * (yy * zz - yz * zy) - xy * (yx * zz - yz * zx) + xz * (yx * zy - yy * zx)
    c1 = -8.0 * det
    # squares of the singular values s: their elementary symmetric functions give c0 = p² - 4 q + ... in closed form
    p = -0.5 * c2
    aa, bb, cc = xx * xx + yx * yx + zx * zx, xy * xy + yy * yy + zy * zy, xz * xz + yz * yz + zz * zz
    ab, ac, bc = xx * xy + yx * yy + zx * zy, xx * xz + yx * yz + zx * zz, xy * xz + yy * yz + zy * zz
    q = aa * bb + aa * cc + bb * cc - ab * ab - ac * ac - bc * bc
    c0 = p * p - 4.0 * q
    value = half
    for _ in range(60):
        square = value * value
        f = (square + c2) * square + c1 * value + c0
        slope = 4.0 * square * value + 2.0 * c2 * value + c1
        if slope == 0.0:
            break
        change = f / slope
        value -= change
        if abs(change) < 1e-11 * abs(value):
            break
    return value
