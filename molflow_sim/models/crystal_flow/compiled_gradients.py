"""Compiled gradients of the loops of `compiled`: what a training step needs, without anything of size (pairs, width).

Everything along the pairs is computed again instead of kept. A filter is a table over the distance, linear in between;
its gradient is collected in a table of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable

import numba as nb
import numpy as np

from molflow_sim.models.crystal_flow.compiled_graph import Contacts
from molflow_sim.packing.pair_kernel import _exp_negative
from molflow_sim.threads import share


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _message_gradient(low, high, part, sent, grad, grad_sent, grad_low, grad_high):
    for c in range(len(sent)):
        grad_sent[c] += grad[c] * (low[c] + part * (high[c] - low[c]))
        of_filter = grad[c] * sent[c]
        of_high = part * of_filter
        grad_high[c] += of_high
        grad_low[c] += of_filter - of_high


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _messages_gradient(first, last, start, sender, distance, scale, table, sent, grad, grad_sent, grad_table):
    for row in range(first, last):
        for e in range(start[row], start[row + 1]):
            u = distance[e] * scale
            k = min(int(u), len(table) - 2)
            s = sender[e]
            _message_gradient(
                table[k], table[k + 1], u - np.float32(k), sent[s], grad[row], grad_sent[s],
                grad_table[k], grad_table[k + 1],
            )  # fmt: skip


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _push_gradient(
    low, high, part, receive, send, weight, d0, d1, d2,
    grad_receive, grad_send, grad_low, grad_high, grad_weight,
):  # fmt: skip
    """One pair; d0 to d2 are the loss's derivatives with respect to its three pushes."""
    low_fade, high_fade, low, high = low[1], high[1], low[0], high[0]
    to_low_fade, to_high_fade, to_low, to_high = grad_low[1], grad_high[1], grad_low[0], grad_high[0]
    w0, w1, w2, g0, g1, g2 = weight[0], weight[1], weight[2], grad_weight[0], grad_weight[1], grad_weight[2]
    one = np.float32(1.0)
    for c in range(len(receive)):
        x = receive[c] + send[c] + low[c] + part * (high[c] - low[c])
        fade = low_fade[c] + part * (high_fade[c] - low_fade[c])
        small = _exp_negative(-abs(x))
        logistic = (one if x >= np.float32(0.0) else small) / (one + small)
        silu = x * logistic
        y = silu * fade
        g0[c] += d0 * y
        g1[c] += d1 * y
        g2[c] += d2 * y
        of_y = d0 * w0[c] + d1 * w1[c] + d2 * w2[c]
        of_fade = of_y * silu
        of_x = of_y * fade * (logistic + silu * (one - logistic))
        grad_receive[c] += of_x
        grad_send[c] += of_x
        to_high[c] += part * of_x
        to_low[c] += of_x - part * of_x
        to_high_fade[c] += part * of_fade
        to_low_fade[c] += of_fade - part * of_fade


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _pushes_gradient(
    first, last, molecules, atoms, start, sender, line, distance, scale, table, receive, send, weight, arm,
    force, torque, virial, grad_receive, grad_send, grad_table, grad_weight,
):  # fmt: skip
    for molecule in range(first * molecules, last * molecules):
        f, t, v = force[molecule], torque[molecule], virial[molecule // molecules]
        for row in range(molecule * atoms, (molecule + 1) * atoms):
            a = arm[row]
            # t · (a × line) = (t × a) · line
            tx, ty, tz = t[1] * a[2] - t[2] * a[1], t[2] * a[0] - t[0] * a[2], t[0] * a[1] - t[1] * a[0]
            for e in range(start[row], start[row + 1]):
                u = distance[e] * scale
                k = min(int(u), len(table) - 2)
                x, y, z = line[e, 0], line[e, 1], line[e, 2]
                d0 = f[0] * x + f[1] * y + f[2] * z
                d1 = tx * x + ty * y + tz * z
                d2 = v[0, 0] * x * x + v[1, 1] * y * y + v[2, 2] * z * z
                d2 += (v[0, 1] + v[1, 0]) * x * y + (v[1, 2] + v[2, 1]) * y * z + (v[2, 0] + v[0, 2]) * z * x
                s = sender[e]
                _push_gradient(
                    table[k], table[k + 1], u - np.float32(k), receive[row], send[s], weight,
                    d0, d1, d2 * distance[e],
                    grad_receive[row], grad_send[s], grad_table[k], grad_table[k + 1], grad_weight,
                )  # fmt: skip


def messages_gradient(
    pairs: Contacts, cutoff: float, table: np.ndarray, sent: np.ndarray, grad: np.ndarray, n_crystals: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of a loss with respect to `table` and `sent` of `add_messages`, from that of its result.

    Parameters
    ----------
    pairs, cutoff, table, sent, n_crystals
        As in `molflow_sim.models.crystal_flow.compiled.add_messages`.
    grad : ndarray of float32, shape (A, W)

    Returns
    -------
    table : ndarray of float32, shape (K + 1, W)
    sent : ndarray of float32, shape (A, W)
    """
    rows, scale = len(sent) // n_crystals, np.float32((len(table) - 1) / cutoff)
    grad_sent = np.zeros_like(sent)

    def work(first: int, last: int, grad_table: np.ndarray) -> None:
        _messages_gradient(
            first * rows, last * rows, pairs.start, pairs.sender, pairs.distance, scale, table, sent, grad,
            grad_sent, grad_table,
        )  # fmt: skip

    (grad_table,) = _collected(n_crystals, work, table.shape)
    return grad_table, grad_sent


def pushes_gradient(
    pairs: Contacts,
    cutoff: float,
    table: np.ndarray,
    receive: np.ndarray,
    send: np.ndarray,
    weight: np.ndarray,
    arm: np.ndarray,
    force: np.ndarray,
    torque: np.ndarray,
    virial: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients with respect to what `add_pushes` is given, from those with respect to what it returns.

    Parameters
    ----------
    pairs, cutoff, table, receive, send, weight, arm
        As in `molflow_sim.models.crystal_flow.compiled.add_pushes`.
    force, torque : ndarray of float32, shape (B * M, 3)
    virial : ndarray of float32, shape (B, 3, 3)
        The loss's derivatives.

    Returns
    -------
    table : ndarray of float32, shape (K + 1, 2, W)
    receive, send : ndarray of float32, shape (A, W)
    weight : ndarray of float32, shape (3, W)
    """
    b, m, n = arm.shape[:3]
    scale = np.float32((len(table) - 1) / cutoff)
    grad_receive, grad_send = np.zeros_like(receive), np.zeros_like(send)

    def work(first: int, last: int, grad_table: np.ndarray, grad_weight: np.ndarray) -> None:
        _pushes_gradient(
            first, last, m, n, pairs.start, pairs.sender, pairs.line, pairs.distance, scale, table, receive, send,
            weight, arm.reshape(-1, 3), force, torque, virial, grad_receive, grad_send, grad_table, grad_weight,
        )  # fmt: skip

    grad_table, grad_weight = _collected(b, work, table.shape, weight.shape)
    return grad_table, grad_receive, grad_send, grad_weight


def _collected(n_items: int, work: Callable[..., None], *shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Sums over the threads' parts of what `work(first, last, *sums)` adds to arrays of these shapes."""
    parts: dict[int, list[np.ndarray]] = {}

    def part(first: int, last: int) -> None:
        own = [np.zeros(shape, np.float32) for shape in shapes]
        work(first, last, *own)
        parts[first] = own

    share(n_items, part)
    # In their order, whichever thread was first: the same training must end with the same weights.
    return [sum(pieces[1:], start=pieces[0]) for pieces in zip(*(parts[first] for first in sorted(parts)))]
