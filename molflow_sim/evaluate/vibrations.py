"""Harmonic lattice vibrations of a crystal and their free energy.

Force constants come from central differences of the forces in a supercell whose opposite faces are some 10 Å apart.
Only atoms of the asymmetric unit are displaced; the space group gives the rest. The wave vectors are those that fit in
the supercell: the spectrum is that of its Γ point. Of the 3N modes the three translations have no frequency; a crystal
does have acoustic modes there, of waves longer than the supercell. Left out, they would be missed more by a small
supercell than by a large one, by some kJ/mol. They are taken from wave vectors half-way to the border of Γ's share of
the Brillouin zone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
import torch_sim as ts

from molflow_sim.errors import CrystalError, NonFiniteError
from molflow_sim.relax.symmetry import atom_permutations
from molflow_sim.symmetry.spacegroup import repeats_for_axis
from molflow_sim.systems.crystal import MolecularCrystal
from molflow_sim.units import HBAR, INVERSE_CM, thermal_energy

MINIMUM_AXIS = 10.0
"""Å; the least distance between opposite faces of the supercell."""
DISPLACEMENT = 0.005
"""Å; of the central differences."""
FLOOR = 5.0
"""cm⁻¹; softer modes count as this one: below, a harmonic frequency is noise, and its free energy has no bound."""
IMAGINARY = 10.0
"""cm⁻¹; a mode with a larger imaginary frequency is a way down: the structure is no minimum."""
_AT_ONCE = 2000  # atoms evaluated together


@dataclass(frozen=True, eq=False)
class Vibrations:
    """Harmonic modes of a crystal.

    Attributes
    ----------
    wavenumbers : (m,) array
        cm⁻¹, of the modes of the supercell without its three translations, rising; imaginary ones are negative.
    acoustic : (4, 3) array
        cm⁻¹, lowest modes at wave vectors near Γ, whose mean stands for the three translations.
    molecules : int
        Molecules in the supercell.
    repeats : tuple of int
        Cells of the supercell along a, b and c.
    """

    wavenumbers: np.ndarray
    acoustic: np.ndarray
    molecules: int
    repeats: tuple[int, int, int]

    @property
    def n_imaginary(self) -> int:
        """Modes with an imaginary frequency beyond `IMAGINARY`."""
        return int(np.sum(self.wavenumbers < -IMAGINARY))

    @property
    def problem(self) -> str:
        """Why there is no free energy; empty if there is one."""
        n, lowest = self.n_imaginary, float(np.min(self.wavenumbers, initial=0.0))
        if not n:
            return ""
        return f"not a minimum: {n} imaginary mode{'s' if n > 1 else ''}, the largest {-lowest:.0f}i cm⁻¹"

    def free_energy(self, temperature: float) -> float:
        """Vibrational Helmholtz free energy, zero-point energy included, eV per molecule; NaN if `problem`.

        Quantum harmonic oscillators: ħω/2 + kT ln(1 - exp(-ħω/kT)), ω not below `FLOOR`.

        Raises
        ------
        InputError
            A temperature (K) that is not positive and finite.
        """
        if self.problem:
            return float("nan")
        total = oscillators(self.wavenumbers, temperature).sum()
        total += oscillators(self.acoustic, temperature).sum() / max(1, len(self.acoustic))
        return float(total / self.molecules)


def oscillators(wavenumbers: np.ndarray, temperature: float) -> np.ndarray:
    """Free energies (eV) of harmonic oscillators at a temperature in K; wavenumbers below `FLOOR` count as that."""
    quantum = np.maximum(wavenumbers, FLOOR) * INVERSE_CM
    thermal = thermal_energy(temperature)
    return 0.5 * quantum + thermal * np.log(-np.expm1(-quantum / thermal))


def crystal_vibrations(
    crystal: MolecularCrystal,
    potential: Any,
    *,
    minimum_axis: float = MINIMUM_AXIS,
    displacement: float = DISPLACEMENT,
) -> Vibrations:
    """Harmonic modes of a relaxed crystal.

    Parameters
    ----------
    crystal : MolecularCrystal
        Relaxed on `potential`.
    potential : torch_sim ModelInterface
        With forces, e.g. `CrystalPotential`, `EnsemblePotential`.
    minimum_axis : float
        Å; cells are repeated until opposite faces are this far apart.
    displacement : float
        Å.

    Returns
    -------
    Vibrations

    Raises
    ------
    NonFiniteError
        A force is not finite.
    """
    phi = force_constants(crystal, potential, minimum_axis=minimum_axis, displacement=displacement)
    n, repeats = len(phi), phi.shape[2:5]
    masses = np.repeat(crystal.masses, 3)
    scaled = phi.reshape(3 * n, *repeats, 3 * n) / np.sqrt(masses[:, None, None, None, None] * masses)
    dynamical = np.moveaxis(np.fft.fftn(scaled, axes=(1, 2, 3)).reshape(3 * n, -1, 3 * n), 1, 0)
    square = np.linalg.eigvalsh(dynamical)
    translations = np.argsort(np.abs(square[0]))[:3]
    modes = np.sort(np.concatenate([np.delete(square[0], translations), square[1:].ravel()]))
    near = np.array([[0.25, y, z] for y, z in product((0.25, -0.25), repeat=2)])  # with -q, which is the same, eight
    acoustic = np.array([np.linalg.eigvalsh(d)[:3] for d in _between(crystal, scaled, near)])
    molecules = crystal.z * int(np.prod(repeats))
    return Vibrations(_wavenumbers(modes), _wavenumbers(acoustic), molecules, (repeats[0], repeats[1], repeats[2]))


def _wavenumbers(square: np.ndarray) -> np.ndarray:
    """cm⁻¹ from ω² in eV/Å²/amu; negative for imaginary ones."""
    return np.sign(square) * np.sqrt(np.abs(square)) * (HBAR / INVERSE_CM)


def _between(crystal: MolecularCrystal, scaled: np.ndarray, near: np.ndarray) -> Iterator[np.ndarray]:
    """Dynamical matrices at wave vectors in units of the supercell's reciprocal vectors.

    Each pair of atoms counts with the nearest of its images, or the mean of equally near ones.
    """
    repeats = np.array(scaled.shape[1:4])
    fractional = crystal.unit_cell()[1] @ np.linalg.inv(crystal.cell)
    n, shape = len(fractional), (len(fractional), *repeats, len(fractional))
    others = fractional + _cells(repeats)[:, None]
    delta = (others - fractional[:, None, None]).reshape(*shape, 3) / repeats
    delta -= np.rint(delta)
    images = delta[..., None, :] + np.array(list(product((0, -1, 1), repeat=3)))
    far = np.linalg.norm(images @ (crystal.cell * repeats[:, None]), axis=-1)
    nearest = far < far.min(axis=-1, keepdims=True) + 1e-3
    for q in near:
        phase = (np.exp(-2j * np.pi * (images @ q)) * nearest).sum(-1) / nearest.sum(-1)
        blocks = scaled.reshape(n, 3, *repeats, n, 3) * phase.reshape(shape)[:, None, ..., None]
        matrix = blocks.sum(axis=(2, 3, 4)).reshape(3 * n, 3 * n)
        yield 0.5 * (matrix + matrix.conj().T)


def _cells(repeats: np.ndarray) -> np.ndarray:
    """Cells of the supercell (cells, 3), the last axis fastest."""
    return np.stack(np.meshgrid(*[np.arange(k) for k in repeats], indexing="ij"), axis=-1).reshape(-1, 3)


def force_constants(
    crystal: MolecularCrystal,
    potential: Any,
    *,
    minimum_axis: float = MINIMUM_AXIS,
    displacement: float = DISPLACEMENT,
    symmetric: bool = True,
) -> np.ndarray:
    """Second derivatives of the energy in a supercell, see `crystal_vibrations`.

    With `symmetric`, atoms of the asymmetric unit alone are displaced; otherwise all of the cell.

    Returns
    -------
    (n, 3, n1, n2, n3, n, 3) array
        eV/Å², between an atom of the first cell and an atom of cell (i, j, k), atoms in `MolecularCrystal.unit_cell`
        order; the same whichever of two atoms comes first, without force when all are displaced alike.

    Raises
    ------
    NonFiniteError
        A force is not finite.
    """
    numbers, positions, *_ = crystal.unit_cell()
    repeats = np.array(repeats_for_axis(crystal.cell, minimum_axis))
    group, n = crystal.space_group, len(numbers)
    operations, permutations = np.zeros(1, dtype=int), np.arange(n)[None]
    if symmetric and group.order > 1:
        try:
            mapped = atom_permutations(crystal)
            # of the group what maps the supercell's lattice on itself
            fits = np.all((group.rotations * repeats) % repeats[:, None] == 0, axis=(1, 2))
            operations, permutations = np.flatnonzero(fits), mapped[fits]
        except CrystalError:  # it has lost its symmetry
            pass
    own = np.flatnonzero(permutations.min(axis=0) == np.arange(n))
    measured = dict(zip(own.tolist(), _columns(crystal, potential, repeats, own, displacement)))
    fractional = positions @ np.linalg.inv(crystal.cell)
    places = _cells(repeats)
    phi, count = np.zeros((n, 3, *repeats, n, 3)), np.zeros(n)
    for g, permutation in zip(operations, permutations):
        rotation, turn = group.rotations[g], group.cartesian_rotations[g]
        shift = np.rint(fractional @ rotation.T + group.translations[g] - fractional[permutation]).astype(int)
        for i, columns in measured.items():
            cell = ((places @ rotation.T)[:, None] + shift - shift[i]) % repeats
            turned = np.einsum("ab,bcjd,ed->acje", turn, columns, turn)
            # (3, cells, n, 3) goes to the images of cells and atoms
            phi[permutation[i], :, cell[..., 0], cell[..., 1], cell[..., 2], permutation] += np.moveaxis(turned, 0, 2)
            count[permutation[i]] += 1
    phi /= count[:, None, None, None, None, None, None]
    # the derivative in the other order, seen from the other atom's cell
    back = np.transpose(phi, (5, 6, 2, 3, 4, 0, 1))
    for axis in (2, 3, 4):
        back = np.roll(np.flip(back, axis), 1, axis)
    phi = 0.5 * (phi + back)
    atoms, left = np.arange(n), phi.sum(axis=(2, 3, 4, 5))
    phi[atoms, :, 0, 0, 0, atoms] -= 0.5 * (left + left.transpose(0, 2, 1))
    return phi


def _columns(
    crystal: MolecularCrystal, potential: Any, repeats: np.ndarray, own: np.ndarray, displacement: float
) -> np.ndarray:
    """Second derivatives (len(own), 3, cells, n, 3) by moving atoms of the first cell, eV/Å²."""
    numbers, positions, *_ = crystal.unit_cell()
    places = _cells(repeats)
    cells, size = len(places), len(places) * len(numbers)
    base = torch.as_tensor(((places @ crystal.cell)[:, None] + positions).reshape(-1, 3))
    box = torch.as_tensor((crystal.cell * repeats[:, None]).T.copy())
    masses = torch.as_tensor(np.tile(crystal.masses, cells))
    elements = torch.as_tensor(np.tile(numbers, cells))
    moves = [(int(i), axis, sign) for i in own for axis in range(3) for sign in (1.0, -1.0)]
    if hasattr(potential, "symmetric"):  # displaced atoms have no copies
        potential.symmetric(None)
    potential.forget()
    found = []
    step = max(2, _AT_ONCE // size)
    for first in range(0, len(moves), step):
        batch = moves[first : first + step]
        k = len(batch)
        x = base.repeat(k, 1)
        for row, (i, axis, sign) in enumerate(batch):
            x[row * size + i, axis] += sign * displacement
        system = torch.arange(k).repeat_interleave(size)
        state = ts.SimState(x, masses.repeat(k), box.repeat(k, 1, 1), True, elements.repeat(k), system)
        found.append(potential(state)["forces"].reshape(k, cells, len(numbers), 3).cpu().double().numpy())
    forces = np.concatenate(found).reshape(len(own), 3, 2, cells, len(numbers), 3)
    if not np.isfinite(forces).all():
        raise NonFiniteError("a force near the relaxed structure is not finite")
    return (forces[:, :, 1] - forces[:, :, 0]) / (2.0 * displacement)
