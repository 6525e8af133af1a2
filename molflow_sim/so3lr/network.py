"""The short-range network of SO3LR, forward and backward by hand, for one system in one compiled call.

The transformer of J. T. Frank, O. T. Unke, K.-R. Müller, S. Chmiela, Nat. Commun. 15, 6539 (2024) with the layer norms
and residual MLP of SO3LR. Three things make it fast. Filters of the distance come from a table. What a receiver's pairs
need is done while they are in the cache, with small matrix products. And in a crystal only the atoms of the asymmetric
unit receive: features of a symmetry copy are those of its parent, turned by the operation's rotation.

Nothing is shared between systems, so that a result does not depend on what else is in a batch.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from molflow_sim.so3lr.harmonics import CONTRACTION, DEGREE, harmonics, harmonics_gradient
from molflow_sim.so3lr.weights import CUTOFF

FEATURES, HEADS, WIDTH = 128, 4, 32
_EPSILON = 1e-6  # of the layer norms

_fast = nb.njit(fastmath=True, error_model="numpy", nogil=True, cache=True)
# Compiled into each caller: a copy of its own, which the process that compiles it would use and later ones not, may
# round otherwise.
_inner = nb.njit(fastmath=True, error_model="numpy", forceinline=True)


@_inner
def _filters(r, table, knots, at, slope):
    """Radial filter (2F,) at distance r, or its derivative."""
    h = knots[1] - knots[0]
    x = (r - knots[0]) / h
    k = min(max(int(x), 0), len(knots) - 2)
    t = min(max(x - k, 0.0), 1.0)
    zero = at[0] * 0
    if slope:
        a = zero + (6 * t * t - 6 * t) / h
        b = zero + (3 * t * t - 4 * t + 1)
        c = zero + (3 * t * t - 2 * t)
        for d in range(at.shape[0]):
            at[d] = a * (table[k, 0, d] - table[k + 1, 0, d]) + b * table[k, 1, d] + c * table[k + 1, 1, d]
        if x < 0.0:
            at[:] = 0
    else:
        a = zero + (2 * t**3 - 3 * t * t + 1)
        b = zero + (t**3 - 2 * t * t + t) * h
        c = zero + (t**3 - t * t) * h
        one = zero + 1
        for d in range(at.shape[0]):
            at[d] = a * table[k, 0, d] + (one - a) * table[k + 1, 0, d] + b * table[k, 1, d] + c * table[k + 1, 1, d]


@_inner
def _silu(z):
    out = np.empty_like(z)
    a, b = z.ravel(), out.ravel()
    for i in range(a.shape[0]):
        b[i] = a[i] / (1 + np.exp(-a[i]))
    return out


@_inner
def _silu_back(g, z):
    """g times the derivative of silu at z, in place."""
    a, b = g.ravel(), z.ravel()
    for i in range(a.shape[0]):
        s = 1 / (1 + np.exp(-b[i]))
        a[i] *= s * (1 + b[i] * (1 - s))
    return g


@_inner
def _linear(x, w, b):
    """x w + b, rows alike."""
    out = np.dot(x, w)
    for a in range(out.shape[0]):
        for d in range(out.shape[1]):
            out[a, d] += b[d]
    return out


@_inner
def _product(x, w):
    """x wᵀ."""
    return np.dot(x, w.T)


@_inner
def _plus(x, y):
    """x + y over y's columns."""
    out = np.empty_like(y)
    for a in range(y.shape[0]):
        for d in range(y.shape[1]):
            out[a, d] = x[a, d] + y[a, d]
    return out


@_inner
def _put(x, out):
    for a in range(x.shape[0]):
        for d in range(x.shape[1]):
            out[a, d] = x[a, d]


@_inner
def _norm(x, weight, bias, unit, rstd):
    """Layer norm; keeps the normalised rows and 1/σ."""
    out = np.empty_like(x)
    n = x.shape[1]
    for a in range(x.shape[0]):
        mean = 0.0
        for d in range(n):
            mean += x[a, d]
        mean /= n
        var = 0.0
        for d in range(n):
            var += (x[a, d] - mean) ** 2
        scale = 1 / np.sqrt(var / n + _EPSILON)
        rstd[a] = scale
        for d in range(n):
            unit[a, d] = (x[a, d] - mean) * scale
            out[a, d] = unit[a, d] * weight[d] + bias[d]
    return out


@_inner
def _norm_back(g, weight, unit, rstd):
    out = np.empty_like(g)
    n = g.shape[1]
    for a in range(g.shape[0]):
        s0, s1 = 0.0, 0.0
        for d in range(n):
            v = g[a, d] * weight[d]
            s0 += v
            s1 += v * unit[a, d]
        s0, s1 = s0 / n, s1 / n
        for d in range(n):
            out[a, d] = rstd[a] * (g[a, d] * weight[d] - s0 - unit[a, d] * s1)
    return out


@_inner
def _turn(ev, parent, rotation, matrices, out):
    """Equivariant features (A, 24) of the asymmetric unit to those of all atoms of the cell, `out` (C, 24)."""
    for c in range(parent.shape[0]):
        m = matrices[rotation[c]]
        at = 0
        for size in (3, 5, 7, 9):
            for i in range(at, at + size):
                s = ev[0, 0] * 0
                for j in range(at, at + size):
                    s += m[i, j] * ev[parent[c], j]
                out[c, i] = s
            at += size


@_inner
def _turn_back(g, parent, rotation, matrices, out):
    """Add the gradient with respect to the asymmetric unit's features to `out`."""
    for c in range(parent.shape[0]):
        m = matrices[rotation[c]]
        at = 0
        for size in (3, 5, 7, 9):
            for i in range(at, at + size):
                for j in range(at, at + size):
                    out[parent[c], j] += m[i, j] * g[c, i]
            at += size


@_inner
def _attend(t, qkv, ev, evc, start, sender, parent, r, cut, sh, w, table, knots, pre, f, alpha, m_inv, m_ev):
    """Messages of one layer to every receiver; keeps pre-activations, filters and attention of every pair."""
    w1, b1, w2 = w[1][t], w[2][t], w[3][t]
    for a in range(start.shape[0] - 1):
        lo, hi = start[a], start[a + 1]
        n = hi - lo
        if n == 0:
            continue
        for e in range(lo, hi):
            _filters(r[e], table, knots, f[e], False)
        if t > 0:
            inv = np.zeros((n, 4), dtype=qkv.dtype)
            for e in range(n):
                for m in range(24):
                    d = evc[sender[lo + e], m] - ev[a, m]
                    inv[e, DEGREE[m]] += CONTRACTION[m] * d * d
            _put(_linear(inv, w1, b1), pre[lo:hi])
            for side in range(2):
                h = np.empty((n, WIDTH), dtype=qkv.dtype)
                for e in range(n):
                    for s in range(WIDTH):
                        p = pre[lo + e, side * WIDTH + s]
                        h[e, s] = p / (1 + np.exp(-p))
                more = np.dot(h, w2[side])
                for e in range(n):
                    for d in range(FEATURES):
                        f[lo + e, side * FEATURES + d] += more[e, d]
        for e in range(lo, hi):
            p = parent[sender[e]]
            for h in range(HEADS):
                s0, s1 = qkv[0, 0] * 0, qkv[0, 0] * 0
                for d in range(h * WIDTH, (h + 1) * WIDTH):
                    s0 += qkv[a, d] * qkv[p, FEATURES + d] * f[e, d]
                    s1 += qkv[a, 3 * FEATURES + d] * qkv[p, 4 * FEATURES + d] * f[e, FEATURES + d]
                alpha[e, h], alpha[e, 4 + h] = s0, s1
                c = cut[e, 0] * s0
                for d in range(h * WIDTH, (h + 1) * WIDTH):
                    m_inv[a, d] += c * qkv[p, 2 * FEATURES + d]
            for m in range(24):
                m_ev[a, m] += cut[e, 0] * alpha[e, 4 + DEGREE[m]] * sh[e, m]


@_inner
def _attend_back(
    t, g_inv, g_ev, qkv, ev, evc, start, sender, parent, r, cut, sh, w, table, knots, pre, f, alpha,
    g_qkv, g_own, g_evc, g_r, g_sh,
):  # fmt: skip
    """Gradients of one layer's messages with respect to queries, keys, values, features and the pairs' geometry."""
    w1, w2 = w[1][t], w[3][t]
    slope = np.empty(2 * FEATURES, dtype=qkv.dtype)
    for a in range(start.shape[0] - 1):
        lo, hi = start[a], start[a + 1]
        n = hi - lo
        if n == 0:
            continue
        df = np.empty((2, n, FEATURES), dtype=qkv.dtype)
        for e in range(lo, hi):
            p = parent[sender[e]]
            c = cut[e, 0]
            g_cut = 0.0
            for h in range(HEADS):
                dot = qkv[0, 0] * 0
                for d in range(h * WIDTH, (h + 1) * WIDTH):
                    dot += g_inv[a, d] * qkv[p, 2 * FEATURES + d]
                g_cut += alpha[e, h] * dot
                g = c * dot
                ca = c * alpha[e, h]
                for d in range(h * WIDTH, (h + 1) * WIDTH):
                    q, k = qkv[a, d], qkv[p, FEATURES + d]
                    g_qkv[p, 2 * FEATURES + d] += ca * g_inv[a, d]
                    df[0, e - lo, d] = g * q * k
                    g_qkv[a, d] += g * k * f[e, d]
                    g_qkv[p, FEATURES + d] += g * q * f[e, d]
            at = 0
            for h, size in enumerate((3, 5, 7, 9)):
                dot = qkv[0, 0] * 0
                ca = c * alpha[e, 4 + h]
                for m in range(at, at + size):
                    dot += g_ev[a, m] * sh[e, m]
                    g_sh[e, m] += ca * g_ev[a, m]
                at += size
                g_cut += alpha[e, 4 + h] * dot
                g = c * dot
                for d in range(h * WIDTH, (h + 1) * WIDTH):
                    q, k = qkv[a, 3 * FEATURES + d], qkv[p, 4 * FEATURES + d]
                    df[1, e - lo, d] = g * q * k
                    g_qkv[a, 3 * FEATURES + d] += g * k * f[e, FEATURES + d]
                    g_qkv[p, 4 * FEATURES + d] += g * q * f[e, FEATURES + d]
            _filters(r[e], table, knots, slope, True)
            g_f = qkv[0, 0] * 0
            for d in range(FEATURES):
                g_f += df[0, e - lo, d] * slope[d] + df[1, e - lo, d] * slope[FEATURES + d]
            g_r[e] += g_f + g_cut * cut[e, 1]
        if t == 0:
            continue
        g_pre = np.empty((n, 2 * WIDTH), dtype=qkv.dtype)
        for side in range(2):
            g_h = _product(df[side], w2[side])
            for e in range(n):
                for s in range(WIDTH):
                    p = pre[lo + e, side * WIDTH + s]
                    sg = 1 / (1 + np.exp(-p))
                    g_pre[e, side * WIDTH + s] = g_h[e, s] * sg * (1 + p * (1 - sg))
        g_scalar = _product(g_pre, w1)
        for e in range(n):
            c = sender[lo + e]
            for m in range(24):
                g = 2 * CONTRACTION[m] * (evc[c, m] - ev[a, m]) * g_scalar[e, DEGREE[m]]
                g_evc[c, m] += g
                g_own[a, m] -= g


@_inner
def _mix_in(x, ev):
    """Invariant features with the equivariant ones' norms behind them, (A, F + 4)."""
    out = np.zeros((x.shape[0], FEATURES + 4), dtype=x.dtype)
    for a in range(x.shape[0]):
        for d in range(FEATURES):
            out[a, d] = x[a, d]
        for m in range(24):
            out[a, FEATURES + DEGREE[m]] += CONTRACTION[m] * ev[a, m] * ev[a, m]
    return out


@_fast
def forward(element, parent, rotation, matrices, start, sender, vectors, embedding, w, table, knots, heads, elements):
    """Atomic energies (eV, without the atomic shift), charges and Hirshfeld ratios (A,), and what `backward` needs.

    Parameters
    ----------
    element : (A,) int array
        Atomic number - 1 of the receivers, the atoms of the asymmetric unit.
    parent, rotation : (C,) int arrays
        Receiver whose symmetry copy each atom of the cell is, and which of `matrices` turns its features.
    matrices : (G, 24, 24) array
    start, sender, vectors : (A + 1,), (E,) int arrays and (E, 3) array
        Pairs by receiver: the sending atom of the cell and the vector to it, Å.
    embedding, w, table, knots, heads, elements
        See `Weights`; `elements` are scale, charge, ratio and query.
    """
    n, n_cell, n_pairs = element.shape[0], parent.shape[0], sender.shape[0]
    kind = embedding.dtype
    r = np.empty(n_pairs)
    cut = np.empty((n_pairs, 2), dtype=kind)
    sh = np.empty((n_pairs, 24), dtype=kind)
    row = np.empty(24)
    for e in range(n_pairs):
        x, y, z = vectors[e]
        d = np.sqrt(x * x + y * y + z * z)
        r[e] = d
        harmonics(x / d, y / d, z / d, row)
        for m in range(24):
            sh[e, m] = row[m]
        u = d / CUTOFF
        cut[e, 0] = 1 - u**3 * (6 * u * u - 15 * u + 10)
        cut[e, 1] = -30 * u * u * (1 - u) ** 2 / CUTOFF
    layers = w[0].shape[0]
    qkv = np.empty((layers, n, 5 * FEATURES), dtype=kind)
    ev = np.zeros((layers + 1, n, 24), dtype=kind)
    evc = np.zeros((layers, n_cell, 24), dtype=kind)
    middle = np.empty((layers, n, 24), dtype=kind)
    pre = np.empty((layers, n_pairs, 2 * WIDTH), dtype=kind)
    f = np.empty((layers, n_pairs, 2 * FEATURES), dtype=kind)
    alpha = np.empty((layers, n_pairs, 8), dtype=kind)
    unit = np.empty((layers, 2, n, FEATURES), dtype=kind)
    rstd = np.empty((layers, 2, n), dtype=kind)
    kept = np.empty((layers, 2, n, FEATURES), dtype=kind)
    gate = np.empty((layers, n, 4), dtype=kind)
    features = np.empty((n, FEATURES), dtype=kind)
    for a in range(n):
        for d in range(FEATURES):
            features[a, d] = embedding[element[a], d]
    for t in range(layers):
        _put(np.dot(features, w[0][t]), qkv[t])
        m_inv = np.zeros((n, FEATURES), dtype=kind)
        m_ev = np.zeros((n, 24), dtype=kind)
        if t > 0:
            _turn(ev[t], parent, rotation, matrices, evc[t])
        _attend(
            t, qkv[t], ev[t], evc[t], start, sender, parent, r, cut, sh, w, table[t], knots, pre[t], f[t], alpha[t],
            m_inv, m_ev,
        )  # fmt: skip
        _put(_plus(ev[t], m_ev), middle[t])
        _put(_norm(_plus(features, m_inv), w[4][t, 0], w[4][t, 1], unit[t, 0], rstd[t, 0]), kept[t, 0])
        _put(_linear(_silu(kept[t, 0]), w[5][t, 0], w[6][t, 0]), kept[t, 1])
        x = _plus(kept[t, 0], _linear(_silu(kept[t, 1]), w[5][t, 1], w[6][t, 1]))
        mixed = _linear(_mix_in(x, middle[t]), w[7][t], w[8][t])
        for a in range(n):
            for d in range(4):
                gate[t, a, d] = mixed[a, FEATURES + d]
            for m in range(24):
                ev[t + 1, a, m] = middle[t, a, m] * (1 + gate[t, a, DEGREE[m]])
        features = _norm(_plus(mixed, x), w[4][t, 2], w[4][t, 3], unit[t, 1], rstd[t, 1])
    ze, zq = _linear(features, heads[0], heads[1]), _linear(features, heads[4], heads[5])
    zh = _linear(features, heads[8], heads[9])
    he, hq = _silu(ze), _silu(zq)
    key = _linear(_silu(zh), heads[10], heads[11])
    scale, charge, ratio, query = elements
    energy, charges, ratios = np.empty(n), np.empty(n), np.empty(n)
    for a in range(n):
        s, c, h = 0.0, 0.0, 0.0
        for d in range(FEATURES):
            s += he[a, d] * heads[2][d]
            c += hq[a, d] * heads[6][d]
        for d in range(key.shape[1]):
            h += key[a, d] * query[element[a] + 1, d]
        energy[a] = (s + heads[3][0]) * scale[element[a]]
        charges[a] = c + heads[7][0] + charge[element[a] + 1]
        ratios[a] = h + ratio[element[a] + 1]
    mean = charges.mean()
    for a in range(n):
        charges[a] -= mean
    saved = (r, cut, sh, qkv, ev, evc, middle, pre, f, alpha, unit, rstd, kept, gate, ze, zq, zh)
    return energy, charges, ratios, saved


@_fast
def backward(
    g_charge, g_ratio, element, parent, rotation, matrices, start, sender, vectors, w, table, knots, heads, elements,
    saved,
):  # fmt: skip
    """Gradient (E, 3) along the pair vectors of the sum of atomic energies and of what depends on the heads.

    ``g_charge`` and ``g_ratio`` (A,) are the derivatives of that other energy with respect to charges and ratios.
    """
    n, n_cell, n_pairs = element.shape[0], parent.shape[0], sender.shape[0]
    r, cut, sh, qkv, ev, evc, middle, pre, f, alpha, unit, rstd, kept, gate, ze, zq, zh = saved
    kind = ze.dtype
    scale, _, _, query = elements
    g_mean = g_charge.mean()
    g_ze, g_zq = np.empty_like(ze), np.empty_like(zq)
    g_key = np.empty((n, query.shape[1]), dtype=kind)
    for a in range(n):
        for d in range(FEATURES):
            g_ze[a, d] = heads[2][d] * scale[element[a]]
            g_zq[a, d] = heads[6][d] * (g_charge[a] - g_mean)
        for d in range(query.shape[1]):
            g_key[a, d] = query[element[a] + 1, d] * g_ratio[a]
    g_x = _plus(_product(_silu_back(g_ze, ze), heads[0]), _product(_silu_back(g_zq, zq), heads[4]))
    g_x = _plus(g_x, _product(_silu_back(_product(g_key, heads[10]), zh), heads[8]))
    g_ev = np.zeros((n, 24), dtype=kind)
    g_r = np.zeros(n_pairs)
    g_sh = np.zeros((n_pairs, 24))
    for t in range(w[0].shape[0] - 1, -1, -1):
        g4 = _norm_back(g_x, w[4][t, 2], unit[t, 1], rstd[t, 1])
        g_mixed = np.zeros((n, FEATURES + 4), dtype=kind)
        _put(g4, g_mixed)
        g_mid = np.empty((n, 24), dtype=kind)
        for a in range(n):
            for m in range(24):
                g_mixed[a, FEATURES + DEGREE[m]] += g_ev[a, m] * middle[t, a, m]
                g_mid[a, m] = g_ev[a, m] * (1 + gate[t, a, DEGREE[m]])
        g_in = _product(g_mixed, w[7][t])
        for a in range(n):
            for m in range(24):
                g_mid[a, m] += 2 * CONTRACTION[m] * middle[t, a, m] * g_in[a, FEATURES + DEGREE[m]]
        g3 = _plus(g_in, g4)
        inner = _silu_back(_product(g3, w[5][t, 1]), kept[t, 1])
        g2 = _plus(g3, _silu_back(_product(inner, w[5][t, 0]), kept[t, 0]))
        g1 = _norm_back(g2, w[4][t, 0], unit[t, 0], rstd[t, 0])
        g_qkv = np.zeros((n, 5 * FEATURES), dtype=kind)
        g_own = np.zeros((n, 24), dtype=kind)
        g_evc = np.zeros((n_cell, 24), dtype=kind)
        _attend_back(
            t, g1, g_mid, qkv[t], ev[t], evc[t], start, sender, parent, r, cut, sh, w, table[t], knots, pre[t], f[t],
            alpha[t], g_qkv, g_own, g_evc, g_r, g_sh,
        )  # fmt: skip
        if t > 0:
            g_ev = _plus(g_mid, g_own)
            _turn_back(g_evc, parent, rotation, matrices, g_ev)
            g_x = _plus(g1, _product(g_qkv, w[0][t]))
    gradient = np.empty((n_pairs, 3))
    for e in range(n_pairs):
        x, y, z = vectors[e, 0] / r[e], vectors[e, 1] / r[e], vectors[e, 2] / r[e]
        gx, gy, gz = harmonics_gradient(x, y, z, g_sh[e])
        along = gx * x + gy * y + gz * z
        gradient[e, 0] = g_r[e] * x + (gx - along * x) / r[e]
        gradient[e, 1] = g_r[e] * y + (gy - along * y) / r[e]
        gradient[e, 2] = g_r[e] * z + (gz - along * z) / r[e]
    return gradient
