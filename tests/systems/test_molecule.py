"""Molecules: what is read, what is refused and how, and the conformers."""

from dataclasses import replace

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem
from refusals import refuses

from molflow_sim import Molecule
from molflow_sim.chemistry.bond_orders import molecule_from_graph
from molflow_sim.errors import InputError, MoleculeError, MoleculeTooLargeError, UnsupportedElementError
from molflow_sim.units import KJ_PER_MOL


@pytest.fixture(scope="module")
def aspirin() -> Molecule:
    return Molecule.from_smiles("CC(=O)Oc1ccccc1C(=O)O", name="aspirin")


def test_atoms_bonds_and_identity_of_aspirin(aspirin):
    assert aspirin.n_atoms == 21 and aspirin.formula == "C9H8O4"
    assert aspirin.symbols.count("H") == 8 and aspirin.bonds.shape == (21, 2)
    assert np.all(aspirin.bonds[:, 0] < aspirin.bonds[:, 1])
    assert aspirin.molar_mass == pytest.approx(180.16, abs=0.01)
    assert aspirin.inchi_key == "BSYNRYMUTXBXSQ-UHFFFAOYSA-N"
    assert Chem.CanonSmiles(aspirin.smiles) == Chem.CanonSmiles("CC(=O)Oc1ccccc1C(=O)O")
    assert 140 < aspirin.volume < 170
    assert aspirin.name == "aspirin"


def test_conformers_are_centred_and_sorted(aspirin):
    x, e = aspirin.conformers, aspirin.energies
    assert len(x) >= 2  # the carboxyl group turns
    np.testing.assert_allclose(np.einsum("n,knx->kx", aspirin.masses, x), 0.0, atol=1e-8)
    assert np.all(np.diff(e) >= 0)
    np.testing.assert_allclose(aspirin.with_conformers(x).energies, e, atol=1e-6)


def test_a_number_of_conformers_gives_the_lowest_vacuum_minima_inside_the_window():
    e = Molecule.from_smiles("CC(=O)Oc1ccccc1C(=O)O", n_conformers=10).energies
    assert len(e) >= 2 and e[-1] - e[0] <= 25.0 * KJ_PER_MOL


def test_same_seed_gives_the_same_conformers_bit_for_bit():
    a, b = (Molecule.from_smiles("OCCc1ccccc1", seed=3) for _ in range(2))
    np.testing.assert_array_equal(a.conformers, b.conformers)
    np.testing.assert_array_equal(a.energies, b.energies)


def test_a_rigid_molecule_keeps_one_conformer_and_a_flexible_one_several():
    assert len(Molecule.from_smiles("c1ccc2ccccc2c1").conformers) == 1
    assert len(Molecule.from_smiles("Oc1ccccc1O").conformers) >= 2  # hydroxyl rotamers
    assert len(Molecule.from_smiles("OCCCCO", n_conformers=3).conformers) == 3


def test_mirror_images_of_an_achiral_molecule_count_once():
    # gauche butane has two enantiomorphous forms; with trans that makes two conformers, not three
    assert len(Molecule.from_smiles("CCCC").conformers) == 2


def test_rotamers_that_statistics_of_known_crystals_disfavour_are_found():
    # the amide of acetylurea that closes a hydrogen-bonded ring is one of the lowest
    molecule = Molecule.from_smiles("CC(=O)NC(N)=O")
    acetyl = molecule.rdmol.GetSubstructMatch(Chem.MolFromSmarts("[CH3]C(=O)N"))[2]
    amine = molecule.rdmol.GetSubstructMatch(Chem.MolFromSmarts("[NH2]"))[0]
    hydrogens = [n.GetIdx() for n in molecule.rdmol.GetAtomWithIdx(amine).GetNeighbors() if n.GetAtomicNum() == 1]
    distances = np.linalg.norm(molecule.conformers[:, hydrogens] - molecule.conformers[:, [acetyl]], axis=-1)
    assert distances.min() < 2.1


@pytest.mark.parametrize(
    ("smiles", "error", "word"),
    [
        ("", MoleculeError, "empty"),
        ("   ", MoleculeError, "empty"),
        ("C1CC", MoleculeError, "SMILES"),
        ("c1ccccc", MoleculeError, "SMILES"),
        ("C(C)(C)(C)(C)C", MoleculeError, "valence"),
        ("not a molecule", MoleculeError, "white space"),
        ("CCO.CCN", MoleculeError, "co-crystals"),
        ("[Na+].[Cl-]", MoleculeError, "not supported"),
        ("C[CH]C", MoleculeError, "radical"),
        ("CC(=O)[O-]", MoleculeError, "charge"),
        ("C[Pt]C", UnsupportedElementError, "Pt"),
        ("[SeH]C", UnsupportedElementError, "Se"),
        ("*C", UnsupportedElementError, "element"),
        ("OB(O)c1ccccc1", UnsupportedElementError, "boron"),
        ("C" * 80, MoleculeTooLargeError, "200"),
        ("C" * 5000, MoleculeTooLargeError, "200"),
    ],
)
def test_what_cannot_be_handled_is_refused_by_name(smiles, error, word, capfd):
    refuses(error, word, Molecule.from_smiles, smiles)
    assert capfd.readouterr().err == ""  # nothing from RDKit's own log


def test_unspecified_stereochemistry_is_chosen_once_and_said():
    with pytest.warns(UserWarning, match="stereochemistry"):
        molecule = Molecule.from_smiles("CC(O)C(=O)O")
    assert "@" in molecule.smiles
    assert molecule.is_chiral


def test_is_chiral_means_fixed_handedness():
    assert Molecule.from_smiles("C[C@H](N)C(=O)O").is_chiral
    assert not Molecule.from_smiles("O[C@H](C(=O)O)[C@@H](O)C(=O)O").is_chiral  # meso-tartaric acid
    assert Molecule.from_smiles("O[C@H](C(=O)O)[C@H](O)C(=O)O").is_chiral
    assert not Molecule.from_smiles("CCCC").is_chiral


def test_isotopes_count_in_the_mass():
    assert Molecule.from_smiles("[2H]C([2H])([2H])O").masses.sum() == pytest.approx(35.06, abs=0.01)


def test_keys_tell_tautomers_apart_though_inchi_does_not():
    a, b = Molecule.from_smiles("Oc1ccccn1"), Molecule.from_smiles("O=c1cccc[nH]1")
    assert a.inchi_key == b.inchi_key and a.key != b.key


@pytest.mark.parametrize(
    "smiles",
    [
        "CC(=O)Nc1ccc(O)cc1", "O=[N+]([O-])c1ccccc1", "C#N", "N#CC#N", "CS(=O)(=O)N", "O=c1[nH]c(=O)[nH]c2[nH]cnc12",
        "CN=[N+]=[N-]", "C=C=C", "[O-][n+]1ccccc1", "CP(=O)(O)O", "[NH3+]CC(=O)[O-]", "C/C=C/C", "C/C=C\\C",
        "N[C@@H](Cc1c[nH]c2ccccc12)C(=O)O", "C[Si](C)(C)C", "FC(F)(F)c1nnn[nH]1",
    ],
)  # fmt: skip
def test_bonds_charges_and_stereo_come_back_from_coordinates_alone(smiles, tmp_path):
    molecule = Molecule.from_smiles(smiles, n_conformers=1)
    rows = [f"{s} {x:.5f} {y:.5f} {z:.5f}" for s, (x, y, z) in zip(molecule.symbols, molecule.conformers[0])]
    path = tmp_path / "m.xyz"
    path.write_text("\n".join([str(len(rows)), "title", *rows]) + "\n")
    back = Molecule.from_file(path)
    assert back.smiles == molecule.smiles
    np.testing.assert_array_equal(back.numbers, molecule.numbers)


def test_mol_and_sdf_files_keep_their_coordinates(aspirin, tmp_path):
    mol = Chem.Mol(aspirin.rdmol)
    conformer = Chem.Conformer(mol.GetNumAtoms())
    conformer.SetPositions(aspirin.conformers[1])
    mol.AddConformer(conformer)
    (tmp_path / "a.mol").write_text(Chem.MolToMolBlock(mol))
    (tmp_path / "a.sdf").write_text(Chem.MolToMolBlock(mol) + "$$$$\n")
    for name in ("a.mol", "a.sdf"):
        back = Molecule.from_file(tmp_path / name)
        assert back.smiles == aspirin.smiles
        np.testing.assert_allclose(back.conformers[0], aspirin.conformers[1], atol=2e-4)


def test_an_sdf_file_of_several_molecules_says_that_the_first_is_taken(aspirin, tmp_path):
    urea = Molecule.from_smiles("NC(N)=O").rdmol
    text = "".join(Chem.MolToMolBlock(m) + "$$$$\n" for m in (urea, aspirin.rdmol))
    (tmp_path / "two.sdf").write_text(text)
    with pytest.warns(UserWarning, match="two.sdf holds 2 molecules; the first is taken"):
        assert Molecule.from_file(tmp_path / "two.sdf").formula == "CH4N2O"


def test_a_flat_mol_file_is_embedded(tmp_path):
    flat = Chem.MolFromSmiles("CC(C)CO")
    AllChem.Compute2DCoords(flat)
    (tmp_path / "flat.mol").write_text(Chem.MolToMolBlock(flat))
    molecule = Molecule.from_file(tmp_path / "flat.mol")
    assert molecule.n_atoms == 15 and np.linalg.svd(molecule.conformers[0])[1][2] > 0.5


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("a.xyz", "", "XYZ"),
        ("a.xyz", "2\n\nH 0 0 0\n", "promises 2"),
        ("a.xyz", "1\n\nC 0 0 nan\n", "NaN"),
        ("a.xyz", "3\n\nO 0 0 0\nH 0.96 0 0\nH 0.01 0 0\n", "closer"),
        ("a.xyz", "2\n\nO 0 0 0\nH 0.96 0 0\n", "charge"),
        ("a.xyz", "2\n\nAr 0 0 0\nAr 9 0 0\n", "Ar"),
        ("a.mol", "rubbish\n", "MOL"),
        ("a.pdb", "ATOM\n", "pdb"),
    ],
)
def test_bad_molecule_files_are_refused_by_name(name, text, word, tmp_path):
    (tmp_path / name).write_text(text)
    refuses(InputError, word, Molecule.from_file, tmp_path / name)


def test_conformers_of_several_stereoisomers_are_refused_and_open_ones_are_as_they_are():
    flat = Chem.AddHs(Chem.MolFromSmiles("CC(F)Cl"))
    AllChem.EmbedMultipleConfs(flat, 10, randomSeed=1)
    refuses(MoleculeError, "conformer 1 is another stereoisomer", Molecule.from_rdkit, flat)
    for smiles in ("C[C@H](F)Cl", "CCO", "CN(F)Cl"):
        made = Chem.AddHs(Chem.MolFromSmiles(smiles))
        AllChem.EmbedMultipleConfs(made, 4, randomSeed=1)
        assert len(Molecule.from_rdkit(made).conformers) == 4


def test_missing_files_charges_wrong_shapes_and_radicals_are_named_errors(tmp_path, aspirin):
    refuses(MoleculeError, "cannot read", Molecule.from_file, tmp_path / "nowhere.xyz")
    (tmp_path / "a.xyz").write_text("2\n\nO 0 0 0\nH 0.96 0 0\n")
    refuses(MoleculeError, "add up to a charge of -1", Molecule.from_file, tmp_path / "a.xyz")
    refuses(MoleculeError, "shape", aspirin.with_conformers, np.zeros((1, 20, 3)))
    refuses(MoleculeError, "energies must be", replace, aspirin, energies=np.zeros(len(aspirin.energies) + 1))
    with pytest.raises(MoleculeError):
        aspirin.with_conformers(np.full((1, 21, 3), np.nan))
    methyl = np.array([[0.0, 0, 0], [1.08, 0, 0], [-0.54, 0.935, 0], [-0.54, -0.935, 0]])
    with pytest.raises(MoleculeError):
        molecule_from_graph(np.array([6, 1, 1, 1]), methyl, np.array([[0, 1], [0, 2], [0, 3]]))
