"""Small molecular crystals for tests of the potential and of relaxation."""

from functools import lru_cache

import numpy as np
from scipy.spatial.transform import Rotation

from molflow_sim.symmetry import SpaceGroup, cell_matrix
from molflow_sim.systems.crystal import MolecularCrystal, RigidMolecule
from molflow_sim.systems.molecule import Molecule

# SMILES, space group, cell, centroid, seed of the orientation: loose packings without overlaps
_CRYSTALS = {
    "urea": ("NC(N)=O", "P 1 21/c 1", (8.6, 5.6, 6.8, 90.0, 100.0, 90.0), (0.22, 0.3, 0.17), 7),
    "formamide": ("NC=O", "P 1 21/c 1", (6.0, 7.4, 7.2, 90.0, 101.0, 90.0), (0.22, 0.28, 0.17), 5),
    "acetonitrile": ("CC#N", "P -1", (4.6, 5.9, 6.6, 75.0, 109.0, 66.0), (0.25, 0.25, 0.2), 4),
    "glycolic": ("OCC(=O)O", "P 21 21 21", (6.4, 7.9, 8.9, 90.0, 90.0, 90.0), (0.1, 0.2, 0.3), 9),
    "acetamide": ("CC(N)=O", "P -1", (7.0, 6.5, 9.2, 75.0, 109.0, 66.0), (0.25, 0.25, 0.2), 3),
    "propargyl alcohol": ("C#CCO", "P 1 21/c 1", (8.9, 7.1, 7.0, 90.0, 118.0, 90.0), (0.2, 0.3, 0.1), 4),
    "pyruvonitrile": ("CC(=O)C#N", "P 21 21 21", (6.8, 7.6, 8.4, 90.0, 90.0, 90.0), (0.1, 0.2, 0.3), 5),
    "aspirin": ("CC(=O)Oc1ccccc1C(=O)O", "P 1 21/c 1", (12.4, 8.0, 12.4, 90.0, 95.0, 90.0), (0.22, 0.3, 0.17), 8),
}


@lru_cache
def molecule(smiles: str) -> Molecule:
    """One conformer."""
    return Molecule.from_smiles(smiles, n_conformers=1, seed=1)


def crystal(name: str, scale: float = 1.0, seed: int | None = None) -> MolecularCrystal:
    """One of the examples, its cell lengths times `scale`, its orientation from another seed if given."""
    smiles, group, cell, centroid, own_seed = _CRYSTALS[name]
    mol, space_group = molecule(smiles), SpaceGroup.from_name(group)
    rotation = Rotation.random(random_state=own_seed if seed is None else seed).as_matrix()
    rigid = RigidMolecule(0, mol.conformers[0], np.array(centroid), rotation, tuple(range(space_group.order)))
    matrix = cell_matrix(np.array(cell)) * scale
    return MolecularCrystal((mol,), (rigid,), space_group, matrix)
