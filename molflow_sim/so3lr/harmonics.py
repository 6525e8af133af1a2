"""Real spherical harmonics of degrees 1 to 4 (24 components), their gradients, and their rotation."""

from __future__ import annotations

import math
from functools import lru_cache

import numba as nb
import numpy as np

DEGREE = np.repeat(np.arange(4), [3, 5, 7, 9])
"""Which of the four degrees each component belongs to."""
CONTRACTION = np.repeat([1.0 / math.sqrt(2 * d + 1) for d in (1, 2, 3, 4)], [3, 5, 7, 9])
"""Clebsch-Gordan coefficients that contract two features of one degree to a scalar."""

_C1 = math.sqrt(3 / (4 * math.pi))
_C2A, _C2B, _C2C = 0.5 * math.sqrt(15 / math.pi), 0.25 * math.sqrt(5 / math.pi), 0.25 * math.sqrt(15 / math.pi)
_C3A, _C3B = 0.25 * math.sqrt(35 / (2 * math.pi)), 0.5 * math.sqrt(105 / math.pi)
_C3C, _C3D = 0.25 * math.sqrt(21 / (2 * math.pi)), 0.25 * math.sqrt(7 / math.pi)
_C3E = 0.25 * math.sqrt(105 / math.pi)
_C4A, _C4B = 0.75 * math.sqrt(35 / math.pi), 0.75 * math.sqrt(35 / (2 * math.pi))
_C4C, _C4D = 0.75 * math.sqrt(5 / math.pi), 0.75 * math.sqrt(5 / (2 * math.pi))
_C4E, _C4F, _C4G = 0.1875 * math.sqrt(1 / math.pi), 0.375 * math.sqrt(5 / math.pi), 0.1875 * math.sqrt(35 / math.pi)


@nb.njit(error_model="numpy", forceinline=True)
def harmonics(x: float, y: float, z: float, out: np.ndarray) -> None:
    """Values (24,) at a unit vector."""
    xx, yy, zz = x * x, y * y, z * z
    out[0], out[1], out[2] = _C1 * y, _C1 * z, _C1 * x
    out[3], out[4], out[5] = _C2A * x * y, _C2A * y * z, _C2B * (3 * zz - 1)
    out[6], out[7] = _C2A * x * z, _C2C * (xx - yy)
    out[8], out[9], out[10] = _C3A * y * (3 * xx - yy), _C3B * x * y * z, _C3C * y * (5 * zz - 1)
    out[11], out[12] = _C3D * (5 * zz - 3) * z, _C3C * x * (5 * zz - 1)
    out[13], out[14] = _C3E * (xx - yy) * z, _C3A * x * (xx - 3 * yy)
    out[15], out[16] = _C4A * x * y * (xx - yy), _C4B * y * (3 * xx - yy) * z
    out[17], out[18] = _C4C * x * y * (7 * zz - 1), _C4D * y * (7 * zz - 3) * z
    out[19], out[20] = _C4E * (35 * zz * zz - 30 * zz + 3), _C4D * x * (7 * zz - 3) * z
    out[21], out[22] = _C4F * (xx - yy) * (7 * zz - 1), _C4B * x * (xx - 3 * yy) * z
    out[23] = _C4G * (xx * (xx - 3 * yy) - yy * (3 * xx - yy))


@nb.njit(error_model="numpy", forceinline=True)
def harmonics_gradient(x: float, y: float, z: float, w: np.ndarray) -> tuple[float, float, float]:
    """Gradient of ``sum(w * harmonics)`` along x, y and z, the components taken as polynomials of the vector."""
    xx, yy, zz = x * x, y * y, z * z
    gx = _C1 * w[2]
    gy = _C1 * w[0]
    gz = _C1 * w[1]
    gx += _C2A * (y * w[3] + z * w[6]) + 2 * _C2C * x * w[7]
    gy += _C2A * (x * w[3] + z * w[4]) - 2 * _C2C * y * w[7]
    gz += _C2A * (y * w[4] + x * w[6]) + 6 * _C2B * z * w[5]
    gx += _C3A * (6 * x * y * w[8] + 3 * (xx - yy) * w[14]) + _C3B * y * z * w[9]
    gx += _C3C * (5 * zz - 1) * w[12] + 2 * _C3E * x * z * w[13]
    gy += _C3A * (3 * (xx - yy) * w[8] - 6 * x * y * w[14]) + _C3B * x * z * w[9]
    gy += _C3C * (5 * zz - 1) * w[10] - 2 * _C3E * y * z * w[13]
    gz += _C3B * x * y * w[9] + 10 * _C3C * z * (y * w[10] + x * w[12])
    gz += _C3D * (15 * zz - 3) * w[11] + _C3E * (xx - yy) * w[13]
    gx += _C4A * y * (3 * xx - yy) * w[15] + 6 * _C4B * x * y * z * w[16] + _C4C * y * (7 * zz - 1) * w[17]
    gx += _C4D * (7 * zz - 3) * z * w[20] + 2 * _C4F * x * (7 * zz - 1) * w[21]
    gx += 3 * _C4B * (xx - yy) * z * w[22] + _C4G * (4 * xx * x - 12 * x * yy) * w[23]
    gy += _C4A * x * (xx - 3 * yy) * w[15] + 3 * _C4B * (xx - yy) * z * w[16] + _C4C * x * (7 * zz - 1) * w[17]
    gy += _C4D * (7 * zz - 3) * z * w[18] - 2 * _C4F * y * (7 * zz - 1) * w[21]
    gy += -6 * _C4B * x * y * z * w[22] + _C4G * (4 * yy * y - 12 * xx * y) * w[23]
    gz += _C4B * y * (3 * xx - yy) * w[16] + 14 * _C4C * x * y * z * w[17]
    gz += _C4D * (21 * zz - 3) * (y * w[18] + x * w[20]) + _C4E * (140 * zz - 60) * z * w[19]
    gz += 14 * _C4F * (xx - yy) * z * w[21] + _C4B * x * (xx - 3 * yy) * w[22]
    return gx, gy, gz


_SAMPLE = np.random.default_rng(0).normal(size=(40, 3))
_SAMPLE /= np.linalg.norm(_SAMPLE, axis=1, keepdims=True)


def _sampled(vectors: np.ndarray) -> np.ndarray:
    out = np.empty((len(vectors), 24))
    for v, row in zip(vectors, out):
        harmonics(v[0], v[1], v[2], row)
    return out


@lru_cache(maxsize=4096)
def _rotation(key: bytes) -> np.ndarray:
    rotation = np.frombuffer(key).reshape(3, 3)
    before, after = _sampled(_SAMPLE), _sampled(_SAMPLE @ rotation.T)
    out = np.zeros((24, 24))
    for degree in range(4):
        here = np.flatnonzero(DEGREE == degree)
        out[np.ix_(here, here)] = np.linalg.lstsq(before[:, here], after[:, here], rcond=None)[0].T
    return out


def rotation_matrix(rotation: np.ndarray) -> np.ndarray:
    """The (24, 24) matrix D with ``harmonics(R v) = D harmonics(v)``; `rotation` (3, 3) may be improper."""
    return _rotation(np.ascontiguousarray(np.round(rotation, 12), dtype=float).tobytes())
