"""Compiled loops over contacts: sums of messages, and pushes summed to forces, torques and virials.

A filter depends on the distance alone, so it is tabulated once per set of weights and read with linear interpolation;
nothing of the size (pairs, width) is ever stored. The torch layers of `network` are the same functions, and tests hold
the two together.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from molflow_sim.models.crystal_flow.compiled_graph import Contacts
from molflow_sim.packing.pair_kernel import _exp_negative
from molflow_sim.threads import share


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _add_message(low, high, part, sent, total):
    for c in range(len(total)):
        total[c] += sent[c] * (low[c] + part * (high[c] - low[c]))


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _messages(first, last, start, sender, distance, scale, table, sent, total):
    for row in range(first, last):
        out = total[row]
        out[:] = np.float32(0.0)
        for e in range(start[row], start[row + 1]):
            u = distance[e] * scale
            k = min(int(u), len(table) - 2)
            _add_message(table[k], table[k + 1], u - np.float32(k), sent[sender[e]], out)


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _push(low, high, part, receive, send, w0, w1, w2):
    """Three sums over channels of w · silu(receive + send + filter) · fade; low and high are table rows of the two."""
    low_fade, high_fade, low, high = low[1], high[1], low[0], high[0]
    p0, p1, p2 = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    one = np.float32(1.0)
    for c in range(len(receive)):
        x = receive[c] + send[c] + low[c] + part * (high[c] - low[c])
        fade = low_fade[c] + part * (high_fade[c] - low_fade[c])
        # The logistic function by the exponential of what is not positive, which cannot overflow.
        small = _exp_negative(-abs(x))
        y = x * fade * (one if x >= np.float32(0.0) else small) / (one + small)
        p0 += w0[c] * y
        p1 += w1[c] * y
        p2 += w2[c] * y
    return p0, p1, p2


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _pushes(
    first, last, molecules, atoms, start, sender, line, distance, scale, table, receive, send, weight, arm,
    force, torque, virial,
):  # fmt: skip
    w0, w1, w2 = weight[0], weight[1], weight[2]
    zero = np.float32(0.0)
    for molecule in range(first * molecules, last * molecules):
        f, t, v = force[molecule], torque[molecule], virial[molecule // molecules]
        for row in range(molecule * atoms, (molecule + 1) * atoms):
            own, a = receive[row], arm[row]
            fx, fy, fz, tx, ty, tz = zero, zero, zero, zero, zero, zero
            xx, yy, zz, xy, yz, zx = zero, zero, zero, zero, zero, zero
            for e in range(start[row], start[row + 1]):
                u = distance[e] * scale
                k = min(int(u), len(table) - 2)
                p0, p1, p2 = _push(table[k], table[k + 1], u - np.float32(k), own, send[sender[e]], w0, w1, w2)
                x, y, z = line[e, 0], line[e, 1], line[e, 2]
                fx += p0 * x
                fy += p0 * y
                fz += p0 * z
                tx += p1 * x
                ty += p1 * y
                tz += p1 * z
                p2 *= distance[e]
                xx += p2 * x * x
                yy += p2 * y * y
                zz += p2 * z * z
                xy += p2 * x * y
                yz += p2 * y * z
                zx += p2 * z * x
            f[0] += fx
            f[1] += fy
            f[2] += fz
            t[0] += a[1] * tz - a[2] * ty
            t[1] += a[2] * tx - a[0] * tz
            t[2] += a[0] * ty - a[1] * tx
            for i, j, value in ((0, 0, xx), (1, 1, yy), (2, 2, zz), (0, 1, xy), (1, 2, yz), (2, 0, zx)):
                v[i, j] += value
                if i != j:
                    v[j, i] += value


def add_messages(pairs: Contacts, cutoff: float, table: np.ndarray, sent: np.ndarray, n_crystals: int) -> np.ndarray:
    """For every atom the sum over its contacts of what they send times the filter.

    Parameters
    ----------
    pairs : Contacts
    cutoff : float
        Å, where the table ends.
    table : ndarray of float32, shape (K + 1, W)
        The filter at equal distances from 0 to `cutoff`.
    sent : ndarray of float32, shape (A, W)
    n_crystals : int
        The atoms of a crystal are A / n_crystals rows.

    Returns
    -------
    ndarray of float32, shape (A, W)
    """
    total = np.empty_like(sent)
    rows, scale = len(sent) // n_crystals, np.float32((len(table) - 1) / cutoff)

    def work(first: int, last: int) -> None:
        _messages(
            first * rows, last * rows, pairs.start, pairs.sender, pairs.distance, scale, table, sent, total
        )  # fmt: skip

    share(n_crystals, work)
    return total


def add_pushes(
    pairs: Contacts,
    cutoff: float,
    table: np.ndarray,
    receive: np.ndarray,
    send: np.ndarray,
    weight: np.ndarray,
    arm: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forces and torques on molecules and virials of crystals from the pushes along all contacts.

    Parameters
    ----------
    pairs : Contacts
    cutoff : float
        Å, where the table ends.
    table : ndarray of float32, shape (K + 1, 2, W)
        The filter and the fade of the force layer at equal distances from 0 to `cutoff`.
    receive, send : ndarray of float32, shape (A, W)
        The two ends' parts of what the push depends on.
    weight : ndarray of float32, shape (3, W)
        Of the channels for force, torque and virial.
    arm : ndarray of float32, shape (B, M, N, 3)
        Atoms from the centre of their molecule, Å, space frame.

    Returns
    -------
    force, torque : ndarray, shape (B * M, 3)
    virial : ndarray, shape (B, 3, 3)
        Sums of push · line · vector.
    """
    b, m, n = arm.shape[:3]
    out = np.zeros((b * m, 3)), np.zeros((b * m, 3)), np.zeros((b, 3, 3))
    scale = np.float32((len(table) - 1) / cutoff)
    arguments = (
        m, n, pairs.start, pairs.sender, pairs.line, pairs.distance, scale, table, receive, send, weight,
        arm.reshape(-1, 3), *out,
    )  # fmt: skip
    share(b, lambda first, last: _pushes(first, last, *arguments))
    return out
