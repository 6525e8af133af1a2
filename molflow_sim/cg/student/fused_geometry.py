"""Compiled features, prior and their gradient for a block of replicas, the replicas innermost so that loops vectorise.

The same functions as `features` and `prior` beside this file; a test holds them together. Arrays have the shape
(rows, lanes), or (rows, 3, lanes) for vectors.
"""

from __future__ import annotations

import math

import numba as nb

FAST = {"contract", "nsz", "arcp"}
"""Liberties of the compiler: none that lose a NaN or reorder the exact steps of the exponential."""


@nb.njit(fastmath=FAST, error_model="numpy")
def pair_vectors(x, pairs, distance, unit):
    """Distances and unit vectors of all pairs."""
    lanes = x.shape[2]
    for p in range(len(pairs)):
        a, b = x[pairs[p, 0]], x[pairs[p, 1]]
        d, u = distance[p], unit[p]
        for r in range(lanes):
            vx = b[0, r] - a[0, r]
            vy = b[1, r] - a[1, r]
            vz = b[2, r] - a[2, r]
            length = math.sqrt(vx * vx + vy * vy + vz * vz)
            inverse = 1.0 / length
            d[r] = length
            u[0, r] = vx * inverse
            u[1, r] = vy * inverse
            u[2, r] = vz * inverse


@nb.njit(fastmath=FAST, error_model="numpy")
def angle_values(unit, rows, signs, cosine, sine):
    """Cosines and sines of angles."""
    lanes = unit.shape[2]
    for k in range(len(rows)):
        a, b = unit[rows[k, 0]], unit[rows[k, 1]]
        sign = signs[k, 0] * signs[k, 1]
        c, s = cosine[k], sine[k]
        for r in range(lanes):
            mx = a[1, r] * b[2, r] - a[2, r] * b[1, r]
            my = a[2, r] * b[0, r] - a[0, r] * b[2, r]
            mz = a[0, r] * b[1, r] - a[1, r] * b[0, r]
            c[r] = sign * (a[0, r] * b[0, r] + a[1, r] * b[1, r] + a[2, r] * b[2, r])
            s[r] = math.sqrt(mx * mx + my * my + mz * mz + 1e-24)


@nb.njit(fastmath=FAST, error_model="numpy")
def torsion_values(unit, rows, signs, soft, sine, cosine):
    """Sines and cosines of torsions, faded out across collinear beads."""
    lanes = unit.shape[2]
    for k in range(len(rows)):
        u, v, w = unit[rows[k, 0]], unit[rows[k, 1]], unit[rows[k, 2]]
        odd = signs[k, 0] * signs[k, 1] * signs[k, 2]
        even = signs[k, 0] * signs[k, 2]
        s, c = sine[k], cosine[k]
        for r in range(lanes):
            mx = u[1, r] * v[2, r] - u[2, r] * v[1, r]
            my = u[2, r] * v[0, r] - u[0, r] * v[2, r]
            mz = u[0, r] * v[1, r] - u[1, r] * v[0, r]
            nx = v[1, r] * w[2, r] - v[2, r] * w[1, r]
            ny = v[2, r] * w[0, r] - v[0, r] * w[2, r]
            nz = v[0, r] * w[1, r] - v[1, r] * w[0, r]
            mm = mx * mx + my * my + mz * mz + soft
            nn = nx * nx + ny * ny + nz * nz + soft
            scale = 1.0 / math.sqrt(mm * nn)
            s[r] = odd * scale * (u[0, r] * nx + u[1, r] * ny + u[2, r] * nz)
            c[r] = even * scale * (mx * nx + my * ny + mz * nz)


@nb.njit(fastmath=FAST, error_model="numpy")
def angle_gradient(unit, rows, signs, slope, pull):
    """Add to the gradient by the unit vectors, given the one by the cosines."""
    lanes = unit.shape[2]
    for k in range(len(rows)):
        a, b = unit[rows[k, 0]], unit[rows[k, 1]]
        ga, gb = pull[rows[k, 0]], pull[rows[k, 1]]
        sign = signs[k, 0] * signs[k, 1]
        g = slope[k]
        for d in range(3):
            for r in range(lanes):
                ga[d, r] += sign * g[r] * b[d, r]
                gb[d, r] += sign * g[r] * a[d, r]


@nb.njit(fastmath=FAST, error_model="numpy")
def torsion_gradient(unit, rows, signs, soft, by_sine, by_cosine, pull):
    """Add to the gradient by the unit vectors, given those by the sines and cosines of the torsions."""
    lanes = unit.shape[2]
    for k in range(len(rows)):
        u, v, w = unit[rows[k, 0]], unit[rows[k, 1]], unit[rows[k, 2]]
        gu, gv, gw = pull[rows[k, 0]], pull[rows[k, 1]], pull[rows[k, 2]]
        odd = signs[k, 0] * signs[k, 1] * signs[k, 2]
        even = signs[k, 0] * signs[k, 2]
        gs, gc = by_sine[k], by_cosine[k]
        for r in range(lanes):
            ux, uy, uz = u[0, r], u[1, r], u[2, r]
            vx, vy, vz = v[0, r], v[1, r], v[2, r]
            wx, wy, wz = w[0, r], w[1, r], w[2, r]
            mx = uy * vz - uz * vy
            my = uz * vx - ux * vz
            mz = ux * vy - uy * vx
            nx = vy * wz - vz * wy
            ny = vz * wx - vx * wz
            nz = vx * wy - vy * wx
            mm = 1.0 / (mx * mx + my * my + mz * mz + soft)
            nn = 1.0 / (nx * nx + ny * ny + nz * nz + soft)
            scale = math.sqrt(mm * nn)
            a = odd * gs[r] * scale
            c = even * gc[r] * scale
            whole = a * (ux * nx + uy * ny + uz * nz) + c * (mx * nx + my * ny + mz * nz)
            # By m = u × v and n = v × w, then by the vectors themselves.
            fm, fn = whole * mm, whole * nn
            px, py, pz = c * nx - fm * mx, c * ny - fm * my, c * nz - fm * mz
            qx = c * mx + a * ux - fn * nx
            qy = c * my + a * uy - fn * ny
            qz = c * mz + a * uz - fn * nz
            gu[0, r] += a * nx + vy * pz - vz * py
            gu[1, r] += a * ny + vz * px - vx * pz
            gu[2, r] += a * nz + vx * py - vy * px
            gv[0, r] += py * uz - pz * uy + wy * qz - wz * qy
            gv[1, r] += pz * ux - px * uz + wz * qx - wx * qz
            gv[2, r] += px * uy - py * ux + wx * qy - wy * qx
            gw[0, r] += qy * vz - qz * vy
            gw[1, r] += qz * vx - qx * vz
            gw[2, r] += qx * vy - qy * vx


@nb.njit(fastmath=FAST, error_model="numpy")
def pair_forces(pairs, distance, unit, slope, pull, forces):
    """Forces from the gradients by distances and unit vectors."""
    lanes = unit.shape[2]
    for p in range(len(pairs)):
        u, g, d, s = unit[p], pull[p], distance[p], slope[p]
        fa, fb = forces[pairs[p, 0]], forces[pairs[p, 1]]
        for r in range(lanes):
            inverse = 1.0 / d[r]
            along = g[0, r] * u[0, r] + g[1, r] * u[1, r] + g[2, r] * u[2, r]
            radial = s[r] - along * inverse
            x = g[0, r] * inverse + radial * u[0, r]
            y = g[1, r] * inverse + radial * u[1, r]
            z = g[2, r] * inverse + radial * u[2, r]
            fa[0, r] += x
            fa[1, r] += y
            fa[2, r] += z
            fb[0, r] -= x
            fb[1, r] -= y
            fb[2, r] -= z


@nb.njit(fastmath=FAST, error_model="numpy")
def prior_terms(
    distance, cosine, sine, bonds, bond_k, bond_r, angle_k, angle_theta, repelling, sigma, exponent, strength,
    by_distance, by_cosine, energy,
):  # fmt: skip
    """Add the prior to the energies and to the gradients by distances and cosines."""
    lanes = distance.shape[1]
    for k in range(len(bonds)):
        d, g = distance[bonds[k]], by_distance[bonds[k]]
        stiffness, centre = bond_k[k], bond_r[k]
        for r in range(lanes):
            stretch = d[r] - centre
            energy[r] += 0.5 * stiffness * stretch * stretch
            g[r] += stiffness * stretch
    for k in range(len(angle_k)):
        c, s, g = cosine[k], sine[k], by_cosine[k]
        stiffness, centre = angle_k[k], angle_theta[k]
        for r in range(lanes):
            bend = math.atan2(s[r], c[r]) - centre
            energy[r] += 0.5 * stiffness * bend * bend
            g[r] -= stiffness * bend / s[r]
    for k in range(len(repelling)):
        d, g = distance[repelling[k]], by_distance[repelling[k]]
        size = sigma[k]
        for r in range(lanes):
            inverse = 1.0 / d[r]
            ratio = size * inverse
            power = strength
            for _ in range(exponent):
                power *= ratio
            energy[r] += power
            g[r] -= exponent * power * inverse
