"""What SO3LR adds to its network: nuclear repulsion, damped Coulomb and damped dispersion, with their gradients.

Coulomb: ½ Σ q_i q_j erf(r/σ)/(4πε₀ r), σ = 4 Å. Being smooth, it is summed exactly in reciprocal space alone.
Dispersion: C6, C8 and C10 of quantum Drude oscillators, damped, from polarizabilities scaled by the Hirshfeld ratios
(A. Khabibrakhmanov, D. V. Fedorov, A. Tkatchenko, J. Chem. Theory Comput. 19, 7895 (2023)); beyond the cutoff C6 goes
on as an isotropic continuum. Repulsion: Ziegler-Biersack-Littmark, below 1.5 Å.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from molflow_sim.so3lr.weights import CUTOFF

BOHR, HARTREE, COULOMB = 0.5291772105638411, 27.211386245988, 14.399645351950548
SIGMA = 4.0
"""Å; width of the smeared charges."""
DAMPING = 1.2
"""Scale of the dispersion's damping radius."""
SHELL = 2.0
"""Å inside the cutoff over which dispersion is switched off."""
_K_MAX = math.sqrt(4 * 27.6) / SIGMA  # exp(-k²σ²/4) = 1e-12
_ZBL_END = 1.5

# Polarizabilities (bohr³) and C6 (hartree bohr⁶) of free atoms, H to Ar:
# A. Tkatchenko, M. Scheffler, Phys. Rev. Lett. 102, 073005 (2009).
ALPHA = np.array([4.5, 1.38, 164.2, 38, 21, 12, 7.4, 5.4, 3.8, 2.67, 162.7, 71, 60, 37, 25, 19.6, 15, 11.1])
C6 = np.array([6.5, 1.46, 1387, 214, 99.5, 46.6, 24.2, 15.6, 9.52, 6.38, 1556, 627, 528, 305, 185, 134, 94.6, 64.3])

_fast = nb.njit(fastmath=True, error_model="numpy", nogil=True, cache=True)
_inner = nb.njit(fastmath=True, error_model="numpy", forceinline=True)  # see network.py


@_inner
def _switch(x):
    """Smooth step from 1 at x = 0 to 0 at x = 1, and its derivative."""
    if x <= 0.0:
        return 1.0, 0.0
    if x >= 1.0:
        return 0.0, 0.0
    a, b = math.exp(-1.0 / (1.0 - x)), math.exp(-1.0 / x)
    s = a + b + 1e-12
    return a / s, -a * b * (1.0 / (1.0 - x) ** 2 + 1.0 / (x * x)) / (s * s)


def tail_integral(cutoff: float) -> float:
    """∫ 4π r² (1 - switch)/r⁶ dr from where the switch begins to infinity, Å⁻³."""
    r = np.linspace(cutoff - SHELL, cutoff, 2001)
    w = np.array([_switch(x)[0] for x in (r - cutoff + SHELL) / SHELL])
    inside = np.trapezoid(4 * np.pi * (1 - w) / r**4, r)
    return float(inside + 4 * np.pi / (3 * cutoff**3))


def image_range(inverse: np.ndarray | None, cutoff: float) -> np.ndarray:
    """Images (3,) to visit on either side of the nearest one, from the inverse of a cell; none without one."""
    if inverse is None:
        return np.zeros(3, dtype=np.int64)
    return (cutoff * np.linalg.norm(inverse, axis=0) + 0.5).astype(np.int64)


@_inner
def _nearest(x, y, cell, inverse, d):
    """Write the difference x - y moved to fractional coordinates within ±½; `d` (6,) has room for the shifts."""
    for i in range(3):
        d[i] = x[i] - y[i]
    # inverse is zero where there is no lattice, and so are the shifts
    for i in range(3):
        d[3 + i] = np.rint(d[0] * inverse[0, i] + d[1] * inverse[1, i] + d[2] * inverse[2, i])
    for i in range(3):
        for j in range(3):
            d[j] -= d[3 + i] * cell[i, j]


@_fast
def pairs_within(positions, own, cell, inverse, reach):
    """Pairs nearer than the network's cutoff: starts (A + 1,), senders (E,) and vectors (E, 3) to them."""
    n, n_cell = own.shape[0], positions.shape[0]
    start = np.zeros(n + 1, dtype=np.int64)
    size = 64 * n
    sender = np.empty(size, dtype=np.int64)
    vectors = np.empty((size, 3))
    d = np.empty(6)
    k = 0
    for a in range(n):
        for c in range(n_cell):
            _nearest(positions[c], positions[own[a]], cell, inverse, d)
            for i in range(-reach[0], reach[0] + 1):
                for j in range(-reach[1], reach[1] + 1):
                    for m in range(-reach[2], reach[2] + 1):
                        x = d[0] + i * cell[0, 0] + j * cell[1, 0] + m * cell[2, 0]
                        y = d[1] + i * cell[0, 1] + j * cell[1, 1] + m * cell[2, 1]
                        z = d[2] + i * cell[0, 2] + j * cell[1, 2] + m * cell[2, 2]
                        r2 = x * x + y * y + z * z
                        if r2 >= CUTOFF * CUTOFF or r2 < 1e-8:
                            continue
                        if k == size:
                            size *= 2
                            more, wider = np.empty(size, dtype=np.int64), np.empty((size, 3))
                            for e in range(k):
                                more[e] = sender[e]
                                for s in range(3):
                                    wider[e, s] = vectors[e, s]
                            sender, vectors = more, wider
                        sender[k] = c
                        vectors[k, 0], vectors[k, 1], vectors[k, 2] = x, y, z
                        k += 1
        start[a + 1] = k
    return start, sender[:k], vectors[:k]


@_fast
def repulsion(element, parent, start, sender, vectors, zbl, gradient):
    """Energy in eV of all pairs (each receiver's half); the gradient along the pair vectors is added."""
    energy = 0.0
    for a in range(start.shape[0] - 1):
        zi = element[a] + 1.0
        for e in range(start[a], start[a + 1]):
            x, y, z = vectors[e]
            r = math.sqrt(x * x + y * y + z * z)
            if r >= _ZBL_END:
                continue
            zj = element[parent[sender[e]]] + 1.0
            w, dw = _switch(r / _ZBL_END)
            dw /= _ZBL_END
            u = r / CUTOFF
            cut = 1 - u**3 * (6 * u * u - 15 * u + 10)
            dcut = -30 * u * u * (1 - u) ** 2 / CUTOFF
            reach = (zi ** zbl[8] + zj ** zbl[8]) * zbl[9]
            y0, y1 = 0.0, 0.0
            for i in range(4):
                term = zbl[4 + i] * math.exp(-zbl[i] * reach * r)
                y0 += term
                y1 -= zbl[i] * reach * term
            front = 0.5 * COULOMB * zi * zj / r
            energy += front * w * cut * y0
            slope = front * (dw * cut * y0 + w * dcut * y0 + w * cut * y1 - w * cut * y0 / r)
            for i in range(3):
                gradient[e, i] += slope * vectors[e, i] / r
    return energy


@_inner
def _pair_constants(ai, aj, ci, cj):
    """C6 (hartree bohr⁶), γ, damping radius (bohr) of two atoms, and derivatives.

    Those of C6 by ai, aj, ci, cj; of γ and the radius by the mean polarizability.
    """
    bottom = ai * ai * cj + aj * aj * ci
    c6 = 2 * ci * cj * ai * aj / bottom
    c6_ai = c6 / ai - c6 * 2 * ai * cj / bottom
    c6_aj = c6 / aj - c6 * 2 * aj * ci / bottom
    c6_ci = c6 / ci - c6 * aj * aj / bottom
    c6_cj = c6 / cj - c6 * ai * ai / bottom
    alpha = 0.5 * (ai + aj)
    root = alpha ** (1.0 / 7.0)
    radius = 0.0072973525693 ** (-4.0 / 21.0) * root
    s = -0.00433008 + radius * (0.24428889 + radius * (0.04125273 - radius * 0.00078893))
    ds = (0.24428889 + radius * (2 * 0.04125273 - 3 * radius * 0.00078893)) * radius / (7 * alpha)
    gamma = 0.5 / (s * s)
    damp = DAMPING * 2 * 2.54 * root
    return c6, c6_ai, c6_aj, c6_ci, c6_cj, gamma, -2 * gamma / s * ds, damp, damp / (7 * alpha)


@_fast
def dispersion(
    element, own, parent, positions, cell, inverse, reach, ratios, cutoff, rest, grad, virial, g_ratio
):  # fmt: skip
    """Energy in eV of the receivers' halves of all pairs.

    Adds to `grad` (C, 3) by position, `virial` (3, 3) and `g_ratio` (A,). ``cutoff`` of infinity takes all pairs of a
    system that is not periodic; ``rest`` is what C6 is multiplied with beyond it, bohr⁻⁶.
    """
    n, n_cell = own.shape[0], positions.shape[0]
    total = 0.0
    d = np.empty(6)
    for a in range(n):
        za = element[a]
        ha = abs(ratios[a])
        for c in range(n_cell):
            p = parent[c]
            zc, hc = element[p], abs(ratios[p])
            c6, c6_ai, c6_aj, c6_ci, c6_cj, gamma, dgamma, damp, ddamp = _pair_constants(
                ALPHA[za] * ha, ALPHA[zc] * hc, C6[za] * ha * ha, C6[zc] * hc * hc
            )
            c8, c10 = 5.0 / gamma, 245.0 / 8.0 / (gamma * gamma)
            p2 = damp * damp
            p6 = p2 * p2 * p2
            p8 = p6 * p2
            p10 = p8 * p2
            s6, s8, s10, sd = 0.0, 0.0, 0.0, 0.0
            _nearest(positions[c], positions[own[a]], cell, inverse, d)
            for i in range(-reach[0], reach[0] + 1):
                for j in range(-reach[1], reach[1] + 1):
                    for m in range(-reach[2], reach[2] + 1):
                        x = d[0] + i * cell[0, 0] + j * cell[1, 0] + m * cell[2, 0]
                        y = d[1] + i * cell[0, 1] + j * cell[1, 1] + m * cell[2, 1]
                        z = d[2] + i * cell[0, 2] + j * cell[1, 2] + m * cell[2, 2]
                        r2 = x * x + y * y + z * z
                        if r2 >= cutoff * cutoff or r2 < 1e-8:
                            continue
                        w, dw = 1.0, 0.0
                        if r2 > (cutoff - SHELL) * (cutoff - SHELL):
                            r = math.sqrt(r2)
                            w, dw = _switch((r - cutoff + SHELL) / SHELL)
                            dw /= SHELL * r
                        b2 = r2 / (BOHR * BOHR)
                        b6 = b2 * b2 * b2
                        b8 = b6 * b2
                        i6, i8, i10 = 1 / (b6 + p6), 1 / (b8 + p8), 1 / (b8 * b2 + p10)
                        s6 += w * i6
                        s8 += w * i8
                        s10 += w * i10
                        sd += w * (6 * i6 * i6 * p6 + c8 * 8 * i8 * i8 * p8 + c10 * 10 * i10 * i10 * p10)
                        # derivative by r, over r
                        slope = w * (6 * i6 * i6 * b6 + c8 * 8 * i8 * i8 * b8 + c10 * 10 * i10 * i10 * b8 * b2) / r2
                        slope -= dw * (i6 + c8 * i8 + c10 * i10)
                        slope *= 0.5 * HARTREE * c6
                        gx, gy, gz = slope * x, slope * y, slope * z
                        grad[c, 0] += gx
                        grad[c, 1] += gy
                        grad[c, 2] += gz
                        grad[own[a], 0] -= gx
                        grad[own[a], 1] -= gy
                        grad[own[a], 2] -= gz
                        virial[0, 0] += x * gx
                        virial[0, 1] += x * gy
                        virial[0, 2] += x * gz
                        virial[1, 1] += y * gy
                        virial[1, 2] += y * gz
                        virial[2, 2] += z * gz
            per_c6 = -0.5 * HARTREE * (s6 + c8 * s8 + c10 * s10 + rest)
            total += per_c6 * c6
            for i in range(3):
                virial[i, i] += 0.5 * HARTREE * rest * c6
            by_gamma = 0.5 * HARTREE * c6 * (c8 / gamma * s8 + 2 * c10 / gamma * s10)
            by_damp = 0.5 * HARTREE * c6 * sd / damp
            by_alpha = 0.5 * (by_gamma * dgamma + by_damp * ddamp)
            ga = (per_c6 * c6_ai + by_alpha) * ALPHA[za] + per_c6 * c6_ci * 2 * C6[za] * ha
            gc = (per_c6 * c6_aj + by_alpha) * ALPHA[zc] + per_c6 * c6_cj * 2 * C6[zc] * hc
            g_ratio[a] += ga * np.sign(ratios[a])
            g_ratio[p] += gc * np.sign(ratios[p])
    return total


@_fast
def coulomb_reciprocal(own, parent, positions, cell, inverse, volume, charges, order, grad, virial, g_charge):
    """Exact sum over a crystal, per asymmetric unit (1/`order` of the cell's energy), eV; adds the derivatives."""
    n_cell = positions.shape[0]
    top = np.empty(3, dtype=np.int64)
    for i in range(3):
        length = math.sqrt(cell[i, 0] ** 2 + cell[i, 1] ** 2 + cell[i, 2] ** 2)
        top[i] = int(_K_MAX * length / (2 * math.pi))
    co, si = np.empty(n_cell), np.empty(n_cell)
    front = 2 * math.pi * COULOMB / volume
    total = 0.0
    for h in range(top[0] + 1):
        for k in range(-top[1], top[1] + 1):
            for m in range(-top[2], top[2] + 1):
                if h == 0 and (k < 0 or (k == 0 and m <= 0)):
                    continue
                kx = 2 * math.pi * (h * inverse[0, 0] + k * inverse[0, 1] + m * inverse[0, 2])
                ky = 2 * math.pi * (h * inverse[1, 0] + k * inverse[1, 1] + m * inverse[1, 2])
                kz = 2 * math.pi * (h * inverse[2, 0] + k * inverse[2, 1] + m * inverse[2, 2])
                k2 = kx * kx + ky * ky + kz * kz
                if k2 > _K_MAX * _K_MAX:
                    continue
                sc, ss = 0.0, 0.0
                for c in range(n_cell):
                    phase = kx * positions[c, 0] + ky * positions[c, 1] + kz * positions[c, 2]
                    co[c], si[c] = math.cos(phase), math.sin(phase)
                    q = charges[parent[c]]
                    sc += q * co[c]
                    ss += q * si[c]
                amplitude = 2 * front * math.exp(-k2 * SIGMA * SIGMA / 4) / k2  # both k and -k
                e = amplitude * (sc * sc + ss * ss)
                total += e
                for a in range(own.shape[0]):
                    c = own[a]
                    g_charge[a] += 2 * amplitude * (sc * co[c] + ss * si[c])
                    pull = 2 * amplitude * charges[a] * (ss * co[c] - sc * si[c])
                    grad[c, 0] += pull * kx
                    grad[c, 1] += pull * ky
                    grad[c, 2] += pull * kz
                outer = 2 * e * (1 / k2 + SIGMA * SIGMA / 4) / order
                virial[0, 0] += outer * kx * kx - e / order
                virial[1, 1] += outer * ky * ky - e / order
                virial[2, 2] += outer * kz * kz - e / order
                virial[0, 1] += outer * kx * ky
                virial[0, 2] += outer * kx * kz
                virial[1, 2] += outer * ky * kz
    own_energy = COULOMB / (SIGMA * math.sqrt(math.pi))
    total /= order
    for a in range(own.shape[0]):
        total -= own_energy * charges[a] ** 2
        g_charge[a] -= 2 * own_energy * charges[a]
    return total


@_fast
def coulomb_direct(positions, charges, grad, g_charge):
    """All pairs of a system that is not periodic, eV; adds the derivatives."""
    total = 0.0
    for a in range(positions.shape[0]):
        for c in range(a):
            x, y, z = (
                positions[a, 0] - positions[c, 0],
                positions[a, 1] - positions[c, 1],
                positions[a, 2] - positions[c, 2],
            )
            r = math.sqrt(x * x + y * y + z * z)
            v = math.erf(r / SIGMA) / r
            dv = (2 / (math.sqrt(math.pi) * SIGMA) * math.exp(-((r / SIGMA) ** 2)) - v) / r
            total += COULOMB * charges[a] * charges[c] * v
            g_charge[a] += COULOMB * charges[c] * v
            g_charge[c] += COULOMB * charges[a] * v
            slope = COULOMB * charges[a] * charges[c] * dv / r
            for i, s in enumerate((x, y, z)):
                grad[a, i] += slope * s
                grad[c, i] -= slope * s
    return total


@_fast
def gather(own, parent, operation, rotations, start, sender, vectors, g_pair, grad, virial):
    """Add the pairs' gradients, and make the gradient (C, 3) and virial (3, 3) those of the whole cell, in place."""
    n, n_cell = own.shape[0], parent.shape[0]
    for a in range(n):
        for e in range(start[a], start[a + 1]):
            for i in range(3):
                grad[sender[e], i] += g_pair[e, i]
                grad[own[a], i] -= g_pair[e, i]
                for j in range(i, 3):
                    virial[i, j] += vectors[e, i] * g_pair[e, j]
    for i in range(3):
        for j in range(i):
            virial[i, j] = virial[j, i]
    if rotations.shape[0] == 1:
        return
    unit = np.zeros((n, 3))
    for c in range(n_cell):
        for i in range(3):
            for j in range(3):
                unit[parent[c], j] += rotations[operation[c], i, j] * grad[c, i]
    for c in range(n_cell):
        for i in range(3):
            grad[c, i] = 0.0
            for j in range(3):
                grad[c, i] += rotations[operation[c], i, j] * unit[parent[c], j]
    full = np.zeros((3, 3))
    for g in range(rotations.shape[0]):
        for i in range(3):
            for j in range(3):
                for k in range(3):
                    for m in range(3):
                        full[i, j] += rotations[g, i, k] * virial[k, m] * rotations[g, j, m]
    for i in range(3):
        for j in range(3):
            virial[i, j] = full[i, j]
