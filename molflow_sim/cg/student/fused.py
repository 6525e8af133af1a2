"""Energies and forces of a CGnet over replicas in one compiled loop: features, prior, network and its gradient.

This is the inner loop of every simulation. Replicas are taken in blocks that fill vector registers (and one by one what
is left over), each block on one thread without BLAS; several threads share the blocks. The torch model in
`molflow_sim.cg.student.cgnet` is the same function, and tests hold the two together.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba as nb
import numpy as np
import torch

from molflow_sim.cg.student import fused_geometry as geo
from molflow_sim.cg.student.features import COLLINEAR
from molflow_sim.cg.student.fused_linear import TILE, lanes, multiply, multiply_one, pack
from molflow_sim.cg.student.fused_tanh import tanh_in_place
from molflow_sim.errors import InputError, NonFiniteError
from molflow_sim.threads import share

if TYPE_CHECKING:
    from molflow_sim.cg.student.cgnet import CGNet

GROUP = 4
"""Panels between which the rest of a layer catches up."""


@nb.njit(fastmath=geo.FAST, error_model="numpy")
def _spread(values, out):
    n = out.shape[1]
    for j in range(len(values)):
        for r in range(n):
            out[j, r] = values[j]


@nb.njit(fastmath=geo.FAST, error_model="numpy")
def _after(image, before, after, first, last):
    """tanh of part of a layer, and the skip around it."""
    part, old, new = image[first:last], before[first:last], after[first:last]
    tanh_in_place(part)
    for i in range(len(part)):
        new[i] = old[i] + part[i]


@nb.njit(fastmath=geo.FAST, error_model="numpy")
def _back(g, image, out, first, last):
    """out = g (1 - t²) for part of a layer: the way back through its tanh."""
    one = image.dtype.type(1.0)
    part, t, new = g[first:last], image[first:last], out[first:last]
    for i in range(len(part)):
        new[i] = part[i] * (one - t[i] * t[i])


@nb.njit(error_model="numpy")
def _network(weights, biases, sizes, one, z, images, h, g, c, gz):
    """Output per lane, and its gradient by the inputs into gz; the output takes the first row of h.

    What follows a product is done every few panels, while these are in the nearest cache. `h` and `c` hold two
    buffers each, for a layer's input and output.
    """
    n_features, inputs, width, depth = sizes
    n = z.shape[1]
    panels, step = width // TILE, TILE * n
    source, flat_g = z.reshape(-1), g.reshape(-1)
    start = 0
    h[1] = 0.0
    for layer in range(depth):
        count = n_features if layer == 0 else width
        packed = weights[start : start + width * count].reshape(panels, count, TILE)
        start += width * count
        image, before, after = images[layer].reshape(-1), h[1 - layer % 2].reshape(-1), h[layer % 2].reshape(-1)
        _spread(biases[layer], images[layer])
        if one:
            multiply_one(packed, source, image)
            _after(image, before, after, 0, width)
        else:
            for p in range(0, panels, GROUP):
                end = min(p + GROUP, panels)
                multiply(packed, p, end, source, image)
                _after(image, before, after, p * step, end * step)
        source = after
    out = biases[depth]
    top = h[(depth - 1) % 2]
    for r in range(n):
        total = h.dtype.type(0.0)
        for j in range(width):
            total += out[j] * top[j, r]
        h[0, 0, r] = total
    _spread(out, g)
    _back(flat_g, images[depth - 1].reshape(-1), c[0].reshape(-1), 0, width * n)
    for layer in range(depth - 1, 0, -1):
        packed = weights[start : start + width * width].reshape(panels, width, TILE)
        start += width * width
        k = (depth - 1 - layer) % 2
        image, source, following = images[layer - 1].reshape(-1), c[k].reshape(-1), c[1 - k].reshape(-1)
        if one:
            multiply_one(packed, source, flat_g)
            _back(flat_g, image, following, 0, width)
        else:
            for p in range(0, panels, GROUP):
                end = min(p + GROUP, panels)
                multiply(packed, p, end, source, flat_g)
                _back(flat_g, image, following, p * step, end * step)
    source, flat_gz = c[(depth - 1) % 2].reshape(-1), gz.reshape(-1)
    flat_gz[:] = 0.0
    packed = weights[start:].reshape(inputs // TILE, width, TILE)
    if one:
        multiply_one(packed, source, flat_gz)
    else:
        multiply(packed, 0, inputs // TILE, source, flat_gz)


@nb.njit(nogil=True, cache=True, fastmath=geo.FAST, error_model="numpy")
def _evaluate(first, last, n_blocks, width_of_block, x, ints, floats, weights, weights_one, biases, energy, forces):
    """Tasks `first` ... `last` - 1: blocks of replicas first, then single replicas."""
    np_, nb_, na, nt, nr, exponent, n_features, inputs, width, depth = (
        ints[0], ints[1], ints[2], ints[3], ints[4], ints[5], ints[6], ints[7], ints[8], ints[9],
    )  # fmt: skip
    at = 10
    pairs = ints[at : at + 2 * np_].reshape(np_, 2)
    at += 2 * np_
    angles = ints[at : at + 2 * na].reshape(na, 2)
    at += 2 * na
    torsions = ints[at : at + 3 * nt].reshape(nt, 3)
    at += 3 * nt
    bonds = ints[at : at + nb_]
    at += nb_
    repelling = ints[at : at + nr]
    kT, offset, strength, soft = floats[0], floats[1], floats[2], floats[3]
    at = 4
    angle_signs = floats[at : at + 2 * na].reshape(na, 2)
    at += 2 * na
    torsion_signs = floats[at : at + 3 * nt].reshape(nt, 3)
    at += 3 * nt
    mean = floats[at : at + n_features]
    at += n_features
    scale = floats[at : at + n_features]
    at += n_features
    bond_k, bond_r = floats[at : at + nb_], floats[at + nb_ : at + 2 * nb_]
    at += 2 * nb_
    angle_k, angle_theta = floats[at : at + na], floats[at + na : at + 2 * na]
    at += 2 * na
    sigma = floats[at : at + nr]
    sizes = (n_features, inputs, width, depth)
    n_replicas, n_beads = x.shape[0], x.shape[1]
    kind = biases.dtype.type

    most = width_of_block if first < n_blocks else 1
    last_lanes = 0
    for task in range(first, last):
        if task < n_blocks:
            start, n = task * width_of_block, most
        else:
            start, n = n_blocks * width_of_block + task - n_blocks, 1
        used = min(n, n_replicas - start)
        if n != last_lanes:
            last_lanes = n
            local = np.empty((n_beads, 3, n))
            pull_force = np.empty((n_beads, 3, n))
            raw = np.empty((n_features, n))
            slope = np.empty((n_features, n))
            sine = np.empty((na, n))
            unit = np.empty((np_, 3, n))
            pull = np.empty((np_, 3, n))
            total = np.empty(n)
            z = np.empty((n_features, n), biases.dtype)
            images = np.empty((depth, width, n), biases.dtype)
            h = np.empty((2, width, n), biases.dtype)
            c = np.empty((2, width, n), biases.dtype)
            g = np.empty((width, n), biases.dtype)
            gz = np.empty((inputs, n), biases.dtype)
        for r in range(n):  # lanes beyond the last replica repeat it
            from_ = x[start + min(r, used - 1)]
            for b in range(n_beads):
                for d in range(3):
                    local[b, d, r] = from_[b, d]
        a0, s0, c0 = np_, np_ + na, np_ + na + nt
        geo.pair_vectors(local, pairs, raw, unit)
        geo.angle_values(unit, angles, angle_signs, raw[a0:s0], sine)
        geo.torsion_values(unit, torsions, torsion_signs, soft, raw[s0:c0], raw[c0:])
        for f in range(n_features):
            for r in range(n):
                z[f, r] = kind((raw[f, r] - mean[f]) * scale[f])
        if n == 1:
            _network(weights_one, biases, sizes, True, z, images, h, g, c, gz)
        else:
            _network(weights, biases, sizes, False, z, images, h, g, c, gz)
        for f in range(n_features):
            factor = kT * scale[f]
            for r in range(n):
                slope[f, r] = factor * gz[f, r]
        for r in range(n):
            total[r] = kT * (h[0, 0, r] + offset)
        geo.prior_terms(
            raw[:np_], raw[a0:s0], sine, bonds, bond_k, bond_r, angle_k, angle_theta, repelling, sigma, exponent,
            strength, slope[:np_], slope[a0:s0], total,
        )  # fmt: skip
        pull[:] = 0.0
        pull_force[:] = 0.0
        geo.angle_gradient(unit, angles, angle_signs, slope[a0:s0], pull)
        geo.torsion_gradient(unit, torsions, torsion_signs, soft, slope[s0:c0], slope[c0:], pull)
        geo.pair_forces(pairs, raw[:np_], unit, slope[:np_], pull, pull_force)
        for r in range(used):
            to = forces[start + r]
            whole = total[r]
            for b in range(n_beads):
                for d in range(3):
                    to[b, d] = pull_force[b, d, r]
                    whole += 0.0 * pull_force[b, d, r]  # NaN where a force is not finite
            energy[start + r] = whole


class FusedCGNet:
    """Compiled copy of a `CGNet`: energies and analytic forces over replicas.

    Parameters
    ----------
    model : CGNet
        In evaluation mode; its weights are copied with the Lipschitz bound folded in.
    precision : str, optional
        "double" or "single", of the network alone; default: the model's settings.
    """

    def __init__(self, model: CGNet, precision: str | None = None) -> None:
        index, prior = model.index, model.prior
        precision = precision or model.settings.precision
        dtype = np.float64 if precision == "double" else np.float32
        self.n_beads = model.topology.n_beads
        self.lanes = lanes(dtype)
        self._most_alone = self.lanes // (2 if precision == "double" else 3)
        was_training = model.training
        with torch.no_grad():
            layers = [(w.cpu().numpy(), b.cpu().numpy()) for w, b in model.eval().mlp.effective(torch.float64)]
        model.train(was_training)
        *hidden, (w_out, b_out) = layers
        n_features, depth = index.n_features, len(hidden)
        width = -(-model.settings.width // TILE) * TILE
        inputs = -(-n_features // TILE) * TILE

        def padded(matrix: np.ndarray, rows: int, columns: int) -> np.ndarray:
            whole = np.zeros((rows, columns))
            whole[: matrix.shape[0], : matrix.shape[1]] = matrix
            return whole

        matrices = [padded(hidden[0][0], width, n_features)]
        matrices += [padded(w, width, width) for w, _ in hidden[1:]]
        matrices += [padded(w.T, width, width) for w, _ in hidden[:0:-1]]
        matrices += [padded(hidden[0][0].T, inputs, width)]
        self._weights = np.concatenate([pack(m, dtype).reshape(-1) for m in matrices])
        # One replica is bound by reading the weights: half the bytes where that loses nothing.
        narrow = all(np.array_equal(m, m.astype(np.float32)) for m in matrices)
        self._weights_one = self._weights.astype(np.float32) if narrow else self._weights
        self._biases = padded(np.stack([b for _, b in hidden] + [w_out[0]]), depth + 1, width).astype(dtype)

        def numbers(*parts: object) -> np.ndarray:
            return np.concatenate([np.asarray(p, np.float64).reshape(-1) for p in parts])

        far = prior.repelling.numpy()
        head = [len(index.pairs), len(index.bonds), len(index.angles), len(index.torsions), len(far)]
        head += [prior.settings.exponent, n_features, inputs, width, depth]
        self._ints = numbers(head, index.pairs, index.angles, index.torsions, index.bonds, far).astype(np.int64)
        self._floats = numbers(
            [model.kT, float(b_out[0]), float(prior.strength), COLLINEAR**2], index.angle_signs, index.torsion_signs,
            model.mean, model.scale, prior.bond_k, prior.bond_r, prior.angle_k, prior.angle_theta, prior.sigma,
        )  # fmt: skip

    def __call__(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies (R,) in eV and forces (R, B, 3) in eV/Å of positions (R, B, 3) in Å.

        Releases the interpreter lock, may be called from several threads, and shares many replicas between torch's
        number of threads.

        Raises
        ------
        InputError
            Positions of another shape.
        NonFiniteError
            Positions that are not finite, or beads at one point; the first such replica is named.
        """
        x = np.ascontiguousarray(positions, dtype=np.float64)
        if x.ndim != 3 or x.shape[1] != self.n_beads or x.shape[2] != 3:
            raise InputError(f"positions of shape {x.shape}: expected (replicas, {self.n_beads}, 3)")
        n = len(x)
        energy, forces = np.empty(n), np.empty(x.shape)
        blocks, rest = divmod(n, self.lanes)
        if rest > self._most_alone:  # cheaper as a block with idle lanes
            blocks, rest = blocks + 1, 0
        arguments = (
            blocks, self.lanes, x, self._ints, self._floats, self._weights, self._weights_one, self._biases, energy,
            forces,
        )  # fmt: skip
        if blocks < 2:
            _evaluate(0, blocks + rest, *arguments)
        else:
            share(blocks + rest, lambda first, last: _evaluate(first, last, *arguments))
        if not (math.isfinite(energy[0]) if n == 1 else np.isfinite(energy).all()):
            raise NonFiniteError(
                f"energy or forces of replica {int(np.argmin(np.isfinite(energy)))} are not finite: "
                "its positions are not finite, or two beads lie at one point"
            )
        return energy, forces
