"""Crystals to and from CIF, ASE and pymatgen; what a CIF is refused for."""

import io
import re
import time
from pathlib import Path

import gemmi
import numpy as np
import pytest
from ase.io import read
from ase.neighborlist import neighbor_list
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pymatgen.core import Structure
from refusals import refuses
from special_positions import SITES, UREA, general, largest_distance, special

from molflow_sim import MolecularCrystal, SpaceGroup
from molflow_sim.errors import (
    CrystalError,
    DisorderedCrystalError,
    InputError,
    MissingHydrogensError,
    MolflowError,
    OverlappingAtomsError,
    SpaceGroupError,
    UnsupportedElementError,
)

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cod_organic" / "cif"
GROUPS = [
    "P 1", "P -1", "P 1 21 1", "P 1 21/c 1", "P 1 21/n 1", "C 1 2/c 1", "I 1 2/a 1", "C 1 c 1", "P 21 21 21", "P b c a",
    "P n a 21", "F d d 2", "P 41 21 2", "I -4", "P 31", "R 3:H", "R -3 c:H", "P 61", "P 63/m", "P a -3", "I 2 3",
]  # fmt: skip


def same(a: MolecularCrystal, b: MolecularCrystal) -> None:
    assert b.space_group.name == a.space_group.name and b.z == a.z
    assert b.z_prime == a.z_prime
    np.testing.assert_allclose(b.cell, a.cell, atol=1e-6)
    numbers, positions, _, _ = b.unit_cell()
    assert largest_distance(a, numbers, positions @ np.linalg.inv(b.cell)) < 1e-5
    assert [m.smiles for m in b.molecules] == [m.smiles for m in a.molecules]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(GROUPS), st.integers(0, 10**6), st.tuples(*[st.floats(0.8, 1.2)] * 6))
def test_cif_round_trip_is_exact_in_every_crystal_system(symbol, seed, scale):
    cell = np.array([31.0, 34.0, 37.0, 84.0, 97.0, 103.0]) * np.array([*scale[:3], *(0.5 + 0.5 * s for s in scale[3:])])
    crystal = general("NC=O", symbol, tuple(cell), (0.113, 0.231, 0.177), seed)
    assume(len(neighbor_list("d", crystal.to_ase(), 0.9)) == 0)  # near a mirror some overlap, and are refused as such
    back = MolecularCrystal.from_cif(crystal.to_cif())
    same(crystal, back)
    # in a general position even the atom order and the copies' places are kept
    np.testing.assert_allclose(back.unit_cell()[1], crystal.unit_cell()[1], atol=1e-5)


@pytest.mark.parametrize("name", SITES)
def test_cif_round_trip_on_special_positions(name):
    same(special(name), MolecularCrystal.from_cif(special(name).to_cif()))


@pytest.mark.parametrize("name", SITES)
def test_other_readers_find_the_same_cell_in_our_cif(name):
    crystal = special(name)
    text = crystal.to_cif()
    structure = Structure.from_str(text, fmt="cif")
    assert largest_distance(crystal, np.array(structure.atomic_numbers), structure.frac_coords) < 1e-4
    block = gemmi.cif.read_string(text).sole_block()
    sites = gemmi.make_small_structure_from_block(block).get_all_unit_cell_sites()
    fractional = np.array([s.fract.tolist() for s in sites])
    assert largest_distance(crystal, np.array([s.element.atomic_number for s in sites]), fractional) < 1e-4
    atoms = read(io.StringIO(text), format="cif")
    assert largest_distance(crystal, atoms.numbers, atoms.get_scaled_positions()) < 1e-4


def test_the_cif_lists_only_symmetry_unique_atoms():
    sites = re.findall(r"^[CHNO]+\d+ +[CHNO] ", special("-3").to_cif(), flags=re.M)
    assert len(sites) == 2  # one C and one H of benzene on -3


def test_given_molecules_keep_their_atom_order():
    crystal = special("mirror")
    back = MolecularCrystal.from_cif(crystal.to_cif(), molecules=crystal.molecules)
    assert back.molecules[0] is crystal.molecules[0]
    np.testing.assert_array_equal(back.unit_cell()[0], crystal.unit_cell()[0])
    with pytest.raises(CrystalError, match="none of the given"):
        MolecularCrystal.from_cif(crystal.to_cif(), molecules=special("-3").molecules)


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    crystal = special("inversion")
    path = tmp_path / "a.cif"
    crystal.write(path)
    before = path.read_text()
    same(crystal, MolecularCrystal.from_cif(path))
    monkeypatch.setattr("molflow_sim.runs.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(CrystalError, match="full"):
        crystal.with_info(name="other").write(path)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.cif"]


def test_other_formats_go_through_ase_and_unknown_ones_are_refused(tmp_path):
    special("inversion").write(tmp_path / "a.extxyz")
    assert len(read(tmp_path / "a.extxyz")) == 12
    refuses(CrystalError, "cannot write", special("inversion").write, tmp_path / "a.nonsense")
    refuses(CrystalError, "cannot write", special("inversion").write, tmp_path / "missing" / "a.cif")


@pytest.mark.parametrize("name", ["twofold in C2/c", "-3", "mirror"])
def test_ase_and_pymatgen_round_trips(name):
    crystal = special(name)
    atoms = crystal.to_ase()
    assert atoms.info["space_group"] == crystal.space_group.name
    assert list(atoms.arrays["molecule"]) == list(crystal.unit_cell()[2])
    atoms.wrap()
    structure = crystal.to_pymatgen()
    numbers, positions, _, _ = crystal.unit_cell()
    for back in (MolecularCrystal.from_ase(atoms), MolecularCrystal.from_pymatgen(structure)):
        assert back.space_group.name == "P 1" and back.z == crystal.z
        assert len(back.molecules) == 1
        assert largest_distance(back, numbers, positions @ np.linalg.inv(crystal.cell)) < 1e-6


@pytest.mark.parametrize("name", SITES)
def test_symmetry_is_found_again_when_asked_for(name):
    crystal = special(name)
    back = MolecularCrystal.from_ase(crystal.to_ase(), symprec=1e-3)
    assert back.space_group.number >= crystal.space_group.number  # a model crystal may have more by accident
    assert back.density == pytest.approx(crystal.density, rel=1e-6) and back.z_prime <= crystal.z_prime


def test_a_left_handed_or_open_ase_cell():
    atoms = special("mirror").to_ase()
    flipped = atoms.copy()
    flipped.set_cell(atoms.cell[[1, 0, 2]])
    assert MolecularCrystal.from_ase(flipped).density == pytest.approx(special("mirror").density)
    atoms.pbc = False
    refuses(CrystalError, "periodic", MolecularCrystal.from_ase, atoms)


def test_urea_sits_on_mm2_with_planar_exact_symmetry():
    urea = MolecularCrystal.from_cif(UREA)
    assert len(urea.asymmetric_unit) == 1 and len(urea.asymmetric_unit[0].images) == 2
    assert urea.molecules[0].smiles == "NC(N)=O" and urea.info["name"] == "urea"


def test_hydrogens_are_moved_to_neutron_lengths_on_request():
    short = UREA.replace("0.2575 0.7575 0.2827", "0.2400 0.7400 0.2660")
    urea = MolecularCrystal.from_cif(short, normalise_hydrogens=True)
    molecule = urea.molecules[0]
    lengths = [
        np.linalg.norm(molecule.conformers[0][i] - molecule.conformers[0][j])
        for i, j in molecule.bonds
        if 1 in molecule.numbers[[i, j]]
    ]
    np.testing.assert_allclose(lengths, 1.015, atol=1e-9)
    assert urea.z_prime == 0.25


def test_odd_space_group_names_do_not_matter_when_operations_are_listed():
    odd = UREA.replace("'P -4 21 m'", "'X something'")
    assert MolecularCrystal.from_cif(odd).space_group.name == "P -4 21 m"


def test_names_alone_are_enough_and_unknown_names_are_not():
    head, rest = UREA.split("loop_\n_symmetry_equiv")
    tail = "loop_\n_atom_site_label" + rest.split("loop_\n_atom_site_label")[1]
    assert MolecularCrystal.from_cif(head + tail).z == 2
    refuses(SpaceGroupError, "unknown", MolecularCrystal.from_cif, head.replace("P -4 21 m", "X y z") + tail)


def test_rhombohedral_axes_become_hexagonal():
    crystal = special("-3")
    hexagonal = crystal.cell
    to_hex = np.array([[1.0, -1, 0], [0, 1, -1], [1, 1, 1]])
    axes = np.linalg.inv(to_hex) @ hexagonal
    lengths = np.linalg.norm(axes, axis=1)
    angle = np.degrees(np.arccos(axes[0] @ axes[1] / lengths[0] ** 2))
    assert np.ptp(lengths) < 1e-9
    rhombohedral = gemmi.SpaceGroup("R -3:R").operations()
    assert len(list(rhombohedral)) == 6
    numbers, positions, molecule, _ = crystal.unit_cell()
    fractional = positions[molecule == 0] @ np.linalg.inv(axes)
    lines = ["data_r", *(f"_cell_length_{a} {lengths[0]:.8f}" for a in "abc")]
    lines += [f"_cell_angle_{a} {angle:.8f}" for a in ("alpha", "beta", "gamma")]
    lines += ["loop_", "_symmetry_equiv_pos_as_xyz", *(op.triplet() for op in rhombohedral)]
    lines += ["loop_", "_atom_site_label", *(f"_atom_site_fract_{x}" for x in "xyz")]
    lines += [
        f"{'C' if z == 6 else 'H'}{k} {f[0]:.8f} {f[1]:.8f} {f[2]:.8f}"
        for k, (z, f) in enumerate(zip(numbers[molecule == 0], fractional))
    ]
    back = MolecularCrystal.from_cif("\n".join(lines))
    same(crystal, back)


def test_a_setting_without_a_symbol_keeps_its_operations():
    crystal = general("NC=O", "P 1 c 1", (20, 21, 22, 90, 90, 90), (0.11, 0.23, 0.17))
    text = crystal.to_cif()
    # a centring vector that no standard setting has: (1/4, 0, 1/2)
    extra = ["3 'x+1/4,y,z+1/2'", "4 'x+1/2,y,z'", "5 'x+3/4,y,z+1/2'"]
    extra += ["6 'x+1/4,-y,z'", "7 'x+1/2,-y,z+1/2'", "8 'x+3/4,-y,z'"]
    text = re.sub(r"(_formula_units_Z +)2", r"\g<1>8", text)  # four times as many
    text = text.replace("2 'x,-y,z+1/2'", "\n".join(["2 'x,-y,z+1/2'", *extra])).replace("P 1 c 1", "X c")
    odd = MolecularCrystal.from_cif(text)
    assert odd.z == 8 and odd.space_group.crystal_system == "monoclinic"
    same(odd, MolecularCrystal.from_cif(odd.to_cif()))


def test_enantiomers_are_one_species_in_a_centrosymmetric_crystal():
    crystal = general("C[C@H](F)Cl", "P -1", (15, 16, 17, 80, 95, 100), (0.2, 0.2, 0.2))
    both = crystal.to_ase()
    p1 = MolecularCrystal.from_ase(both)
    assert len(p1.molecules) == 1 and p1.molecules[0].racemic  # a dump without symmetry is the same racemate
    read = MolecularCrystal.from_cif(crystal.to_cif())
    assert len(read.molecules) == 1 and read.molecules[0].racemic and not read.molecules[0].is_enantiopure
    one_hand = general("C[C@H](F)Cl", "P 21 21 21", (9, 10, 11, 90, 90, 90), (0.2, 0.2, 0.2))
    assert MolecularCrystal.from_cif(one_hand.to_cif()).molecules[0].is_enantiopure


def _row(label: str, new: str) -> str:
    return re.sub(rf"^{label} .*$", new, UREA, flags=re.M)


REFUSED = {
    "empty": ("data_x\n", CrystalError, "atom sites"),
    "not a CIF": ("data_x\nloop_\n_a _b\n1 2 3\n", CrystalError, "not a readable CIF"),
    "no hydrogens": (_row("H1", "").replace("H2 H 0.1441 0.6441 -0.0380 1", ""), CrystalError, "hydrogens"),
    "partial occupancy": (_row("H1", "H1 H 0.2575 0.7575 0.2827 0.5"), DisorderedCrystalError, "occupancy 0.5"),
    "overlap": (UREA + "N9 N 0.16 0.66 0.20 1\n", OverlappingAtomsError, "apart"),
    "metal": (_row("O1", "O1 Zn 0.0 0.5 0.5953 1"), UnsupportedElementError, "Zn"),
    "unknown element": (_row("O1", "O1 Qq 0.0 0.5 0.5953 1"), UnsupportedElementError, "Qq"),
    "NaN": (_row("O1", "O1 O nan 0.5 0.5953 1"), CrystalError, "O1"),
    "question mark": (_row("O1", "O1 O ? 0.5 0.5953 1"), CrystalError, "O1"),
    "unknown hydrogen": (_row("H1", "H1 H ? ? ? 1"), MissingHydrogensError, "H1"),
    "huge coordinate": (_row("O1", "O1 O 1e300 0.5 0.5953 1"), CrystalError, "O1"),
    "no cell": (UREA.replace("_cell_length_a 5.565(1)", ""), CrystalError, "_cell_length_a"),
    "zero cell": (UREA.replace("_cell_length_a 5.565(1)", "_cell_length_a 0"), CrystalError, "cell"),
    "cell against the group": (UREA.replace("_cell_angle_beta 90", "_cell_angle_beta 99"), CrystalError, "tetragonal"),
    "no group": (UREA.replace("-x,-y,z\n", "-x,y,-z\n", 1), SpaceGroupError, "no group"),
    "absurd operation": (UREA.replace("-x,-y,z\n", "2x,-y,z\n", 1), SpaceGroupError, "operation"),
    "unreadable operation": (UREA.replace("-x,-y,z\n", "banana\n", 1), SpaceGroupError, "banana"),
    "no coordinates column": (UREA.replace("_atom_site_fract_z", "_atom_site_other"), CrystalError, "_atom_site_fract"),
    "polymer": (
        "data_p\n_cell_length_a 2.55\n_cell_length_b 9\n_cell_length_c 9\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
        "_cell_angle_gamma 90\n_symmetry_space_group_name_H-M 'P 1'\nloop_\n_atom_site_label\n_atom_site_fract_x\n"
        "_atom_site_fract_y\n_atom_site_fract_z\nC1 0 0 0\nH1 0 0.10 0.07\nH2 0 0.10 -0.07\nC2 0.5 -0.09 0\n"
        "H3 0.5 -0.19 0.07\nH4 0.5 -0.19 -0.07\n",
        CrystalError,
        "endless",
    ),
    "disorder": (
        UREA.replace("_atom_site_occupancy", "_atom_site_disorder_group").replace(" 1\nO1", " 2\nO1"),
        DisorderedCrystalError,
        "disorder group",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_cifs_are_refused_by_name(name):
    text, error, word = REFUSED[name]
    refuses(error, word, MolecularCrystal.from_cif, text)


@pytest.mark.parametrize(("edge", "symbol"), [(12.0, "P 1"), (30.0, "F d -3 m"), (60.0, "P 1 21/c 1")])
def test_thousands_of_atoms_in_a_small_cell_are_refused_quickly(edge, symbol):
    rng = np.random.default_rng(1)
    lines = ["data_dense", *(f"_cell_length_{a} {edge}" for a in "abc")]
    lines += [f"_cell_angle_{a} 90" for a in ("alpha", "beta", "gamma")]
    lines += [f"_symmetry_space_group_name_H-M '{symbol}'", "loop_", "_atom_site_label"]
    lines += [f"_atom_site_fract_{a}" for a in "xyz"]
    lines += [f"C{k} {x:.4f} {y:.4f} {z:.4f}" for k, (x, y, z) in enumerate(rng.random((2900, 3)))]
    start = time.perf_counter()
    with pytest.raises(CrystalError):
        MolecularCrystal.from_cif("\n".join(lines))
    assert time.perf_counter() - start < 10


def test_a_salt_a_crystal_without_hydrogens_and_a_missing_file_are_refused_by_name(tmp_path):
    p1 = general("[NH3+]CC(=O)[O-]", "P 1", (9, 9, 9, 90, 90, 90), (0.5, 0.5, 0.5))
    same(p1, MolecularCrystal.from_cif(p1.to_cif()))  # a zwitterion is neutral
    text = re.sub(r"^H5 .*\n", "", p1.to_cif(), flags=re.M)
    refuses(InputError, r"charge|hydrogen", MolecularCrystal.from_cif, text)
    path = tmp_path / "urea.cif"
    path.write_text(re.sub(r"\nH\d.*", "", MolecularCrystal.from_cif(UREA).to_cif()))
    refuses(InputError, r"urea\.cif, block \w+: .*hydrogen", MolecularCrystal.from_cif, path)
    refuses(CrystalError, "cannot read", MolecularCrystal.from_cif, tmp_path / "nowhere.cif")


def test_space_group_settings_survive(tmp_path):
    for symbol in ("P 1 21/n 1", "I 1 2/a 1", "P 1 21/c 1"):
        crystal = general("NC=O", symbol, (12, 13, 14, 90, 100, 90), (0.11, 0.23, 0.17))
        assert MolecularCrystal.from_cif(crystal.to_cif()).space_group.name == SpaceGroup.from_name(symbol).name


@pytest.mark.skipif(not DATA.is_dir(), reason="the experimental CIFs are not on this machine")
def test_nine_in_ten_experimental_cifs_are_read_and_the_rest_named():
    read, refused = 0, []
    files = sorted(DATA.glob("*.cif"))[::4]
    for path in files:
        try:
            crystal = MolecularCrystal.from_cif(path)
        except MolflowError as error:
            refused.append(error.reason)
            continue
        read += 1
        assert 0.7 < crystal.density < 3.0
    assert read >= 0.9 * len(files), refused
