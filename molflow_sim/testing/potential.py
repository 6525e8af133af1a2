"""Checks that every potential for molecular crystals must pass, in the manner of torch-sim's `validate_model_outputs`.

torch-sim's own checks run on silicon and iron, which a molecular force field cannot evaluate; these run on crystals
that the caller gives.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        single = _evaluate(model, [a])
        part = {k: v[first : first + len(a)] if k == "forces" else v[index : index + 1] for k, v in batch.items()}
        _same("batched = single", where, part, single, tol)
        _check_invariance(model, a, single, where, tol, rng)
        if model.dtype == torch.float64:
            _check_derivatives(model, a, single, where, derivative_tolerance, n_probes, rng)
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


def _moved(atoms: Atoms, positions: np.ndarray) -> Atoms:
    """A copy with other positions."""
    out = atoms.copy()
    out.positions = positions
    return out


def _check_invariance(
    model: ModelInterface,
    atoms: Atoms,
    wanted: dict[str, np.ndarray],
    where: str,
    tol: float,
    rng: np.random.Generator,
) -> None:
    """Lattice shifts, wrapping, rotation, permutation and supercell."""
    cell, n = atoms.cell.array, len(atoms)
    shift = np.zeros((n, 3))
    for k in rng.choice(n, size=min(n, 5), replace=False):
        shift[k] = rng.integers(-2, 3, 3)
    _same(
        "lattice shift of atoms", where, _evaluate(model, [_moved(atoms, atoms.positions + shift @ cell)]), wanted, tol
    )
    wrapped = atoms.copy()
    wrapped.wrap()
    _same("wrapped = whole", where, _evaluate(model, [wrapped]), wanted, tol)
    _check_rotation(model, atoms, wanted, where, tol, rng)
    _same_supercell(model, atoms, wanted, where, tol)
    molecule = atoms.arrays.get("molecule")
    if molecule is None:
        return
    shift = rng.integers(-2, 3, (molecule.max() + 1, 3))[molecule]
    _same(
        "lattice shift of molecules", where, _evaluate(model, [_moved(atoms, atoms.positions + shift @ cell)]), wanted,
        tol,
    )  # fmt: skip
    order = np.concatenate([np.flatnonzero(molecule == m) for m in rng.permutation(molecule.max() + 1)])
    permuted = {k: v[order] if k == "forces" else v for k, v in wanted.items()}
    _same("permutation of molecules", where, _evaluate(model, [atoms[order]]), permuted, tol)


def _check_rotation(
    model: ModelInterface,
    atoms: Atoms,
    wanted: dict[str, np.ndarray],
    where: str,
    tol: float,
    rng: np.random.Generator,
) -> None:
    """Energy invariant, forces and stress turn with the crystal."""
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    turned = _moved(atoms, atoms.positions @ rotation.T)
    turned.cell = atoms.cell.array @ rotation.T
    expected = dict(wanted)
    if "forces" in wanted:
        expected["forces"] = wanted["forces"] @ rotation.T
    if "stress" in wanted:
        expected["stress"] = rotation @ wanted["stress"] @ rotation.T
    _same("rotation", where, _evaluate(model, [turned]), expected, tol)


def _same_supercell(model: ModelInterface, atoms: Atoms, wanted: dict[str, np.ndarray], where: str, tol: float) -> None:
    """Doubling the cell doubles the energy and repeats forces and stress."""
    for axis in range(3):
        factors = [2 if axis == k else 1 for k in range(3)]
        got = _evaluate(model, [atoms.repeat(factors)])
        expected = {k: 2.0 * v if k == "energy" else v for k, v in wanted.items()}
        if "forces" in wanted:
            expected["forces"] = np.concatenate([wanted["forces"]] * 2)
        _same(f"supercell {factors}", where, got, expected, tol)


def _check_derivatives(
    model: ModelInterface,
    atoms: Atoms,
    wanted: dict[str, np.ndarray],
    where: str,
    tolerance: float,
    n_probes: int,
    rng: np.random.Generator,
) -> None:
    """Forces and stress against five-point central differences of the energy."""
    step = 5e-4
    moved, probes = [], []
    if "forces" in wanted:
        for _ in range(n_probes):
            k, d = int(rng.integers(len(atoms))), int(rng.integers(3))
            probes.append((k, d))
            for factor, _weight in _STENCIL:
                positions = atoms.positions.copy()
                positions[k, d] += factor * step
                moved.append(_moved(atoms, positions))
    strains = [(i, j) for i in range(3) for j in range(i, 3)] if "stress" in wanted else []
    for i, j in strains:
        for factor, _weight in _STENCIL:
            strain = np.eye(3)
            strain[i, j] += 0.5 * factor * step
            strain[j, i] += 0.5 * factor * step
            strained = _moved(atoms, atoms.positions @ strain)
            strained.cell = atoms.cell.array @ strain
            moved.append(strained)
    energies = np.concatenate([_evaluate(model, [a])["energy"] for a in moved])
    slope = energies.reshape(-1, len(_STENCIL)) @ np.array([w for _, w in _STENCIL]) / step
    if probes:
        got = {"forces": np.array([wanted["forces"][k, d] for k, d in probes])}
        _same("forces = -dE/dr", where, got, {"forces": -slope[: len(probes)]}, tolerance)
    if strains:
        got = {"stress": np.array([wanted["stress"][0, i, j] for i, j in strains])}
        _same("stress = dE/dε/V", where, got, {"stress": slope[len(probes) :] / atoms.get_volume()}, tolerance)
