"""A rigid molecule of the asymmetric unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from molflow_sim.systems.molecule import Molecule


@dataclass(frozen=True, eq=False)
class RigidMolecule:
    """One molecule of the asymmetric unit.

    Attributes
    ----------
    species : int
        Index into `MolecularCrystal.molecules`.
    conformer : ndarray (N, 3)
        Body-frame positions in Å, centred on the centre of mass, in the species' atom order.
    centroid : ndarray (3,)
        Fractional centre of mass.
    orientation : ndarray (3, 3)
        Rotation R from the body frame to the crystal's Cartesian frame.
    images : tuple of int
        Space-group operations that give the distinct copies in the cell: all of them in a general position, coset
        representatives of the site symmetry on a special position.
    """

    species: int
    conformer: np.ndarray
    centroid: np.ndarray
    orientation: np.ndarray
    images: tuple[int, ...]


def rigid_from_cartesian(
    species: int, molecule: Molecule, positions: np.ndarray, cell: np.ndarray, images: tuple[int, ...]
) -> RigidMolecule:
    """The rigid molecule with the given whole Cartesian positions (N, 3) and the identity as its orientation."""
    centre = np.average(positions, axis=0, weights=molecule.masses)
    return RigidMolecule(species, positions - centre, centre @ np.linalg.inv(cell), np.eye(3), images)
