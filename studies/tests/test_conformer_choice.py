"""The study of how conformers are chosen judges each side on the same measured molecules."""

import json

import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from molflow_sim.dataset import build_conformer_dataset
from studies.conformer_choice import Best, main, options_of, table


def test_sides_are_judged_on_molecules_that_turn(tmp_path):
    with Chem.SDWriter(str(tmp_path / "known.sdf")) as writer:
        for smiles in ("CCC(=O)OCCNC", "c1ccccc1C"):
            mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
            rdDistGeom.EmbedMolecule(mol, randomSeed=5)
            mol.SetProp("_Name", smiles)
            writer.write(mol)
    build_conformer_dataset(output=tmp_path / "set", sdf=tmp_path / "known.sdf", source="measured", progress=False)
    out = tmp_path / "out.json"
    command = [str(tmp_path / "set"), "-o", str(out), "-n", "4", "--seeds", "1"]
    main([*command, "--sides", "few=pool:8,bases:4", "pool"])
    few, pool = json.loads(out.read_text())["table"]
    assert few["molecules"] == pool["molecules"] == 1
    assert few["conformers"] <= 4 < pool["conformers"] == 56
    assert 0.0 < pool["mean Å"] < 1.0 and few["against the first"].startswith("+0.0000")


def test_options_of_a_side_are_read():
    assert options_of("x=bases:90,energy:'none'") == {"bases": 90, "energy": "none"} and options_of("default=") == {}


def test_a_difference_counts_each_molecule_once():
    rows = [
        Best(name, side, seed, 3, shift + seed * change, 5, 1.0)
        for side, change in (("a", 0.0), ("b", 0.2))
        for name, shift in (("p", 0.3), ("q", 0.4))
        for seed in (0, 1)
    ]
    first, second = table(rows).rows
    assert first["against the first"] == "+0.0000 ± 0.0000" and second["against the first"] == "+0.1000 ± 0.0000"
    assert second["mean Å"] == pytest.approx(0.45) and second["0–3"] == pytest.approx(0.45) and second["≥ 7"] is None
