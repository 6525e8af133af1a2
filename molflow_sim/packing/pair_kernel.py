"""Compiled pair loop of the rigid press: energy and rigid-body gradients, one crystal per task.

Each crystal is an asymmetric unit of rigid molecules and a list of neighbouring images. The loop over atom
pairs runs in float32 and is written so that the compiler vectorises it (the exponential included: libm's
would not), sums over a molecule pair go to float64. `molflow_sim.packing.pair_torch` is the same function in
torch; a test holds the two together.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from molflow_sim.threads import share


@intrinsic
def _bits_to_float32(typingctx, bits):
    """Reinterpret an int32 as the float32 with the same bits."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.int32), codegen


@intrinsic
def _truncate_to_int32(typingctx, value):
    """float32 -> int32 by truncation, in 32 bits so that the loop keeps its vector width."""

    def codegen(context, builder, signature, args):
        return builder.fptosi(args[0], cgutils.int32_t)

    return types.int32(types.float32), codegen


@nb.njit(inline="always")
def _exp_negative(x):
    """exp(x) for x <= 0 in float32, relative error 2e-7; underflows to about 1e-38 below -87.

    2^k times a degree-6 polynomial of the remainder (Cody-Waite reduction).
    """
    x = max(x, np.float32(-87.0))
    k = _truncate_to_int32(x * np.float32(1.44269504) - np.float32(0.5))
    kf = np.float32(k)
    y = x - kf * np.float32(0.693359375) + kf * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * y + np.float32(1.3981999507e-3)
    p = p * y + np.float32(8.3334519073e-3)
    p = p * y + np.float32(4.1665795894e-2)
    p = p * y + np.float32(1.6666665459e-1)
    p = p * y + np.float32(5.0000001201e-1)
    p = p * y * y + y + np.float32(1.0)
    return p * _bits_to_float32(np.int32((k + np.int32(127)) << np.int32(23)))


@nb.njit(fastmath=True, boundscheck=False, error_model="numpy")
def _exp6_row(ax, ay, az, bx, by, bz, a, b, c, q, guard, r_min, n):
    """One atom against a molecule: energy and its gradient with respect to moving the molecule.

    φ(r) = a exp(-b r) - c/r⁶ + c·guard/r¹² + q/r, continued linearly below r_min.
    """
    e = np.float32(0.0)
    gx = np.float32(0.0)
    gy = np.float32(0.0)
    gz = np.float32(0.0)
    for k in range(n):
        dx = bx[k] - ax
        dy = by[k] - ay
        dz = bz[k] - az
        r = np.sqrt(dx * dx + dy * dy + dz * dz + np.float32(1e-12))
        rc = max(r, r_min)
        inv = np.float32(1.0) / rc
        u = inv * inv
        u3 = u * u * u
        rep = a[k] * _exp_negative(-b[k] * rc)
        disp = c[k] * u3
        wall = disp * guard * u3
        coul = q[k] * inv
        d = -b[k] * rep + (np.float32(6.0) * disp - np.float32(12.0) * wall - coul) * inv
        e += rep - disp + wall + coul + d * (r - rc)
        f = d / r
        gx += f * dx
        gy += f * dy
        gz += f * dz
    return e, gx, gy, gz


@nb.njit(fastmath=True, boundscheck=False, error_model="numpy")
def _overlap_row(ax, ay, az, bx, by, bz, contact, stiffness, n):
    """Soft overlap: φ(r) = stiffness (contact - r)² for r < contact."""
    e = np.float32(0.0)
    gx = np.float32(0.0)
    gy = np.float32(0.0)
    gz = np.float32(0.0)
    for k in range(n):
        dx = bx[k] - ax
        dy = by[k] - ay
        dz = bz[k] - az
        r = np.sqrt(dx * dx + dy * dy + dz * dz + np.float32(1e-12))
        h = max(contact[k] - r, np.float32(0.0))
        e += stiffness * h * h
        f = np.float32(-2.0) * stiffness * h / r
        gx += f * dx
        gy += f * dy
        gz += f * dz
    return e, gx, gy, gz


@nb.njit(nogil=True, fastmath=True, cache=True, boundscheck=False, error_model="numpy")
def _evaluate(
    first, last, soft, conformers, conformer, cell, centroid, rotation, group, frac_rot, frac_tran, cart_rot,
    entry_start, entry_i, entry_j, entry_g, entry_n, entry_weight, pa, pb, pc, pq, contact, stiffness, guard, r_min,
    energy, grad_cell, grad_centroid, grad_rotation,
):  # fmt: skip
    n_mol = centroid.shape[1]
    n, n_atoms = conformers.shape[1], pa.shape[0]  # with and without padding
    for crystal in range(first, last):
        world = np.empty((n_mol, 3, n), np.float32)
        conf = conformers[conformer[crystal]]
        for m in range(n_mol):
            rot = rotation[crystal, m]
            for k in range(n):
                for d in range(3):
                    world[m, d, k] = np.float32(
                        rot[d, 0] * conf[k, 0] + rot[d, 1] * conf[k, 1] + rot[d, 2] * conf[k, 2]
                    )
        image = np.empty((3, n), np.float32)
        box = cell[crystal]
        e_total = 0.0
        g_cell = np.zeros((3, 3))
        g_cen = np.zeros((n_mol, 3))
        g_rot = np.zeros((n_mol, 3))
        delta = np.empty(3)
        centre = np.empty(3)
        for entry in range(entry_start[crystal], entry_start[crystal + 1]):
            i, j, g = entry_i[entry], entry_j[entry], entry_g[entry]
            w = frac_rot[group[crystal], g]
            wc = cart_rot[group[crystal], g]
            si, sj = centroid[crystal, i], centroid[crystal, j]
            for d in range(3):
                delta[d] = (
                    w[d, 0] * sj[0] + w[d, 1] * sj[1] + w[d, 2] * sj[2]
                    + frac_tran[group[crystal], g, d] + entry_n[entry, d] - si[d]
                )  # fmt: skip
            for d in range(3):
                centre[d] = delta[0] * box[0, d] + delta[1] * box[1, d] + delta[2] * box[2, d]
            for d in range(3):
                c0, c1, c2 = np.float32(wc[d, 0]), np.float32(wc[d, 1]), np.float32(wc[d, 2])
                shift = np.float32(centre[d])
                for k in range(n):
                    image[d, k] = c0 * world[j, 0, k] + c1 * world[j, 1, k] + c2 * world[j, 2, k] + shift
            weight = entry_weight[entry]
            e_pair = 0.0
            gx = gy = gz = 0.0
            tx = ty = tz = 0.0
            for k in range(n_atoms):
                ax, ay, az = world[i, 0, k], world[i, 1, k], world[i, 2, k]
                if soft:
                    e, hx, hy, hz = _overlap_row(ax, ay, az, image[0], image[1], image[2], contact[k], stiffness, n)
                else:
                    e, hx, hy, hz = _exp6_row(
                        ax, ay, az, image[0], image[1], image[2], pa[k], pb[k], pc[k], pq[k], guard, r_min, n
                    )
                e_pair += e
                gx += hx
                gy += hy
                gz += hz
                tx += ay * hz - az * hy
                ty += az * hx - ax * hz
                tz += ax * hy - ay * hx
            e_total += weight * e_pair
            # Pair forces are central, so the torque about the centre of i is the same sum taken over either molecule.
            g_rot[i, 0] -= weight * tx
            g_rot[i, 1] -= weight * ty
            g_rot[i, 2] -= weight * tz
            ux = weight * (tx - centre[1] * gz + centre[2] * gy)
            uy = weight * (ty - centre[2] * gx + centre[0] * gz)
            uz = weight * (tz - centre[0] * gy + centre[1] * gx)
            det = (
                wc[0, 0] * (wc[1, 1] * wc[2, 2] - wc[1, 2] * wc[2, 1])
                - wc[0, 1] * (wc[1, 0] * wc[2, 2] - wc[1, 2] * wc[2, 0])
                + wc[0, 2] * (wc[1, 0] * wc[2, 1] - wc[1, 1] * wc[2, 0])
            )
            for d in range(3):
                g_rot[j, d] += det * (wc[0, d] * ux + wc[1, d] * uy + wc[2, d] * uz)
            f0 = weight * (box[0, 0] * gx + box[0, 1] * gy + box[0, 2] * gz)
            f1 = weight * (box[1, 0] * gx + box[1, 1] * gy + box[1, 2] * gz)
            f2 = weight * (box[2, 0] * gx + box[2, 1] * gy + box[2, 2] * gz)
            g_cen[i, 0] -= f0
            g_cen[i, 1] -= f1
            g_cen[i, 2] -= f2
            for d in range(3):
                g_cen[j, d] += w[0, d] * f0 + w[1, d] * f1 + w[2, d] * f2
                g_cell[d, 0] += weight * delta[d] * gx
                g_cell[d, 1] += weight * delta[d] * gy
                g_cell[d, 2] += weight * delta[d] * gz
        energy[crystal] = e_total
        grad_cell[crystal] = g_cell
        grad_centroid[crystal] = g_cen
        grad_rotation[crystal] = g_rot


def evaluate(tables, geometry, neighbours, soft):
    """Pair energy (eV per asymmetric unit) and gradients of a batch; see `pair_torch.evaluate` for the arguments."""
    b, m = geometry.centroid.shape[:2]
    energy = np.empty(b)
    grad_cell, grad_centroid, grad_rotation = np.empty((b, 3, 3)), np.empty((b, m, 3)), np.empty((b, m, 3))
    t = tables
    arguments = (
        bool(soft), t.conformers_np, geometry.conformer.numpy(), geometry.cell.numpy(), geometry.centroid.numpy(),
        geometry.rotation.numpy(), geometry.group.numpy(), t.frac_rot_np, t.frac_tran_np, t.cart_rot_np,
        neighbours.start_np, neighbours.i_np, neighbours.j_np, neighbours.g_np, neighbours.n_np, neighbours.weight_np,
        t.pa_np, t.pb_np, t.pc_np, t.pq_np, t.contact_np, np.float32(t.stiffness), np.float32(t.guard),
        np.float32(t.r_min), energy, grad_cell, grad_centroid, grad_rotation,
    )  # fmt: skip
    share(b, lambda first, last: _evaluate(first, last, *arguments))
    return energy, grad_cell, grad_centroid, grad_rotation
