"""Pair sums of one molecule in its crystal, by pairs of atom classes: what a force field is linear in.

The intermolecular energy per molecule of `molflow_sim.CrystalPotential` is

    E = ½ Σ_ab [A_ab P_ab(B_ab) + C_ab D_ab + q_a q_b M_ab]

over pairs of atom classes a, b, with P = Σ exp(-B r) S(r), D = Σ (g⁶/r¹² - 1/r⁶) S(r) and M the Ewald sum. The
derivatives by a displacement and a turn of the molecule alone and by an isotropic expansion of the lattice of rigid
molecules are sums of the same kind: eight rows in all, see `ROWS`. All molecules of the crystal are equivalent, so
that the pairs of the first one are enough.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from molflow_sim.forcefield.exp6 import GUARD_RADIUS
from molflow_sim.units import COULOMB

ROWS = 8
"""Energy; its derivatives by a displacement (3) and a turn (3) of the molecule; by the logarithm of the length."""
_GUARD = GUARD_RADIUS**6


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def pair_sums(x, centre, n_atoms, n_molecules, classes, n_classes, cell, b, cutoff, onset, alpha, rest):
    """Sums of the first molecule with all others and all images.

    Parameters
    ----------
    x : (Z·N, 3) array
        Whole molecules, one after another, Å.
    centre : (Z, 3) array
        Their centres of mass, Å.
    classes : (N,) int array
        Class of each atom of a molecule.
    cell : (3, 3) array
        Rows, Å.
    b : (K, K) array
        B_ab, 1/Å.
    cutoff, onset, alpha : float
        Of the potential, Å, Å and 1/Å.
    rest : bool
        Whether D and M are wanted too; else they are zeros.

    Returns
    -------
    (4, ROWS, K, K) array
        P, -∂P/∂B, D, and the real-space part of M in eV; symmetric in a, b, row 0 already halved.
    """
    out = np.zeros((4, ROWS, n_classes, n_classes))
    reach = 0.0
    for a in range(n_atoms * n_molecules):
        m = a // n_atoms
        s = 0.0
        for d in range(3):
            s += (x[a, d] - centre[m, d]) ** 2
        reach = max(reach, s)
    reach = cutoff + 2.0 * math.sqrt(reach)
    inverse = np.linalg.inv(cell)
    bound = np.empty(3, np.int64)
    shortest = 2.0
    for d in range(3):
        bound[d] = int(reach * math.sqrt(inverse[0, d] ** 2 + inverse[1, d] ** 2 + inverse[2, d] ** 2) + shortest)
    f = np.empty(3)
    v = np.empty(ROWS)
    for m in range(n_molecules):
        for d in range(3):
            f[d] = 0.0
            for e in range(3):
                f[d] += (centre[m, e] - centre[0, e]) * inverse[e, d]
            f[d] -= math.floor(f[d])
        for h in range(-bound[0], bound[0] + 1):
            for k in range(-bound[1], bound[1] + 1):
                for l in range(-bound[2], bound[2] + 1):
                    g0, g1, g2 = f[0] + h, f[1] + k, f[2] + l
                    dx = g0 * cell[0, 0] + g1 * cell[1, 0] + g2 * cell[2, 0]
                    dy = g0 * cell[0, 1] + g1 * cell[1, 1] + g2 * cell[2, 1]
                    dz = g0 * cell[0, 2] + g1 * cell[1, 2] + g2 * cell[2, 2]
                    far2 = dx * dx + dy * dy + dz * dz
                    if far2 > reach * reach or (m == 0 and far2 < 1e-6):
                        continue
                    sx, sy, sz = dx - centre[m, 0], dy - centre[m, 1], dz - centre[m, 2]
                    for i in range(n_atoms):
                        rx, ry, rz = x[i, 0] - centre[0, 0], x[i, 1] - centre[0, 1], x[i, 2] - centre[0, 2]
                        for j in range(n_atoms):
                            p = m * n_atoms + j
                            ux, uy, uz = x[p, 0] + sx - rx, x[p, 1] + sy - ry, x[p, 2] + sz - rz
                            r2 = ux * ux + uy * uy + uz * uz
                            if r2 >= cutoff * cutoff:
                                continue
                            r = max(math.sqrt(r2), 0.3)
                            t = max((r - onset) / (cutoff - onset), 0.0)
                            switch = 1.0 + t * t * t * (-10.0 + t * (15.0 - 6.0 * t))
                            d_switch = -30.0 * t * t * (1.0 - t) * (1.0 - t) / (cutoff - onset)
                            ca, cb = classes[i], classes[j]
                            beta = b[ca, cb]
                            # rows: the energy's half, dE/dx_i = -(v'/r) u, the torque, ½ v'/r u·(centres)
                            along = 0.5 * (ux * dx + uy * dy + uz * dz)
                            v[0] = 0.5
                            v[1], v[2], v[3] = -ux, -uy, -uz
                            v[4] = -(ry * uz - rz * uy)
                            v[5] = -(rz * ux - rx * uz)
                            v[6] = -(rx * uy - ry * ux)
                            v[7] = along
                            e = math.exp(-beta * r)
                            fp = e * switch
                            gp = (e * d_switch - beta * fp) / r
                            fr = r * fp
                            gr = (fp + r * (e * d_switch - beta * fp)) / r
                            out[0, 0, ca, cb] += fp * v[0]
                            out[1, 0, ca, cb] += fr * v[0]
                            for row in range(1, ROWS):
                                out[0, row, ca, cb] += gp * v[row]
                                out[1, row, ca, cb] += gr * v[row]
                            if not rest:
                                continue
                            u6 = 1.0 / (r * r * r * r * r * r)
                            w = (_GUARD * u6 - 1.0) * u6
                            fd = w * switch
                            gd = (w * d_switch + (6.0 - 12.0 * _GUARD * u6) * u6 / r * switch) / r
                            fm = COULOMB * math.erfc(alpha * r) / r
                            gauss = COULOMB * 1.1283791670955126 * alpha * math.exp(-alpha * alpha * r * r)
                            gm = -(fm + gauss) / (r * r)
                            out[2, 0, ca, cb] += fd * v[0]
                            out[3, 0, ca, cb] += fm * v[0]
                            for row in range(1, ROWS):
                                out[2, row, ca, cb] += gd * v[row]
                                out[3, row, ca, cb] += gm * v[row]
    return out


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def reciprocal_sums(x, centre, n_atoms, n_molecules, classes, n_classes, cell, alpha, k_max):
    """The rest of M: reciprocal sum, less the first molecule's own pairs; (ROWS, K, K) in eV like `pair_sums`."""
    out = np.zeros((ROWS, n_classes, n_classes))
    inverse = np.linalg.inv(cell)
    volume = abs(np.linalg.det(cell))
    bound = np.empty(3, np.int64)
    for d in range(3):
        bound[d] = int(k_max * math.sqrt(np.sum(cell[d] ** 2)) / (2.0 * math.pi))
    # by class: structure factor of all and of the first molecule; its moments d·exp(ikx); d·exp of all
    all_re, all_im = np.empty(n_classes), np.empty(n_classes)
    own_re, own_im = np.empty(n_classes), np.empty(n_classes)
    mom_re, mom_im = np.empty((3, n_classes)), np.empty((3, n_classes))
    kd_re, kd_im, od_re, od_im = np.empty(n_classes), np.empty(n_classes), np.empty(n_classes), np.empty(n_classes)
    for h in range(bound[0] + 1):
        for k in range(-bound[1] if h > 0 else 0, bound[1] + 1):
            for l in range(-bound[2] if h > 0 or k > 0 else 1, bound[2] + 1):
                kx = 2.0 * math.pi * (h * inverse[0, 0] + k * inverse[0, 1] + l * inverse[0, 2])
                ky = 2.0 * math.pi * (h * inverse[1, 0] + k * inverse[1, 1] + l * inverse[1, 2])
                kz = 2.0 * math.pi * (h * inverse[2, 0] + k * inverse[2, 1] + l * inverse[2, 2])
                k2 = kx * kx + ky * ky + kz * kz
                if k2 >= k_max * k_max:
                    continue
                all_re[:], all_im[:], kd_re[:], kd_im[:] = 0.0, 0.0, 0.0, 0.0
                mom_re[:], mom_im[:] = 0.0, 0.0
                for m in range(n_molecules):
                    for i in range(n_atoms):
                        p, c = m * n_atoms + i, classes[i]
                        dx, dy, dz = x[p, 0] - centre[m, 0], x[p, 1] - centre[m, 1], x[p, 2] - centre[m, 2]
                        phase = kx * x[p, 0] + ky * x[p, 1] + kz * x[p, 2]
                        re, im = math.cos(phase), math.sin(phase)
                        turn = kx * dx + ky * dy + kz * dz
                        all_re[c] += re
                        all_im[c] += im
                        kd_re[c] += turn * re
                        kd_im[c] += turn * im
                        if m == 0:
                            mom_re[0, c] += dx * re
                            mom_re[1, c] += dy * re
                            mom_re[2, c] += dz * re
                            mom_im[0, c] += dx * im
                            mom_im[1, c] += dy * im
                            mom_im[2, c] += dz * im
                    if m == 0:
                        own_re[:], own_im[:], od_re[:], od_im[:] = all_re, all_im, kd_re, kd_im
                weight = COULOMB * 8.0 * math.pi / volume * math.exp(-k2 / (4.0 * alpha * alpha)) / k2  # both halves
                scale = -1.0 + k2 / (2.0 * alpha * alpha)
                for a in range(n_classes):
                    for b in range(n_classes):
                        same = own_re[a] * all_re[b] + own_im[a] * all_im[b]
                        # d cos(k·(x_i - x_j))/dx_i = -k sin(k·(x_i - x_j))
                        sine = own_im[a] * all_re[b] - own_re[a] * all_im[b]
                        out[0, a, b] += 0.5 * weight * same
                        out[1, a, b] -= weight * kx * sine
                        out[2, a, b] -= weight * ky * sine
                        out[3, a, b] -= weight * kz * sine
                        tx = mom_im[0, a] * all_re[b] - mom_re[0, a] * all_im[b]
                        ty = mom_im[1, a] * all_re[b] - mom_re[1, a] * all_im[b]
                        tz = mom_im[2, a] * all_re[b] - mom_re[2, a] * all_im[b]
                        out[4, a, b] -= weight * (ty * kz - tz * ky)
                        out[5, a, b] -= weight * (tz * kx - tx * kz)
                        out[6, a, b] -= weight * (tx * ky - ty * kx)
                        # phases k·(d_i - d_j) shrink with the reciprocal lattice
                        shrink = (
                            od_im[a] * all_re[b] - od_re[a] * all_im[b] - own_im[a] * kd_re[b] + own_re[a] * kd_im[b]
                        )
                        out[7, a, b] += 0.5 * weight * (scale * same + shrink)
    for i in range(n_atoms):
        out[0, classes[i], classes[i]] -= COULOMB * alpha / math.sqrt(math.pi)
        for j in range(n_atoms):
            if i != j:
                r = math.sqrt((x[i, 0] - x[j, 0]) ** 2 + (x[i, 1] - x[j, 1]) ** 2 + (x[i, 2] - x[j, 2]) ** 2)
                out[0, classes[i], classes[j]] -= 0.5 * COULOMB * math.erf(alpha * r) / r
    return out
