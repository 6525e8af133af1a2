"""Molecular clusters: checks at the door, cut out of crystals, in and out of other libraries."""

import numpy as np
import pytest
from ase import Atoms
from refusals import refuses
from scipy.spatial.distance import cdist
from special_positions import UREA, general, molecule, special

from molflow_sim import MolecularCluster, MolecularCrystal
from molflow_sim.errors import ClusterError, CrystalError

WATER, METHANE = molecule("O"), molecule("C")
BOX = np.diag([20.0, 21.0, 22.0])


def mixture(cell=None) -> MolecularCluster:
    """Water, methane, water, 5 Å apart."""
    order = [0, 1, 0]
    parts = [(WATER, METHANE)[s].conformers[0] + [5.0 * k + 1.0, 1.0, 1.0] for k, s in enumerate(order)]
    return MolecularCluster((WATER, METHANE), np.array(order), np.concatenate(parts), cell, {"name": "mixture"})


def test_numbers_of_a_mixture():
    cluster = mixture(BOX)
    assert cluster.n_molecules == 3 and cluster.formula == "(H2O)2(CH4)1"
    np.testing.assert_array_equal(cluster.firsts, [0, 3, 8])
    np.testing.assert_array_equal(cluster.molecule_index, [0] * 3 + [1] * 5 + [2] * 3)
    np.testing.assert_array_equal(cluster.numbers[:3], WATER.numbers)
    np.testing.assert_allclose(cluster.centres, [[1, 1, 1], [6, 1, 1], [11, 1, 1]], atol=1e-12)
    mass = 2 * WATER.molar_mass + METHANE.molar_mass
    assert cluster.density == pytest.approx(mass / 0.602214076 / np.linalg.det(BOX))
    assert len(cluster.bonds) == 8 and cluster.bonds.max() == 10


def test_what_does_not_fit_is_refused():
    good = mixture()
    refuses(ClusterError, r"11 atoms", MolecularCluster, good.species, good.order, good.positions[:-1])
    refuses(ClusterError, "species 2", MolecularCluster, good.species, np.array([0, 2, 0]), good.positions)
    refuses(ClusterError, "at least one", MolecularCluster, good.species, np.array([], dtype=int), np.zeros((0, 3)))
    refuses(ClusterError, "NaN", good.with_positions, np.full((11, 3), np.nan))
    refuses(ClusterError, "box", good.with_positions, good.positions, np.zeros((3, 3)))
    refuses(ClusterError, "no density", lambda: good.density)


@pytest.mark.parametrize(
    "crystal", [general("CC(=O)O", "P 1 21/c 1", (7.0, 6.0, 8.0, 90, 110, 90), (0.2, 0.15, 0.3)),
                special("inversion"), MolecularCrystal.from_cif(UREA)], ids=["acid", "benzene", "urea"]
)  # fmt: skip
def test_a_crystals_cluster_is_the_molecule_and_its_nearest_by_centre_of_mass(crystal):
    cluster = MolecularCluster.from_crystal(crystal)
    assert cluster.n_molecules == 17 and cluster.cell is None
    # all molecules of 7 × 7 × 7 cells
    masses = crystal.molecules[0].masses
    centres = [masses @ x / masses.sum() for x in crystal.copies(0)]
    grid = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3) @ crystal.cell
    distances = np.sort(np.concatenate([np.linalg.norm(c + grid - centres[0], axis=1) for c in centres]))
    np.testing.assert_allclose(np.linalg.norm(cluster.centres, axis=1), distances[:17], atol=1e-6)
    # every molecule has the shape of the crystal's
    shape = np.sort(cdist(crystal.copies(0)[0], crystal.copies(0)[0]).ravel())
    for x in np.split(cluster.positions, cluster.firsts[1:]):
        np.testing.assert_allclose(np.sort(cdist(x, x).ravel()), shape, atol=1e-6)


def test_a_cluster_needs_a_molecule_of_the_crystal():
    refuses(ClusterError, "numbered from 0", MolecularCluster.from_crystal, special("inversion"), 17, centre=1)
    refuses(ClusterError, "at least 1", MolecularCluster.from_crystal, special("inversion"), 0)


@pytest.mark.parametrize("cell", [None, BOX], ids=["open", "box"])
def test_atoms_of_ase_come_back_as_they_went(cell):
    cluster = mixture(cell)
    back = MolecularCluster.from_atoms(cluster.to_ase())
    np.testing.assert_array_equal(back.order, cluster.order)
    np.testing.assert_array_equal(back.numbers, cluster.numbers)
    np.testing.assert_allclose(back.positions, cluster.positions)
    assert (back.cell is None) == (cell is None)
    assert [m.smiles for m in back.species] == ["O", "C"] and back.info["name"] == "mixture"


def test_wrapped_and_shuffled_atoms_become_whole_molecules():
    cluster = mixture(BOX)
    atoms = cluster.to_ase()
    atoms.positions -= 1.2
    atoms.wrap()
    rng = np.random.default_rng(3)
    back = MolecularCluster.from_atoms(atoms[rng.permutation(len(atoms))], molecules=cluster.species)
    assert sorted(back.order) == [0, 0, 1]
    i, j = back.bonds.T
    assert np.linalg.norm(back.positions[i] - back.positions[j], axis=1).max() < 1.2


def test_molecules_upon_each_other_are_told_apart_by_their_numbers():
    x = WATER.conformers[0]
    atoms = MolecularCluster((WATER,), np.array([0, 0]), np.concatenate([x, x + 0.3])).to_ase()
    assert MolecularCluster.from_atoms(atoms).n_molecules == 2
    del atoms.arrays["molecule"]
    refuses(CrystalError, "closer than any bond", MolecularCluster.from_atoms, atoms)


def test_atoms_that_are_no_cluster_are_refused():
    refuses(ClusterError, "some directions", MolecularCluster.from_atoms, Atoms("He", pbc=[1, 0, 0], cell=[9, 9, 9]))
    refuses(ClusterError, "needs atoms", MolecularCluster.from_atoms, Atoms())
    chloride = Atoms("Cl", positions=[[0, 0, 0]])
    refuses(CrystalError, "ions", MolecularCluster.from_atoms, chloride)
    refuses(CrystalError, "none of the given", MolecularCluster.from_atoms, mixture().to_ase(), molecules=[WATER])


def test_openmm_and_mdtraj_see_the_same_molecules():
    cluster = mixture(BOX)
    topology, frame = cluster.to_openmm_topology(), cluster.to_mdtraj()
    assert [r.name for r in topology.residues()] == ["MOA", "MOB", "MOA"] == [r.name for r in frame.topology.residues]
    assert topology.getNumBonds() == 8 == frame.topology.n_bonds
    np.testing.assert_allclose(10 * frame.xyz[0], cluster.positions, atol=1e-5)
    np.testing.assert_allclose(10 * frame.unitcell_vectors[0], BOX, atol=1e-4)
    assert mixture().to_mdtraj().unitcell_vectors is None and mixture().to_openmm_topology() is not None


def test_the_csv_has_a_line_for_every_atom_and_is_read_back(tmp_path):
    cluster = mixture()
    text = cluster.to_csv()
    assert text.splitlines()[0] == "mol_idx,atom_type,x,y,z" and len(text.splitlines()) == 12
    assert text.splitlines()[4].startswith("1,C,")
    path = tmp_path / "a.csv"
    path.write_text(text)
    for back in (MolecularCluster.from_csv(path), MolecularCluster.from_csv(text)):
        np.testing.assert_allclose(back.positions, cluster.positions, atol=1e-5)
        np.testing.assert_array_equal(back.order, cluster.order)
    refuses(ClusterError, "header", MolecularCluster.from_csv, "a,b\n1,C,x\n")
    refuses(ClusterError, "header", MolecularCluster.from_csv, text.partition("\n")[2])
    refuses(ClusterError, "No such file", MolecularCluster.from_csv, tmp_path / "b.csv")
    refuses(ClusterError, "too long", MolecularCluster.from_csv, "b" * 5000)
    path.write_bytes(text.replace("C", "\xc4").encode("latin-1"))
    refuses(ClusterError, "header", MolecularCluster.from_csv, path)


def test_molecules_upon_each_other_are_told_apart_by_the_numbers_of_a_csv():
    water = molecule("O")
    body = water.conformers[0]
    cluster = MolecularCluster((water,), [0, 0], np.concatenate([body, body + np.array([1.2, 0.3, 0.0])]))
    np.testing.assert_allclose(MolecularCluster.from_csv(cluster.to_csv()).positions, cluster.positions, atol=1e-5)
