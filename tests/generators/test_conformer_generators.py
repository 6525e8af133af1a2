"""Conformers: numbered draws, minima, and one molecule with energies and shares."""

import numpy as np
import pytest
from rdkit import Chem
from refusals import refuses

from molflow_sim import Molecule, generate
from molflow_sim.chemistry.conformers import keeps_stereo, mmff_energies
from molflow_sim.chemistry.embedding import embedded
from molflow_sim.errors import InputError, UnsupportedElementError
from molflow_sim.generators.conformers import EtkdgConformers, MmffConformers
from molflow_sim.generators.protocol import ConformerRequest
from molflow_sim.testing import validate_generator

CHIRAL = "C[C@H](O)C/C=C/[C@@H](F)CO"
MOLECULE = Molecule.from_smiles(CHIRAL, search=False)


def test_a_molecule_without_a_search_has_one_conformer_in_the_order_of_its_smiles():
    assert MOLECULE.conformers.shape == (1, MOLECULE.n_atoms, 3) and np.isnan(MOLECULE.energies).all()
    order = [a.GetAtomicNum() for a in Chem.AddHs(Chem.MolFromSmiles(CHIRAL)).GetAtoms()]
    assert MOLECULE.numbers.tolist() == order
    assert keeps_stereo(MOLECULE.rdmol, MOLECULE.conformers).all()


def test_open_stereochemistry_is_chosen_with_a_warning():
    with pytest.warns(UserWarning, match="not fully specified"):
        assert Molecule.from_smiles("CC(O)F", search=False).smiles in ("C[C@H](O)F", "C[C@@H](O)F")


@pytest.mark.parametrize("generator", [EtkdgConformers(), EtkdgConformers(False), MmffConformers()])
def test_generators_keep_the_protocol(generator):
    validate_generator(generator, ConformerRequest(MOLECULE))


def test_an_embedding_depends_on_its_number_alone_where_others_fail(monkeypatch):
    monkeypatch.setattr("molflow_sim.chemistry.embedding.ATTEMPTS", 1)
    cage = Chem.AddHs(Chem.MolFromSmiles("C1C2CC3CC1CC(C2)C3"))
    whole = embedded(cage, 6, seed=5)
    again = embedded(cage, 3, seed=5, first_index=3)
    for a, b in zip(whole[3:], again):
        assert (a is None and b is None) or np.array_equal(a, b)


@pytest.mark.parametrize("method", ["etkdg", "mmff"])
def test_conformers_come_as_one_molecule_lowest_first_with_shares(method):
    found = generate("conformers", CHIRAL, n=8, method=method, seed=1)
    assert isinstance(found, Molecule) and found.smiles == MOLECULE.smiles
    assert keeps_stereo(found.rdmol, found.conformers).all()
    assert np.allclose(found.energies, mmff_energies(found.rdmol, found.conformers))
    assert np.all(np.diff(found.energies) >= 0.0) and found.shares.sum() == pytest.approx(1.0)
    assert found.info["generator"] == method and found.info["seed"] == 1 and found.info["version"]


def test_boron_is_refused_by_mmff_alone():
    assert len(generate("conformers", "OB(O)c1ccccc1", n=2, method="etkdg").conformers) == 2
    refuses(UnsupportedElementError, "boron", generate, "conformers", "OB(O)c1ccccc1", n=2, method="mmff")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dielectric": 0.5}, "dielectric"),
        ({"press": True}, "pressed"),
        ({"n": 0}, "at least 1"),
        ({"x": 1}, "unknown"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options, words):
    refuses(InputError, words, generate, "conformers", "CCO", **{"n": 2, "method": "mmff", **options})
