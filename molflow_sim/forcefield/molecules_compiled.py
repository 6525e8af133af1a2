"""Compiled energies inside the molecules of a periodic box: MMFF94, and their own pairs taken out of the Ewald sum.

The bonded terms are those of `molflow_sim.forcefield.mmff_compiled`. Its list of pairs becomes a triangle of all pairs
of a molecule here, one row of contiguous atoms after another, so that the compiler vectorises it: it is most of the
work in a large molecule, and every pair needs its -q q' erf(αr)/r anyway.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from molflow_sim.forcefield.mmff_compiled import _arrays, _bonded
from molflow_sim.forcefield.pairs import _erfcx, _exp
from molflow_sim.forcefield.parameters import MoleculeParameters
from molflow_sim.units import COULOMB


def pair_tables(parameters: MoleculeParameters) -> np.ndarray:
    """Pairs of a molecule as dense tables (4, N, N): 1/R in 1/Å, ε in eV, MMFF94 and Ewald charge products in eV·Å.

    A pair that MMFF94 leaves out (bonded, or both bonded to a third atom) has ε and charges of zero.
    """
    n, terms = len(parameters.numbers), parameters.mmff
    out = np.zeros((4, n, n))
    out[0] = 1.0
    if len(terms.pairs):
        i, j = terms.pairs.T
        for row, values in zip(out, (1.0 / terms.vdw_r, terms.vdw_epsilon, terms.coulomb)):
            row[i, j] = row[j, i] = values
    out[3] = COULOMB * np.outer(parameters.charges, parameters.charges)
    return out


def bonded_arrays(parameters: MoleculeParameters) -> tuple[np.ndarray, ...]:
    """Bonded terms as `mmff_compiled` wants them."""
    return tuple(_arrays(parameters.mmff)[:-2])


@nb.njit(fastmath=True, boundscheck=False, error_model="numpy", forceinline=True)
def _row(i, n, x, y, z, inverse_r, epsilon, coulomb, product, alpha, w):
    """Atom i against the atoms after it: energy and force; w receives (dE/dr)/r of each pair."""
    xi, yi, zi = x[i], y[i], z[i]
    energy = 0.0
    fx = 0.0
    fy = 0.0
    fz = 0.0
    for j in range(i + 1, n):
        dx = x[j] - xi
        dy = y[j] - yi
        dz = z[j] - zi
        r = math.sqrt(max(dx * dx + dy * dy + dz * dz, 1e-12))
        # 1/r, the two buffered quotients of 14-7, 1/(r + 0.05) and 1/(1 + 0.3 αr) from one division
        rho = r * inverse_r[j]
        rho2 = rho * rho
        rho6 = rho2 * rho2 * rho2
        f, h = rho + 0.07, rho6 * rho + 0.12
        c = r + 0.05
        u = min(alpha * r, 5.0)
        s = 1.0 + 0.3 * u
        fh, rc = f * h, r * c
        one = 1.0 / (fh * rc * s)
        inv_fh, inv_rc = one * rc * s, one * fh * s
        f, h = 1.07 * h * inv_fh, 1.12 * f * inv_fh
        inv, c = c * inv_rc, r * inv_rc
        f3 = f * f * f
        well = epsilon[j] * f3 * f3 * f
        charge = coulomb[j] * c
        slope = -7.0 * well * (f / 1.07 * (h - 2.0) + rho6 * h * h / 1.12) * inverse_r[j] - charge * c
        gauss = _exp(-u * u)
        own = product[j] * (1.0 - gauss * _erfcx((one * fh * rc - 0.7) * 3.3333333333333335)) * inv
        energy += well * (h - 2.0) + charge - own
        slope += own * inv - 1.1283791670955126 * alpha * product[j] * gauss * inv
        slope *= inv
        w[j] = slope
        fx += slope * dx
        fy += slope * dy
        fz += slope * dz
    return energy, fx, fy, fz


@nb.njit(fastmath=True, boundscheck=False, error_model="numpy", forceinline=True)
def _subtract_scaled(i, n, w, x, out):
    for j in range(i + 1, n):
        out[j] -= w[j] * (x[j] - x[i])


@nb.njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")
def molecules(
    first, last, positions, start, tables, alpha, bonds, bond, angles, angle, linear, linear_k, planes, plane_k,
    torsions, torsion_v, energy, forces,
):  # fmt: skip
    """Molecules `first` ... `last` - 1 of one species.

    Parameters
    ----------
    positions : (n, 3) array
        Whole molecules, atoms in the order of the species, Å.
    start : (M,) int array
        First atom of each molecule.
    tables : (4, N, N) array
        From `pair_tables`.
    alpha : float
        Ewald splitting, 1/Å; 0 without one.
    bonds, ..., torsion_v : arrays
        From `bonded_arrays`.
    energy : (M,) array
        Written, eV.
    forces : (n, 3) array
        Written for the atoms of these molecules, eV/Å.
    """
    n = tables.shape[1]
    x, y, z, w = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    fx, fy, fz = np.empty(n), np.empty(n), np.empty(n)
    for m in range(first, last):
        here, out = positions[start[m] : start[m] + n], forces[start[m] : start[m] + n]
        for a in range(n):
            x[a], y[a], z[a] = here[a, 0] - here[0, 0], here[a, 1] - here[0, 1], here[a, 2] - here[0, 2]
            fx[a] = fy[a] = fz[a] = 0.0
            out[a] = 0.0
        total = _bonded(here, out, bonds, bond, angles, angle, linear, linear_k, planes, plane_k, torsions, torsion_v)
        for i in range(n - 1):
            e, px, py, pz = _row(
                i, n, x, y, z, tables[0, i], tables[1, i], tables[2, i], tables[3, i], alpha, w
            )  # fmt: skip
            total += e
            fx[i] += px
            fy[i] += py
            fz[i] += pz
            _subtract_scaled(i, n, w, x, fx)
            _subtract_scaled(i, n, w, y, fy)
            _subtract_scaled(i, n, w, z, fz)
        for a in range(n):
            out[a, 0] = fx[a] - out[a, 0]
            out[a, 1] = fy[a] - out[a, 1]
            out[a, 2] = fz[a] - out[a, 2]
        energy[m] = total
