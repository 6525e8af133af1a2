"""Space-group averaging of forces and stress, so that a relaxation keeps the symmetry it starts with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from molflow_sim.errors import CrystalError
from molflow_sim.ordered import applied, inverse, product
from molflow_sim.so3lr.potential import Orbits
from molflow_sim.systems.crystal import MolecularCrystal


def atom_permutations(crystal: MolecularCrystal, tolerance: float = 0.3) -> np.ndarray:
    """Which atom every space-group operation maps each atom on.

    Parameters
    ----------
    crystal : MolecularCrystal
    tolerance : float
        Farthest an image may lie from the atom it is matched with, Å.

    Returns
    -------
    (G, n) array of int
        ``W x_i + w`` is atom ``out[g, i]`` up to a lattice translation; atoms in `MolecularCrystal.unit_cell` order.

    Raises
    ------
    CrystalError
        If the crystal does not have the symmetry of its space group within the tolerance.
    """
    numbers, positions, molecule, _ = crystal.unit_cell()
    frac = positions @ np.linalg.inv(crystal.cell)
    group = crystal.space_group
    centre = np.stack([frac[molecule == m].mean(axis=0) for m in range(molecule[-1] + 1)])
    out = np.empty((group.order, len(frac)), dtype=np.int64)
    for g in range(group.order):
        images = frac @ group.rotations[g].T + group.translations[g]
        centres = centre @ group.rotations[g].T + group.translations[g]
        for m in range(len(centre)):
            atoms = np.flatnonzero(molecule == m)
            delta = centres[m] - centre
            target = np.linalg.norm((delta - np.rint(delta)) @ crystal.cell, axis=1).argmin()
            shift = np.rint(centres[m] - centre[target])
            onto = np.flatnonzero(molecule == target)
            far = np.linalg.norm((images[atoms, None] - shift - frac[None, onto]) @ crystal.cell, axis=-1)
            far[numbers[atoms, None] != numbers[None, onto]] = np.inf
            best = far.argmin(axis=1)
            if far.min(axis=1).max() > tolerance or len(np.unique(best)) < len(atoms):
                raise CrystalError(
                    f"operation {group.symbols[g]} of {group.name} does not map the crystal on itself within "
                    f"{tolerance} Å; relax it in P 1 (symmetric=False)"
                )
            out[g, atoms] = onto[best]
    return out


def orbits(crystal: MolecularCrystal) -> Orbits:
    """Which atoms of the cell are symmetry copies of which; raises as `atom_permutations` does."""
    return Orbits.from_permutations(atom_permutations(crystal), crystal.space_group.rotations)


class SymmetryAverage:
    """Average forces and stresses of a batch, in float64 on the CPU, over each crystal's operations.

    Parameters
    ----------
    permutations : sequence of (G_s, n_s) int arrays
        Of each system, from `atom_permutations`; one row (the identity) for no symmetry.
    rotations : sequence of (G_s, 3, 3) arrays
        Fractional rotations W of the same operations.
    """

    def __init__(self, permutations: Sequence[np.ndarray], rotations: Sequence[np.ndarray]) -> None:
        source, target, operation, weight, system, op_weight = [], [], [], [], [], []
        first = n_operations = 0
        for s, (perm, w) in enumerate(zip(permutations, rotations)):
            order, n = perm.shape
            source.append(np.tile(np.arange(first, first + n), order))
            target.append((first + perm).ravel())
            operation.append(np.repeat(np.arange(n_operations, n_operations + order), n))
            weight.append(np.full(order * n, 1.0 / order))
            system.append(np.full(len(w), s))
            op_weight.append(np.full(len(w), 1.0 / len(w)))
            first += n
            n_operations += order
        self._source, self._target, self._operation, self._system = (
            torch.as_tensor(np.concatenate(a)) for a in (source, target, operation, system)
        )
        self._weight, self._op_weight, self._w = (
            torch.as_tensor(np.concatenate(a)).double() for a in (weight, op_weight, rotations)
        )

    def __call__(
        self, forces: torch.Tensor, stress: torch.Tensor, cells: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Averages of forces (n, 3) and stress (S, 3, 3) for cells (S, 3, 3) given as rows.

        The Cartesian operations follow from the cells, so the frame may turn during a relaxation.
        """
        rows = cells[self._system]
        cartesian = product(product(rows.mT, self._w), inverse(rows).mT)
        turned = applied(cartesian[self._operation], forces[self._source])
        mean = torch.zeros_like(forces).index_add_(0, self._target, turned * self._weight.unsqueeze(-1))
        tensors = product(product(cartesian, stress[self._system]), cartesian.mT)
        average = torch.zeros_like(stress).index_add_(0, self._system, tensors * self._op_weight[:, None, None])
        return mean, average
