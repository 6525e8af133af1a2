"""How deep the molecules of a crystal or cluster stick into each other: the clash test of generative models."""

from __future__ import annotations

from typing import Any

import numpy as np

from molflow_sim.chemistry.bonds import neighbour_pairs
from molflow_sim.evaluate.fingerprint import cell_arrays
from molflow_sim.systems.cluster import MolecularCluster

CLASH_OVERLAP = 0.7
"""Å: overlap of two van der Waals spheres from which a contact is a clash. The shortest hydrogen bonds (O...O 2.40 Å)
overlap by 0.64 Å."""

# Å; A. Bondi, J. Phys. Chem. 68, 441 (1964), as the Cambridge Structural Database uses them; 2 Å for other elements.
_BONDI = {
    1: 1.20, 5: 2.0, 6: 1.70, 7: 1.55, 8: 1.52, 9: 1.47, 14: 2.10, 15: 1.80, 16: 1.80, 17: 1.75, 35: 1.85, 53: 1.98,
}  # fmt: skip
_OTHER = 2.0


def heavy_atom_overlap(crystal: Any) -> float:
    """Deepest overlap (Å) of van der Waals spheres between non-hydrogen atoms of different molecules.

    From `CLASH_OVERLAP` on, OXtal (Jin et al., arXiv 2512.06987) counts a crystal as one that collides.

    Parameters
    ----------
    crystal : MolecularCrystal, MolecularCluster or tuple
        A tuple is ``(numbers (n,), cell (3, 3), positions (n, 3) Å, molecule_index (n,))`` with whole molecules.

    Returns
    -------
    float
        0 where no two spheres touch (molecules of hydrogen included); infinite for coordinates that are not finite or
        a flat cell.
    """
    cell: np.ndarray | None
    if isinstance(crystal, MolecularCluster):
        numbers, cell, positions, molecule = crystal.numbers, crystal.cell, crystal.positions, crystal.molecule_index
    else:
        numbers, cell, positions, molecule = cell_arrays(crystal)
    flat = cell is not None and not (np.isfinite(cell).all() and abs(np.linalg.det(cell)) >= 1e-3)
    if flat or not np.isfinite(positions).all():
        return float("inf")
    heavy = np.asarray(numbers) > 1
    if not heavy.any():
        return 0.0
    radii = van_der_waals_radii(np.asarray(numbers)[heavy])
    molecule = np.asarray(molecule)[heavy]
    pairs, shift, distance = neighbour_pairs(np.asarray(positions)[heavy], cell, 2.0 * radii.max())
    i, j = pairs.T
    other = (molecule[i] != molecule[j]) | np.any(shift != 0, axis=1)
    overlap = (radii[i] + radii[j] - distance)[other]
    return float(max(overlap.max(initial=0.0), 0.0))


def van_der_waals_radii(numbers: np.ndarray) -> np.ndarray:
    """Radii (Å) by atomic number: Bondi's, and 2 Å for elements he has none for."""
    return np.array([_BONDI.get(int(z), _OTHER) for z in numbers])
