"""Point groups of conformers."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molflow_sim import Molecule
from molflow_sim.geometry.superposition import kabsch

ORDERS = {
    "c1ccccc1": 24,  # D6h
    "c1ccc2ccccc2c1": 8,  # D2h
    "C": 24,  # Td
    "CC": 12,  # D3d
    "O": 4,  # C2v
    "C1C2CC3CC1CC(C2)C3": 24,  # Td
    "C12C3C4C1C5C2C3C45": 48,  # Oh
    "c1ncncn1": 12,  # D3h
    "FC(Cl)Br": 1,
    "C=C": 8,
    "O=C=O": 8,  # the finite subgroup about the principal axes
}


@pytest.fixture(scope="module")
def molecules() -> dict[str, Molecule]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {smiles: Molecule.from_smiles(smiles, n_conformers=1) for smiles in ORDERS}


@pytest.mark.parametrize("smiles", ORDERS)
def test_number_of_operations(molecules, smiles):
    assert len(molecules[smiles].point_group_operations(0)[0]) == ORDERS[smiles]


@pytest.mark.parametrize("smiles", ORDERS)
def test_operations_form_a_group_of_orthogonal_matrices_with_the_identity_first(molecules, smiles):
    matrices, permutations = molecules[smiles].point_group_operations(0)
    np.testing.assert_allclose(matrices[0], np.eye(3), atol=1e-9)
    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), np.broadcast_to(np.eye(3), matrices.shape), atol=1e-9
    )
    for a in matrices:
        for b in matrices:
            assert np.abs(matrices - a @ b).max(axis=(1, 2)).min() < 1e-7
    assert permutations.shape == (len(matrices), molecules[smiles].n_atoms)


@pytest.mark.parametrize("smiles", ORDERS)
def test_symmetrised_positions_are_exactly_symmetric_and_barely_moved(molecules, smiles):
    molecule = molecules[smiles]
    matrices, permutations = molecule.point_group_operations(0)
    x = molecule.symmetrised(0)
    for matrix, permutation in zip(matrices, permutations):
        np.testing.assert_allclose(x @ matrix.T, x[permutation], atol=1e-9)
        np.testing.assert_array_equal(molecule.numbers[permutation], molecule.numbers)
    assert np.abs(x - molecule.conformers[0]).max() < 0.1


def test_tolerance_decides_whether_a_distortion_breaks_the_symmetry(molecules):
    benzene = molecules["c1ccccc1"]
    x = benzene.conformers[0].copy()
    x[0, 2] += 0.05
    bent = benzene.with_conformers(x[None])
    assert len(bent.point_group_operations(0, tolerance=0.2)[0]) == 24
    assert len(bent.point_group_operations(0, tolerance=0.01)[0]) < 24


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_the_order_does_not_depend_on_how_the_molecule_is_turned(seed):
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    base = _naphthalene()
    turned = base.with_conformers((base.conformers[0] @ q.T)[None])
    assert len(turned.point_group_operations(0)[0]) == 8


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31 - 1), st.booleans())
def test_kabsch_recovers_a_known_rotation_or_rotoreflection(seed, improper):
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    q *= np.sign(np.linalg.det(q)) * (-1 if improper else 1)
    x = rng.normal(size=(7, 3))
    np.testing.assert_allclose(kabsch(x, x @ q.T, improper), q, atol=1e-8)


_CACHE: list[Molecule] = []


def _naphthalene() -> Molecule:
    if not _CACHE:
        _CACHE.append(Molecule.from_smiles("c1ccc2ccccc2c1"))
    return _CACHE[0]
