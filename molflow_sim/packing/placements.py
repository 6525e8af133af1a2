"""Which space groups, and which sites in them, a packing may use.

Shares of the space groups among organic crystals with one molecule in the asymmetric unit follow the published
statistics of the Cambridge Structural Database (rounded; groups under 0.2 % are left out). Where a group has two
settings with differently shaped cells, both are used in equal parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np

from molflow_sim.packing.tables import Placement
from molflow_sim.symmetry import SpaceGroup

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
