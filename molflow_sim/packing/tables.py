"""What the rigid press needs to know of a molecule and of the packings' symmetry, as flat arrays.

Nothing here imports a chemistry library, so the press also runs on machines that have torch, Numba and NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from molflow_sim.packing.lanes import WIDTH
from molflow_sim.symmetry.placements import Placement, stacked_operations
from molflow_sim.units import COULOMB, KJ_PER_MOL

GUARD = 1.1**6
"""(1.1 Å)⁶: the factor of C/r¹² that keeps the exp-6 repulsive at short range."""
R_MIN = 0.8
"""Å; below it the pair energy goes on linearly, so that overlaps have finite forces."""
OVERLAP_SCALE = 0.92
HYDROGEN_BOND_CONTACT = 1.75
OVERLAP_STIFFNESS = 60.0 * KJ_PER_MOL

# Bondi (1964) radii, Å; H 1.10 Å from Rowland & Taylor (1996); B from Mantina et al. (2009).
VAN_DER_WAALS_RADIUS = {
    1: 1.10, 5: 1.92, 6: 1.70, 7: 1.55, 8: 1.52, 9: 1.47, 14: 2.10, 15: 1.80, 16: 1.80, 17: 1.75, 35: 1.85, 53: 1.98,
}  # fmt: skip


class PressTables:
    """Pair parameters of one molecule and stacked `Placement` arrays, on one device.

    Parameters
    ----------
    numbers : ndarray of int, shape (N,)
    conformers : ndarray, shape (K, N, 3)
        Å, each centred on its centre of mass.
    exp6_a, exp6_b, exp6_c : ndarray, shape (N,)
        eV, 1/Å, eV·Å⁶ (see `molflow_sim.forcefield.parameters`).
    charges : ndarray, shape (N,)
        e; they must sum to zero.
    bonds : ndarray of int, shape (nb, 2)
        Used to tell polar hydrogens, whose contacts with acceptors may be short.
    placements : sequence of Placement
    device : torch device
    """

    def __init__(
        self,
        numbers: np.ndarray,
        conformers: np.ndarray,
        exp6_a: np.ndarray,
        exp6_b: np.ndarray,
        exp6_c: np.ndarray,
        charges: np.ndarray,
        bonds: np.ndarray,
        placements: Sequence[Placement],
        device: torch.device | str = "cpu",
    ) -> None:
        n = len(numbers)
        padded = -(-n // WIDTH) * WIDTH  # whole float32 vectors
        self.n_atoms, self.device = n, torch.device(device)
        self.guard, self.r_min, self.stiffness = GUARD, R_MIN, OVERLAP_STIFFNESS

        def pad(matrix: np.ndarray, fill: float) -> np.ndarray:
            out = np.full((n, padded), fill, np.float32)
            out[:, :n] = matrix
            return out

        self.pairs_np = np.stack([
            pad(np.sqrt(np.outer(exp6_a, exp6_a)), 0.0), pad(0.5 * np.add.outer(exp6_b, exp6_b), 3.0),
            pad(np.sqrt(np.outer(exp6_c, exp6_c)), 0.0), pad(COULOMB * np.outer(charges, charges), 0.0),
            pad(contact_distances(numbers, bonds), 0.0),
        ])  # fmt: skip
        self.conformers_np = np.zeros((len(conformers), padded, 3))
        self.conformers_np[:, :n] = conformers
        self.radius = float(np.linalg.norm(conformers, axis=-1).max())
        self.gyration = float(np.sqrt((conformers**2).sum(-1).mean(-1)).max().clip(0.5))

        self.frac_rot_np, self.frac_tran_np, self.cart_rot_np = stacked_operations(placements)
        self.n_images_np = np.array([p.n_images for p in placements])
        self.inverse_np = np.full(self.frac_tran_np.shape[:2], -1)
        for k, p in enumerate(placements):
            self.inverse_np[k, : p.n_images] = p.inverse
        dipoles = (np.asarray(charges)[:, None] * conformers).sum(1)
        sums = np.stack([p.cart_rot.sum(0) for p in placements])

        def tensor(array: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(np.ascontiguousarray(array), device=self.device)

        self.conformers = tensor(self.conformers_np[:, :n])
        self.dipoles, self.polar_sum = tensor(dipoles), tensor(np.where(np.abs(sums) < 1e-9, 0.0, sums))
        self.frac_rot, self.frac_tran, self.cart_rot = map(
            tensor, (self.frac_rot_np, self.frac_tran_np, self.cart_rot_np)
        )
        self.n_images = tensor(self.n_images_np)
        self.cell_basis = tensor(np.stack([p.cell_basis() for p in placements]))
        self.translation_projector = tensor(np.stack([p.translation_projector for p in placements]))
        self.rotation_projector = tensor(np.stack([p.rotation_projector for p in placements]))
        self.pa, self.pb, self.pc, self.pq, self.contact = (tensor(x[:, :n]) for x in self.pairs_np)


def contact_distances(numbers: np.ndarray, bonds: np.ndarray) -> np.ndarray:
    """Shortest distances (N, N) in Å between atoms of two molecules that count as free of overlap.

    0.92 times the sum of the van der Waals radii; 1.75 Å between a hydrogen on N or O and an N, O or F.
    """
    numbers = np.asarray(numbers)
    radii = np.array([VAN_DER_WAALS_RADIUS[int(z)] for z in numbers])
    distance = OVERLAP_SCALE * np.add.outer(radii, radii)
    donor = np.zeros(len(numbers), bool)
    for i, j in np.asarray(bonds).reshape(-1, 2):
        for h, x in ((i, j), (j, i)):
            donor[h] |= numbers[h] == 1 and numbers[x] in (7, 8)
    acceptor = np.isin(numbers, (7, 8, 9))
    hydrogen_bond = np.outer(donor, acceptor) | np.outer(acceptor, donor)
    return np.where(hydrogen_bond, HYDROGEN_BOND_CONTACT, distance)
