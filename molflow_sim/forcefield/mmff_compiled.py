"""Compiled MMFF94 energies and gradients of whole molecules, one molecule after another.

Same function as `molflow_sim.forcefield.mmff_energy` in torch, which differentiates by itself, serves accelerators and
is the test's reference. Every sum has a fixed order, so that a molecule's numbers do not depend on the others.
"""

from __future__ import annotations

import math
from typing import Any

import numba as nb
import numpy as np

from molflow_sim.forcefield.mmff import MMFFTerms
from molflow_sim.forcefield.mmff_energy import _TINY, _TINY_NORMAL, stretch_bends_by_angle
from molflow_sim.threads import share


@nb.njit
def _between(x, i, j):
    return x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2]


@nb.njit
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@nb.njit
def _length(a):
    return math.sqrt(_dot(a, a) + _TINY)


@nb.njit
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@nb.njit
def _sum(s, a, t, b):
    return s * a[0] + t * b[0], s * a[1] + t * b[1], s * a[2] + t * b[2]


@nb.njit
def _pull(gradient, i, j, v):
    """Add the derivative `v` with respect to the vector from atom i to atom j."""
    for d in range(3):
        gradient[j, d] += v[d]
        gradient[i, d] -= v[d]


@nb.njit
def _bonded(x, g, bonds, bond, angles, angle, linear, linear_k, planes, plane_k, torsions, torsion_v):
    energy = 0.0
    for row, (i, j) in enumerate(bonds):
        half_k, r0 = bond[row]
        v = _between(x, i, j)
        r = _length(v)
        s = r - r0
        energy += half_k * s * s * (1.0 - 2.0 * s + (7.0 / 3.0) * s * s)
        _pull(g, i, j, _sum(half_k * s * (2.0 - 6.0 * s + (28.0 / 3.0) * s * s) / r, v, 0.0, v))
    for row, (i, j, k) in enumerate(angles):
        half_k, theta0, k0, k1, r0, r1 = angle[row]
        u, v = _between(x, j, i), _between(x, j, k)
        n = _cross(u, v)
        c, d, ru, rv = _length(n), _dot(u, v), _length(u), _length(v)
        t = math.atan2(c, d) - theta0
        coupling = k0 * (ru - r0) + k1 * (rv - r1)
        energy += half_k * t * t * (1.0 - 0.4 * t) + coupling * t
        slope = (half_k * t * (2.0 - 1.2 * t) + coupling) / (c * c + d * d)
        _pull(g, j, i, _sum(1.0, _sum(slope * d / c, _cross(v, n), -slope * c, v), k0 * t / ru, u))
        _pull(g, j, k, _sum(1.0, _sum(slope * d / c, _cross(n, u), -slope * c, u), k1 * t / rv, v))
    for row, (i, j, k) in enumerate(linear):
        u, v = _between(x, j, i), _between(x, j, k)
        ru, rv = _length(u), _length(v)
        c = _dot(u, v) / (ru * rv)
        energy += linear_k[row] * (1.0 + c)
        _pull(g, j, i, _sum(linear_k[row] / (ru * rv), v, -linear_k[row] * c / (ru * ru), u))
        _pull(g, j, k, _sum(linear_k[row] / (ru * rv), u, -linear_k[row] * c / (rv * rv), v))
    for row, (i, j, k, l) in enumerate(planes):
        u, v, w = _between(x, j, i), _between(x, j, k), _between(x, j, l)
        n = _cross(u, v)
        rn, rw = _length(n), _length(w)
        sine = _dot(n, w) / (rn * rw)
        bounded = min(max(sine, -1.0 + 1e-7), 1.0 - 1e-7)
        chi = math.asin(bounded)
        energy += plane_k[row] * chi * chi
        slope = 2.0 * plane_k[row] * chi / math.sqrt(1.0 - bounded * bounded) if bounded == sine else 0.0
        gn = _sum(slope / (rn * rw), w, -slope * sine / (rn * rn), n)
        _pull(g, j, i, _cross(v, gn))
        _pull(g, j, k, _cross(gn, u))
        _pull(g, j, l, _sum(slope / (rn * rw), n, -slope * sine / (rw * rw), w))
    for row, (i, j, k, l) in enumerate(torsions):
        v1, v2, v3 = torsion_v[row]
        a, b, d = _between(x, j, i), _between(x, k, j), _between(x, l, k)
        n, m = _cross(a, b), _cross(b, d)
        rn, rm = 1.0 / math.sqrt(_dot(n, n) + _TINY_NORMAL), 1.0 / math.sqrt(_dot(m, m) + _TINY_NORMAL)
        c = _dot(n, m) * rn * rm
        energy += 0.5 * (v1 + 2.0 * v2 + v3) + c * (0.5 * (v1 - 3.0 * v3) + c * (2.0 * v3 * c - v2))
        slope = 0.5 * (v1 - 3.0 * v3) + c * (6.0 * v3 * c - 2.0 * v2)
        gn = _sum(slope * rn * rm, m, -slope * c * rn * rn, n)
        gm = _sum(slope * rn * rm, n, -slope * c * rm * rm, m)
        _pull(g, j, i, _cross(b, gn))
        _pull(g, k, j, _sum(1.0, _cross(gn, a), 1.0, _cross(d, gm)))
        _pull(g, l, k, _cross(gm, b))
    return energy


@nb.njit
def _nonbonded(x, g, pairs, pair):
    energy = 0.0
    for row, (i, j) in enumerate(pairs):
        inverse_r, epsilon, coulomb = pair[row]
        v = _between(x, i, j)
        r = _length(v)
        rho = r * inverse_r
        rho6 = rho * rho * rho * rho * rho * rho
        f, h = 1.07 / (rho + 0.07), 1.12 / (rho6 * rho + 0.12)
        well = epsilon * f * f * f * f * f * f * f
        charge = coulomb / (r + 0.05)
        energy += well * (h - 2.0) + charge
        slope = -7.0 * well * (f / 1.07 * (h - 2.0) + rho6 * h * h / 1.12) * inverse_r - charge / (r + 0.05)
        _pull(g, i, j, _sum(slope / r, v, 0.0, v))
    return energy


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _molecules(
    first, last, positions, start, bonds, bond, angles, angle, linear, linear_k, planes, plane_k, torsions, torsion_v,
    pairs, pair, energy, gradient, virial,
):  # fmt: skip
    n = gradient.shape[1]
    for m in range(first, last):
        x, g = positions[start[m] : start[m] + n], gradient[m]
        energy[m] = _bonded(x, g, bonds, bond, angles, angle, linear, linear_k, planes, plane_k, torsions, torsion_v)
        energy[m] += _nonbonded(x, g, pairs, pair)
        for a in range(n):
            for i in range(3):
                for j in range(3):
                    virial[m, i, j] += (x[a, i] - x[0, i]) * g[a, j]


def mmff_molecules(terms: MMFFTerms, positions: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, ...]:
    """Energies and gradients of molecules of one kind.

    Parameters
    ----------
    terms : MMFFTerms
        Of a molecule of N atoms.
    positions : (n, 3) array
        Å, whole molecules.
    start : (M,) int array
        First atom of each molecule.

    Returns
    -------
    energy (M,), gradient (M, N, 3), virial (M, 3, 3)
        eV, eV/Å, and Σ r ⊗ dE/dr in eV.
    """
    m, n = len(start), terms.n_atoms
    out = np.zeros(m), np.zeros((m, n, 3)), np.zeros((m, 3, 3))
    arguments = (positions, start, *_arrays(terms), *out)
    share(m, lambda first, last: _molecules(first, last, *arguments))  # type: ignore[call-arg]
    return out


def _arrays(terms: MMFFTerms) -> Any:
    if "compiled" not in terms._tensors:
        terms._tensors["compiled"] = tuple(np.ascontiguousarray(a) for a in (
            terms.bonds, np.stack([terms.bond_k / 2, terms.bond_r0], 1),
            terms.angles, np.column_stack([terms.angle_k / 2, terms.angle_theta0, *stretch_bends_by_angle(terms)]),
            terms.linear_angles, terms.linear_k, terms.out_of_planes, terms.out_of_plane_k / 2,
            terms.torsions, terms.torsion_v,
            terms.pairs, np.stack([1.0 / terms.vdw_r, terms.vdw_epsilon, terms.coulomb], 1),
        ))  # fmt: skip
    return terms._tensors["compiled"]


def mmff_hessian(terms: MMFFTerms, positions: np.ndarray, step: float = 5e-3) -> np.ndarray:
    """Second derivatives (3N, 3N) in eV/Å² at positions (N, 3) in Å, by central differences of `step` Å."""
    n = len(positions)
    moves = step * np.eye(3 * n).reshape(-1, n, 3)
    points = np.concatenate([positions + moves, positions - moves])
    gradients = mmff_molecules(terms, points.reshape(-1, 3), np.arange(6 * n) * n)[1].reshape(2, 3 * n, 3 * n)
    hessian = (gradients[0] - gradients[1]) / (2.0 * step)
    return 0.5 * (hessian + hessian.T)
