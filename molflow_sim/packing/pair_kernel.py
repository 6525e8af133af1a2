"""Compiled pair loop of the rigid press: energy and rigid-body gradients, one crystal per task.

Each crystal is an asymmetric unit of rigid molecules and a list of neighbouring images. The loop over atom
pairs runs in float32, sixteen at a time in an order that no processor changes (`molflow_sim.packing.lanes`); sums over
molecule pairs are in float64. `molflow_sim.packing.pair_torch` is the same function in torch; a test holds the two
together.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from molflow_sim.packing.lanes import WIDTH, Lanes
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


def _exp6(r, inverse, a, b, c, q, contact, guard, r_min, stiffness):
    """Energy and (dE/dr)/r: a exp(-b r) - c/r⁶ + c·guard/r¹² + q/r, continued linearly below r_min."""
    inside = r.at_least(r_min)
    inv = inverse.at_most(r_min.inverse())
    u3 = inv * inv * (inv * inv) * (inv * inv)
    rep = a * (b * inside * -1.0).exp()
    disp = c * u3
    wall = disp * guard * u3
    coul = q * inv
    slope = (disp * 6.0 - wall * 12.0 - coul) * inv - b * rep
    return rep - disp + wall + coul + slope * (r - inside), slope * inverse


def _overlap(r, inverse, a, b, c, q, contact, guard, r_min, stiffness):
    """The same for the soft overlap, stiffness (contact - r)² for r < contact."""
    depth = (contact - r).at_least(0.0)
    push = stiffness * depth
    return push * depth, push * inverse * -2.0


def _pairs(kernel):
    """Intrinsic: atom k against 16 atoms of an image from `first` on; adds to sums (7, 16) of energy, force, torque.

    Lengths are (3, n) and tables (5, N, n) arrays. Force and torque (about the centre) are those of moving the image.
    """

    @intrinsic
    def pairs(typingctx, own, image, tables, sums, k, first, guard, r_min, stiffness):
        def codegen(context, builder, signature, args):
            def at(place, *index):
                kind = signature.args[place]
                array = context.make_array(kind)(context, builder, args[place])
                return cgutils.get_item_pointer(context, builder, kind, array, index)

            number = [context.get_constant(types.intp, d) for d in range(7)]
            zero, atom, begin = number[0], args[4], args[5]
            a = [Lanes.filled(builder, builder.load(at(0, d, atom))) for d in number[:3]]
            d = [Lanes.load(builder, at(1, axis, begin)) - x for axis, x in zip(number, a)]
            r = (d[0] * d[0] + d[1] * d[1] + d[2] * d[2] + 1e-12).sqrt()
            parameters = [Lanes.load(builder, at(2, row, atom, begin)) for row in number[:5]]
            constants = [Lanes.filled(builder, x) for x in args[6:]]
            energy, push = kernel(r, r.inverse(), *parameters, *constants)
            h = [push * x for x in d]
            torque = [a[i] * h[j] - a[j] * h[i] for i, j in ((1, 2), (2, 0), (0, 1))]
            for row, value in zip(number, (energy, *h, *torque)):
                (Lanes.load(builder, at(3, row, zero)) + value).store(at(3, row, zero))
            return context.get_dummy_value()

        return types.void(own, image, tables, sums, k, first, guard, r_min, stiffness), codegen

    return pairs


_exp6_pairs, _overlap_pairs = _pairs(_exp6), _pairs(_overlap)


@intrinsic
def _lane_sum(typingctx, sums, row):
    """Sum of a row of an array (n, 16)."""

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        zero = context.get_constant(types.intp, 0)
        return Lanes.load(
            builder, cgutils.get_item_pointer(context, builder, signature.args[0], array, [args[1], zero])
        ).sum()

    return types.float32(sums, row), codegen


@nb.njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")
def _evaluate(
    first, last, soft, conformers, conformer, cell, centroid, rotation, group, frac_rot, frac_tran, cart_rot,
    entry_start, entry_i, entry_j, entry_g, entry_n, entry_weight, tables, stiffness, guard, r_min,
    energy, grad_cell, grad_centroid, grad_rotation,
):  # fmt: skip
    n_mol = centroid.shape[1]
    n, n_atoms = conformers.shape[1], tables.shape[1]  # with and without padding
    sums = np.empty((7, WIDTH), np.float32)
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
            own = world[i]
            sums[:] = np.float32(0.0)
            for k in range(n_atoms):
                for first_atom in range(0, n, WIDTH):
                    if soft:
                        _overlap_pairs(own, image, tables, sums, k, first_atom, guard, r_min, stiffness)
                    else:
                        _exp6_pairs(own, image, tables, sums, k, first_atom, guard, r_min, stiffness)
            gx, gy, gz = float(_lane_sum(sums, 1)), float(_lane_sum(sums, 2)), float(_lane_sum(sums, 3))
            tx, ty, tz = float(_lane_sum(sums, 4)), float(_lane_sum(sums, 5)), float(_lane_sum(sums, 6))
            e_pair = float(_lane_sum(sums, 0))
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
        t.pairs_np, np.float32(t.stiffness), np.float32(t.guard),
        np.float32(t.r_min), energy, grad_cell, grad_centroid, grad_rotation,
    )  # fmt: skip
    share(b, lambda first, last: _evaluate(first, last, *arguments))
    return energy, grad_cell, grad_centroid, grad_rotation
