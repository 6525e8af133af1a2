"""A reference is a crystal of the screened molecule, stereochemistry included."""

import warnings
from pathlib import Path

import pytest
from refusals import refuses

from molflow_sim import Molecule
from molflow_sim.errors import CrystalError
from molflow_sim.packing import press, random_packings
from molflow_sim.screening.reference import read_reference
from molflow_sim.screening.stages import parametrize

DATA = Path(__file__).parents[1] / "data"
BETA_HCH = DATA / "HCCYHB.cif"


def molecule(smiles: str) -> Molecule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Molecule.from_smiles(smiles, n_conformers=1)


def test_another_diastereomer_is_refused_by_name_and_the_same_one_accepted():
    lindane = molecule("Cl[C@H]1[C@H](Cl)[C@@H](Cl)[C@@H](Cl)[C@H](Cl)[C@H]1Cl")
    with pytest.raises(CrystalError, match=r"HCCYHB.cif is another stereoisomer, Cl\[C@H\]1.*screen that SMILES"):
        read_reference(BETA_HCH, lindane)
    beta = molecule("Cl[C@H]1[C@H](Cl)[C@@H](Cl)[C@H](Cl)[C@@H](Cl)[C@@H]1Cl")
    assert sorted(read_reference(BETA_HCH, beta).atom_map) == list(range(18))


@pytest.fixture(scope="module")
def alanines(tmp_path_factory) -> dict[str, Path]:
    """Crystals of alanine's neutral form: of one hand, and racemic."""
    flat, folder = molecule("CC(N)C(=O)O"), tmp_path_factory.mktemp("alanine")
    found = {}
    for name, group in (("one hand", "P 21 21 21"), ("racemic", "P 21/c")):
        pressed = press(random_packings(flat, 4, space_groups=[group]), parametrize(flat, "mmff94"))
        found[name] = folder / f"{name}.cif"
        found[name].write_text(pressed.crystal(int(pressed.ok.argmax())).to_cif())
    return found


def test_a_smiles_without_a_hand_accepts_either_and_the_racemate(alanines):
    for path in alanines.values():
        read_reference(path, molecule("CC(N)C(=O)O"))


def test_a_written_hand_accepts_its_own_crystal_only(alanines):
    hands = ["C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"]
    refused = []
    for smiles in hands:
        try:
            read_reference(alanines["one hand"], molecule(smiles))
        except CrystalError as error:
            assert "another stereoisomer" in str(error)
            refused.append(smiles)
    assert len(refused) == 1
    with pytest.raises(CrystalError, match=r"racemic crystal.*leave the stereochemistry out"):
        read_reference(alanines["racemic"], molecule(hands[0]))


def test_a_racemate_dumped_in_p1_is_a_reference_for_the_smiles_without_a_hand():
    dump = DATA / "ibuprofen_P1_ase.cif"
    read_reference(dump, molecule("CC(C)Cc1ccc(cc1)C(C)C(=O)O"))
    refuses(CrystalError, "racemic crystal", read_reference, dump, molecule("CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O"))
