"""Files that went wrong in other hands, each for a whole kind, with what is right about them."""

from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch
import torch_sim as ts
from ase import Atoms
from molflow_ase import CrystalCalculator
from molflow_openmm import crystalSystem
from rdkit import Chem
from rdkit.Chem import AllChem
from refusals import refuses

from molflow_sim import CrystalPotential, MolecularCrystal, Molecule
from molflow_sim.errors import CrystalError, DisorderedCrystalError, InputError, MissingHydrogensError, SpaceGroupError
from molflow_sim.evaluate import check_validity
from molflow_sim.symmetry.operations import read_operations, space_group_from_operations

DATA = Path(__file__).resolve().parents[1] / "data"
LANDSCAPES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "landscapes"


def read(name: str, **options) -> MolecularCrystal:
    return MolecularCrystal.from_cif(DATA / name, **options)


@pytest.mark.parametrize("name", ["croconic_noH.cif", "croconic_dumH.cif"])
def test_hydrogens_that_the_formula_has_and_the_sites_lack_are_counted(name):
    refuses(MissingHydrogensError, r"2 of H2 in _chemical_formula_sum", read, name)
    refuses(MissingHydrogensError, rf"{name}, block", MolecularCrystal.from_cif, str(DATA / name))  # a path as text


def test_a_formula_that_weight_and_density_contradict_refuses_nothing():
    text = (DATA / "croconic_part1.cif").read_text().replace("'C5 H2 O5'", "'C5 H4 O5'")
    assert MolecularCrystal.from_cif(text).formula == "C5H2O5"
    with pytest.raises(MissingHydrogensError, match="2 of H4"):
        MolecularCrystal.from_cif(text.replace("142.07", "144.09").replace("1.913", "1.940"))


def test_formula_z_and_density_that_agree_are_believed_against_the_sites():
    text = (DATA / "paracetamol.cif").read_text().replace("_cell_volume", "_cell_formula_units_Z 4\n_cell_volume")
    halved = "\n".join(line for line in text.split("\n") if not line.startswith(("2 1/2", "4 1/2")))
    with pytest.raises(CrystalError, match=r"0\.669 g/cm³; the file declares C8 H9 N1 O2, Z = 4 and 1\.338"):
        MolecularCrystal.from_cif(halved)
    hydrate = text.replace("'C8 H9 N O2'", "'C8 H11 N O3'").replace("151.16", "169.18").replace("1.338", "1.4975")
    refuses(CrystalError, "atoms or operations are missing", MolecularCrystal.from_cif, hydrate)
    # a formula of the asymmetric unit, and a wrong Z, stand alone against the rest
    for wrong in (text.replace("'C8 H9 N O2'", "'C4 H4.5 N0.5 O'"), text.replace("units_Z 4", "units_Z 2")):
        assert MolecularCrystal.from_cif(wrong).z == 4
    alone = MolecularCrystal.from_cif(halved.replace("_cell_formula_units_Z 4\n", ""))
    assert alone.info["density_declared"] == "1.338 g/cm³"


def test_one_part_that_is_kept_of_a_disordered_model_is_a_model():
    crystal = read("croconic_part1.cif")
    assert crystal.formula == "C5H2O5" and crystal.density == pytest.approx(1.913, abs=0.001)
    text = (DATA / "croconic_part1.cif").read_text()
    with pytest.raises(DisorderedCrystalError, match="H3 is in disorder group 2"):
        MolecularCrystal.from_cif(text.replace("H3 H 0.7499 0.4053 0.0280 0.050 Uiso 1 1 d . A 1",
                                               "H3 H 0.7499 0.4053 0.0280 0.050 Uiso 1 1 d . A 2"))  # fmt: skip


def test_three_places_of_one_hydrogen_and_hydrogen_for_deuterium_are_refused_by_name():
    refuses(DisorderedCrystalError, r"block 2001826: atom O has 3 hydrogens", read, "oh_three_sites.cif")
    refuses(CrystalError, r"\[2H\]", read, "benzene_D.cif", molecules=[Molecule.from_smiles("c1ccccc1")])


def test_deuterium_is_kept_in_masses_density_smiles_and_files(tmp_path):
    crystal = read("benzene_D.cif")
    assert crystal.formula == "C6D6" and crystal.molecules[0].smiles.count("[2H]") == 6
    assert crystal.density == pytest.approx(1.247, abs=0.001)
    assert crystal.molecules[0].molar_mass == pytest.approx(84.15, abs=0.01)
    for again in (
        MolecularCrystal.from_cif(crystal.to_cif()),
        MolecularCrystal.from_ase(crystal.to_ase()),
        MolecularCrystal.from_pymatgen(crystal.to_pymatgen()),
    ):
        assert again.formula == "C6D6" and again.density == pytest.approx(crystal.density, rel=1e-6)
    assert check_validity(crystal).density == pytest.approx(1.247, abs=0.001)
    _, system, _ = crystalSystem(crystal)
    masses = [system.getParticleMass(i)._value for i in range(system.getNumParticles())]
    assert min(masses) == pytest.approx(2.014, abs=0.001)


def test_one_label_among_many_like_hydrogens_finds_its_place_in_a_given_molecule():
    """The methyl groups' hydrogens alone go on each other in more ways than are tried."""
    labelled = "CC(C)(C)c1cc(C(C)(C)C)cc(C(C)(C)C[2H])c1"
    molecule = Molecule.from_smiles(labelled, n_conformers=1)
    atoms = Atoms(molecule.numbers, molecule.conformers[0], masses=molecule.masses, cell=np.eye(3) * 20, pbc=True)
    shuffled = atoms[np.random.default_rng(4).permutation(len(atoms))]
    crystal = MolecularCrystal.from_ase(shuffled, molecules=[molecule])
    np.testing.assert_array_equal(crystal.masses, molecule.masses)


def test_symmetry_within_no_length_is_refused():
    atoms = read("croconic_part1.cif").to_ase()
    for symprec in (0.0, -1.0, float("nan")):  # spglib crashes
        refuses(CrystalError, "symprec must be a length above 0", MolecularCrystal.from_ase, atoms, symprec=symprec)


def test_a_hall_symbol_decides_between_two_origins():
    assert read("I41a_2_hall.cif").space_group.name == "I 41/a:2"
    identity = "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\n\nloop_"
    lost = (DATA / "I41a_2_hall.cif").read_text().replace("loop_", identity, 1)
    assert MolecularCrystal.from_cif(lost).space_group.name == "I 41/a:2"
    odd = (DATA / "paracetamol.cif").read_text().replace("-P 2yn", "-P 2zz")
    odd = "\n".join(line for line in odd.split("\n") if line[:2] not in ("1 ", "2 ", "3 ", "4 ")).replace(
        "loop_\n_space_group_symop_id\n_space_group_symop_operation_xyz\n", ""
    )
    read_by_name = MolecularCrystal.from_cif(odd)  # a Hall symbol of another group
    assert read_by_name.space_group.name == "P 1 21/n 1" and read_by_name.info["space_group_declared"] == "-P 2zz"
    text = "\n".join(line for line in (DATA / "I41a_2_hall.cif").read_text().split("\n") if "Hall" not in line)
    with pytest.warns(UserWarning, match="origin choice 1 of I 41/a was taken"):
        assert MolecularCrystal.from_cif(text).space_group.name == "I 41/a:1"


def paracetamol_without_operations(*without: str) -> str:
    """Paracetamol's file without its list of operations, formula and density, and without lines that hold a word."""
    text = (DATA / "paracetamol.cif").read_text()
    before, _, after = text.partition("loop_\n_space_group_symop_id\n_space_group_symop_operation_xyz\n")
    words = ("_chemical_formula", "_exptl_crystal_density", *without)
    kept = [line for line in before.split("\n") if not any(word in line for word in words)]
    return "\n".join(kept) + after[after.index("loop_") :]


@pytest.mark.parametrize("listed", [False, True], ids=["no operations", "the identity"])
def test_a_screw_axis_in_brackets_is_one_and_hall_stands_in_for_a_name_that_is_unreadable(listed):
    identity = "_cell_angle_beta 97.8440\n_symmetry_equiv_pos_as_xyz 'x, y, z'\n"
    for text in (
        paracetamol_without_operations("Hall").replace("'P 1 21/n 1'", "'P2(1)/n'"),
        paracetamol_without_operations("IT_number").replace("'P 1 21/n 1'", "'P 2_1/n'"),
    ):
        given = text.replace("_cell_angle_beta 97.8440(10)\n", identity) if listed else text
        crystal = MolecularCrystal.from_cif(given)
        assert crystal.space_group.name == "P 1 21/n 1" and crystal.density == pytest.approx(1.338, abs=0.001)


def test_a_name_that_says_nothing_is_not_passed_over():
    text = paracetamol_without_operations("Hall", "IT_number").replace("'P 1 21/n 1'", "'P 2_1/n'")
    refuses(
        SpaceGroupError, "no symmetry operations, and space group 'P 2_1/n' is unknown", MolecularCrystal.from_cif, text
    )
    with pytest.warns(UserWarning, match="read as P 1: only the identity is listed, and 'P 2_1/n'"):
        MolecularCrystal.from_cif(
            text.replace("_cell_angle_beta", "_symmetry_equiv_pos_as_xyz x,y,z\n_cell_angle_beta")
        )


def test_a_number_alone_is_its_usual_setting_and_says_so():
    text = paracetamol_without_operations("Hall", "H-M")
    refuses(SpaceGroupError, "no symmetry operations", MolecularCrystal.from_cif, text.replace("number 14", "number 0"))
    usual = MolecularCrystal.from_cif(DATA / "croconic_part1.cif")
    lines = [line for line in usual.to_cif().split("\n") if "H-M" not in line]
    first = next(k for k, line in enumerate(lines) if "symop_id" in line) - 1
    lines = lines[:first] + lines[first + 3 + usual.space_group.order :]
    with pytest.warns(UserWarning, match=f"the usual setting of number {usual.space_group.number}, was taken"):
        assert MolecularCrystal.from_cif("\n".join(lines)).density == pytest.approx(usual.density)


def test_the_dotted_names_of_newer_dictionaries_are_read():
    text = (DATA / "paracetamol.cif").read_text()
    for category in ("chemical_formula", "cell", "exptl_crystal", "space_group_symop", "atom_site"):
        text = text.replace(f"_{category}_", f"_{category}.")
    text = text.replace("_symmetry_space_group_name_H-M", "_space_group.name_H-M_alt")
    crystal = MolecularCrystal.from_cif(text)
    assert crystal.formula == "C8H9NO2" and crystal.density == pytest.approx(1.338, abs=0.001)
    gone = "\n".join(line for line in text.split("\n") if not line.startswith("H(8"))
    refuses(MissingHydrogensError, "3 of H9", MolecularCrystal.from_cif, gone)


@pytest.mark.parametrize("name", ["P 1 21/c 1", "I 4/m", "P 63/m", "P 21 21 21", "P n a 21", "I 41/a:2", "F d d 2"])
@pytest.mark.parametrize("decimal", [False, True], ids=["fractions", "decimals"])
def test_operations_off_the_origin_are_read_and_shifted_back(name, decimal):
    group = gemmi.SpaceGroup(name)
    rotations = np.array([op.rot for op in group.operations()]) // gemmi.Op.DEN
    away = np.array([0.31, 0.17, 599 / 903])
    translations = np.array([op.tran for op in group.operations()]) / gemmi.Op.DEN - away + rotations @ away
    triplets = []
    for rotation, translation in zip(rotations, translations):
        texts = ["".join(f"{'+' if v > 0 else '-'}{axis}" for v, axis in zip(row, "xyz") if v) for row in rotation]
        tails = [f"{t:+.6f}" if decimal else f"+{round((t % 1.0) * 9999)}/9999" for t in translation]
        triplets.append(", ".join(a + b for a, b in zip(texts, tails)))
    found, shift = read_operations(triplets)
    assert space_group_from_operations(found).number == group.number
    for op, rotation, translation in zip(found, rotations, translations):  # x' = x + s
        gap = np.array(op.tran) / gemmi.Op.DEN - (translation + shift - rotation @ shift)
        assert np.abs(gap - np.rint(gap)).max() < 1e-3


def test_operations_that_are_none_are_named():
    for bad in ("x, y", "x, y, w", "x, y, 1/0", "x, y, 2x", "__import__(1), y, z"):
        refuses(SpaceGroupError, "not readable", read_operations, ["x, y, z", bad], "here")


@pytest.mark.skipif(not LANDSCAPES.is_dir(), reason="the landscapes with DFT energies are not here")
@pytest.mark.parametrize("name", ["DNI/30eade37b6fe7ea.cif", "HMX/3d5350b86232efb.cif"])
def test_a_cell_whose_origin_lies_off_its_symmetry_elements_is_the_same_crystal(name):
    crystal = MolecularCrystal.from_cif(LANDSCAPES / name)
    declared = gemmi.cif.read(str(LANDSCAPES / name)).sole_block()
    assert crystal.z == int(declared.find_value("_cell_formula_units_Z"))
    assert crystal.volume == pytest.approx(float(declared.find_value("_cell_volume")), rel=1e-5)
    assert crystal.formula == gemmi.cif.as_string(declared.find_value("_chemical_formula_moiety")).replace(" ", "")


def test_a_racemate_dumped_in_p1_is_one_species_and_its_symmetry_is_found_on_request():
    crystal = read("ibuprofen_P1_ase.cif")
    assert crystal.formula == "C13H18O2" and crystal.z == 4 and crystal.molecules[0].racemic
    found = read("ibuprofen_P1_ase.cif", symprec=0.01)
    assert found.space_group.number == 14 and found.z_prime == 1
    assert found.density == pytest.approx(crystal.density, rel=1e-4)


def test_fullerenes_are_read():
    assert read("C60_neutron.cif").formula == "C60"


def test_the_other_blocks_of_a_file_are_named_and_can_be_chosen():
    with pytest.warns(UserWarning, match=r"first of 4 structures.*final6_new_labels, III, r080122c"):
        first = read("four_blocks.cif")
    assert first.info["other_blocks"] == "final6_new_labels, III, r080122c"
    assert read("four_blocks.cif", block="iii").formula == "C22H20F2N2S"
    refuses(CrystalError, r"no block 'IV'.*there are CSD_CIF_HAHCOI", read, "four_blocks.cif", block="IV")


@pytest.mark.parametrize("kind", ["", "_bom", "_utf16", "_cr"])
def test_byte_order_marks_wide_characters_and_old_line_ends_are_read(kind):
    assert read(f"paracetamol{kind}.cif").density == pytest.approx(1.338, abs=0.001)


def both(a: str, b: str) -> MolecularCrystal:
    """Two species in one P 1 cell, the second with its atoms in the order of the first one's elements."""
    found = []
    for smiles in (a, b):
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        AllChem.EmbedMolecule(mol, randomSeed=1)
        order = np.argsort([-z.GetAtomicNum() for z in mol.GetAtoms()], kind="stable")
        symbols = [mol.GetAtomWithIdx(int(k)).GetSymbol() for k in order]
        found.append((symbols, mol.GetConformer().GetPositions()[order]))
    assert found[0][0] == found[1][0]
    positions = np.concatenate([found[0][1], found[1][1] + [9.0, 0.0, 0.0]])
    return MolecularCrystal.from_ase(Atoms(found[0][0] * 2, positions, cell=[18.0, 12.0, 12.0], pbc=True))


@pytest.mark.parametrize("pair", [("Nc1ccccc1O", "Nc1ccc(O)cc1"), ("NCC(=O)O", "[NH3+]CC(=O)[O-]")])
def test_species_that_atoms_do_not_tell_apart_are_refused_through_every_front_end(pair):
    crystal = both(*pair)
    assert len(crystal.molecules) == 2
    for front_end in (CrystalCalculator, CrystalPotential.from_crystals, crystalSystem):
        with pytest.raises(InputError, match="different bonds"):
            front_end([crystal] if front_end == CrystalPotential.from_crystals else crystal)


def test_atoms_of_an_isomer_are_not_taken_for_the_molecule():
    crystal = both("Nc1ccccc1O", "Nc1ccc(O)cc1")
    n = crystal.molecules[0].n_atoms
    ours, others = crystal.to_ase()[:n], crystal.to_ase()[n:]
    calc = CrystalCalculator(crystal.molecules[0])
    ours.calc = others.calc = calc
    energy = ours.get_potential_energy()
    for _ in range(2):  # whatever the calculator has seen before
        refuses(CrystalError, "should be bonded", others.get_potential_energy)
    assert ours.get_potential_energy() == pytest.approx(energy, rel=1e-12)
    # in a batch the system alone is lost
    state = ts.io.atoms_to_state([ours, others], torch.device("cpu"), torch.float64)
    assert torch.isfinite(calc.potential(state)["energy"]).tolist() == [True, False]
