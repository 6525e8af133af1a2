"""Hydrogen bonds: lengths, angles and graph sets of crystals whose motifs every textbook shows."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from crystal_examples import crystal, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from molflow_sim import MolecularCrystal, SpaceGroup
from molflow_sim.evaluate.hydrogen_bonds import acceptors, hydrogen_bond_text, hydrogen_bonds
from molflow_sim.symmetry import cell_matrix
from molflow_sim.systems.crystal import RigidMolecule

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the measured crystals are not here")


def x23(name: str) -> MolecularCrystal:
    return MolecularCrystal.from_ase(ase.io.read(DATA / "x23" / name / "POSCAR_solid", format="vasp"), symprec=0.01)


@needs_data
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("02_acetic_acid", "O-H...O 2.61 C(4)"),
        ("04_ammonia", "N-H...N 3.34 C(2)"),
        ("06_benzene", "none"),
        ("11_formamide", "N-H...O 2.87 C(4); N-H...O 2.93 R2,2(8)"),
        ("12_imidazole", "N-H...N 2.84 C(4)"),
        ("14_oxalic_acid_alpha", "O-H...O 2.67 C(4)"),
        ("15_oxalic_acid_beta", "O-H...O 2.65 R2,2(8)"),
        ("17_pyrazole", "N-H...N 2.87 C(3)"),
        ("21_urea", "N-H...O 2.95 R1,2(6)/C(4); N-H...O 2.97 C(4)"),
        ("23_succinic_acid", "O-H...O 2.60 R2,2(8)"),
    ],
)
def test_textbook_motifs(name, text):
    assert hydrogen_bond_text(x23(name)) == text


@needs_data
def test_aspirin_pairs_its_carboxylic_acids():
    path = next((DATA / "landscapes" / "aspirin").glob("20ce6e*.cif"))
    (bond,) = hydrogen_bonds(MolecularCrystal.from_cif(path, symprec=0.01))
    assert bond.motif == "R2,2(8)" and (bond.donor, bond.acceptor) == ("O", "O")
    assert bond.length == pytest.approx(2.58, abs=0.02) and bond.angle > 170
    assert bond.hydrogen_length < bond.length - 0.9


@needs_data
@pytest.mark.parametrize("name", ["11_formamide", "17_pyrazole", "21_urea"])
def test_the_description_of_the_crystal_does_not_matter(name):
    c = x23(name)
    text = hydrogen_bond_text(c)
    atoms = c.to_ase()
    atoms.translate((0.3, 1.7, -2.2))
    for other in (atoms, atoms[::-1], atoms.repeat((2, 1, 1))):
        assert hydrogen_bond_text(MolecularCrystal.from_ase(other)) == text


def dimer(distance: float, slide: float = 0.0) -> MolecularCrystal:
    """Formic acid facing its image across an inversion centre, O...O `distance` Å apart in a wide cell."""
    mol = molecule("OC=O")
    numbers, x = mol.numbers, mol.conformers[0]
    carbon, hydrogen = int(np.flatnonzero(numbers == 6)[0]), next(
        int(h) for h in np.flatnonzero(numbers == 1) if np.linalg.norm(x[numbers == 8] - x[h], axis=1).min() < 1.1
    )  # fmt: skip
    oxygens = np.flatnonzero(numbers == 8)
    towards = x[oxygens].mean(0) - x[carbon]
    towards /= np.linalg.norm(towards)
    donor = oxygens[np.linalg.norm(x[oxygens] - x[hydrogen], axis=1).argmin()]
    assert (x[hydrogen] - x[donor]) @ towards > 0.5  # the hydrogen points out of the O-C-O corner: syn
    offset = -0.5 * distance * towards - x[oxygens].mean(0)
    group = SpaceGroup.from_name("P -1")
    cell = cell_matrix(np.array([15.0, 15.0, 15.0, 90.0, 90.0, 90.0]))
    offset = offset + slide * np.cross(towards, x[donor] - x[carbon])
    unit = RigidMolecule(0, x, offset @ np.linalg.inv(cell), np.eye(3), (0, 1))
    return MolecularCrystal((mol,), (unit,), group, cell)


def test_a_dimer_is_a_ring_of_eight_with_its_distance():
    (bond,) = hydrogen_bonds(dimer(2.65))
    assert bond.motif == "R2,2(8)" and bond.length == pytest.approx(2.65, abs=0.1) and 145 < bond.angle < 155


def test_bonds_too_long_or_too_bent_do_not_count():
    assert hydrogen_bond_text(dimer(4.2)) == "none"
    assert hydrogen_bond_text(dimer(2.2, slide=1.5)) == "none"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["urea", "formamide", "glycolic"]))
def test_every_bond_keeps_the_limits_and_has_a_name(seed, name):
    for bond in hydrogen_bonds(crystal(name, scale=0.93, seed=seed)):
        assert bond.hydrogen_length <= 2.5 and bond.angle >= 120 and bond.motif
        assert bond.length < bond.hydrogen_length + 1.1


@pytest.mark.parametrize(
    ("smiles", "symbols"),
    [
        ("CC(=O)N", "O"),  # not the amide's nitrogen
        ("CN(C)C", "N"),
        ("c1ccncc1", "N"),
        ("c1cc[nH]c1", ""),
        ("C[N+](=O)[O-]", "OO"),
        ("CC#N", "N"),
        ("NC(N)=S", "S"),
        ("c1ccsc1", ""),
        ("FC(F)F", ""),
    ],
)
def test_who_accepts(smiles, symbols):
    rdmol = molecule(smiles).rdmol
    assert "".join(a.GetSymbol() for a, yes in zip(rdmol.GetAtoms(), acceptors(rdmol)) if yes) == symbols
