"""Lattice energy of rigid packings: pair sum over whole molecules, dipole term, pressure.

The sum runs over molecules whose centres lie within a cutoff, so every shell is neutral; what a spherical sum
misses against an Ewald sum with conducting boundary, -2πk|P|²/(3V) with P the dipole of the cell, is added.
"""

from __future__ import annotations

import numpy as np
import torch

from molflow_sim.errors import InputError
from molflow_sim.ordered import applied, cross, determinant, inverse, total
from molflow_sim.packing import pair_kernel, pair_torch
from molflow_sim.packing.neighbours import Geometry, Neighbours, build_neighbours
from molflow_sim.packing.tables import PressTables
from molflow_sim.units import COULOMB

BACKENDS = ("auto", "numba", "torch")


def choose_backend(backend: str, device: torch.device) -> str:
    """``numba`` on a CPU, else ``torch``.

    Raises
    ------
    InputError
        For an unknown name, or ``numba`` on an accelerator.
    """
    if backend not in BACKENDS:
        raise InputError(f"unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    if backend == "auto":
        return "numba" if device.type == "cpu" else "torch"
    if backend == "numba" and device.type != "cpu":
        raise InputError("the numba backend runs on the CPU only; use backend='torch' on an accelerator")
    return backend


class LatticeEnergy:
    """Energy per asymmetric unit and its gradients for batches of rigid packings.

    Parameters
    ----------
    tables : PressTables
    backend : {"auto", "numba", "torch"}
    """

    def __init__(self, tables: PressTables, backend: str = "auto") -> None:
        self.tables = tables
        self.backend = choose_backend(backend, tables.device)
        self._pairs = (pair_kernel if self.backend == "numba" else pair_torch).evaluate

    def neighbours(self, geometry: Geometry, cutoff: float) -> Neighbours:
        """Images with centres within `cutoff` Å."""
        return build_neighbours(self.tables, geometry, cutoff)

    def __call__(self, geometry: Geometry, neighbours: Neighbours, *, soft: bool = False, pressure: float = 0.0):
        """Energy (B,) in eV per asymmetric unit and gradients by cell, fractional centres, rotation vectors.

        `pressure` is in eV/Å³ and adds pV. See `pair_torch.evaluate` for shapes.
        """
        out = self._pairs(self.tables, geometry, neighbours, soft)
        device = geometry.cell.device
        energy, g_cell, g_centroid, g_rotation = (
            torch.from_numpy(x) if isinstance(x, np.ndarray) else x.to(device) for x in out
        )
        volume = determinant(geometry.cell)
        inverse_t = inverse(geometry.cell).mT
        images = self.tables.n_images[geometry.group]
        if not soft:
            e, g_rot = self._dipole_term(geometry, volume)
            energy = energy + e
            g_cell = g_cell - e[:, None, None] * inverse_t
            g_rotation = g_rotation + g_rot
        if pressure:
            work = pressure * volume / images
            energy = energy + work
            g_cell = g_cell + work[:, None, None] * inverse_t
        return energy, g_cell, g_centroid, g_rotation

    def _dipole_term(self, geometry: Geometry, volume: torch.Tensor):
        t = self.tables
        dipole = applied(geometry.rotation, t.dipoles[geometry.conformer][:, None])
        polar = t.polar_sum[geometry.group]
        whole = applied(polar, total(dipole.mT))
        factor = -2.0 * torch.pi * COULOMB / (3.0 * volume * t.n_images[geometry.group])
        energy = factor * total(whole.square())
        moment = applied(polar.mT, whole)
        g_rotation = 2.0 * factor[:, None, None] * cross(dipole, moment[:, None])
        return energy, g_rotation
