"""Compiled pair loop of the crystal potential: exp-6 and real-space Ewald, energy, forces and virial in one pass.

The images that one group of atoms sees are copied side by side, so that the loop over them reads and writes
contiguous memory and the compiler vectorises it; the exponential is a polynomial for the same reason. Nothing here
knows about autograd. `molflow_sim.forcefield.pairs_torch` is the same function in torch, for accelerators and as the
test's reference.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic

from molflow_sim.forcefield.exp6 import GUARD_RADIUS

GUARD = GUARD_RADIUS**6
"""Sixth power of the guard radius (Å): the pair energy has + C·GUARD/r¹² against the collapse of exp-6."""
MIN_DISTANCE = 0.3
"""Pairs closer than this (Å) feel the energy continued linearly: finite for any overlap."""
_BLOCK = 512


def _bitcast(source, target):
    @intrinsic
    def cast(typingctx, value):
        def codegen(context, builder, signature, args):
            return builder.bitcast(args[0], context.get_value_type(target))

        return target(source), codegen

    return cast


_bits, _float = _bitcast(types.float64, types.int64), _bitcast(types.int64, types.float64)


# Inner loops are compiled into their caller (forceinline): a copy of its own, which only the process that compiles it
# would use, may round otherwise than the one that later processes load.
# fastmath without "reassoc": the rounding trick z - magic must not be simplified away
@nb.njit(fastmath={"contract", "nnan", "ninf"}, forceinline=True)
def _exp(x):
    """exp(x) for x < 700 to 1e-12 of it, 1e-304 below -700: 2^k times a degree-10 polynomial of the remainder."""
    x = max(x, -700.0)  # the exponent would wrap: exp-6 comes here at 160 Å
    magic = 6755399441055744.0  # 1.5 * 2**52: the low bits of x log2(e) + magic hold the rounded integer
    z = x * 1.4426950408889634 + magic
    k = z - magic
    y = x - k * 0.6931471805599453
    p = 2.7557319223985893e-07
    p = p * y + 2.755731922398589e-06
    p = p * y + 2.48015873015873e-05
    p = p * y + 1.984126984126984e-04
    p = p * y + 1.388888888888889e-03
    p = p * y + 8.333333333333333e-03
    p = p * y + 4.1666666666666664e-02
    p = p * y + 1.6666666666666666e-01
    p = p * y + 0.5
    p = p * y + 1.0
    p = p * y + 1.0
    return _float(_bits(p) + (_bits(z) << 52))


@nb.njit(fastmath=True, forceinline=True)
def _erfcx(u):
    """exp(x²) erfc(x) for 0 <= x <= 5 with u = (1/(1 + 0.3 x) - 0.7)/0.3, relative error 3e-12 (least squares)."""
    p = -1.76032216260325750e-08
    p = p * u + 7.03951102523055631e-08
    p = p * u + 6.17858393486353291e-07
    p = p * u - 1.55126560476097062e-06
    p = p * u - 2.21241955768673913e-05
    p = p * u - 1.92232470918942566e-05
    p = p * u + 7.04649619839337309e-04
    p = p * u + 5.69423434383620804e-03
    p = p * u + 2.57383314234757056e-02
    p = p * u + 8.17784894350096214e-02
    p = p * u + 1.95257209222281208e-01
    p = p * u + 3.57195661473303505e-01
    return p * u + 3.33673652542165411e-01


@nb.njit(fastmath=True, boundscheck=False, error_model="numpy", forceinline=True)
def _row(n, xi, yi, zi, ai, bi, ci, qi, x, y, z, a, b, c, q, w, cutoff, onset, alpha):
    """One atom against n images: energy and force on the atom; w receives (dE/dr)/r of each pair."""
    cutoff2 = cutoff * cutoff
    inv_width = 1.0 / (cutoff - onset)
    energy = 0.0
    fx = 0.0
    fy = 0.0
    fz = 0.0
    for k in range(n):
        dx = x[k] - xi
        dy = y[k] - yi
        dz = z[k] - zi
        r2 = dx * dx + dy * dy + dz * dz
        inside = 1.0 if r2 < cutoff2 else 0.0
        true_r = math.sqrt(min(r2, cutoff2))
        r = max(true_r, MIN_DISTANCE)
        ar = alpha * r
        # 1/r and 1/(1 + 0.3 αr) from one division
        s = 1.0 + 0.3 * ar
        both = 1.0 / (r * s)
        inv = both * s
        screen = qi * q[k] * inv
        gauss = _exp(-ar * ar)
        direct = screen * gauss * _erfcx((both * r - 0.7) * 3.3333333333333335)
        d_direct = -direct * inv - 1.1283791670955126 * alpha * screen * gauss
        beta = bi + b[k]
        rep = ai * a[k] * _exp(-beta * r)
        u2 = inv * inv
        u6 = u2 * u2 * u2
        disp = ci * c[k] * u6
        wall = disp * GUARD * u6
        v = rep - disp + wall
        dv = (6.0 * disp - 12.0 * wall) * inv - beta * rep
        t = max((r - onset) * inv_width, 0.0)
        t2 = t * t
        switch = 1.0 + t2 * t * (-10.0 + t * (15.0 - 6.0 * t))
        d_switch = -30.0 * t2 * (1.0 - t) * (1.0 - t) * inv_width
        d = inside * (dv * switch + v * d_switch + d_direct)
        energy += inside * (v * switch + direct) + d * (true_r - r)
        d = d / max(true_r, 1e-6) if true_r < MIN_DISTANCE else d * inv
        w[k] = d
        fx += d * dx
        fy += d * dy
        fz += d * dz
    return energy, fx, fy, fz


@nb.njit(fastmath=True, boundscheck=False, error_model="numpy", forceinline=True)
def _subtract_scaled(n, w, x, xi, out):
    for k in range(n):
        out[k] -= w[k] * (x[k] - xi)


@nb.njit(fastmath=True, boundscheck=False, error_model="numpy", forceinline=True)
def _chunk(
    positions, cell, sqrt_a, half_b, sqrt_c, charge, group_start, entry_start, entry_count, entry_atom, entry_shift,
    first_group, last_group, first_atom, cutoff, onset, alpha, forces, virial,
):  # fmt: skip
    """Groups `first_group` ... `last_group` - 1 of one system against their listed images; returns the energy."""
    x, y, z = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    a, b, c, q = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    w = np.empty(_BLOCK)
    gx, gy, gz = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    energy = 0.0
    for group in range(first_group, last_group):
        i_lo, i_hi = group_start[group], group_start[group + 1]
        ox, oy, oz = positions[i_lo, 0], positions[i_lo, 1], positions[i_lo, 2]
        end = entry_start[group] + entry_count[group]
        for lo in range(entry_start[group], end, _BLOCK):
            n = min(_BLOCK, end - lo)
            for k in range(n):
                j = entry_atom[lo + k]
                s0, s1, s2 = entry_shift[lo + k, 0], entry_shift[lo + k, 1], entry_shift[lo + k, 2]
                x[k] = positions[j, 0] - ox + s0 * cell[0, 0] + s1 * cell[1, 0] + s2 * cell[2, 0]
                y[k] = positions[j, 1] - oy + s0 * cell[0, 1] + s1 * cell[1, 1] + s2 * cell[2, 1]
                z[k] = positions[j, 2] - oz + s0 * cell[0, 2] + s1 * cell[1, 2] + s2 * cell[2, 2]
                a[k] = sqrt_a[j]
                b[k] = half_b[j]
                c[k] = sqrt_c[j]
                q[k] = charge[j]
                gx[k] = 0.0
                gy[k] = 0.0
                gz[k] = 0.0
            for i in range(i_lo, i_hi):
                xi, yi, zi = positions[i, 0] - ox, positions[i, 1] - oy, positions[i, 2] - oz
                e, fx, fy, fz = _row(
                    n, xi, yi, zi, sqrt_a[i], half_b[i], sqrt_c[i], charge[i], x, y, z, a, b, c, q, w,
                    cutoff, onset, alpha,
                )  # fmt: skip
                energy += e
                forces[i - first_atom, 0] += fx
                forces[i - first_atom, 1] += fy
                forces[i - first_atom, 2] += fz
                virial[0, 0] -= xi * fx
                virial[0, 1] -= xi * fy
                virial[0, 2] -= xi * fz
                virial[1, 1] -= yi * fy
                virial[1, 2] -= yi * fz
                virial[2, 2] -= zi * fz
                _subtract_scaled(n, w, x, xi, gx)
                _subtract_scaled(n, w, y, yi, gy)
                _subtract_scaled(n, w, z, zi, gz)
            for k in range(n):
                j = entry_atom[lo + k] - first_atom
                forces[j, 0] += gx[k]
                forces[j, 1] += gy[k]
                forces[j, 2] += gz[k]
                virial[0, 0] -= x[k] * gx[k]
                virial[0, 1] -= x[k] * gy[k]
                virial[0, 2] -= x[k] * gz[k]
                virial[1, 1] -= y[k] * gy[k]
                virial[1, 2] -= y[k] * gz[k]
                virial[2, 2] -= z[k] * gz[k]
    virial[1, 0] = virial[0, 1]
    virial[2, 0] = virial[0, 2]
    virial[2, 1] = virial[1, 2]
    return energy


@nb.njit(nogil=True, cache=True, fastmath=True, boundscheck=False, error_model="numpy")
def pair_chunks(
    first, last, chunk_system, chunk_group, chunk_row, system_atom, positions, cells, sqrt_a, half_b, sqrt_c, charge,
    group_start, entry_start, entry_count, entry_atom, entry_shift, cutoff, onset, alpha, energy, forces, virial,
):  # fmt: skip
    """Evaluate the chunks `first` ... `last` - 1, each a run of groups of one system.

    Every chunk has its own outputs, so that threads may work on different chunks and the sums do not depend on how
    many there are.

    Parameters
    ----------
    chunk_system : (NC,) int array
        System of each chunk.
    chunk_group : (NC, 2) int array
        First group and end of each chunk.
    chunk_row : (NC,) int array
        Row of `forces` where the chunk's copy of its system's atoms begins.
    system_atom : (S + 1,) int array
        First atom of each system.
    positions : (n, 3) array
        Whole molecules in group order (whole batch), Å.
    cells : (S, 3, 3) array
        Cell rows, Å.
    sqrt_a, half_b, sqrt_c, charge : (n,) arrays
        sqrt(A) in eV^½, B/2 in 1/Å, sqrt(C) in eV^½·Å³, charges times sqrt(e²/4πε₀).
    group_start, entry_start, entry_count, entry_atom, entry_shift : arrays
        Groups and neighbour list (`molflow_sim.forcefield.neighbours`).
    cutoff, onset, alpha : float
        Cutoff and switching onset in Å, Ewald splitting in 1/Å.
    energy : (NC,) array
        Written, eV.
    forces : (rows, 3) array
        Added to, eV/Å.
    virial : (NC, 3, 3) array
        Added to: Σ r ⊗ dE/dr over pairs, eV.
    """
    for chunk in range(first, last):
        s = chunk_system[chunk]
        n = system_atom[s + 1] - system_atom[s]
        energy[chunk] = _chunk(
            positions, cells[s], sqrt_a, half_b, sqrt_c, charge, group_start, entry_start, entry_count, entry_atom,
            entry_shift, chunk_group[chunk, 0], chunk_group[chunk, 1], system_atom[s], cutoff, onset, alpha,
            forces[chunk_row[chunk] : chunk_row[chunk] + n], virial[chunk],
        )  # fmt: skip
