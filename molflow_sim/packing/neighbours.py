"""Lists of neighbouring molecular images for rigid crystals, compiled; an accelerator gets them from the CPU.

An entry (i, j, g, n) is the copy of molecule j made by operation g and shifted by the lattice vector n, as
seen from molecule i of the asymmetric unit. At general positions each pair of molecules is listed once:
the entry and its inverse carry the same energy, so one of the two is kept with weight 1 (1/2 where an entry
is its own inverse). On special positions all entries are kept with weight 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba as nb
import numpy as np
import torch

from molflow_sim.threads import share

if TYPE_CHECKING:
    from molflow_sim.packing.packings import RigidPackings


@dataclass
class Geometry:
    """The state of a batch of B crystals with M molecules in the asymmetric unit.

    cell (B, 3, 3) rows in Å; centroid (B, M, 3) fractional; rotation (B, M, 3, 3); conformer (B,) and
    group (B,) index the tables' conformers and placements.
    """

    cell: torch.Tensor
    centroid: torch.Tensor
    rotation: torch.Tensor
    conformer: torch.Tensor
    group: torch.Tensor

    @classmethod
    def of(cls, packings: RigidPackings, device: torch.device | str = "cpu") -> Geometry:
        """That of some packings."""
        arrays = (packings.cell, packings.centroid, packings.rotation, packings.conformer, packings.placement)
        return cls(*(torch.as_tensor(np.ascontiguousarray(a), device=device) for a in arrays))

    def __len__(self) -> int:
        return len(self.cell)

    def select(self, index: torch.Tensor) -> Geometry:
        """The crystals at `index` (integer or boolean)."""
        return Geometry(
            self.cell[index], self.centroid[index], self.rotation[index], self.conformer[index], self.group[index]
        )

    def replace(self, index: torch.Tensor, other: Geometry) -> None:
        """Put the cells, centres and orientations of `other` in the places `index`."""
        self.cell[index], self.centroid[index], self.rotation[index] = other.cell, other.centroid, other.rotation


class Neighbours:
    """Entries of a batch, sorted by crystal; `start` (B + 1,) delimits each crystal's."""

    def __init__(self, start, i, j, g, n, weight) -> None:
        self.start, self.i, self.j, self.g, self.n, self.weight = start, i, j, g, n, weight

    def __len__(self) -> int:
        return len(self.i)

    def select(self, index: torch.Tensor) -> Neighbours:
        """The entries of the crystals at `index` (integer), in that order."""
        counts = (self.start[1:] - self.start[:-1])[index]
        start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        shift = torch.repeat_interleave(self.start[:-1][index] - start[:-1], counts)
        rows = shift + torch.arange(int(start[-1]), device=start.device)
        return Neighbours(start, self.i[rows], self.j[rows], self.g[rows], self.n[rows], self.weight[rows])

    def __getattr__(self, name: str) -> np.ndarray:
        if name.endswith("_np"):
            return getattr(self, name[:-3]).numpy()
        raise AttributeError(name)


def build_neighbours(tables, geometry: Geometry, cutoff: float) -> Neighbours:
    """All images whose centre lies within `cutoff` Å of an asymmetric-unit molecule's centre."""
    b, device = len(geometry), geometry.cell.device
    arrays = (
        *(x.cpu().numpy() for x in (geometry.cell, geometry.centroid, geometry.group)),
        tables.frac_rot_np, tables.frac_tran_np, tables.inverse_np, tables.n_images_np, float(cutoff),
    )  # fmt: skip
    counts = np.zeros(b, np.int64)
    share(b, lambda first, last: _count(first, last, counts, *arrays))
    start = np.concatenate([[0], np.cumsum(counts)])
    total = int(start[-1])
    i, j, g = (np.empty(total, np.int64) for _ in range(3))
    n, weight = np.empty((total, 3)), np.empty(total)
    share(b, lambda first, last: _fill(first, last, start, i, j, g, n, weight, *arrays))
    return Neighbours(*(torch.from_numpy(x).to(device) for x in (start, i, j, g, n, weight)))


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _scan(
    cell, centroid, group, frac_rot, frac_tran, inverse, n_images, cutoff, count_only, i_out, j_out, g_out, n_out, w_out
):  # fmt: skip
    """Count, or write, the entries of one crystal."""
    m = centroid.shape[0]
    inv = np.linalg.inv(cell)
    reach = np.empty(3)
    for d in range(3):
        reach[d] = cutoff * np.sqrt(inv[0, d] ** 2 + inv[1, d] ** 2 + inv[2, d] ** 2)
    limit = cutoff * cutoff
    delta = np.empty(3)
    n = np.empty(3)
    low = np.empty(3, np.int64)
    high = np.empty(3, np.int64)
    count = 0
    for i in range(m):
        for j in range(i, m):
            for g in range(n_images[group]):
                rot, tran = frac_rot[group, g], frac_tran[group, g]
                h = inverse[group, g]
                for d in range(3):
                    delta[d] = (
                        rot[d, 0] * centroid[j, 0] + rot[d, 1] * centroid[j, 1] + rot[d, 2] * centroid[j, 2]
                        + tran[d] - centroid[i, d]
                    )  # fmt: skip
                    low[d] = int(np.ceil(-delta[d] - reach[d]))
                    high[d] = int(np.floor(-delta[d] + reach[d]))
                for n0 in range(low[0], high[0] + 1):
                    for n1 in range(low[1], high[1] + 1):
                        for n2 in range(low[2], high[2] + 1):
                            u, v, t = delta[0] + n0, delta[1] + n1, delta[2] + n2
                            x = u * cell[0, 0] + v * cell[1, 0] + t * cell[2, 0]
                            y = u * cell[0, 1] + v * cell[1, 1] + t * cell[2, 1]
                            z = u * cell[0, 2] + v * cell[1, 2] + t * cell[2, 2]
                            if x * x + y * y + z * z >= limit:
                                continue
                            weight = 1.0
                            if i == j:
                                if g == 0 and n0 == 0 and n1 == 0 and n2 == 0:
                                    continue
                                if h < 0:
                                    weight = 0.5
                                else:
                                    n[0], n[1], n[2] = tran[0] + n0, tran[1] + n1, tran[2] + n2
                                    back_rot, back_tran = frac_rot[group, h], frac_tran[group, h]
                                    order = float(h - g)
                                    for d in range(3):
                                        back = -(back_rot[d, 0] * n[0] + back_rot[d, 1] * n[1] + back_rot[d, 2] * n[2])
                                        back = np.rint(back - back_tran[d])
                                        if order == 0:
                                            order = back - (n0, n1, n2)[d]
                                    if order < 0:
                                        continue
                                    if order == 0:
                                        weight = 0.5
                            if not count_only:
                                i_out[count], j_out[count], g_out[count], w_out[count] = i, j, g, weight
                                n_out[count, 0], n_out[count, 1], n_out[count, 2] = n0, n1, n2
                            count += 1
    return count


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _count(first, last, counts, cell, centroid, group, frac_rot, frac_tran, inverse, n_images, cutoff):
    no_int, no_float, no_rows = np.empty(0, np.int64), np.empty(0), np.empty((0, 3))
    for c in range(first, last):
        counts[c] = _scan(
            cell[c], centroid[c], group[c], frac_rot, frac_tran, inverse, n_images, cutoff, True,
            no_int, no_int, no_int, no_rows, no_float,
        )  # fmt: skip


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _fill(
    first, last, start, i, j, g, n, weight, cell, centroid, group, frac_rot, frac_tran, inverse, n_images, cutoff
):  # fmt: skip
    for c in range(first, last):
        s, e = start[c], start[c + 1]
        _scan(
            cell[c], centroid[c], group[c], frac_rot, frac_tran, inverse, n_images, cutoff, False,
            i[s:e], j[s:e], g[s:e], n[s:e], weight[s:e],
        )  # fmt: skip
