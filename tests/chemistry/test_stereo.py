"""The R/S and E/Z of a SMILES hold in every conformer, or the SMILES is refused by name."""

import warnings

import numpy as np
import pytest
from rdkit import Chem

from molflow_sim import Molecule
from molflow_sim.chemistry.checks import canonical_smiles
from molflow_sim.chemistry.conformers import keeps_stereo, with_stereo
from molflow_sim.errors import ConformerError

WRITTEN = {
    "cis-azobenzene": r"c1ccccc1/N=N\c1ccccc1",
    "trans-azobenzene": r"c1ccccc1/N=N/c1ccccc1",
    "E triazene": r"CN(C)/N=N/c1ccccc1",
    "Z oxime": r"C/C(=N\O)c1ccccc1",
    "Z imine": r"c1ccccc1/C=N\C",
    "cis-butene": r"C/C=C\C",
    "L-alanine": "C[C@H](N)C(=O)O",
    "lindane": "Cl[C@H]1[C@H](Cl)[C@@H](Cl)[C@@H](Cl)[C@H](Cl)[C@H]1Cl",
}
IMPOSSIBLE = "O1C[C@@]12[C@@H]1O[C@H]3C=C(C)C(=O)[C@H](O)[C@@]3(CO)[C@@]2(C[C@@H]1O)C"


@pytest.mark.parametrize("name", WRITTEN)
def test_every_conformer_has_the_stereochemistry_that_is_written(name):
    written = canonical_smiles(Chem.AddHs(Chem.MolFromSmiles(WRITTEN[name])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing was left open, so nothing was chosen
        molecule = Molecule.from_smiles(WRITTEN[name])
    assert molecule.smiles == written
    assert {canonical_smiles(with_stereo(molecule.rdmol, x)) for x in molecule.conformers} == {written}


def test_stereochemistry_that_cannot_be_kept_or_built_is_refused_by_name():
    with pytest.raises(ConformerError, match=r"does not keep the stereochemistry.*CN\(C\)/N=N/c1ccccc1"):
        Molecule.from_smiles(r"CN(C)/N=N\c1ccccc1")
    with pytest.raises(ConformerError, match=r"stereochemistry that is written.*strained or impossible"):
        Molecule.from_smiles(IMPOSSIBLE)


def test_what_is_left_open_may_be_either_and_what_is_written_may_not():
    def shown(smiles: str, other: str) -> bool:
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        x = Molecule.from_smiles(other, n_conformers=1).conformers
        match = Chem.AddHs(Chem.MolFromSmiles(other)).GetSubstructMatch(mol, useChirality=False)
        return bool(keeps_stereo(mol, x[:, list(match)])[0])

    assert shown("CC=CC", r"C/C=C\C") and shown(r"C/C=C\C", r"C/C=C\C") and not shown(r"C/C=C/C", r"C/C=C\C")
    assert shown("C[C@H](N)C(=O)O", "C[C@H](N)C(=O)O") and not shown("C[C@@H](N)C(=O)O", "C[C@H](N)C(=O)O")


def test_a_mirrored_conformer_is_the_other_hand():
    molecule = Molecule.from_smiles(WRITTEN["L-alanine"], n_conformers=1)
    assert keeps_stereo(molecule.rdmol, np.array([molecule.conformers[0], -molecule.conformers[0]])).tolist() == [1, 0]
