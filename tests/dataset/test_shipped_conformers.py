"""The ensembles under data/ are what their contents say: molecules of the SMILES, split by molecule, in small files."""

import json
from pathlib import Path

import numpy as np
from rdkit import Chem

from molflow_sim.chemistry.bonds import perceive_bonds
from molflow_sim.chemistry.conformers import keeps_stereo
from molflow_sim.dataset import read_ensembles
from molflow_sim.dataset.skeletons import skeletons, three_way_split
from molflow_sim.io.ensembles import SPLITS

FOLDER = Path(__file__).parents[2] / "data" / "conformers"
ENSEMBLES = read_ensembles(FOLDER)


def test_files_are_small_and_counted():
    told = json.loads((FOLDER / "contents.json").read_text())
    assert sorted(told["files"]) == sorted(path.name for path in FOLDER.glob("*.npz"))
    assert all(path.stat().st_size < 15e6 for path in FOLDER.iterdir())
    for split in SPLITS:
        side = [e for e in ENSEMBLES if e.split == split]
        assert told[split] == {"molecules": len(side), "conformers": sum(map(len, side))}


def test_every_molecule_is_there_once():
    assert len({e.smiles for e in ENSEMBLES}) == len(ENSEMBLES)


def test_energies_and_shares_are_in_order():
    for e in ENSEMBLES:
        assert e.energies[0] == 0.0 and (np.diff(e.energies) >= 0.0).all()
        assert e.energies[-1] <= 25.0 / 96.485 + 1e-5
        assert abs(e.shares.sum() - 1.0) < 1e-9


def test_conformers_have_the_bonds_the_stereochemistry_and_the_side_of_their_smiles():
    for e in ENSEMBLES[::17]:
        mol = Chem.AddHs(Chem.MolFromSmiles(e.smiles))
        assert [a.GetAtomicNum() for a in mol.GetAtoms()] == e.numbers.tolist()
        assert keeps_stereo(mol, e.positions.astype(float)).all(), e.smiles
        bonds = {tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))) for b in mol.GetBonds()}
        for x in e.positions.astype(float):
            found, _ = perceive_bonds(e.numbers, x)
            assert {tuple(sorted(map(int, pair))) for pair in found} == bonds, e.smiles
        assert e.split == three_way_split(skeletons(mol))
