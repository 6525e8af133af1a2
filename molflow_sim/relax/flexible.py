"""Flexible relaxation of molecular crystals: all atoms and the cell, in batches, the space group kept.

A preconditioned L-BFGS needs some tens of evaluations. A structure has converged when every force and every component
of the true stress is small; a Fréchet filter's scaled cell gradient would let 0.6 GPa pass at fmax 0.05.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch_sim as ts

from molflow_sim.errors import CrystalError, InputError, NonFiniteError
from molflow_sim.forcefield.potential import CrystalPotential
from molflow_sim.ordered import total
from molflow_sim.relax.lbfgs import LBFGS, MAX_BACKTRACKS, MoleculeClass, Point, inverse_hessian
from molflow_sim.relax.symmetry import SymmetryAverage, atom_permutations
from molflow_sim.so3lr.potential import Orbits
from molflow_sim.systems.crystal import MolecularCrystal
from molflow_sim.threads import one_torch_thread
from molflow_sim.units import GPA

_GONE = 2.5  # a cell this many times larger than at the start has come apart


@dataclass(frozen=True, eq=False)
class RelaxResult:
    """Outcome of one relaxation.

    Attributes
    ----------
    crystal : MolecularCrystal
        Relaxed; the start where the relaxation failed outright.
    energy : float
        eV per molecule; NaN where it is not finite.
    converged : bool
    max_force : float
        Longest force on an atom, eV/Å.
    residual_stress_gpa : float
        Largest component of stress (plus pressure), GPa.
    n_steps : int
        Energy evaluations.
    reason : str
        Why it did not converge; empty if it did.
    """

    crystal: MolecularCrystal
    energy: float
    converged: bool
    max_force: float
    residual_stress_gpa: float
    n_steps: int
    reason: str


def relax_flexible(
    crystals: Sequence[MolecularCrystal],
    potential: CrystalPotential,
    *,
    fmax: float = 0.01,
    max_stress_gpa: float = 0.05,
    max_steps: int = 500,
    symmetric: bool = True,
    batch_size: int = 32,
) -> list[RelaxResult]:
    """Relax atoms and cells; what becomes of a structure does not depend on the others, bit for bit.

    Parameters
    ----------
    crystals : sequence of MolecularCrystal
        Of the potential's species.
    potential : CrystalPotential
        In float64.
    fmax : float
        Largest force, eV/Å.
    max_stress_gpa : float
        Largest stress component, GPa.
    max_steps : int
        Evaluations per structure.
    symmetric : bool
        Keep the space group by averaging forces and stress over its operations; otherwise every atom is free.
    batch_size : int
        Structures evaluated at once.

    Returns
    -------
    list of RelaxResult
        One per crystal, in order. Structures that explode or turn NaN are rows with a reason.

    Raises
    ------
    InputError
        A potential in float32.
    CrystalError
        A crystal that is not made of the potential's species.
    """
    if potential.dtype != torch.float64:
        raise InputError("relaxation needs a potential in float64")
    jobs = [_Job(index, crystal, symmetric) for index, crystal in enumerate(crystals)]
    # similar sizes together: less padding and fewer stragglers
    order = sorted(jobs, key=lambda job: (len(job.numbers), job.index))
    goal = _Goal(fmax, max_stress_gpa * GPA, max_steps)
    results: dict[int, RelaxResult] = {}
    with one_torch_thread():
        for first in range(0, len(order), batch_size):
            potential.forget()
            results |= _relax(order[first : first + batch_size], potential, goal)
    return [results[index] for index in range(len(jobs))]


@dataclass(frozen=True)
class _Goal:
    """What counts as converged: eV/Å, eV/Å³, evaluations."""

    fmax: float
    max_stress: float
    max_steps: int


class _Job:
    """One crystal on its way."""

    def __init__(self, index: int, crystal: MolecularCrystal, symmetric: bool) -> None:
        self.index, self.crystal = index, crystal
        self.numbers, self.positions, self.molecule, self.species = crystal.unit_cell()
        self.volume = crystal.volume
        self.permutations, self.rotations = np.arange(len(self.numbers))[None], np.eye(3)[None]
        self.problem = ""
        if symmetric and crystal.space_group.order > 1:
            try:
                self.permutations = atom_permutations(crystal)
                self.rotations = crystal.space_group.rotations.astype(float)
            except CrystalError as error:
                self.problem = error.reason

    def result(
        self,
        energy: float,
        force: float,
        stress: float,
        n_steps: int,
        positions: np.ndarray,
        cell: np.ndarray,
        why: str,
    ) -> RelaxResult:
        """Wrap up; geometry that cannot be represented leaves the start and a reason."""
        crystal = self.crystal
        why = why or self.problem
        try:
            if not np.isfinite(energy):
                raise NonFiniteError("the energy is not finite")
            crystal = crystal.with_geometry(cell, positions)
        except (CrystalError, NonFiniteError) as error:
            why = why or error.reason
        return RelaxResult(crystal, energy / len(self.species), not why, force, stress / GPA, n_steps, why)


class _Batch:
    """Jobs evaluated together through the potential, with symmetry averaging."""

    def __init__(self, jobs: Sequence[_Job], potential: CrystalPotential) -> None:
        self.jobs, self.potential = list(jobs), potential
        self.numbers = torch.as_tensor(np.concatenate([j.numbers for j in jobs]))
        self.masses = torch.as_tensor(np.concatenate([j.crystal.masses for j in jobs]))
        self.sizes = np.array([len(j.numbers) for j in jobs])
        self.system = torch.as_tensor(np.repeat(np.arange(len(jobs)), self.sizes))
        first = np.concatenate([[0], np.cumsum([len(j.species) for j in jobs])])
        self.molecule = torch.as_tensor(np.concatenate([j.molecule + f for j, f in zip(jobs, first)]))
        self.average = SymmetryAverage([j.permutations for j in jobs], [j.rotations for j in jobs])
        if hasattr(potential, "symmetric"):  # computes the asymmetric unit alone
            potential.symmetric([Orbits.from_permutations(j.permutations, j.rotations) for j in jobs])

    def geometry(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions and cells (rows) that the jobs start from."""
        return (
            torch.as_tensor(np.concatenate([j.positions for j in self.jobs])),
            torch.as_tensor(np.stack([j.crystal.cell for j in self.jobs])),
        )

    def evaluate(self, positions: torch.Tensor, cells: torch.Tensor) -> Point:
        """Energy, averaged forces and stress."""
        state = ts.SimState(positions, self.masses, cells.mT.contiguous(), True, self.numbers, self.system)
        out = {k: v.cpu() for k, v in self.potential(state).items()}
        forces, stress = self.average(out["forces"], out["stress"], cells)
        return Point(positions, cells, out["energy"], forces, stress)

    def worst(self, point: Point) -> tuple[torch.Tensor, torch.Tensor]:
        """Longest force and largest stress component of every structure."""
        length = total(point.forces * point.forces).sqrt()
        force = length.new_zeros(len(point.cells)).scatter_reduce_(0, self.system, length, "amax")
        return force, point.stress.abs().amax((1, 2))


def _finish(
    batch: _Batch, point: Point, goal: _Goal, n_steps: int, why: dict[int, str], last: bool
) -> tuple[list[tuple[int, RelaxResult]], list[int]]:
    """Results of the structures that are done, and the slots of those that go on."""
    force, stress = batch.worst(point)
    volume = torch.linalg.det(point.cells).abs()
    finite = torch.isfinite(point.energy) & torch.isfinite(force) & torch.isfinite(stress)
    first = np.concatenate([[0], np.cumsum(batch.sizes)])
    done, going = [], []
    for slot, job in enumerate(batch.jobs):
        reason = why.get(slot, "")
        if not finite[slot]:
            reason = NonFiniteError("the energy or a force is not finite: atoms overlap or the cell collapsed").reason
        elif volume[slot] > _GONE * job.volume:
            reason = f"the cell grew more than {_GONE} times: the molecules came apart"
        converged = bool(force[slot] <= goal.fmax and stress[slot] <= goal.max_stress)
        if not (converged or reason or last):
            going.append(slot)
            continue
        if converged and finite[slot]:
            reason = ""
        elif not reason:
            reason = f"not converged after {n_steps} steps"
        x = point.positions[first[slot] : first[slot + 1]].numpy()
        values = (float(point.energy[slot]), float(force[slot]), float(stress[slot]))
        done.append((job.index, job.result(*values, n_steps, x, point.cells[slot].numpy(), reason)))
    return done, going


def _relax(jobs: Sequence[_Job], potential: CrystalPotential, goal: _Goal) -> Iterator[tuple[int, RelaxResult]]:
    """One batch."""
    hessians: dict[tuple[int, bytes], torch.Tensor] = {}
    batch = _Batch(jobs, potential)
    optimizer: LBFGS | None = None
    trial = batch.geometry()
    for n_steps in range(1, goal.max_steps + 1):
        evaluated = batch.evaluate(*trial)
        if optimizer is None:
            done, going = _finish(batch, evaluated, goal, n_steps, {}, n_steps == goal.max_steps)
            yield from done
            if not going:
                return
            batch, point = _select(batch, evaluated, going)
            optimizer = LBFGS(batch.system, batch.molecule, _classes(batch.jobs, potential, hessians))
            trial = optimizer.start(point)
            continue
        trial = optimizer.advance(evaluated)
        stuck = torch.nonzero(optimizer.backtracks > 2 * MAX_BACKTRACKS).flatten().tolist()
        why = {slot: "the energy does not fall along the force: stuck at a kink" for slot in stuck}
        done, going = _finish(batch, optimizer.point, goal, n_steps, why, n_steps == goal.max_steps)
        if not done:
            continue
        yield from done
        if not going:
            return
        batch, _ = _select(batch, optimizer.point, going)
        keep = torch.as_tensor(going)
        inside = torch.isin(optimizer.system, keep)
        trial = (trial[0][inside], trial[1][keep])
        optimizer.keep(keep, _classes(batch.jobs, potential, hessians))


def _select(batch: _Batch, point: Point, slots: list[int]) -> tuple[_Batch, Point]:
    """The batch and point of some structures."""
    if len(slots) == len(batch.jobs):
        return batch, point
    keep = torch.as_tensor(slots)
    atoms = torch.isin(batch.system, keep)
    batch.potential.keep(slots)
    smaller = _Batch([batch.jobs[s] for s in slots], batch.potential)
    return smaller, Point(
        point.positions[atoms], point.cells[keep], point.energy[keep], point.forces[atoms], point.stress[keep]
    )


def _classes(
    jobs: Sequence[_Job], potential: CrystalPotential, hessians: dict[tuple[int, bytes], torch.Tensor]
) -> list[MoleculeClass]:
    """Molecules by species, with the inverse Hessian of each conformer (computed once) and its frame."""
    known = {np.asarray(p.numbers, dtype=np.uint8).tobytes(): k for k, p in enumerate(potential.parameters)}
    found: dict[int, list[tuple[np.ndarray, torch.Tensor, np.ndarray]]] = {}
    first = 0
    for job in jobs:
        at = first
        for rigid in job.crystal.asymmetric_unit:
            numbers = np.asarray(job.crystal.molecules[rigid.species].numbers, dtype=np.uint8)
            kind = known[numbers.tobytes()]
            shape = np.round(rigid.conformer, 6)
            key = (kind, shape.tobytes())
            if key not in hessians:
                hessians[key] = inverse_hessian(potential.parameters[kind].mmff, shape)
            for g in rigid.images:
                frame = job.crystal.space_group.cartesian_rotations[g] @ rigid.orientation
                found.setdefault(kind, []).append((np.arange(at, at + len(numbers)), hessians[key], frame))
                at += len(numbers)
        first += len(job.numbers)
    out = []
    for kind in sorted(found):
        atoms, inverses, frames = zip(*found[kind])
        same = all(h is inverses[0] for h in inverses)
        out.append(
            MoleculeClass(
                torch.as_tensor(np.stack(atoms)),
                inverses[0].unsqueeze(0) if same else torch.stack(inverses),
                torch.as_tensor(np.stack(frames)),
            )
        )
    return out
