"""Which space groups, and which sites in them, a packing may use.

Shares of the space groups among organic crystals with one molecule in the asymmetric unit follow the published
statistics of the Cambridge Structural Database (rounded; groups under 0.2 % are left out). Where a group has two
settings with differently shaped cells, both are used in equal parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from molflow_sim.symmetry.spacegroup import SpaceGroup

# Symbol(s) of the settings -> share in per cent.
COMMON_SPACE_GROUPS: dict[tuple[str, ...], float] = {
    ("P 1 21/c 1", "P 1 21/n 1"): 34.3,
    ("P -1",): 24.7,
    ("C 1 2/c 1", "I 1 2/a 1"): 8.3,
    ("P 21 21 21",): 7.5,
    ("P 1 21 1",): 5.2,
    ("P b c a",): 3.3,
    ("P n a 21",): 1.4,
    ("P n m a",): 1.1,
    ("C 1 c 1", "I 1 a 1"): 1.1,
    ("P 1",): 1.0,
    ("C 1 2 1", "I 1 2 1"): 0.9,
    ("P b c n",): 0.9,
    ("P c a 21",): 0.7,
    ("R -3:H",): 0.7,
    ("P 1 21/m 1",): 0.5,
    ("C 1 2/m 1", "I 1 2/m 1"): 0.5,
    ("P 1 c 1", "P 1 n 1"): 0.5,
    ("P 21 21 2",): 0.4,
    ("P c c n",): 0.4,
    ("I 41/a:2",): 0.4,
    ("F d d 2",): 0.3,
    ("P 41 21 2",): 0.2,
    ("P 43 21 2",): 0.2,
    ("P -4 21 m",): 0.2,
    ("P 41",): 0.2,
    ("P 43",): 0.2,
    ("P 31",): 0.2,
    ("P 32",): 0.2,
    ("C m c 21",): 0.2,
    ("P m n 21",): 0.2,
}

# Groups that owe their share to molecules on mirror planes or other special positions.
MIRROR_GROUPS = frozenset(["P n m a", "P 1 21/m 1", "C 1 2/m 1", "I 1 2/m 1", "P -4 21 m", "C m c 21", "P m n 21"])


@dataclass(frozen=True)
class Placement:
    """A space group together with the site a molecule occupies in it.

    Attributes
    ----------
    space_group : str
        Symbol of the setting.
    crystal_system, unique_axis : str
        They decide which cell parameters are free.
    frac_rot : ndarray, shape (I, 3, 3); frac_tran : ndarray, shape (I, 3); cart_rot : ndarray, shape (I, 3, 3)
        The operations that make the distinct copies of one molecule, the identity first.
    images : tuple of int
        Their indices among the group's operations.
    inverse : ndarray of int, shape (I,)
        Index of each operation's inverse among them, -1 on special positions.
    site_centroid : ndarray, shape (3,)
        A point of the site (fractional); zero for the general position.
    translation_projector, rotation_projector : ndarray, shape (3, 3)
        Cartesian projectors on the displacements and rotation vectors that the site symmetry leaves free.
    orientations : ndarray, shape (K, C, 3, 3)
        For each of the molecule's K conformers, the C rotations that put its symmetry on the site's
        (C = 1, the identity, at the general position); NaN for conformers that lack the symmetry.
    z_prime_per_molecule : float
        1 for the general position, 1/2, 1/4 ... on special ones.
    """

    space_group: str
    crystal_system: str
    unique_axis: str
    frac_rot: np.ndarray
    frac_tran: np.ndarray
    cart_rot: np.ndarray
    images: tuple[int, ...]
    inverse: np.ndarray
    site_centroid: np.ndarray = field(default_factory=lambda: np.zeros(3))
    translation_projector: np.ndarray = field(default_factory=lambda: np.eye(3))
    rotation_projector: np.ndarray = field(default_factory=lambda: np.eye(3))
    orientations: np.ndarray = field(default_factory=lambda: np.eye(3)[None, None])
    z_prime_per_molecule: float = 1.0

    @property
    def is_general(self) -> bool:
        """Whether the molecule sits on the general position."""
        return self.z_prime_per_molecule == 1.0

    @property
    def n_images(self) -> int:
        """Distinct copies of one molecule in the cell."""
        return len(self.frac_tran)

    def cell_basis(self) -> np.ndarray:
        """Directions (6, 3, 3) in which the cell matrix may change, Frobenius norm 1; unused ones are zero."""
        e = np.zeros((6, 3, 3))
        if self.crystal_system in ("trigonal", "hexagonal"):
            e[0] = [[1, 0, 0], [-0.5, 0.75**0.5, 0], [0, 0, 0]]
            e[1, 2, 2] = 1
        elif self.crystal_system == "tetragonal":
            e[0] = np.diag([1.0, 1, 0])
            e[1, 2, 2] = 1
        elif self.crystal_system == "cubic":
            e[0] = np.eye(3)
        else:
            entries = [(0, 0), (1, 1), (2, 2)]
            if self.crystal_system == "triclinic":
                entries += [(1, 0), (2, 0), (2, 1)]
            elif self.crystal_system == "monoclinic":
                entries += [{"a": (2, 1), "b": (2, 0), "c": (1, 0)}[self.unique_axis]]
            for k, (i, j) in enumerate(entries):
                e[k, i, j] = 1
        norm = np.linalg.norm(e, axis=(1, 2), keepdims=True)
        return e / np.where(norm > 0, norm, 1.0)


def stacked_operations(placements: Sequence[Placement]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """frac_rot (P, I, 3, 3), frac_tran (P, I, 3) and cart_rot (P, I, 3, 3) of placements, filled up with identities."""
    size = max(p.n_images for p in placements)
    frac_rot = np.tile(np.eye(3), (len(placements), size, 1, 1))
    cart_rot, frac_tran = frac_rot.copy(), np.zeros((len(placements), size, 3))
    for k, p in enumerate(placements):
        m = p.n_images
        frac_rot[k, :m], frac_tran[k, :m], cart_rot[k, :m] = p.frac_rot, p.frac_tran, p.cart_rot
    return frac_rot, frac_tran, cart_rot


@cache
def general_placement(name: str) -> Placement:
    """The general position of a space group given by its symbol."""
    return placement_from_group(SpaceGroup.from_name(name))


def placement_from_group(group: SpaceGroup) -> Placement:
    """The general position of a space group."""
    return Placement(**images_of(group, range(group.order)) | {"inverse": group.inverses})


def images_of(group: SpaceGroup, images: Iterable[int]) -> dict[str, Any]:
    """The fields of a `Placement` that follow from the group and the operations that make the distinct copies."""
    index = np.array(list(images))
    return {
        "space_group": group.name,
        "crystal_system": group.crystal_system,
        "unique_axis": group.unique_axis,
        "frac_rot": group.rotations[index].astype(float),
        "frac_tran": group.translations[index],
        "cart_rot": group.cartesian_rotations[index],
        "images": tuple(int(i) for i in index),
        "inverse": np.full(len(index), -1),
        "z_prime_per_molecule": len(index) / group.order,
    }
