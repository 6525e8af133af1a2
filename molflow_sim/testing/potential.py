"""Checks that every potential for molecular crystals must pass, in the manner of torch-sim's `validate_model_outputs`.

torch-sim's own checks run on silicon and iron, which a molecular force field cannot evaluate; these run on crystals
that the caller gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch_sim as ts
from torch_sim.models.interface import ModelInterface

if TYPE_CHECKING:
    from ase import Atoms

    from molflow_sim.systems.crystal import MolecularCrystal

_STENCIL = ((-2.0, 1.0 / 12.0), (-1.0, -2.0 / 3.0), (1.0, 2.0 / 3.0), (2.0, -1.0 / 12.0))


def validate_potential(
    model: ModelInterface,
    crystals: Sequence[MolecularCrystal | Atoms],
    *,
    tolerance: float | None = None,
    derivative_tolerance: float = 1e-6,
    step: float = 5e-4,
    n_probes: int = 6,
    seed: int = 0,
) -> None:
    """Hold a model to the interface and to the symmetries of physics on molecular crystals.

    In order: attributes, unchanged inputs, keys, shapes, detached outputs, batched = single, lattice shifts of single
    atoms and of whole molecules, wrapped = whole, rotation, permutation of molecules, supercell, and (in float64)
    forces and stress against central differences.

    Parameters
    ----------
    model : ModelInterface
        Model with forces; stress is checked where ``model.compute_stress`` is true.
    crystals : sequence of MolecularCrystal or ase.Atoms
        At least two. Atoms need ``arrays["molecule"]``, the molecule of each atom, for the checks by molecule.
    tolerance : float, optional
        Relative to the largest value compared; 1e-8 in float64 and 1e-4 in float32 unless given.
    derivative_tolerance : float
        Of forces and stress against differences, relative likewise.
    step : float
        Of the differences, Å and strain; longer for models that round positions.
    n_probes : int
        Force components differentiated per crystal.
    seed : int
        Of random shifts, rotations, permutations and probes.

    Raises
    ------
    ValueError
        Names the failed check, the crystal and the deviation.
    """
    for name in ("dtype", "device", "compute_forces", "compute_stress"):
        if not hasattr(model, name):
            raise ValueError(f"attributes: model.{name} is not set")
    if len(crystals) < 2:
        raise ValueError("attributes: give at least two crystals, so that batches can be compared with single systems")
    atoms: list[Any] = [c.to_ase() if hasattr(c, "to_ase") else c for c in crystals]
    tol = tolerance if tolerance is not None else (1e-8 if model.dtype == torch.float64 else 1e-4)
    batch = _check_interface(model, atoms)
    rng = np.random.default_rng(seed)
    first = 0
    for index, a in enumerate(atoms):
        where = f"crystal {index} ({a.get_chemical_formula()})"
        case = _Case(model, a, where, tol, rng, _evaluate(model, [a]))
        part = {k: v[first : first + len(a)] if k == "forces" else v[index : index + 1] for k, v in batch.items()}
        _same("batched = single", where, part, case.wanted, tol)
        case.check_invariance()
        if model.dtype == torch.float64:
            case.check_derivatives(derivative_tolerance, step, n_probes)
        first += len(a)


def _evaluate(model: ModelInterface, atoms: Sequence[Atoms]) -> dict[str, np.ndarray]:
    """Energy, forces and stress of structures as arrays."""
    out = model(ts.io.atoms_to_state(list(atoms), model.device, model.dtype))
    return {k: out[k].cpu().numpy() for k in ("energy", "forces", "stress") if k in out}


def _same(check: str, where: str, got: dict[str, Any], wanted: dict[str, Any], tolerance: float) -> None:
    """Raise when any output deviates."""
    for name, value in wanted.items():
        deviation = np.abs(got[name] - value).max()
        scale = max(np.abs(value).max(), 1e-3 if name == "stress" else 1.0)
        if not deviation <= tolerance * scale:
            raise ValueError(f"{check}: {name} of {where} differs by {deviation:.3g} (scale {scale:.3g})")


def _check_interface(model: ModelInterface, atoms: Sequence[Atoms]) -> dict[str, np.ndarray]:
    """Inputs unchanged, keys, shapes, dtypes, detached; returns the outputs of the batch."""
    state = ts.io.atoms_to_state(list(atoms), model.device, model.dtype)
    before = state.clone()
    out = model(state)
    for name in ("positions", "cell", "system_idx", "atomic_numbers", "masses"):
        if not torch.equal(getattr(before, name), getattr(state, name)):
            raise ValueError(f"unchanged inputs: forward changed state.{name}")
    n, s = state.n_atoms, len(atoms)
    shapes: dict[str, tuple[int, ...]] = {"energy": (s,)}
    if model.compute_forces:
        shapes["forces"] = (n, 3)
    if model.compute_stress:
        shapes["stress"] = (s, 3, 3)
    for name, shape in shapes.items():
        if name not in out:
            raise ValueError(f"keys: {name} is missing from the output")
        if tuple(out[name].shape) != shape:
            raise ValueError(f"shapes: {name} has shape {tuple(out[name].shape)}, not {shape}")
        if out[name].dtype != model.dtype:
            raise ValueError(f"shapes: {name} is {out[name].dtype}, not the model's {model.dtype}")
        if not bool(torch.isfinite(out[name]).all()):
            raise ValueError(f"finite: {name} has NaN or infinite values")
    for name, value in out.items():
        if value.requires_grad:
            raise ValueError(f"detached outputs: {name} requires a gradient")
    return {k: out[k].cpu().numpy() for k in shapes}


@dataclass
class _Case:
    """One crystal, with the energy, forces and stress that the model gives for it."""

    model: ModelInterface
    atoms: Atoms
    where: str
    tolerance: float
    rng: np.random.Generator
    wanted: dict[str, np.ndarray]

    def moved(self, positions: np.ndarray, cell: np.ndarray | None = None) -> Atoms:
        """A copy with other positions, and another cell if one is given."""
        out = self.atoms.copy()
        out.positions = positions
        if cell is not None:
            out.cell = cell
        return out

    def same(self, check: str, atoms: Atoms, expected: dict[str, Callable[[np.ndarray], np.ndarray]]) -> None:
        """Raise where the model gives something else for `atoms` than what was found, changed as `expected` says."""
        wanted = {k: expected[k](v) if k in expected else v for k, v in self.wanted.items()}
        _same(check, self.where, _evaluate(self.model, [atoms]), wanted, self.tolerance)

    def check_invariance(self) -> None:
        """Lattice shifts, wrapping, rotation, permutation and supercell."""
        x, cell, n, rng = self.atoms.positions, self.atoms.cell.array, len(self.atoms), self.rng
        shift = np.zeros((n, 3))
        for k in rng.choice(n, size=min(n, 5), replace=False):
            shift[k] = rng.integers(-2, 3, 3)
        self.same("lattice shift of atoms", self.moved(x + shift @ cell), {})
        wrapped = self.atoms.copy()
        wrapped.wrap()
        self.same("wrapped = whole", wrapped, {})
        q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        q *= np.sign(np.linalg.det(q))
        turned = self.moved(x @ q.T, cell @ q.T)
        self.same("rotation", turned, {"forces": lambda f: f @ q.T, "stress": lambda s: q @ s @ q.T})
        for axis in range(3):
            factors = [2 if axis == k else 1 for k in range(3)]
            twice = {"energy": lambda e: 2.0 * e, "forces": lambda f: np.concatenate([f, f])}
            self.same(f"supercell {factors}", self.atoms.repeat(factors), twice)
        molecule = self.atoms.arrays.get("molecule")
        if molecule is None:
            return
        shift = rng.integers(-2, 3, (molecule.max() + 1, 3))[molecule]
        self.same("lattice shift of molecules", self.moved(x + shift @ cell), {})
        order = np.concatenate([np.flatnonzero(molecule == m) for m in rng.permutation(molecule.max() + 1)])
        self.same("permutation of molecules", self.atoms[order], {"forces": lambda f: f[order]})

    def check_derivatives(self, tolerance: float, step: float, n_probes: int) -> None:
        """Forces and stress against five-point central differences of the energy."""
        x, cell = self.atoms.positions, self.atoms.cell.array
        moved, probes = [], []
        if "forces" in self.wanted:
            for _ in range(n_probes):
                k, d = int(self.rng.integers(len(self.atoms))), int(self.rng.integers(3))
                probes.append((k, d))
                for factor, _weight in _STENCIL:
                    positions = x.copy()
                    positions[k, d] += factor * step
                    moved.append(self.moved(positions))
        strains = [(i, j) for i in range(3) for j in range(i, 3)] if "stress" in self.wanted else []
        for i, j in strains:
            for factor, _weight in _STENCIL:
                strain = np.eye(3)
                strain[i, j] += 0.5 * factor * step
                strain[j, i] += 0.5 * factor * step
                moved.append(self.moved(x @ strain, cell @ strain))
        energies = np.concatenate([_evaluate(self.model, [a])["energy"] for a in moved])
        slope = energies.reshape(-1, len(_STENCIL)) @ np.array([w for _, w in _STENCIL]) / step
        if probes:
            got = {"forces": np.array([self.wanted["forces"][k, d] for k, d in probes])}
            _same("forces = -dE/dr", self.where, got, {"forces": -slope[: len(probes)]}, tolerance)
        if strains:
            got = {"stress": np.array([self.wanted["stress"][0, i, j] for i, j in strains])}
            expected = {"stress": slope[len(probes) :] / self.atoms.get_volume()}
            _same("stress = dE/dε/V", self.where, got, expected, tolerance)
