"""Lists of neighbouring molecular images for rigid crystals, compiled on the CPU and in torch elsewhere.

An entry (i, j, g, n) is the copy of molecule j made by operation g and shifted by the lattice vector n, as
seen from molecule i of the asymmetric unit. At general positions each pair of molecules is listed once:
the entry and its inverse carry the same energy, so one of the two is kept with weight 1 (1/2 where an entry
is its own inverse). On special positions all entries are kept with weight 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


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


def build_neighbours(tables, geometry: Geometry, cutoff: float, compiled: bool) -> Neighbours:
    """All images whose centre lies within `cutoff` Å of an asymmetric-unit molecule's centre."""
    if compiled:
        from molflow_sim.packing.neighbours_compiled import build

        arrays = build(
            geometry.cell.numpy(), geometry.centroid.numpy(), geometry.group.numpy(), tables.frac_rot_np,
            tables.frac_tran_np, tables.inverse_np, tables.n_images_np, float(cutoff),
        )  # fmt: skip
        return Neighbours(*(torch.from_numpy(a) for a in arrays))
    return _build_torch(tables, geometry, cutoff)


def _build_torch(tables, geometry: Geometry, cutoff: float) -> Neighbours:
    b, m = geometry.centroid.shape[:2]
    device = geometry.cell.device
    size = tables.frac_rot.shape[1]
    rotation, translation = tables.frac_rot[geometry.group], tables.frac_tran[geometry.group]
    images = torch.einsum("bgxy,bmy->bgmx", rotation, geometry.centroid) + translation[:, :, None]
    heights = 1.0 / torch.linalg.inv(geometry.cell).norm(dim=1)
    reach = torch.ceil(cutoff / heights + 0.5).long()
    parts = []
    # Crystals with the same search box go through together; cells differ in shape more than a common box can bear.
    for box in torch.unique(reach, dim=0):
        which = torch.nonzero((reach == box).all(1)).squeeze(1)
        axes = [torch.arange(-int(k), int(k) + 1, device=device, dtype=torch.float64) for k in box]
        grid = torch.cartesian_prod(*axes)
        for rows in which.split(max(1, 4_000_000 // (len(grid) * size * m * m))):
            parts.append(_search(tables, geometry, images, rows, grid, cutoff))
    c, i, j, g, n, weight = (torch.cat(x) for x in zip(*parts, strict=True))
    order = torch.argsort(c, stable=True)
    start = torch.cat([c.new_zeros(1), torch.bincount(c, minlength=b).cumsum(0)])
    return Neighbours(start, i[order], j[order], g[order], n[order], weight[order])


def _search(tables, geometry, images, rows, grid, cutoff):
    group = geometry.group[rows]
    m = geometry.centroid.shape[1]
    delta = images[rows][:, None] - geometry.centroid[rows][:, :, None, None]  # (b, i, g, j, 3)
    base = -torch.round(delta)
    shift = base[..., None, :] + grid
    centre = (delta[..., None, :] + shift) @ geometry.cell[rows][:, None, None, None]
    close = centre.square().sum(-1) < cutoff**2
    valid = torch.arange(images.shape[1], device=group.device) < tables.n_images[group][:, None]
    close &= valid[:, None, :, None, None]
    pair = torch.arange(m, device=group.device)
    close &= (pair[:, None] <= pair[None, :])[None, :, None, :, None]
    b, i, g, j, k = torch.nonzero(close, as_tuple=True)
    n = shift[b, i, g, j, k]
    same = i == j
    home = same & (g == 0) & (n == 0).all(1)
    weight = torch.ones(len(b), dtype=torch.float64, device=group.device)
    h = tables.inverse[group[b], g]
    special = same & (h < 0)
    weight[special] = 0.5
    # Inverse entry: h and n' with s = W_h f + w_h + n'.
    hh = h.clamp(min=0)
    back = -torch.einsum("exy,ey->ex", tables.frac_rot[group[b], hh], tables.frac_tran[group[b], g] + n)
    back = torch.round(back - tables.frac_tran[group[b], hh])

    def key(op, vector):
        return ((op * 1024 + vector[:, 0] + 512) * 1024 + vector[:, 1] + 512) * 1024 + vector[:, 2] + 512

    order = key(hh.double(), back) - key(g.double(), n)
    half = same & (h >= 0)
    weight[half & (order == 0)] = 0.5
    keep = ~home & ~(half & (order < 0))
    return rows[b][keep], i[keep], j[keep], g[keep], n[keep], weight[keep]
