"""Crystals of anybody: one crystal out of every format, all blocks and frames, and a reason where there is none."""

import json
import re
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from refusals import refuses

from molflow_sim import MolecularCrystal
from molflow_sim.errors import CrystalError, InputError
from molflow_sim.evaluate import packing_similarity
from molflow_sim.systems.collect import find_crystals, in_order_of

DATA = Path(__file__).resolve().parents[1] / "data"
PARACETAMOL = DATA / "paracetamol.cif"


@pytest.fixture(scope="module")
def crystal():
    return MolecularCrystal.from_cif(PARACETAMOL)


def shuffled(crystal: MolecularCrystal, seed: int = 0) -> Atoms:
    """The crystal as a stranger's program leaves it: atoms wrapped and in any order, axes turned."""
    atoms = crystal.to_ase()
    atoms.info.clear()
    atoms = atoms[np.random.default_rng(seed).permutation(len(atoms))]
    atoms.rotate(37.0, (1, 2, 3), rotate_cell=True)
    atoms.wrap()
    return atoms


def write(kind: str, atoms: Atoms, crystal: MolecularCrystal, folder: Path) -> Path:
    path = folder / kind
    if kind == "a.json":
        path.write_text(json.dumps(crystal.to_pymatgen().as_dict()))
    elif kind in ("a.db", "db.json"):
        with ase.db.connect(path) as database:
            database.write(atoms)
    else:
        ase.io.write(path, atoms[np.argsort(atoms.numbers, kind="stable")] if "POSCAR" in kind else atoms)
    return path


@pytest.mark.parametrize("kind", ["a.extxyz", "a.db", "db.json", "a.json", "POSCAR_a", "a.vasp", "a.traj", "a.cif"])
def test_a_crystal_is_found_again_with_its_symmetry_in_whatever_it_was_written(kind, crystal, tmp_path):
    path = write(kind, shuffled(crystal), crystal, tmp_path)
    (found,) = find_crystals(path)
    assert found.source == str(path) and not found.reason
    assert found.crystal.space_group.number == crystal.space_group.number
    assert (found.crystal.z, found.crystal.z_prime) == (crystal.z, crystal.z_prime)
    match = packing_similarity(crystal, found.crystal, n=15)
    assert match.full and match.rmsd < 1e-3


def test_objects_are_taken_like_files(crystal):
    given = [shuffled(crystal), crystal.to_pymatgen(), crystal]
    found = list(find_crystals(given))
    assert [f.source for f in found] == ["structures[0]", "structures[1]", "structures[2]"]
    assert {f.crystal.space_group.number for f in found} == {14}
    assert [f.source for f in find_crystals(given[0])] == ["structures[0]"]


def test_every_block_of_a_cif_is_a_structure_even_under_one_name(tmp_path):
    blocks = list(find_crystals(DATA / "four_blocks.cif"))
    assert [b.source.rpartition(":")[2] for b in blocks] == ["CSD_CIF_HAHCOI", "final6_new_labels", "III", "r080122c"]
    twice = tmp_path / "twice.cif"
    twice.write_text(2 * PARACETAMOL.read_text())
    first, second = find_crystals(twice)
    assert second.source == f"{first.source} (2)" and second.crystal.density == first.crystal.density


def test_frames_before_the_damage_are_kept_and_the_damage_is_a_row(crystal, tmp_path):
    path = tmp_path / "pool.extxyz"
    ase.io.write(path, [shuffled(crystal, k) for k in range(3)])
    path.write_text("\n".join(path.read_text().splitlines()[:-40]))
    *good, bad = find_crystals(path)
    assert [f.source for f in good] == [f"{path}:0", f"{path}:1"] and all(f.crystal is not None for f in good)
    assert bad.crystal is None and "cannot be read" in bad.reason


def test_what_is_no_molecular_crystal_has_a_reason(crystal, tmp_path):
    methyl = Atoms("CH3", [(0, 0, 0), (1.08, 0, 0), (-0.54, 0.935, 0), (-0.54, -0.935, 0)], cell=[6, 6, 6], pbc=True)
    salt = Atoms("NaCl", [(0, 0, 0), (2.8, 0, 0)], cell=[5.6, 5.6, 5.6], pbc=True)
    open_box = shuffled(crystal)
    open_box.pbc = False
    (tmp_path / "cut.cif").write_text(PARACETAMOL.read_text()[:900])
    (tmp_path / "empty.cif").write_text("")
    (tmp_path / "noise.xyz").write_bytes(bytes(range(256)))
    (tmp_path / "noise.db").write_bytes(bytes(range(256)))
    (tmp_path / "noise.json").write_text("{")
    files = sorted(tmp_path.iterdir())
    found = list(find_crystals([methyl, salt, open_box, *files]))
    assert all(f.crystal is None and f.reason for f in found) and len(found) == 3 + len(files)
    assert "radical" in found[0].reason and "Na" in found[1].reason and "not periodic" in found[2].reason


def test_a_wrong_argument_is_refused_before_anything_is_read(tmp_path):
    def read(*given):
        return list(find_crystals(given))

    refuses(InputError, "no structures", read)
    refuses(InputError, r"there is no file .*absent\.cif", read, PARACETAMOL, tmp_path / "absent.cif")
    refuses(InputError, "int is no structure", read, 3)


def test_translations_such_as_599_903_are_an_origin_and_the_crystal_is_the_same(crystal, tmp_path):
    text = crystal.to_cif()
    for z in ("-z+1/2'", "-z'"):  # the origin half of 599/903 further down along c
        text = text.replace(z, f"{z[:-1]}+599/903'")
    sites = re.compile(r"^(\w+ +(?:C|H|N|O) +\S+ +\S+ +)(\S+)(.*)$", re.MULTILINE)
    text, n = sites.subn(lambda m: f"{m[1]}{float(m[2]) + 0.5 * 599 / 903:.9f}{m[3]}", text)
    assert text.count("599/903") == 2 and n == crystal.molecules[0].n_atoms
    (tmp_path / "moved.cif").write_text(text)
    (found,) = find_crystals(tmp_path / "moved.cif")
    assert found.crystal.space_group.name == crystal.space_group.name and "origin_shift" in found.crystal.info
    match = packing_similarity(crystal, found.crystal, n=15)
    assert match.full and match.rmsd < 1e-4


def test_atoms_take_the_order_of_a_molecule_and_an_isomer_is_refused(crystal):
    (other,) = find_crystals(shuffled(crystal))
    molecule = crystal.molecules[0]
    ordered = in_order_of(other.crystal, molecule)
    assert ordered.molecules == (molecule,)
    assert packing_similarity(crystal, ordered, n=15).rmsd < 1e-3
    isomers = list(find_crystals(DATA / "four_blocks.cif"))
    refuses(CrystalError, "none of the given molecules", in_order_of, isomers[0].crystal, molecule)
