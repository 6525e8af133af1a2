"""SO3LR as a potential: energy, forces and stress of molecules and crystals, system by system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch_sim.state import SimState

from molflow_sim.errors import InputError
from molflow_sim.so3lr import long_range, network
from molflow_sim.so3lr.harmonics import rotation_matrix
from molflow_sim.so3lr.weights import CUTOFF, ELEMENTS, load_weights
from molflow_sim.switched_model import SwitchedModel, state_of
from molflow_sim.threads import one_blas_thread, one_torch_thread, share
from molflow_sim.wheels import refuse_unknown

MIN_VOLUME_PER_ATOM = 1.5
"""Å³; denser systems have collapsed and get NaN."""


@dataclass(frozen=True, eq=False)
class Orbits:
    """Which atoms of a cell are symmetry copies of which.

    Attributes
    ----------
    own : (A,) array of int
        Atoms of an asymmetric unit.
    parent, operation : (C,) arrays of int
        Position in `own` and operation that gives each atom of the cell.
    fractional : (G, 3, 3) array
        Rotations W of the operations, acting on fractional columns.
    """

    own: np.ndarray
    parent: np.ndarray
    operation: np.ndarray
    fractional: np.ndarray

    @classmethod
    def identity(cls, n: int) -> Orbits:
        """No symmetry."""
        atoms = np.arange(n)
        return cls(atoms, atoms, np.zeros(n, dtype=np.int64), np.eye(3)[None])

    @classmethod
    def from_permutations(cls, permutations: np.ndarray, fractional: np.ndarray) -> Orbits:
        """Of a crystal's operations, see `molflow_sim.relax.symmetry.atom_permutations`.

        Atoms on special positions would need their site symmetry: such a crystal is taken without symmetry.
        """
        order, n = permutations.shape
        if order == 1 or any(len(set(column)) < order for column in permutations.T.tolist()):
            return cls.identity(n)
        lowest = permutations.min(axis=0)
        own = np.flatnonzero(lowest == np.arange(n))
        parent = np.searchsorted(own, lowest)
        operation = np.zeros(n, dtype=np.int64)
        for g in range(order):
            operation[permutations[g, own]] = g
        return cls(own, parent, operation, np.asarray(fractional, dtype=float))

    def rotations(self, cell: np.ndarray) -> np.ndarray:
        """Cartesian rotations (G, 3, 3) for a cell given as rows."""
        if len(self.fractional) == 1:
            return np.eye(3)[None]
        return np.ascontiguousarray(cell.T @ self.fractional @ np.linalg.inv(cell.T))


class SO3LR(SwitchedModel):
    """SO3LR on a CPU, as a torch-sim model. Neutral closed-shell molecules of H, C, N, O, F, P, S and Cl.

    Parameters
    ----------
    cutoff : float
        Of the dispersion of crystals, Å; beyond it an isotropic continuum. Without a lattice all pairs count.
    dtype : {"float32", "float64"}
        Of the network; geometry, long-range terms and sums are always in float64.
    compute_stress : bool
    tail : bool
        Whether the continuum beyond the cutoff is added.

    Raises
    ------
    MissingDependencyError
        The wheel with the weights is not installed.
    WeightsError
        The weights are not those that are pinned.
    InputError
        A cutoff below 6 Å.
    """

    def __init__(
        self, cutoff: float = 15.0, dtype: str = "float32", compute_stress: bool = True, *, tail: bool = True
    ) -> None:
        super().__init__(torch.device("cpu"), torch.float64, compute_stress=compute_stress)
        if not 6.0 <= cutoff < np.inf:
            raise InputError(f"cutoff {cutoff} Å cannot be used; dispersion needs at least 6 Å")
        self.cutoff = float(cutoff)
        self.weights = load_weights(dtype)
        self._tail = long_range.tail_integral(self.cutoff) if tail else 0.0
        self._orbits: list[Orbits] | None = None

    def symmetric(self, orbits: Sequence[Orbits] | None) -> None:
        """Announce the symmetry that the systems of the next batches have and keep; None for no symmetry.

        Energy, forces and stress are then computed from the asymmetric units, as many times cheaper as there are
        operations.
        """
        self._orbits = list(orbits) if orbits is not None else None

    def forward(self, state: SimState | dict[str, torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:
        """Evaluate a batch of systems.

        Parameters
        ----------
        state : SimState or dict
            torch-sim state: positions (n, 3) Å, cell (S, 3, 3) Å as columns, atomic_numbers (n,), system_idx (n,), pbc.

        Returns
        -------
        dict of tensors
            ``energy`` (S,) eV, ``forces`` (n, 3) eV/Å, ``stress`` (S, 3, 3) eV/Å³, ``charges`` (n,) e. NaN for a system
            that is not finite or has collapsed; the others are not affected.

        Raises
        ------
        UnsupportedElementError
            An element that SO3LR was not trained on.
        """
        state = state_of(state)
        numbers = state.atomic_numbers.cpu().numpy()
        check_elements(numbers)
        system = state.system_idx.cpu().numpy()
        if self._orbits is not None and len(self._orbits) != int(state.n_systems):
            raise InputError(
                f"symmetry was announced for {len(self._orbits)} systems and {int(state.n_systems)} are given; "
                "announce those of this batch, or None"
            )
        first = np.searchsorted(system, np.arange(int(state.n_systems) + 1))
        periodic = bool(torch.as_tensor(state.pbc).any())
        results = self.evaluate(
            [numbers[a:b] for a, b in pairwise(first)],
            [state.positions[a:b].double().cpu().numpy() for a, b in pairwise(first)],
            list(state.row_vector_cell.double().cpu().numpy()) if periodic else None,
            self._orbits,
        )
        out = {"energy": torch.as_tensor(np.array([r[0] for r in results]))}
        if self._compute_forces:
            out["forces"] = torch.as_tensor(-np.concatenate([r[1] for r in results]))
        if self._compute_stress and periodic:
            volume = np.abs(np.linalg.det(state.row_vector_cell.double().cpu().numpy()))
            out["stress"] = torch.as_tensor(np.stack([r[2] for r in results]) / volume[:, None, None])
        out["charges"] = torch.as_tensor(np.concatenate([r[3] for r in results]))
        return out

    def evaluate(
        self,
        numbers: Sequence[np.ndarray],
        positions: Sequence[np.ndarray],
        cells: Sequence[np.ndarray] | None = None,
        orbits: Sequence[Orbits] | None = None,
        *,
        gradients: bool = True,
    ) -> list[tuple[float, np.ndarray, np.ndarray, np.ndarray]]:
        """Energy (eV), gradient (n, 3) in eV/Å, virial dE/dε (3, 3) in eV and charges (n,) of every system.

        Cells are rows in Å; without them the systems are not periodic. The work is shared among torch's threads.
        """
        out: list[tuple[float, np.ndarray, np.ndarray, np.ndarray]] = [None] * len(numbers)  # type: ignore[list-item]

        def work(low: int, high: int) -> None:
            for s in range(low, high):
                x = np.ascontiguousarray(positions[s], dtype=float)
                cell = None if cells is None else np.ascontiguousarray(cells[s], dtype=float)
                if degenerate(x, cell):
                    out[s] = (np.nan, np.full_like(x, np.nan), np.full((3, 3), np.nan), np.full(len(x), np.nan))
                    continue
                orbits_here = orbits[s] if orbits is not None else Orbits.identity(len(x))
                out[s] = self._one(np.asarray(numbers[s]), x, cell, orbits_here, gradients)

        with one_torch_thread(), one_blas_thread():
            share(len(numbers), work)
        return out

    def _one(
        self, numbers: np.ndarray, x: np.ndarray, cell: np.ndarray | None, orbits: Orbits, gradients: bool
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """One system; compiled loops one after another, all without the interpreter lock."""
        w = self.weights
        own, parent, operation = orbits.own, orbits.parent, orbits.operation
        element = (numbers[own] - 1).astype(np.int64)
        elements = (w.scale, w.charge, w.ratio, w.query)
        order = len(x) / len(own)
        inverse = None if cell is None else np.linalg.inv(cell)
        reach = long_range.image_range(inverse, CUTOFF), long_range.image_range(inverse, self.cutoff)
        rotations = np.eye(3)[None] if cell is None else orbits.rotations(cell)
        matrices = np.stack([rotation_matrix(r) for r in rotations]).astype(w.embedding.dtype)
        box = (np.eye(3), np.zeros((3, 3))) if cell is None or inverse is None else (cell, inverse)
        start, sender, vectors = long_range.pairs_within(x, own, box[0], box[1], reach[0])
        graph = (element, parent, operation, matrices, start, sender, vectors)
        energies, charges, ratios, saved = network.forward(  # type: ignore[call-arg]  # numba's stub
            *graph, w.embedding, w.layers, w.table, w.knots, w.heads, elements
        )
        grad, virial, g_pair = np.zeros_like(x), np.zeros((3, 3)), np.zeros_like(vectors)
        g_charge, g_ratio = np.zeros(len(own)), np.zeros(len(own))
        energy = energies.sum() + long_range.repulsion(element, parent, start, sender, vectors, w.zbl, g_pair)
        cutoff, rest = np.inf, 0.0
        if cell is None:
            energy += long_range.coulomb_direct(x, charges, grad, g_charge)
        else:
            volume = abs(np.linalg.det(cell))
            cutoff, rest = self.cutoff, self._tail * long_range.BOHR**6 / volume
            energy += long_range.coulomb_reciprocal(  # type: ignore[call-arg]
                own, parent, x, *box, volume, charges, order, grad, virial, g_charge
            )
        energy += long_range.dispersion(  # type: ignore[call-arg]
            element, own, parent, x, *box, reach[1], ratios, cutoff, rest, grad, virial, g_ratio
        )
        if gradients:
            g_pair += network.backward(  # type: ignore[call-arg]
                g_charge, g_ratio, *graph, w.layers, w.table, w.knots, w.heads, elements, saved
            )
            long_range.gather(own, parent, operation, rotations, start, sender, vectors, g_pair, grad, virial)
        energy = energy * order + w.shift[numbers - 1].sum()
        return float(energy), grad, virial, charges[parent]


def check_elements(numbers: np.ndarray) -> None:
    """Refuse atomic numbers that SO3LR was not trained on.

    Raises
    ------
    UnsupportedElementError
        Names the elements.
    """
    refuse_unknown("SO3LR", numbers, ELEMENTS)


def degenerate(positions: np.ndarray, cell: np.ndarray | None) -> bool:
    """Whether sums over this system cannot be formed: not finite, collapsed or flat."""
    if not np.isfinite(positions).all():
        return True
    if cell is None:
        return False
    if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < MIN_VOLUME_PER_ATOM * len(positions):
        return True
    return bool((1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)).min() < 0.5 or np.abs(cell).max() > 1e4)
