"""Conformers as crystals have them: families, shares, and who draws by them."""

from dataclasses import replace

import numpy as np
import pytest
from rdkit import Chem
from refusals import refuses

from molflow_sim import Molecule
from molflow_sim.chemistry.bonds import automorphisms
from molflow_sim.chemistry.conformers import best_rmsd, core_atoms
from molflow_sim.chemistry.crystal_conformers import SAME_RMSD
from molflow_sim.chemistry.rotors import torsions
from molflow_sim.errors import MoleculeError
from molflow_sim.packing import random_packings
from molflow_sim.screening.serialise import molecule_from_json, molecule_identity, molecule_to_json


@pytest.fixture(scope="module")
def succinic() -> Molecule:
    return Molecule.from_smiles("OC(=O)CCC(=O)O", name="succinic acid")


def test_shares_belong_to_the_conformers_and_sum_to_one(succinic):
    assert len(succinic.conformers) > len(Molecule.from_smiles(succinic.smiles, n_conformers=10).conformers)
    assert succinic.shares.shape == succinic.energies.shape
    assert succinic.shares.sum() == pytest.approx(1.0) and np.all(succinic.shares > 0.0)


def test_no_two_conformers_are_the_same(succinic):
    core = core_atoms(succinic.rdmol)
    matches = automorphisms(succinic.rdmol, core, max_matches=500)
    x = succinic.conformers[:, core]
    # symmetric versions of a conformer are kept beside it on purpose and may differ in other hydrogens only
    distances = [best_rmsd(x[i], x[j], matches, mirror=True) for i in range(len(x)) for j in range(i)]
    assert np.mean(np.array(distances) > SAME_RMSD) > 0.99


def test_a_rigid_molecule_has_one_conformer_with_all_the_share():
    naphthalene = Molecule.from_smiles("c1ccc2ccccc2c1")
    np.testing.assert_array_equal(naphthalene.shares, [1.0])


def test_a_zwitterion_that_folds_in_vacuum_has_open_conformers_too():
    def reach(molecule: Molecule) -> float:
        nitrogen, carbon = molecule.rdmol.GetSubstructMatch(Chem.MolFromSmarts("[NH3+]CCC(=O)[O-]"))[::3]
        return float(np.linalg.norm(molecule.conformers[:, nitrogen] - molecule.conformers[:, carbon], axis=1).max())

    folded = Molecule.from_smiles("[NH3+]CCC(=O)[O-]", n_conformers=10)
    assert reach(folded) < 3.3 and reach(Molecule.from_smiles("[NH3+]CCC(=O)[O-]")) > 3.7


def test_other_conformers_are_drawn_by_their_strain_again(succinic):
    pair = succinic.with_conformers(succinic.conformers[[0, -1]])
    assert pair.shares[0] > pair.shares[1] and pair.shares.sum() == pytest.approx(1.0)


def test_torsions_are_those_of_single_bonds_with_something_on_both_sides():
    def count(smiles: str) -> int:
        return len(torsions(Chem.AddHs(Chem.MolFromSmiles(smiles))))

    assert count("c1ccccc1") == 0 and count("c1ccc(-c2ccccc2)cc1") == 1
    assert count("OC(=O)c1ccccc1") == 2
    assert count("CC#CC") == 0


def test_torsions_without_methyl_groups_are_those_that_make_conformers():
    def count(smiles: str) -> int:
        return len(torsions(Chem.AddHs(Chem.MolFromSmiles(smiles)), methyl=False))

    assert count("CC") == count("CN") == count("C[NH3+]") == 0
    assert count("CCO") == count("CCN") == 1, "the hydroxyl or amino group, not the methyl group"
    assert count("CCCC") == count("CC(=O)NCC") - 1 == 1


def test_random_packings_draw_conformers_by_their_shares(succinic):
    only_last = replace(succinic, shares=np.eye(len(succinic.conformers))[-1])
    packings = random_packings(only_last, 50, space_groups=["P 21/c"], seed=0)
    general = np.array([packings.placements[k].is_general for k in packings.placement])
    assert np.all(packings.conformer[general] == len(succinic.conformers) - 1)


@pytest.mark.parametrize("shares", [[1.0], [-1.0] * 2, [0.0] * 2, [np.nan] * 2])
def test_shares_that_make_no_sense_are_refused(succinic, shares):
    pair = succinic.with_conformers(succinic.conformers[:2])
    refuses(MoleculeError, "shares", replace, pair, shares=np.array(shares))


def test_shares_are_stored_and_part_of_a_runs_identity(succinic):
    again = molecule_from_json(molecule_to_json(succinic))
    np.testing.assert_array_equal(again.shares, succinic.shares)
    even = replace(succinic, shares=np.ones(len(succinic.conformers)))
    assert molecule_identity(even) != molecule_identity(succinic) == molecule_identity(again)
