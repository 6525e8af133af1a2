"""Compiled pair loop of molecular dynamics: exp-6 and real-space Ewald in single precision, summed in double.

The same energy as `molflow_sim.forcefield.pairs` at the splitting that PME uses, to about 1e-6, in a fifth of its time:
twice as many pairs per instruction, and erf(αr)/r as one polynomial in r², so that each pair costs one square root and
one exponential. Positions enter as differences to one atom of a group, taken in double precision, so that molecules
that have wandered far lose no digits.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numba import types
from numpy.polynomial import Chebyshev, Polynomial
from scipy.special import erf

from molflow_sim.forcefield.pairs import GUARD, MIN_DISTANCE, _bitcast, _subtract_scaled

DEGREE = 12
"""Degree of the polynomial for erf(αr)/(αr)."""
MOST_SPLITTING = 3.0
"""Largest α·cutoff the polynomial serves (to 2e-8); the cutoff drops erfc(3.0) = 2e-5 of a pair's 1/r."""
_BLOCK = 512
_f = np.float32
_ONE, _ZERO, _TWO, _THREE, _FIVE, _SIX, _TEN, _TWELVE = (_f(x) for x in (1, 0, 2, 3, 5, 6, 10, 12))
_FIFTEEN, _THIRTY = _f(15), _f(30)
_LEAST, _LEAST2, _MOST_INVERSE = _f(MIN_DISTANCE), _f(MIN_DISTANCE**2), _f(1.0 / MIN_DISTANCE)
_TINY2, _GUARD = _f(1e-12), _f(GUARD)
_MAGIC, _LOG2E, _LN2_HIGH, _LN2_LOW = _f(12582912.0), _f(1.44269504), _f(0.693359375), _f(-2.12194440e-4)
_LOWEST = _f(-87.0)
_E2, _E3, _E4, _E5, _E6 = (_f(1.0 / x) for x in (2, 6, 24, 120, 720))
_SHIFT = np.int32(23)

_bits, _float = _bitcast(types.float32, types.int32), _bitcast(types.int32, types.float32)


def screening(alpha: float, cutoff: float) -> np.ndarray:
    """Coefficients (float32) of erf(x)/x with x = αr, lowest first, in t = 2 (r/cutoff)² - 1 from -1 to 1."""
    span = [0.0, max((alpha * cutoff) ** 2, 1e-12)]

    def smooth(z: np.ndarray) -> np.ndarray:
        x = np.sqrt(np.maximum(z, 1e-24))
        return erf(x) / x

    fitted = Chebyshev.interpolate(smooth, DEGREE, span).convert(kind=Polynomial, domain=span, window=[-1.0, 1.0])
    out = np.zeros(DEGREE + 1)
    out[: len(fitted.coef)] = fitted.coef
    return out.astype(np.float32)


# Inner loops are compiled into their caller (forceinline), see `molflow_sim.forcefield.pairs`. No "reassoc" here: the
# rounding trick z - magic must not be simplified away.
@nb.njit(fastmath={"contract", "nnan", "ninf"}, forceinline=True)
def _exp(x):
    """exp(x) for x <= 0, relative error 3e-7; about 1e-38 below -87."""
    x = max(x, _LOWEST)
    z = x * _LOG2E + _MAGIC
    k = z - _MAGIC
    y = x - k * _LN2_HIGH - k * _LN2_LOW
    p = _E6 * y + _E5
    p = p * y + _E4
    p = p * y + _E3
    p = p * y + _E2
    p = p * y + _ONE
    p = p * y + _ONE
    return _float(_bits(p) + (_bits(z) << _SHIFT))


@nb.njit(fastmath=True, boundscheck=False, error_model="numpy", forceinline=True)
def _row(n, xi, yi, zi, ai, bi, ci, qi, x, y, z, a, b, c, q, w, cutoff2, onset, inv_width, alpha, scale, p):
    """One atom against n images: energy and force on the atom; w receives (dE/dr)/r of each pair."""
    p0, p1, p2, p3, p4, p5, p6, p7 = p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]
    p8, p9, p10, p11, p12 = p[8], p[9], p[10], p[11], p[12]
    twice = _TWO * scale * alpha
    energy = _ZERO
    fx = _ZERO
    fy = _ZERO
    fz = _ZERO
    for k in range(n):
        dx = x[k] - xi
        dy = y[k] - yi
        dz = z[k] - zi
        r2 = dx * dx + dy * dy + dz * dz
        inside = _ONE if r2 < cutoff2 else _ZERO
        r2 = max(min(r2, cutoff2), _TINY2)
        true_inverse = _ONE / np.sqrt(r2)
        true_r = r2 * true_inverse
        r = max(true_r, _LEAST)
        inv = min(true_inverse, _MOST_INVERSE)
        t = max(r2, _LEAST2) * scale - _ONE
        s = p12
        d = s
        s = s * t + p11
        d = d * t + s
        s = s * t + p10
        d = d * t + s
        s = s * t + p9
        d = d * t + s
        s = s * t + p8
        d = d * t + s
        s = s * t + p7
        d = d * t + s
        s = s * t + p6
        d = d * t + s
        s = s * t + p5
        d = d * t + s
        s = s * t + p4
        d = d * t + s
        s = s * t + p3
        d = d * t + s
        s = s * t + p2
        d = d * t + s
        s = s * t + p1
        d = d * t + s
        s = s * t + p0
        qq = qi * q[k]
        u2 = inv * inv
        direct = qq * (inv - alpha * s)
        d_direct = -qq * (u2 + twice * r * d)
        beta = bi + b[k]
        rep = ai * a[k] * _exp(-beta * r)
        u6 = u2 * u2 * u2
        disp = ci * c[k] * u6
        wall = disp * _GUARD * u6
        v = rep - disp + wall
        dv = (_SIX * disp - _TWELVE * wall) * inv - beta * rep
        h = max((r - onset) * inv_width, _ZERO)
        h2 = h * h
        switch = _ONE + h2 * h * (h * (_FIFTEEN - _SIX * h) - _TEN)
        d_switch = -_THIRTY * h2 * (_ONE - h) * (_ONE - h) * inv_width
        slope = inside * (dv * switch + v * d_switch + d_direct)
        energy += inside * (v * switch + direct) + slope * (true_r - r)
        slope = slope * true_inverse
        w[k] = slope
        fx += slope * dx
        fy += slope * dy
        fz += slope * dz
    return energy, fx, fy, fz


@nb.njit(nogil=True, cache=True, fastmath=True, boundscheck=False, error_model="numpy")
def pair_chunk(
    first_group, last_group, positions, shifts, columns, group_start, start, count, atom, shift, listed, cutoff, onset,
    alpha, polynomial, forces,
):  # fmt: skip
    """Groups `first_group` ... `last_group` - 1 against their listed images; returns the energy in eV.

    Parameters
    ----------
    positions : (n, 3) array
        Whole molecules in group order, Å.
    shifts : (NS, 3) array
        Lattice translations, Å, by the code that `shift` holds.
    columns : (4, n) float32 array
        sqrt(A) in eV^½, B/2 in 1/Å, sqrt(C) in eV^½·Å³, charge times sqrt(e²/4πε₀).
    group_start, start, count, atom : int arrays
        Groups and neighbour list (`molflow_sim.forcefield.neighbours`).
    shift : (capacity,) int array
        Code of each entry's translation.
    listed : (4, capacity) float32 array
        Columns of each entry's atom: they are read in a row, not gathered.
    cutoff, onset, alpha : float
        Å, Å, 1/Å.
    polynomial : (13,) float32 array
        From `screening`.
    forces : (n, 3) array
        Added to, eV/Å.
    """
    f = np.float32
    x, y, z = np.empty(_BLOCK, f), np.empty(_BLOCK, f), np.empty(_BLOCK, f)
    w = np.empty(_BLOCK, f)
    gx, gy, gz = np.empty(_BLOCK, f), np.empty(_BLOCK, f), np.empty(_BLOCK, f)
    limits = (
        np.float32(cutoff * cutoff), np.float32(onset), np.float32(1.0 / (cutoff - onset)), np.float32(alpha),
        np.float32(2.0 / (cutoff * cutoff)),
    )  # fmt: skip
    energy = 0.0
    for group in range(first_group, last_group):
        i_lo, i_hi = group_start[group], group_start[group + 1]
        ox, oy, oz = positions[i_lo, 0], positions[i_lo, 1], positions[i_lo, 2]
        end = start[group] + count[group]
        for lo in range(start[group], end, _BLOCK):
            n = min(_BLOCK, end - lo)
            a, b = listed[0, lo : lo + n], listed[1, lo : lo + n]
            c, q = listed[2, lo : lo + n], listed[3, lo : lo + n]
            for k in range(n):
                j, s = atom[lo + k], shift[lo + k]
                x[k] = positions[j, 0] - ox + shifts[s, 0]
                y[k] = positions[j, 1] - oy + shifts[s, 1]
                z[k] = positions[j, 2] - oz + shifts[s, 2]
                gx[k] = _ZERO
                gy[k] = _ZERO
                gz[k] = _ZERO
            for i in range(i_lo, i_hi):
                xi = np.float32(positions[i, 0] - ox)
                yi = np.float32(positions[i, 1] - oy)
                zi = np.float32(positions[i, 2] - oz)
                e, fx, fy, fz = _row(
                    n, xi, yi, zi, columns[0, i], columns[1, i], columns[2, i], columns[3, i],
                    x, y, z, a, b, c, q, w, *limits, polynomial,
                )  # fmt: skip
                energy += e
                forces[i, 0] += fx
                forces[i, 1] += fy
                forces[i, 2] += fz
                _subtract_scaled(n, w, x, xi, gx)
                _subtract_scaled(n, w, y, yi, gy)
                _subtract_scaled(n, w, z, zi, gz)
            for k in range(n):
                j = atom[lo + k]
                forces[j, 0] += gx[k]
                forces[j, 1] += gy[k]
                forces[j, 2] += gz[k]
    return energy
