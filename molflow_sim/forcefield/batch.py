"""Arrays of one batch of systems, and the compiled pair loop over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from molflow_sim.forcefield import pairs, pairs_torch
from molflow_sim.forcefield.neighbours import NeighbourList
from molflow_sim.forcefield.parameters import MoleculeParameters
from molflow_sim.forcefield.topology import BatchLayout
from molflow_sim.threads import share
from molflow_sim.units import COULOMB

MIN_VOLUME_PER_ATOM = 1.5
"""Å³; a denser (or flat, or not finite) system gets NaN results instead of an endless image sum."""


class Batch:
    """What stays the same while a batch holds the same atoms."""

    def __init__(
        self,
        layout: BatchLayout,
        parameters: Sequence[MoleculeParameters],
        device: torch.device,
        numbers: torch.Tensor,
        system_idx: torch.Tensor,
    ) -> None:
        self.layout = layout
        self.numbers, self.system_idx = numbers.clone(), system_idx.clone()
        self.order = torch.as_tensor(layout.order, device=device)
        self.system = torch.as_tensor(layout.atom_system, device=device)
        per_atom = [
            np.stack([np.sqrt(p.exp6_a), 0.5 * p.exp6_b, np.sqrt(p.exp6_c), p.charges * np.sqrt(COULOMB)], axis=1)
            for p in parameters
        ]
        self.columns = np.empty((4, len(layout.order)))  # sqrt(A), B/2, sqrt(C), scaled charge in group order
        for index in layout.species:
            here = layout.kind[:, 0] == index
            self.columns[:, here] = per_atom[index][layout.kind[here, 1]].T
        self.table = torch.as_tensor(self.columns.T.copy(), device=device)
        self.charge = torch.empty(len(layout.order), dtype=torch.float64, device=device)
        self.charge[self.order] = self.table[:, 3]
        self.pairs: pairs_torch.PairList | None = None
        # chunks of the compiled loop: their number depends on the system alone, not on threads or batch
        n_groups = np.diff(layout.system_group)
        n_chunks = np.clip(n_groups // 6, 1, 16)
        self.chunk_system = np.repeat(np.arange(len(n_groups)), n_chunks)
        cuts = [  # early groups own most of the half list: quadratic spacing evens the work
            lo + np.rint(n * (1.0 - np.sqrt(np.linspace(1.0, 0.0, c + 1)))).astype(np.int64)
            for lo, n, c in zip(layout.system_group, n_groups, n_chunks)
        ]
        self.chunk_group = np.concatenate([np.stack([c[:-1], c[1:]], axis=1) for c in cuts])
        rows = layout.n_per_system[self.chunk_system]
        self.chunk_row = np.concatenate([[0], np.cumsum(rows)])


def degenerate(positions: torch.Tensor, cells: torch.Tensor, batch: Batch) -> np.ndarray:
    """Systems whose sums cannot be formed: not finite, collapsed or flat."""
    layout = batch.layout
    finite = torch.isfinite(positions).all(1).cpu().numpy()
    h = cells.cpu().numpy()
    bad = ~np.logical_and.reduceat(finite, layout.system_atom[:-1]) | ~np.isfinite(h).all(axis=(1, 2))
    h = np.where(bad[:, None, None], np.eye(3) * 1e3, h)
    bad |= np.abs(np.linalg.det(h)) < MIN_VOLUME_PER_ATOM * layout.n_per_system
    h = np.where(bad[:, None, None], np.eye(3) * 1e3, h)
    height = 1.0 / np.linalg.norm(np.linalg.inv(h), axis=1)
    return bad | (height.min(axis=1) < 0.5) | (np.abs(h).max(axis=(1, 2)) > 1e4)


def extents(positions: torch.Tensor, system: torch.Tensor, n_systems: int) -> np.ndarray:
    """Diagonals (S,) in Å of the boxes, along the axes, that hold the systems."""
    rows = system.unsqueeze(-1).expand(positions.shape)
    low, high = (
        positions.new_zeros(n_systems, 3).scatter_reduce_(0, rows, positions, way, include_self=False)
        for way in ("amin", "amax")
    )
    return np.asarray(torch.linalg.vector_norm(high - low, dim=-1).cpu().numpy())


def compiled_pairs(
    positions: np.ndarray, cells: np.ndarray, batch: Batch, entries: NeighbourList, limits: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run the compiled loop over all chunks on torch's number of threads."""
    layout = batch.layout
    n_chunks = len(batch.chunk_system)
    energy = np.zeros(n_chunks)
    forces = np.zeros((batch.chunk_row[-1], 3))
    virial = np.zeros((n_chunks, 3, 3))
    system_atom = layout.system_atom

    def work(first: int, last: int) -> None:
        pairs.pair_chunks(  # type: ignore[call-arg]  # numba's stub knows no star arguments
            first, last, batch.chunk_system, batch.chunk_group, batch.chunk_row, system_atom, positions, cells,
            *batch.columns, layout.group_start, entries.start, entries.count, entries.atom, entries.shift, *limits,
            energy, forces, virial,
        )  # fmt: skip

    share(n_chunks, work)
    total = np.zeros_like(positions)
    for chunk, s in enumerate(batch.chunk_system):
        total[system_atom[s] : system_atom[s + 1]] += forces[batch.chunk_row[chunk] : batch.chunk_row[chunk + 1]]
    first = np.flatnonzero(np.diff(batch.chunk_system, prepend=-1))
    return np.add.reduceat(energy, first), total, np.add.reduceat(virial, first, axis=0)
