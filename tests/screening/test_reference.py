"""A reference is a crystal of the screened molecule, stereochemistry included."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from refusals import refuses

from molflow_sim import Molecule
from molflow_sim.errors import CrystalError
from molflow_sim.forcefield import ChargeSites
from molflow_sim.packing import press, random_packings
from molflow_sim.screening import ScreenSettings, Stages
from molflow_sim.screening.reference import _parameters, read_reference
from molflow_sim.screening.stages import Shared, parametrize

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


def test_the_reference_has_the_charges_of_the_screened_molecule_atom_by_atom_and_beside_them(alanines):
    flat = molecule("CC(N)C(=O)O")
    experiment = read_reference(alanines["one hand"], flat)
    n = flat.n_atoms
    beside = np.arange(2 * n) - n + 0.5  # each charge another, so that none is taken for another
    own = replace(parametrize(flat, "mmff94"), charges=beside[:n])
    own = replace(own, sites=ChargeSites(np.concatenate([np.eye(n), np.roll(np.eye(n), 1, 0)]), beside))
    there = _parameters(experiment, Shared(Stages(), flat, own, ScreenSettings()))
    x = np.random.default_rng(0).normal(size=(n, 3))
    moved = np.empty_like(x)
    moved[experiment.atom_map] = x  # the same atoms in the order of the reference
    np.testing.assert_array_equal(there.charges[experiment.atom_map], own.charges)
    at = {q: place for q, place in zip(there.sites.charges, there.sites.weights @ moved)}
    np.testing.assert_allclose([at[q] for q in own.sites.charges], own.sites.weights @ x)
    np.testing.assert_array_equal(there.sites.weights[:n], np.eye(n))
