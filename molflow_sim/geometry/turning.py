"""Compiled turning of parts of molecules about their bonds."""

from __future__ import annotations

import math

import numba as nb


@nb.njit(nogil=True, cache=True)
def turn(positions, axes, moving, angles):
    """Turn parts of conformers in place.

    Parameters
    ----------
    positions : ndarray (K, N, 3)
    axes : ndarray (T, 2) of int
        Atoms j, k of each bond.
    moving : ndarray (T, N) of bool
        Atoms that turn about it, clockwise seen along j→k.
    angles : ndarray (K, T)
        rad.
    """
    for c in range(len(positions)):
        x = positions[c]
        for t in range(len(axes)):
            angle = angles[c, t]
            if angle == 0.0:
                continue
            j, k = axes[t]
            ax, ay, az = x[k, 0] - x[j, 0], x[k, 1] - x[j, 1], x[k, 2] - x[j, 2]
            norm = 1.0 / math.sqrt(ax * ax + ay * ay + az * az)
            ax, ay, az = ax * norm, ay * norm, az * norm
            cosine, sine = math.cos(angle), math.sin(angle)
            ox, oy, oz = x[k, 0], x[k, 1], x[k, 2]
            for a in range(x.shape[0]):
                if moving[t, a]:
                    u, v, w = x[a, 0] - ox, x[a, 1] - oy, x[a, 2] - oz
                    along = (ax * u + ay * v + az * w) * (1.0 - cosine)
                    x[a, 0] = ox + cosine * u + along * ax + sine * (ay * w - az * v)
                    x[a, 1] = oy + cosine * v + along * ay + sine * (az * u - ax * w)
                    x[a, 2] = oz + cosine * w + along * az + sine * (ax * v - ay * u)
