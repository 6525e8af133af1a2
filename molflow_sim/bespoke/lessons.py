"""Packings as the fit sees them: what the teacher says, and the sums that a force field's energy is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.transform import Rotation

from molflow_sim.bespoke.sums import ROWS, pair_sums, reciprocal_sums
from molflow_sim.forcefield import ewald
from molflow_sim.forcefield.esp import equivalent_atoms
from molflow_sim.forcefield.potential import SWITCH_WIDTH
from molflow_sim.relax.symmetry import orbits as orbits_of
from molflow_sim.so3lr.potential import SO3LR
from molflow_sim.threads import share
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.forcefield.parameters import MoleculeParameters
    from molflow_sim.packing.packings import RigidPackings

CUTOFF = 15.0
"""Å; that of `molflow_sim.CrystalPotential`."""
SAME_ENERGY, SAME_VOLUME = 0.05 * KJ_PER_MOL, 1e-3
"""Packings as near as this in energy (eV per molecule) and volume (relative) are taken for one."""
STRETCH = (-0.035, 0.06)
"""Range of the logarithm of the cell lengths of a disturbed packing against the pressed one's."""
SHIFT, TURN = 0.15, 0.08
"""Standard deviations of a disturbed molecule's displacement (Å) and turn (rad), each component."""


@dataclass(frozen=True, eq=False)
class Lessons:
    """n packings of one molecule with K classes of equivalent atoms.

    Attributes
    ----------
    classes : (N,) array of int
        Class of each atom of the molecule.
    packing : (n,) array of int
        Number of the pressed packing each comes from: what comes from one is never split.
    pressed : (n,) array of bool
        Whether it is the pressed packing itself; the others are disturbed copies.
    teacher : (n, ROWS) array
        The teacher's energy between the molecules, per molecule, and its derivatives, see `sums.ROWS`; eV and Å.
    positions, centres, cells : lists of arrays
        Atoms of whole molecules, molecules' centres of mass, cell rows; Å.
    dispersion, coulomb : (n, ROWS, K, K) arrays
        D and M of `molflow_sim.bespoke.sums`.
    """

    classes: np.ndarray
    packing: np.ndarray
    pressed: np.ndarray
    teacher: np.ndarray
    positions: list[np.ndarray]
    centres: list[np.ndarray]
    cells: list[np.ndarray]
    dispersion: np.ndarray
    coulomb: np.ndarray

    def __len__(self) -> int:
        return len(self.teacher)

    def select(self, rows: np.ndarray) -> Lessons:
        """Those at `rows` (indices)."""

        def chosen(values: Any) -> Any:
            return [values[i] for i in rows] if isinstance(values, list) else values[rows]

        return Lessons(self.classes, *(chosen(getattr(self, f.name)) for f in fields(self)[1:]))

    @staticmethod
    def concatenate(parts: Sequence[Lessons]) -> Lessons:
        """All of several, which are of one molecule."""

        def joined(name: str) -> Any:
            values = [getattr(p, name) for p in parts]
            return list(chain(*values)) if isinstance(values[0], list) else np.concatenate(values)

        return Lessons(parts[0].classes, *(joined(f.name) for f in fields(Lessons)[1:]))

    def repulsion(self, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P and -∂P/∂B (n, ROWS, K, K) for exponents b (K, K) in 1/Å."""
        n, k = len(self.classes), len(b)
        out = np.empty((2, len(self), ROWS, k, k), np.float32)

        def work(low: int, high: int) -> None:
            for s in range(low, high):
                x, c, h = self.positions[s], self.centres[s], self.cells[s]
                sums = pair_sums(x, c, n, len(c), self.classes, k, h, b, *_LIMITS, False)
                out[:, s] = _symmetric(sums[:2])

        share(len(self), work)
        return out[0], out[1]

    def rows_of(self, parameters: MoleculeParameters) -> np.ndarray:
        """Energy per molecule and its derivatives (n, ROWS) of a force field; eV and Å."""
        a, b, c, q = class_parameters(parameters, self.classes)
        p, _ = self.repulsion(0.5 * np.add.outer(b, b))
        a, c = np.exp(0.5 * a), np.exp(0.5 * c)
        return p @ a @ a + self.dispersion @ c @ c + self.coulomb @ q @ q


_ALPHA, _K_MAX = ewald.splitting(CUTOFF)
_LIMITS = (CUTOFF, CUTOFF - SWITCH_WIDTH, _ALPHA)


def class_parameters(parameters: MoleculeParameters, classes: np.ndarray) -> np.ndarray:
    """ln A, B, ln C and charge of each class, (4, K); means where its atoms differ."""
    p = parameters
    values = np.log(p.exp6_a), p.exp6_b, np.log(p.exp6_c), p.charges
    return np.stack([np.bincount(classes, v) for v in values]) / np.bincount(classes)


def learn(packings: RigidPackings, teacher: SO3LR, packing: np.ndarray, pressed: bool) -> Lessons:
    """Ask the teacher about packings with one molecule in the asymmetric unit, and make their sums.

    Parameters
    ----------
    packings : RigidPackings
    teacher : SO3LR
    packing : (n,) array of int
        See `Lessons`.
    pressed : bool
        See `Lessons`.
    """
    molecule = packings.molecule
    n, classes = molecule.n_atoms, equivalent_atoms(molecule.rdmol)
    k = int(classes.max()) + 1
    crystals = [packings.crystal(i) for i in range(len(packings))]
    orbits = [orbits_of(c) for c in crystals]
    cells = [np.ascontiguousarray(c.cell, dtype=float) for c in crystals]
    positions = [np.ascontiguousarray(c.unit_cell()[1]) for c in crystals]
    mass = molecule.masses / molecule.masses.sum()
    centres = [mass @ x.reshape(-1, n, 3) for x in positions]
    numbers = np.asarray(molecule.numbers)
    kinds = np.unique(packings.conformer)
    alone = np.full(len(packings.conformers), np.nan)
    found = teacher.evaluate([numbers] * len(kinds), list(packings.conformers[kinds]), gradients=False)
    alone[kinds] = [r[0] for r in found]
    results = teacher.evaluate([np.tile(numbers, len(c)) for c in centres], positions, cells, orbits)
    # A molecule alone has neither force nor torque, and no stress when its arms do not stretch: only energies differ.
    rows = np.stack([_rigid(*r[:3], x, c) for r, x, c in zip(results, positions, centres)])
    rows[:, 0] -= alone[packings.conformer]
    dispersion, coulomb = np.empty((2, len(crystals), ROWS, k, k), np.float32)
    b = np.ones((k, k))  # P is not looked at

    def work(low: int, high: int) -> None:
        for s in range(low, high):
            x, c, h = positions[s], centres[s], cells[s]
            _, _, dispersion[s], real = _symmetric(pair_sums(x, c, n, len(c), classes, k, h, b, *_LIMITS, True))
            coulomb[s] = real + _symmetric(reciprocal_sums(x, c, n, len(c), classes, k, h, _ALPHA, _K_MAX))

    share(len(crystals), work)
    where = np.asarray(packing), np.full(len(crystals), pressed)
    return Lessons(classes, *where, rows, positions, centres, cells, dispersion, coulomb)


def _symmetric(sums: np.ndarray) -> np.ndarray:
    return 0.5 * (sums + sums.swapaxes(-1, -2))


def _rigid(energy: float, gradient: np.ndarray, virial: np.ndarray, x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Energy per molecule and rigid derivatives (ROWS,) from energy, gradient and virial dE/dε of a cell's atoms."""
    n = len(x) // len(centres)
    arms = x - np.repeat(centres, n, axis=0)
    expansion = np.trace(virial) - (arms * gradient).sum()
    own, arm = gradient[:n], arms[:n]
    return np.concatenate([[energy / len(centres)], own.sum(0), np.cross(arm, own).sum(0), [expansion / len(centres)]])


def distinct(packings: RigidPackings) -> RigidPackings:
    """Well pressed packings, each minimum once."""
    volume = packings.volume / packings.z
    kept: list[int] = []
    for i in np.argsort(np.where(packings.ok, packings.energy, np.inf), kind="stable")[: int(packings.ok.sum())]:
        for j in reversed(kept):
            if packings.energy[i] - packings.energy[j] > SAME_ENERGY:
                kept.append(i)
                break
            if abs(volume[i] / volume[j] - 1.0) < SAME_VOLUME:
                break
        else:
            kept.append(i)
    return packings.select(np.sort(np.array(kept, dtype=int)))


def disturbed(packings: RigidPackings, rng: np.random.Generator) -> RigidPackings:
    """Copies with another cell size and the molecules displaced and turned as far as the symmetry allows."""
    n, m = packings.centroid.shape[:2]
    cell = packings.cell * np.exp(rng.uniform(*STRETCH, n))[:, None, None]
    shift, turn = SHIFT * rng.standard_normal((n, m, 3)), TURN * rng.standard_normal((n, m, 3))
    along = np.stack([p.translation_projector for p in packings.placements])[packings.placement]
    about = np.stack([p.rotation_projector for p in packings.placements])[packings.placement]
    turn = Rotation.from_rotvec((turn @ about).reshape(-1, 3)).as_matrix().reshape(n, m, 3, 3)
    centroid = packings.centroid + shift @ along @ np.linalg.inv(cell)
    return replace(packings, cell=cell, centroid=centroid, rotation=turn @ packings.rotation)
