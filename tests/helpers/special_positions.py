"""Crystals of symmetric molecules on special positions, and CIF texts of known crystals, for several tests."""

from functools import lru_cache

import numpy as np
from scipy.spatial.transform import Rotation

from molflow_sim import MolecularCrystal, Molecule, SpaceGroup
from molflow_sim.symmetry import cell_matrix
from molflow_sim.systems.crystal import RigidMolecule

# name: SMILES, space group, cell, centroid, operations to align (determinant, trace, axis in the crystal)
SITES = {
    "inversion": ("c1ccccc1", "P -1", (6.5, 7.0, 7.5, 80, 95, 100), (0, 0, 0), []),
    "inversion in P21/c": ("c1ccc2ccccc2c1", "P 1 21/c 1", (9.5, 9.0, 10.5, 90, 105, 90), (0, 0, 0), []),
    "twofold": ("O", "P 1 2 1", (5.0, 5.5, 6.0, 90, 98, 90), (0, 0.1, 0), [(1, -1, "y")]),
    "twofold in C2/c": ("O", "C 1 2/c 1", (7.0, 6.5, 8.0, 90, 98, 90), (0, 0.2, 0.25), [(1, -1, "y")]),
    "mirror": ("C=O", "P 1 21/m 1", (5.5, 6.0, 6.5, 90, 98, 90), (0.3, 0.25, 0.4), [(-1, 1, "y")]),
    "mm2": ("O", "P m m 2", (4.5, 5.0, 5.5, 90, 90, 90), (0, 0, 0.2), [(1, -1, "z"), (-1, 1, "x")]),
    "-3": ("c1ccccc1", "R -3:H", (11.0, 11.0, 9.0, 90, 90, 120), (0, 0, 0), [(1, 2, "z")]),
    "-6": ("c1ncncn1", "P 63/m", (9.0, 9.0, 7.5, 90, 90, 120), (1 / 3, 2 / 3, 0.25), [(1, 0, "z")]),
}
_AXES = {"x": (1.0, 0, 0), "y": (0, 1.0, 0), "z": (0, 0, 1.0)}


@lru_cache
def molecule(smiles: str) -> Molecule:
    """One conformer."""
    return Molecule.from_smiles(smiles, n_conformers=1)


@lru_cache
def special(name: str) -> MolecularCrystal:
    """One of `SITES`, the molecule exactly symmetric and turned so that its operations are the site's."""
    smiles, symbol, cell, centroid, align = SITES[name]
    mol, group = molecule(smiles), SpaceGroup.from_name(symbol)
    matrices, _ = mol.point_group_operations(0)
    body = mol.symmetrised(0)
    rotation = np.eye(3)
    if align:
        own = [_axis(matrices, *wanted[:2]) for wanted in align]
        if len(own) == 2:  # of several mirrors, take one that contains the first axis
            own[1] -= own[0] * (own[0] @ own[1])
        rotation = Rotation.align_vectors([_AXES[a[2]] for a in align], own)[0].as_matrix()
    site = np.array(centroid, dtype=float)
    matrix = cell_matrix(group.constrain(np.array(cell, dtype=float)))
    rigid = RigidMolecule(0, body, site, rotation, coset_representatives(group, site))
    return MolecularCrystal((mol,), (rigid,), group, matrix, {"name": name})


def _axis(matrices: np.ndarray, determinant: int, trace: float) -> np.ndarray:
    """The axis of the first operation of this kind."""
    for m in matrices:
        if round(np.linalg.det(m)) == determinant and abs(np.trace(m) - trace) < 1e-6:
            values, vectors = np.linalg.eig(m)
            return np.real(vectors[:, np.argmin(np.abs(values - determinant))]).copy()
    raise LookupError("no such operation")


def coset_representatives(group: SpaceGroup, site: np.ndarray) -> tuple[int, ...]:
    """First operation for each distinct image of a point."""
    images = group.rotations @ site + group.translations
    kept: list[int] = []
    for g, x in enumerate(images):
        gap = images[kept] - x
        if not kept or np.abs(gap - np.rint(gap)).max(axis=1).min() > 1e-6:
            kept.append(g)
    return tuple(kept)


def general(
    smiles: str, symbol: str, cell: tuple[float, ...], centroid: tuple[float, ...], seed: int = 0
) -> MolecularCrystal:
    """A molecule in a general position, turned at random."""
    mol, group = molecule(smiles), SpaceGroup.from_name(symbol)
    rotation = Rotation.random(random_state=seed).as_matrix()
    rigid = RigidMolecule(0, mol.conformers[0], np.array(centroid), rotation, tuple(range(group.order)))
    matrix = cell_matrix(group.constrain(np.array(cell, dtype=float)))
    return MolecularCrystal((mol,), (rigid,), group, matrix, {"name": f"{smiles} in {symbol}"})


def largest_distance(a: MolecularCrystal, numbers: np.ndarray, fractional: np.ndarray) -> float:
    """Largest distance in Å between an atom of `a` and the nearest given one of its element, lattice respected."""
    own, positions, _, _ = a.unit_cell()
    if sorted(own.tolist()) != sorted(np.asarray(numbers).tolist()):
        return np.inf
    mine = positions @ np.linalg.inv(a.cell)
    worst = 0.0
    for z in set(own.tolist()):
        gap = mine[own == z][:, None] - fractional[np.asarray(numbers) == z][None]
        distance = np.linalg.norm((gap - np.rint(gap)) @ a.cell, axis=-1)
        worst = max(worst, distance.min(axis=0).max(), distance.min(axis=1).max())
    return float(worst)


UREA = """data_urea
_cell_length_a 5.565(1)
_cell_length_b 5.565(1)
_cell_length_c 4.684(1)
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P -4 21 m'
loop_
_symmetry_equiv_pos_as_xyz
x,y,z
-x,-y,z
y,-x,-z
-y,x,-z
1/2-x,1/2+y,-z
1/2+x,1/2-y,-z
1/2-y,1/2-x,z
1/2+y,1/2+x,z
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
C1 C 0.0000 0.5000 0.3260 1
O1 O 0.0000 0.5000 0.5953 1
N1 N 0.1459 0.6459 0.1766 1
H1 H 0.2575 0.7575 0.2827 1
H2 H 0.1441 0.6441 -0.0380 1
"""
"""Urea by neutron diffraction (Swaminathan, Craven & McMullan, Acta Cryst. B40, 300, 1984)."""
