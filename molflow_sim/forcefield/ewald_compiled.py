"""Compiled reciprocal-space sum and intramolecular correction of the Ewald method, one system per task.

Same functions as `molflow_sim.forcefield.ewald` in torch, which serves accelerators and the tests. Phases of the k
vectors are products of powers along the three axes, in contiguous rows over the atoms, so that the loops vectorise.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np


@nb.njit(fastmath=True, error_model="numpy", forceinline=True)
def _powers(n_max, fractional, axis, cosine, sine):
    """Rows 0..n_max of cos and sin(2π n s) for the fractional coordinates s along an axis."""
    n = fractional.shape[1]
    for a in range(n):
        cosine[0, a] = 1.0
        sine[0, a] = 0.0
        t = 2.0 * math.pi * fractional[axis, a]
        if n_max > 0:
            cosine[1, a] = math.cos(t)
            sine[1, a] = math.sin(t)
    for m in range(2, n_max + 1):
        for a in range(n):
            cosine[m, a] = cosine[m - 1, a] * cosine[1, a] - sine[m - 1, a] * sine[1, a]
            sine[m, a] = sine[m - 1, a] * cosine[1, a] + cosine[m - 1, a] * sine[1, a]


@nb.njit(fastmath=True, error_model="numpy", forceinline=True)
def _product(cosine, sine, c, s, sign, c_out, s_out):
    """Multiply phases by a row of powers, or by its conjugate."""
    for a in range(len(c)):
        x = sign * sine[a]
        re = c[a] * cosine[a] - s[a] * x
        im = s[a] * cosine[a] + c[a] * x
        c_out[a] = re
        s_out[a] = im


@nb.njit(fastmath=True, error_model="numpy", forceinline=True)
def _structure_factor(c, s):
    re = 0.0
    im = 0.0
    for a in range(len(c)):
        re += c[a]
        im += s[a]
    return re, im


@nb.njit(fastmath=True, error_model="numpy", forceinline=True)
def _pull(c, s, u, v, p):
    for a in range(len(p)):
        p[a] += u * c[a] - v * s[a]


@nb.njit(fastmath=True, error_model="numpy", forceinline=True)
def _add(p, k, out):
    for a in range(len(p)):
        out[a] += k * p[a]


@nb.njit(fastmath=True, error_model="numpy", forceinline=True)
def _reciprocal(positions, charge, cell, alpha, k_max, forces, virial):
    """Sum over half of reciprocal space for one system; returns the energy."""
    n = len(positions)
    inverse = np.linalg.inv(cell)
    volume = abs(np.linalg.det(cell))
    fractional = np.empty((3, n))
    for a in range(n):
        for d in range(3):
            f = positions[a, 0] * inverse[0, d] + positions[a, 1] * inverse[1, d] + positions[a, 2] * inverse[2, d]
            fractional[d, a] = f - math.floor(f)
    bound = np.empty(3, np.int64)
    for d in range(3):
        length = math.sqrt(cell[d, 0] ** 2 + cell[d, 1] ** 2 + cell[d, 2] ** 2)
        bound[d] = int(k_max * length / (2.0 * math.pi))
    cx, sx = np.empty((bound[0] + 1, n)), np.empty((bound[0] + 1, n))
    cy, sy = np.empty((bound[1] + 1, n)), np.empty((bound[1] + 1, n))
    cz, sz = np.empty((bound[2] + 1, n)), np.empty((bound[2] + 1, n))
    _powers(bound[0], fractional, 0, cx, sx)
    _powers(bound[1], fractional, 1, cy, sy)
    _powers(bound[2], fractional, 2, cz, sz)
    for m in range(bound[0] + 1):  # charges ride on the powers along the first axis
        for a in range(n):
            cx[m, a] *= charge[a]
            sx[m, a] *= charge[a]
    cxy, sxy, c, s = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    pull, fx, fy, fz = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
    wide = 1.0 / (4.0 * alpha * alpha)
    energy = 0.0
    for h in range(bound[0] + 1):
        for k in range(-bound[1] if h > 0 else 0, bound[1] + 1):
            _product(cy[abs(k)], sy[abs(k)], cx[h], sx[h], 1.0 if k >= 0 else -1.0, cxy, sxy)
            for l in range(-bound[2] if h > 0 or k > 0 else 1, bound[2] + 1):
                kx = 2.0 * math.pi * (h * inverse[0, 0] + k * inverse[0, 1] + l * inverse[0, 2])
                ky = 2.0 * math.pi * (h * inverse[1, 0] + k * inverse[1, 1] + l * inverse[1, 2])
                kz = 2.0 * math.pi * (h * inverse[2, 0] + k * inverse[2, 1] + l * inverse[2, 2])
                k2 = kx * kx + ky * ky + kz * kz
                if k2 >= k_max * k_max:
                    continue
                _product(cz[abs(l)], sz[abs(l)], cxy, sxy, 1.0 if l >= 0 else -1.0, c, s)
                re, im = _structure_factor(c, s)
                weight = 4.0 * math.pi / volume * math.exp(-k2 * wide) / k2
                part = weight * (re * re + im * im)
                energy += part
                twice = 2.0 * part * (1.0 / k2 + wide)
                virial[0, 0] += twice * kx * kx
                virial[0, 1] += twice * kx * ky
                virial[0, 2] += twice * kx * kz
                virial[1, 1] += twice * ky * ky
                virial[1, 2] += twice * ky * kz
                virial[2, 2] += twice * kz * kz
                for a in range(n):
                    pull[a] = 0.0
                _pull(c, s, 2.0 * weight * im, 2.0 * weight * re, pull)
                _add(pull, kx, fx)
                _add(pull, ky, fy)
                _add(pull, kz, fz)
    total = 0.0
    square = 0.0
    for a in range(n):
        forces[a, 0] -= fx[a]
        forces[a, 1] -= fy[a]
        forces[a, 2] -= fz[a]
        total += charge[a]
        square += charge[a] * charge[a]
    energy -= math.pi * 2.0 * wide * total * total / volume
    for d in range(3):
        virial[d, d] -= energy
    virial[1, 0], virial[2, 0], virial[2, 1] = virial[0, 1], virial[0, 2], virial[1, 2]
    return energy - alpha / math.sqrt(math.pi) * square


@nb.njit(fastmath=True, error_model="numpy", forceinline=True)
def _intramolecular(positions, charge, alpha, forces, virial):
    """Take the pairs of one molecule out of the lattice sum: -q q' erf(α r)/r; returns the energy."""
    energy = 0.0
    for i in range(len(positions)):
        for j in range(i):
            x = positions[i, 0] - positions[j, 0]
            y = positions[i, 1] - positions[j, 1]
            z = positions[i, 2] - positions[j, 2]
            r = max(math.sqrt(x * x + y * y + z * z), 1e-3)
            qq = charge[i] * charge[j]
            e = -qq * math.erf(alpha * r) / r
            energy += e
            d = (-e - qq * 2.0 * alpha / math.sqrt(math.pi) * math.exp(-alpha * alpha * r * r)) / (r * r)
            forces[i, 0] -= d * x
            forces[i, 1] -= d * y
            forces[i, 2] -= d * z
            forces[j, 0] += d * x
            forces[j, 1] += d * y
            forces[j, 2] += d * z
            virial[0, 0] += d * x * x
            virial[0, 1] += d * x * y
            virial[0, 2] += d * x * z
            virial[1, 1] += d * y * y
            virial[1, 2] += d * y * z
            virial[2, 2] += d * z * z
    virial[1, 0], virial[2, 0], virial[2, 1] = virial[0, 1], virial[0, 2], virial[1, 2]
    return energy


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def ewald_systems(
    first, last, positions, charge, cells, system_atom, molecule_start, system_molecule, alpha, k_max, energy, forces,
    virial,
):  # fmt: skip
    """Reciprocal, self, background and intramolecular parts for the systems `first` ... `last` - 1.

    Parameters
    ----------
    positions : (n, 3) array
        Whole molecules in batch order, Å.
    charge : (n,) array
        Charges times sqrt(e²/4πε₀).
    cells : (S, 3, 3) array
        Rows, Å.
    system_atom : (S + 1,) int array
        First atom of each system.
    molecule_start : (M + 1,) int array
        First atom of each molecule.
    system_molecule : (S + 1,) int array
        First molecule of each system.
    alpha, k_max : float
        1/Å.
    energy, forces, virial : (S,), (n, 3), (S, 3, 3) arrays
        Energy is written (eV), the others are added to (eV/Å; dE/dε, eV).
    """
    for s in range(first, last):
        lo, hi = system_atom[s], system_atom[s + 1]
        own = np.zeros((3, 3))
        total = _reciprocal(positions[lo:hi], charge[lo:hi], cells[s], alpha, k_max, forces[lo:hi], own)
        virial[s] += own
        own[:] = 0.0
        for m in range(system_molecule[s], system_molecule[s + 1]):
            lo, hi = molecule_start[m], molecule_start[m + 1]
            total += _intramolecular(positions[lo:hi], charge[lo:hi], alpha, forces[lo:hi], own)
        virial[s] += own
        energy[s] = total
