"""MMFF94 terms: the same numbers as RDKit's own implementation, and derivatives that can be trusted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers
from refusals import refuses
from scipy.spatial.transform import Rotation

from molflow_sim.errors import InputError, MoleculeError, ParameterError, UnsupportedElementError
from molflow_sim.forcefield import extract_mmff, mmff_energies
from molflow_sim.forcefield import mmff_energy as module
from molflow_sim.forcefield.mmff_compiled import mmff_molecules
from molflow_sim.units import KCAL_PER_MOL

MOLECULES = """
O N CC C=C C#C CC#N O=C=O C=C=C CN=[N+]=[N-] [C-]#[N+]C CN=C=O CN=C=S C#CC#C N#CC#N
C1CC1 C1CCC1 C1CCCC1 C1CCCCC1 C1CCCCCC1 C1CO1 C1CN1 C1=CC1 C1=CCC1 C1CN2CCN1CC2
C12C3C4C1C5C4C3C25 c1ccccc1 c1ccc2ccccc2c1 c1ccncc1 c1cc[nH]c1 c1ccoc1 c1ccsc1 c1cnc[nH]1 c1ncncn1 c1nnn[nH]1 c1nnco1
Cn1cnc2c1c(=O)n(C)c(=O)n2C O=c1cc[nH]cc1 C[N+](=O)[O-] O=[N+]([O-])c1ccccc1 C[N+](C)(C)[O-] c1cc[n+]([O-])cc1
CS(=O)C CS(=O)(=O)C c1ccccc1S(=O)(=O)Nc1ccccc1 CSSC CS CC(=S)N C1CS1 OS(=O)(=O)O
COP(=O)(OC)OC CP(C)C CP(=O)(C)C OP(=O)(O)O CP(=S)(C)C
FC(F)(F)F ClC(Cl)Cl CBr CI ClC(F)(Br)I FC(F)(F)c1ccccc1 Clc1ccccc1Br O=C(Cl)c1ccccc1 Ic1ccccc1
C[Si](C)(C)C C[SiH3] CO[Si](C)(C)C
CC(=O)O NC=O NC(N)=O CC(=O)Oc1ccccc1C(=O)O CC(=O)Nc1ccc(O)cc1 NN NO OO N=C(N)N O=NN(C)C CN=NC
O=[N+]([O-])N1CN([N+](=O)[O-])CN([N+](=O)[O-])C1 [NH3+]CC(=O)[O-] O=C1NC(=O)C(=O)N1 c1ccc(-c2ccccc2)cc1
""".split()

RDKIT_TERMS = {
    "bond": "Bond", "angle": "Angle", "stretch_bend": "StretchBend", "out_of_plane": "Oop", "torsion": "Torsion",
    "vdw": "VdW", "electrostatic": "Ele",
}  # fmt: skip


def build(smiles: str) -> Chem.Mol:
    """Molecule with hydrogens and one embedded conformer."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=7) == 0, smiles
    return mol


def positions_of(mol: Chem.Mol) -> np.ndarray:
    return mol.GetConformer().GetPositions()


def rdkit_reference(mol: Chem.Mol, positions: np.ndarray, only: str | None = None) -> tuple[float, np.ndarray]:
    """RDKit's energy in kcal/mol and its gradient (N, 3), with one term alone if `only` is given."""
    mol = Chem.Mol(mol)  # must outlive the force field, which points into its conformer
    mol.GetConformer().SetPositions(np.ascontiguousarray(positions))
    with rdBase.BlockLogs():
        properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol)
    for term in RDKIT_TERMS.values():
        getattr(properties, f"SetMMFF{term}Term")(only is None or term == only)
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, properties, nonBondedThresh=1e6)
    return field.CalcEnergy(), np.array(field.CalcGrad()).reshape(-1, 3)


def total(terms, positions: torch.Tensor) -> torch.Tensor:
    return sum(mmff_energies(terms, positions).values())


def test_the_list_covers_every_element_that_mmff_types():
    elements = {a.GetSymbol() for s in MOLECULES for a in Chem.AddHs(Chem.MolFromSmiles(s)).GetAtoms()}
    assert elements == {"H", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Br", "I"}
    assert len(set(MOLECULES)) >= 50


def test_every_term_agrees_with_rdkit_on_distorted_molecules():
    rng = np.random.default_rng(0)
    seen = dict.fromkeys(RDKIT_TERMS, 0.0)
    for smiles in MOLECULES:
        mol = build(smiles)
        terms = extract_mmff(mol)
        x = positions_of(mol)
        distorted = x + rng.uniform(-0.2, 0.2, (2, *x.shape))
        energies = mmff_energies(terms, torch.tensor(distorted))
        for name, rdkit_name in RDKIT_TERMS.items():
            for k in range(2):
                reference, _ = rdkit_reference(mol, distorted[k], rdkit_name)
                ours = energies[name][k].item() / KCAL_PER_MOL
                assert ours == pytest.approx(reference, abs=1e-6), f"{smiles}: {name}"
                seen[name] = max(seen[name], abs(reference))
    assert min(seen.values()) > 1.0  # no term was compared at zero only


@pytest.mark.parametrize("smiles", ["CC(=O)Oc1ccccc1C(=O)O", "CN=[N+]=[N-]", "C[Si](C)(C)O", "COP(=O)(OC)OC"])
def test_forces_agree_with_rdkits_gradient(smiles):
    mol = build(smiles)
    x = positions_of(mol) + np.random.default_rng(1).normal(0, 0.05, (mol.GetNumAtoms(), 3))
    tensor = torch.tensor(x, requires_grad=True)
    (gradient,) = torch.autograd.grad(total(extract_mmff(mol), tensor), tensor)
    _, reference = rdkit_reference(mol, x)
    # RDKit clamps some derivatives near planarity, hence not to the last digit
    assert gradient.numpy() / KCAL_PER_MOL == pytest.approx(reference, abs=1e-4)


@pytest.mark.parametrize("smiles", ["CC#N", "CC(=O)Oc1ccccc1C(=O)O", "CS(C)=O", "C=C=C"])
def test_forces_are_the_derivative_of_the_energy(smiles):
    mol = build(smiles)
    terms = extract_mmff(mol)
    rng = np.random.default_rng(2)
    x = torch.tensor(positions_of(mol) + rng.uniform(-0.15, 0.15, (mol.GetNumAtoms(), 3)), requires_grad=True)
    (gradient,) = torch.autograd.grad(total(terms, x), x)
    n, h = terms.n_atoms, 1e-5
    shifts = torch.eye(3 * n, dtype=torch.float64).reshape(3 * n, n, 3) * h
    with torch.no_grad():
        numeric = (total(terms, x + shifts) - total(terms, x - shifts)) / (2 * h)
    assert gradient.flatten() == pytest.approx(numeric, abs=1e-6, rel=1e-6)


def exact_geometries() -> dict[str, tuple[str, np.ndarray]]:
    """Molecules whose linear or planar geometry is exact, where careless derivatives are NaN."""
    acetylene = np.array([[0, 0, 0], [0, 0, 1.2], [0, 0, -1.06], [0, 0, 2.26]], dtype=float)
    co2 = np.array([[0, 0, -1.16], [0, 0, 0], [0, 0, 1.16]], dtype=float)
    angle = np.arange(6) * np.pi / 3
    ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    formaldehyde = np.array([[0, 0, 0], [0, 0, 1.2], [0, 0.94, -0.55], [0, -0.94, -0.55]])
    straight_water = np.array([[0, 0, 0], [0, 0, 0.96], [0, 0, -0.96]], dtype=float)
    peroxide = np.array([[0, 0, 0], [0, 0, 1.45], [0, 0, -0.97], [0.9, 0, 1.8]])
    return {
        "acetylene": ("C#C", acetylene),
        "carbon dioxide": ("O=C=O", co2),
        "benzene": ("c1ccccc1", np.concatenate([1.39 * ring, 2.48 * ring])),
        "formaldehyde": ("C=O", formaldehyde),
        "straightened water": ("O", straight_water),
        "straightened peroxide": ("OO", peroxide),
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", exact_geometries())
def test_exactly_linear_and_planar_geometries_have_finite_forces(name, dtype):
    smiles, positions = exact_geometries()[name]
    terms = extract_mmff(Chem.AddHs(Chem.MolFromSmiles(smiles)))
    x = torch.tensor(positions, dtype=dtype, requires_grad=True)
    energies = mmff_energies(terms, x)
    for energy in energies.values():
        (gradient,) = torch.autograd.grad(energy, x, retain_graph=True)
        assert torch.isfinite(energy)
        assert gradient.abs().max() < 1e5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_coincident_atoms_give_finite_energies_and_forces(dtype):
    terms = extract_mmff(build("CCO"))
    x = torch.zeros(terms.n_atoms, 3, dtype=dtype, requires_grad=True)
    energy = total(terms, x)
    (gradient,) = torch.autograd.grad(energy, x)
    assert torch.isfinite(energy)
    assert torch.isfinite(gradient).all()


def test_single_precision_follows_double_precision():
    mol = build("CC(=O)Oc1ccccc1C(=O)O")
    terms = extract_mmff(mol)
    x = torch.tensor(positions_of(mol))
    assert total(terms, x.float()).item() == pytest.approx(total(terms, x).item(), abs=1e-4)
    assert total(terms, x.float()).dtype == torch.float32


def test_leading_dimensions_are_a_batch_of_independent_molecules():
    mol = build("CS(C)=O")
    terms = extract_mmff(mol)
    x = torch.tensor(positions_of(mol) + np.random.default_rng(3).normal(0, 0.1, (2, 3, mol.GetNumAtoms(), 3)))
    batched = mmff_energies(terms, x)
    for name, values in batched.items():
        assert values.shape == (2, 3)
        single = mmff_energies(terms, x[1, 2])[name]
        assert single.shape == ()
        assert values[1, 2].item() == pytest.approx(single.item(), abs=1e-12)
    assert set(batched) == set(module.TERMS)


def test_gathering_and_the_incidence_product_give_the_same_energies(monkeypatch):
    mol = build("CC(=O)Nc1ccc(O)cc1")
    x = torch.tensor(positions_of(mol))
    dense = mmff_energies(extract_mmff(mol), x)
    monkeypatch.setattr(module, "_DENSE_LIMIT", 0)
    gathered = mmff_energies(extract_mmff(mol), x)
    for name in module.TERMS:
        assert gathered[name].item() == pytest.approx(dense[name].item(), abs=1e-12)


@given(seed=st.integers(0, 10_000), shift=st.floats(-50, 50))
@settings(max_examples=20, deadline=None)
def test_energies_do_not_change_when_the_molecule_is_moved(seed, shift):
    mol = build("CC(=O)N")
    terms = extract_mmff(mol)
    x = positions_of(mol) + np.random.default_rng(seed).normal(0, 0.1, (mol.GetNumAtoms(), 3))
    moved = Rotation.random(rng=seed).apply(x) + shift
    before, after = mmff_energies(terms, torch.tensor(x)), mmff_energies(terms, torch.tensor(moved))
    for name in module.TERMS:
        assert after[name].item() == pytest.approx(before[name].item(), abs=1e-9)


def test_extraction_leaves_the_molecule_as_it_was():
    mol = build("c1ccccc1")
    extract_mmff(mol)
    assert all(bond.GetIsAromatic() for bond in mol.GetAromaticAtoms()[0].GetBonds() if bond.IsInRing())
    assert not mol.HasProp("_MMFFSanitized")


def test_a_molecule_typed_before_by_rdkit_gets_the_same_types():
    fresh = Chem.AddHs(Chem.MolFromSmiles("CCOC(=O)C1=C(CC)Nc2ccccc2N=C1NC(=O)c1ccccc1"))
    used = Chem.Mol(fresh)
    for _ in range(2):
        rdForceFieldHelpers.MMFFGetMoleculeProperties(used)
    assert extract_mmff(used).atom_types.tolist() == extract_mmff(fresh).atom_types.tolist()


def test_linear_centres_have_no_angle_or_torsion_term():
    terms = extract_mmff(build("CC#CC"))
    assert len(terms.linear_angles) == 2
    assert not {(1, 2), (2, 1)} & {tuple(t[1:3]) for t in terms.torsions.tolist()}


def test_terms_without_rows_keep_their_shape():
    terms = extract_mmff(build("O"))
    assert terms.torsions.shape == (0, 4) and terms.pairs.shape == (0, 2)
    assert terms.vdw_r.shape == (0,)
    assert total(terms, torch.tensor(positions_of(build("O")))).shape == ()


def test_molecules_that_mmff_does_not_type_and_positions_of_another_one_are_refused_by_name():
    with pytest.raises(UnsupportedElementError, match="MMFF94 has no parameters for B"):
        extract_mmff(Chem.AddHs(Chem.MolFromSmiles("OB(O)c1ccccc1")))
    refuses(ParameterError, "no atom types", extract_mmff, Chem.AddHs(Chem.MolFromSmiles("FS(F)(F)(F)(F)F")))
    refuses(MoleculeError, "implicit hydrogens", extract_mmff, Chem.MolFromSmiles("CC"))
    refuses(InputError, r"\(\.\.\., 3, 3\)", mmff_energies, extract_mmff(build("O")), torch.zeros(4, 3))


@pytest.mark.parametrize("smiles", MOLECULES[::3])
def test_the_compiled_terms_are_those_of_torch(smiles):
    mol = build(smiles)
    terms, n = extract_mmff(mol), mol.GetNumAtoms()
    x = positions_of(mol) + np.random.default_rng(0).normal(scale=0.1, size=(2, n, 3))
    moving = torch.tensor(x, requires_grad=True)
    energy = sum(module.mmff_energies(terms, moving).values())
    gradient = torch.autograd.grad(energy.sum() + 0.0 * moving.sum(), moving)[0].numpy()
    found, slope, virial = mmff_molecules(terms, x.reshape(-1, 3), np.array([0, n]))
    np.testing.assert_allclose(found, energy.detach(), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(slope, gradient, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(virial, np.einsum("mai,maj->mij", x - x[:, :1], gradient), atol=1e-8)
