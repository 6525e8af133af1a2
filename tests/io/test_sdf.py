"""Records of SDF files: what is written is read, however the file ends its lines."""

import gzip

import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from refusals import refuses

from molflow_sim.errors import InputError
from molflow_sim.io.sdf import (
    read_records,
    record_property,
    record_text,
    record_title,
    smiles_of_sdf,
    split_records,
)


def molecule(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(mol, randomSeed=1)
    return mol


RECORDS = [
    record_text(molecule("CCO"), "ethanol\n of  a bottle", {"energy": -1.5, "note": "two\nlines"}),
    record_text(molecule("C"), "", {"smiles": "C"}),
    record_text(molecule("CC"), "", {}),
]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["\n", ""])
def test_records_come_apart_with_their_titles_and_properties(ending, last):
    text = "".join(RECORDS).rstrip("\n") + last
    first, second, third = split_records(text.replace("\n", ending))
    assert record_title(first) == "ethanol of a bottle" and record_title(second) == "" == record_title(third)
    assert (record_property(first, "energy"), record_property(first, "note")) == ("-1.5", "two lines")
    assert record_property(second, "energy") == ""
    atoms = [Chem.MolFromMolBlock(record, removeHs=False).GetNumAtoms() for record in (first, second, third)]
    assert atoms == [9, 5, 8], "a record without a title keeps its empty first line"


def test_a_mol_block_alone_is_one_record():
    block = Chem.MolToMolBlock(molecule("CC"))
    assert split_records(block) == [block]


def test_files_may_be_gzipped(tmp_path):
    text = "".join(RECORDS)
    (tmp_path / "a.sdf").write_text(text)
    (tmp_path / "a.sdf.gz").write_bytes(gzip.compress(text.encode()))
    assert read_records(tmp_path / "a.sdf") == read_records(tmp_path / "a.sdf.gz") == split_records(text)
    assert smiles_of_sdf(tmp_path / "a.sdf") == ["CCO", "C", "CC"], "those of the bond graph where none is written"


def test_what_is_no_sdf_is_refused(tmp_path):
    (tmp_path / "a.sdf").write_text("$$$$\n")
    (tmp_path / "a.sdf.gz").write_bytes(b"no archive")
    refuses(InputError, "holds no record", read_records, tmp_path / "a.sdf")
    refuses(InputError, "cannot be read", read_records, tmp_path / "a.sdf.gz")
    refuses(InputError, "cannot be read", read_records, tmp_path / "absent.sdf")
