"""Compiled search for the contacts of a batch of crystals; the same pairs as the torch search of `graph`.

Pairs come sorted by the receiving atom, so that sums over its neighbours need no scattered writes. The press's lists
(`packing.neighbours`) are of molecules, each pair once and within one distance; here it is atoms, from both ends, and
cells that collapse on their way are searched no further than `MOST_SHIFTS`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba as nb
import numpy as np

from molflow_sim.models.crystal_flow.graph import MOST_SHIFTS
from molflow_sim.models.crystal_flow.state import CrystalBatch
from molflow_sim.threads import share


class Contacts(NamedTuple):
    """E directed pairs of A = B · M · N atoms, numbered ((b · M + m) · N + n) through the padded batch, float32.

    start : (A + 1,) the pairs of a receiving atom are start[a] to start[a + 1]; sender : (E,) the atom that the
    neighbour is a symmetry copy of; line : (E, 3) unit vectors from receiver to neighbour; distance : (E,) Å.
    """

    start: np.ndarray
    sender: np.ndarray
    line: np.ndarray
    distance: np.ndarray


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _images(cell, centroid, frac_rot, frac_tran, n_images, reach, count_only, first, j_out, g_out, centre):
    """Count, or write, the images (molecule, operation, centre from receiver) within reach of each molecule."""
    m = centroid.shape[0]
    inverse = np.linalg.inv(cell)
    delta = np.empty(3)
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    count = 0
    for i in range(m):
        first[i] = count
        for g in range(n_images):
            rot, tran = frac_rot[g], frac_tran[g]
            for j in range(m):
                for d in range(3):
                    x = rot[d, 0] * centroid[j, 0] + rot[d, 1] * centroid[j, 1] + rot[d, 2] * centroid[j, 2]
                    x += tran[d] - centroid[i, d]
                    delta[d] = x - np.floor(x + 0.5)
                    span = reach * np.sqrt(inverse[0, d] ** 2 + inverse[1, d] ** 2 + inverse[2, d] ** 2)
                    low[d] = int(max(np.ceil(-delta[d] - span), -MOST_SHIFTS))
                    high[d] = int(min(np.floor(-delta[d] + span), MOST_SHIFTS))
                for n0 in range(low[0], high[0] + 1):
                    for n1 in range(low[1], high[1] + 1):
                        for n2 in range(low[2], high[2] + 1):
                            u, v, w = delta[0] + n0, delta[1] + n1, delta[2] + n2
                            x = u * cell[0, 0] + v * cell[1, 0] + w * cell[2, 0]
                            y = u * cell[0, 1] + v * cell[1, 1] + w * cell[2, 1]
                            z = u * cell[0, 2] + v * cell[1, 2] + w * cell[2, 2]
                            if x * x + y * y + z * z >= reach * reach:
                                continue
                            if i == j and g == 0 and n0 == 0 and n1 == 0 and n2 == 0:
                                continue  # the molecule itself
                            if not count_only:
                                j_out[count], g_out[count] = j, g
                                centre[count, 0], centre[count, 1], centre[count, 2] = x, y, z
                            count += 1
    first[m] = count
    return count


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _squared(ax, ay, az, atoms, out):
    """Squared distances of a point from atoms (3, n)."""
    for k in range(atoms.shape[1]):
        dx, dy, dz = atoms[0, k] - ax, atoms[1, k] - ay, atoms[2, k] - az
        out[k] = dx * dx + dy * dy + dz * dz


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _crystal(
    base, real, conformer, cell, centroid, rotation, frac_rot, frac_tran, cart_rot, n_images, cutoff,
    count_only, start, sender, line, distance,
):  # fmt: skip
    """Count, or write, the contacts of one crystal whose first atom is `base`; `real` are the atoms not padded."""
    m, n, size = len(centroid), len(conformer), len(real)
    if not np.isfinite(cell.sum() + centroid.sum() + rotation.sum()):
        return  # what is not a number touches nothing, as in torch
    radius = 0.0
    for k in real:
        radius = max(radius, np.sqrt(conformer[k, 0] ** 2 + conformer[k, 1] ** 2 + conformer[k, 2] ** 2))
    arm = np.empty((m, 3, size), np.float32)
    for i in range(m):
        for k in range(size):
            x = conformer[real[k]]
            for d in range(3):
                arm[i, d, k] = rotation[i, d, 0] * x[0] + rotation[i, d, 1] * x[1] + rotation[i, d, 2] * x[2]
    first = np.empty(m + 1, np.int64)
    no_int, no_rows = np.empty(0, np.int64), np.empty((0, 3))
    box, centres = cell.astype(np.float64), centroid.astype(np.float64)
    reach = cutoff + 2.0 * radius
    total = _images(box, centres, frac_rot, frac_tran, n_images, reach, True, first, no_int, no_int, no_rows)
    molecule, op, centre = np.empty(total, np.int64), np.empty(total, np.int64), np.empty((total, 3))
    _images(box, centres, frac_rot, frac_tran, n_images, reach, False, first, molecule, op, centre)
    image = np.empty((total, 3, size), np.float32)
    for e in range(total):
        w, own = cart_rot[op[e]], arm[molecule[e]]
        for d in range(3):
            shift = np.float32(centre[e, d])
            for k in range(size):
                image[e, d, k] = w[d, 0] * own[0, k] + w[d, 1] * own[1, k] + w[d, 2] * own[2, k] + shift
    squared = np.empty(size, np.float32)
    near, limit = (cutoff + radius) ** 2, np.float32(cutoff * cutoff)
    for i in range(m):
        for k in range(size):
            ax, ay, az = arm[i, 0, k], arm[i, 1, k], arm[i, 2, k]
            row = base + i * n + real[k]
            at, count = start[row], 0
            for e in range(first[i], first[i + 1]):
                if (centre[e, 0] - ax) ** 2 + (centre[e, 1] - ay) ** 2 + (centre[e, 2] - az) ** 2 > near:
                    continue
                atoms = image[e]
                _squared(ax, ay, az, atoms, squared)
                for q in range(size):
                    if not squared[q] < limit:
                        continue
                    if not count_only:
                        r = max(np.sqrt(squared[q]), np.float32(1e-3))
                        sender[at] = base + molecule[e] * n + real[q]
                        distance[at] = r
                        line[at, 0] = (atoms[0, q] - ax) / r
                        line[at, 1] = (atoms[1, q] - ay) / r
                        line[at, 2] = (atoms[2, q] - az) / r
                        at += 1
                    count += 1
            if count_only:
                start[row] = count


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _search(
    first, last, numbers, conformer, cell, centroid, rotation, frac_rot, frac_tran, cart_rot, n_images, cutoff,
    count_only, start, sender, line, distance,
):  # fmt: skip
    per_crystal = centroid.shape[1] * numbers.shape[1]
    for c in range(first, last):
        _crystal(
            c * per_crystal, np.flatnonzero(numbers[c]), conformer[c], cell[c], centroid[c], rotation[c],
            frac_rot[c], frac_tran[c], cart_rot[c], n_images[c], cutoff, count_only, start, sender, line, distance,
        )  # fmt: skip


def contacts(batch: CrystalBatch, cutoff: float) -> Contacts:
    """Pairs of atoms of different molecules (images of the same one included) closer than `cutoff` Å.

    Parameters
    ----------
    batch : CrystalBatch
        On the CPU, in float32.
    """
    b, m, n = len(batch), batch.centroid.shape[1], batch.numbers.shape[1]
    tensors = (
        batch.numbers, batch.conformer, batch.cell, batch.centroid, batch.rotation,
        batch.frac_rot, batch.frac_tran, batch.cart_rot, batch.n_images,
    )  # fmt: skip
    given = (*(x.detach().contiguous().numpy() for x in tensors), float(cutoff))
    counts = np.zeros(b * m * n, np.int64)
    _run(b, given, True, counts, np.empty(0, np.int32), np.empty((0, 3), np.float32), np.empty(0, np.float32))
    start = np.concatenate([[0], np.cumsum(counts)])
    total = int(start[-1])
    out = np.empty(total, np.int32), np.empty((total, 3), np.float32), np.empty(total, np.float32)
    _run(b, given, False, start, *out)
    return Contacts(start, *out)


def _run(n_crystals: int, given: tuple[Any, ...], count_only: bool, *out: np.ndarray) -> None:
    arguments: tuple[Any, ...] = (*given, count_only, *out)
    share(n_crystals, lambda first, last: _search(first, last, *arguments))
