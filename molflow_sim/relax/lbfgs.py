"""Preconditioned L-BFGS for molecular crystals, vectorised over structures of any size; none feels the others.

Coordinates of a structure are a symmetric strain ε and atomic displacements: under a strain the centres of the
molecules follow the lattice and the molecules keep their shape, so that soft lattice modes do not mix with stiff bonds.
The initial inverse Hessian is that of MMFF94 for every molecule (of the conformer in its own frame, turned into
place) plus a constant for its surroundings, and a bulk stiffness for the strain. Limited-memory updates: J. Nocedal,
Math. Comput. 35, 773 (1980); a preconditioner of this kind: D. Packwood et al., J. Chem. Phys. 144, 164109 (2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import torch

from molflow_sim.forcefield.mmff import MMFFTerms
from molflow_sim.forcefield.mmff_energy import mmff_energies
from molflow_sim.ordered import applied, determinant, product, total

MEMORY = 30
SURROUNDINGS = 0.5
"""Stiffness that a molecule's neighbours give each atom, eV/Å²."""
BULK = 0.15
"""Elastic stiffness assumed for the strain, eV/Å³ (about 25 GPa)."""
MAX_MOVE = 0.25
"""Longest move of an atom in one step, Å."""
MAX_STRAIN = 0.04
"""Largest strain component in one step."""
_NOISE = 1e-9  # eV per structure and relative: energies closer than this are equal
MAX_BACKTRACKS = 8


@dataclass(eq=False)
class MoleculeClass:
    """Molecules of one species in the batch: which atoms, and how to precondition them.

    Attributes
    ----------
    atoms : (M, N) LongTensor
    inverse_hessian : (M, 3N, 3N) or (1, 3N, 3N) tensor
        In the molecules' own frames, Å²/eV.
    frame : (M, 3, 3) tensor
        Turns the own frame into the crystal's (acts on columns).
    """

    atoms: torch.Tensor
    inverse_hessian: torch.Tensor
    frame: torch.Tensor

    def apply(self, gradient: torch.Tensor, out: torch.Tensor) -> None:
        """Write the preconditioned gradient of these molecules' atoms."""
        body = product(gradient[self.atoms], self.frame).flatten(1)
        moved = torch.zeros_like(body)
        _multiply(self.inverse_hessian.numpy(), body.numpy(), moved.numpy())
        out[self.atoms] = product(moved.view(*self.atoms.shape, 3), self.frame.mT)


@nb.njit(nogil=True, cache=True)
def _multiply(matrices, vectors, out):
    """Symmetric matrices (M or 1, n, n) times vectors (M, n), added to `out`, column by column."""
    for m in range(len(vectors)):
        matrix = matrices[min(m, len(matrices) - 1)]
        for j in range(len(matrix)):
            for i in range(len(matrix)):
                out[m, i] += matrix[j, i] * vectors[m, j]


@dataclass(eq=False)
class Point:
    """Geometry of a batch with energy and gradients.

    Attributes
    ----------
    positions : (n, 3) tensor
        Whole molecules, Å.
    cells : (S, 3, 3) tensor
        Rows, Å.
    energy : (S,) tensor
    forces : (n, 3) tensor
    stress : (S, 3, 3) tensor
    """

    positions: torch.Tensor
    cells: torch.Tensor
    energy: torch.Tensor
    forces: torch.Tensor
    stress: torch.Tensor


def inverse_hessian(terms: MMFFTerms, positions: np.ndarray) -> torch.Tensor:
    """Inverse of a molecule's MMFF94 Hessian with `SURROUNDINGS` added and negative curvature taken as none.

    The Hessian comes from central differences of the analytic gradient, all columns at once.

    Parameters
    ----------
    terms : MMFFTerms
    positions : (N, 3) array
        Conformer, Å.

    Returns
    -------
    (3N, 3N) tensor
        Å²/eV, symmetric and positive.
    """
    step, n = 1e-3, positions.size
    shifts = step * torch.eye(n, dtype=torch.float64).view(n, -1, 3)
    x = torch.as_tensor(positions, dtype=torch.float64)
    x = torch.cat([x + shifts, x - shifts]).requires_grad_(True)
    energy = torch.stack([term.sum() for term in mmff_energies(terms, x).values()]).sum()
    gradient = torch.autograd.grad(energy, x)[0] if energy.requires_grad else torch.zeros_like(x)
    plus, minus = gradient.reshape(2, n, n)
    hessian = (plus - minus) / (2.0 * step)
    values, vectors = torch.linalg.eigh(0.5 * (hessian + hessian.mT))
    return (vectors / (values.clamp(min=0.0) + SURROUNDINGS)) @ vectors.mT


class LBFGS:
    """Steps of all structures at once; each has its own history and step length.

    Use: ``trial = start(point)``; evaluate the trial geometry; ``trial = advance(evaluated)``; and so on. The accepted
    geometry is ``point``.

    Parameters
    ----------
    system : (n,) LongTensor
        Structure of each atom.
    molecule : (n,) LongTensor
        Molecule of each atom, numbered through the batch.
    classes : list of MoleculeClass
    """

    def __init__(self, system: torch.Tensor, molecule: torch.Tensor, classes: list[MoleculeClass]) -> None:
        self.system, self.molecule, self.classes = system, molecule, classes
        self._size = torch.bincount(molecule).to(torch.float64).unsqueeze(-1)

    def start(self, point: Point) -> tuple[torch.Tensor, torch.Tensor]:
        """Begin at an evaluated point; returns positions and cells of the first trial."""
        self.point = point
        n_systems = len(point.cells)
        self._s: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._y: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._rho: list[torch.Tensor] = []
        self._scale: torch.Tensor
        self.backtracks = torch.zeros(n_systems, dtype=torch.long)
        self._gradient = self._gradients(point)
        self._new_direction(torch.ones(n_systems, dtype=torch.bool))
        return self._trial()

    def advance(self, new: Point) -> tuple[torch.Tensor, torch.Tensor]:
        """Accept or reject the evaluated trial of every structure; returns the next trial.

        A trial is accepted when the energy falls enough (Armijo, 1e-4); otherwise the step shrinks. After
        `MAX_BACKTRACKS` rejections the history is dropped; `backtracks` counts them.
        """
        old = self.point
        noise = _NOISE * (1.0 + old.energy.abs())
        accept = new.energy <= old.energy + 1e-4 * self._scale * self._slope + noise
        accept &= torch.isfinite(new.energy)
        # geometries of rejected structures stay
        atoms, pick = accept[self.system].unsqueeze(-1), accept[:, None, None]
        rejected_rise = torch.nan_to_num(new.energy - old.energy, nan=torch.inf)
        point = Point(
            torch.where(atoms, new.positions, old.positions),
            torch.where(pick, new.cells, old.cells),
            torch.where(accept, new.energy, old.energy),
            torch.where(atoms, new.forces, old.forces),
            torch.where(pick, new.stress, old.stress),
        )
        gradient = self._gradients(point)
        step = (
            torch.where(atoms, self._scale[self.system].unsqueeze(-1) * self._direction[0], 0.0),
            torch.where(pick, self._scale[:, None, None] * self._direction[1], 0.0),
        )
        change = (
            torch.where(atoms, gradient[0] - self._gradient[0], 0.0),
            torch.where(pick, gradient[1] - self._gradient[1], 0.0),
        )
        curvature = self._dot(step, change)
        good = accept & (curvature > 1e-8 * self._dot(step, step))
        self._remember(step, change, torch.where(good, 1.0 / curvature, 0.0))
        self.point, self._gradient = point, gradient
        # shrink by the parabola through both energies, within [0.1, 0.5]
        parabola = -0.5 * self._slope * self._scale / (rejected_rise - self._slope * self._scale).clamp(min=1e-30)
        shrunk = self._scale * parabola.clamp(0.1, 0.5)
        self.backtracks = torch.where(accept, 0, self.backtracks + 1)
        forget = self.backtracks == MAX_BACKTRACKS
        if forget.any():
            self._rho = [torch.where(forget, 0.0, r) for r in self._rho]
        self._new_direction(accept | forget)
        self._scale = torch.where(accept | forget, self._scale, shrunk)
        return self._trial()

    def _trial(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Geometry one scaled step away."""
        strain = _exponential(self._scale[:, None, None] * self._direction[1])
        x = self.point.positions
        centre = torch.zeros(len(self._size), 3, dtype=x.dtype).index_add_(0, self.molecule, x) / self._size
        centre = centre[self.molecule]
        moved = applied(strain.mT[self.system], centre) - centre
        moved = moved + self._scale[self.system].unsqueeze(-1) * self._direction[0]
        return x + moved, product(self.point.cells, strain)

    def _gradients(self, point: Point) -> tuple[torch.Tensor, torch.Tensor]:
        """Derivatives with respect to the atoms and to the strain of the centres (symmetric)."""
        x, f = point.positions, point.forces
        volume = determinant(point.cells).abs()
        centre = torch.zeros(len(self._size), 3, dtype=x.dtype).index_add_(0, self.molecule, x) / self._size
        arm = x - centre[self.molecule]
        inner = (arm.unsqueeze(2) * f.unsqueeze(1)).view(-1, 9)
        inner = torch.zeros(len(volume), 9, dtype=x.dtype).index_add_(0, self.system, inner).view(-1, 3, 3)
        strain = point.stress * volume[:, None, None] + inner
        return -f, 0.5 * (strain + strain.mT)

    def _dot(self, a: tuple[torch.Tensor, torch.Tensor], b: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Inner product per structure."""
        cell = total((a[1] * b[1]).flatten(1))
        return cell.index_add(0, self.system, total(a[0] * b[0]))

    def _remember(
        self, s: tuple[torch.Tensor, torch.Tensor], y: tuple[torch.Tensor, torch.Tensor], rho: torch.Tensor
    ) -> None:
        self._s.append(s)
        self._y.append(y)
        self._rho.append(rho)
        if len(self._s) > MEMORY:
            del self._s[0], self._y[0], self._rho[0]

    def _new_direction(self, which: torch.Tensor) -> None:
        """Two-loop recursion for all; structures in `which` take the result and a full (capped) step."""
        q = (self._gradient[0].clone(), self._gradient[1].clone())
        per_atom = lambda v: v[self.system].unsqueeze(-1)  # noqa: E731
        alphas = []
        for s, y, rho in zip(reversed(self._s), reversed(self._y), reversed(self._rho)):
            alpha = rho * self._dot(s, q)
            alphas.append(alpha)
            q = (q[0] - per_atom(alpha) * y[0], q[1] - alpha[:, None, None] * y[1])
        atoms = torch.empty_like(q[0])
        for item in self.classes:
            item.apply(q[0], atoms)
        volume = determinant(self.point.cells).abs()
        r = (atoms, q[1] / (BULK * volume)[:, None, None])
        for s, y, rho, alpha in zip(self._s, self._y, self._rho, reversed(alphas)):
            beta = alpha - rho * self._dot(y, r)
            r = (r[0] + per_atom(beta) * s[0], r[1] + beta[:, None, None] * s[1])
        slope = -self._dot(r, self._gradient)
        longest = torch.zeros_like(slope).scatter_reduce_(0, self.system, total(r[0] * r[0]).sqrt(), "amax")
        scale = torch.minimum(
            MAX_MOVE / longest.clamp(min=1e-12), MAX_STRAIN / r[1].abs().amax((1, 2)).clamp(min=1e-12)
        ).clamp(max=1.0)
        if not hasattr(self, "_direction"):
            self._direction, self._slope, self._scale = (-r[0], -r[1]), slope, scale
            return
        atoms_in, pick = per_atom(which), which[:, None, None]
        self._direction = (
            torch.where(atoms_in, -r[0], self._direction[0]),
            torch.where(pick, -r[1], self._direction[1]),
        )
        self._slope = torch.where(which, slope, self._slope)
        self._scale = torch.where(which, scale, self._scale)

    def keep(self, systems: torch.Tensor, classes: list[MoleculeClass]) -> None:
        """Drop all structures but `systems` (sorted indices); `classes` are those of the remaining molecules."""
        inside = torch.zeros(len(self.point.cells), dtype=torch.bool)
        inside[systems] = True
        atoms = inside[self.system]
        pair = lambda p: (p[0][atoms], p[1][systems])  # noqa: E731
        p = self.point
        self.point = Point(p.positions[atoms], p.cells[systems], p.energy[systems], p.forces[atoms], p.stress[systems])
        self._s, self._y = [pair(s) for s in self._s], [pair(y) for y in self._y]
        self._rho = [r[systems] for r in self._rho]
        self._gradient, self._direction = pair(self._gradient), pair(self._direction)
        self._slope, self._scale = self._slope[systems], self._scale[systems]
        self.backtracks = self.backtracks[systems]
        self.system = torch.unique_consecutive(self.system[atoms], return_inverse=True)[1]
        self.molecule = torch.unique_consecutive(self.molecule[atoms], return_inverse=True)[1]
        self._size = torch.bincount(self.molecule).to(torch.float64).unsqueeze(-1)
        self.classes = classes


def _exponential(strain: torch.Tensor) -> torch.Tensor:
    """Of matrices (S, 3, 3) no larger than a step's strain, for which ten terms of the series are exact."""
    out = eye = torch.eye(3, dtype=strain.dtype).expand_as(strain)
    for k in range(10, 0, -1):
        out = eye + product(strain, out) / k
    return out
