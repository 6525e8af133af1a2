"""Coverage and AMR: what RDKit says, and what failures and wrong stereochemistry cost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdMolAlign
from refusals import refuses
from scipy.spatial.transform import Rotation

from benchmarks.conformer_metrics import compare_ensembles, heavy_atom_rmsds, right, unrelated
from molflow_sim.errors import InputError
from molflow_sim.geometry.rmsd import rmsd_matrix

SYMMETRIC = (
    "O=C(O)CCc1ccc([N+](=O)[O-])cc1",
    "CS(=O)(=O)Cc1ccc(C(F)(F)F)cc1",
    "NC(=N)NCCC",
    "CP(=O)(O)OCC",
    "CC(C)(C)CO",
)


def embedded(smiles: str, n: int, seed: int = 7) -> tuple[Chem.Mol, np.ndarray]:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMultipleConfs(mol, n, randomSeed=seed)
    return mol, np.array([c.GetPositions() for c in mol.GetConformers()])


@pytest.mark.parametrize("smiles", SYMMETRIC)
def test_rmsds_are_those_of_rdkit_whatever_the_atom_order(smiles):
    mol, x = embedded(smiles, 4)
    order = np.random.default_rng(1).permutation(mol.GetNumAtoms())
    other = Chem.RenumberAtoms(mol, order.tolist())
    found = heavy_atom_rmsds(mol, x, other, x[:, order])
    bare = Chem.RemoveHs(mol)
    wanted = [[rdMolAlign.GetBestRMS(Chem.Mol(bare), bare, l, k) for l in range(4)] for k in range(4)]
    assert found == pytest.approx(np.array(wanted), abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 12))
def test_an_rmsd_does_not_feel_rotations_shifts_or_permutations_that_it_may_use(seed, n):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 3, n, 3))
    permutations = np.array([np.arange(n), rng.permutation(n)])
    turned = b @ Rotation.random(random_state=seed).as_matrix().T + rng.normal(size=3)
    before, after = rmsd_matrix(a, b, permutations[:1]), rmsd_matrix(a, turned, permutations[:1])
    assert after == pytest.approx(before, abs=1e-6)
    assert np.all(rmsd_matrix(a, b, permutations) <= before + 1e-9)
    assert rmsd_matrix(a, None, permutations[:1]) == pytest.approx(rmsd_matrix(a, a, permutations[:1]), abs=1e-6)
    plain = np.sqrt(np.square(a - a.mean(1, keepdims=True) - b + b.mean(1, keepdims=True)).sum(2).mean(1))
    assert np.all(np.diag(before) <= plain + 1e-9)


def test_rmsds_of_positions_in_single_precision_are_in_double_precision():
    x = np.float32(300.0 + np.random.default_rng(0).normal(size=(3, 8, 3)))
    same = np.arange(8)[None]
    assert (rmsd_matrix(x, x[:2], same) == rmsd_matrix(x.astype(float), x[:2].astype(float), same)).all()


def test_mirror_images_differ():
    x = np.random.default_rng(0).normal(size=(1, 6, 3))
    assert rmsd_matrix(x, -x, np.arange(6)[None])[0, 0] > 0.1


def test_another_molecule_is_refused():
    (a, x), (b, y) = embedded("CCO", 1), embedded("CCN", 1)
    refuses(InputError, "is not the molecule", heavy_atom_rmsds, a, x, b, y)


def test_perfect_ensembles_score_perfectly_and_failures_count_in_all_four():
    mol, x = embedded("CCCCO", 3)
    whole = compare_ensembles(mol, x, mol, x, asked=3, threshold=0.5)
    assert (whole.coverage_recall, whole.coverage_precision, whole.failed) == (1.0, 1.0, 0)
    assert whole.amr_recall == pytest.approx(0.0, abs=1e-5) == whole.amr_precision
    half = compare_ensembles(mol, x, mol, x, asked=6, threshold=0.5)
    assert half.coverage_precision == 0.5 and half.failed == 3
    assert half.amr_precision == pytest.approx(0.5 * unrelated(mol, x), abs=1e-5)
    none = compare_ensembles(mol, x, mol, x[:0], asked=2, threshold=0.5)
    assert none.coverage_recall == none.coverage_precision == 0.0
    assert none.amr_recall == none.amr_precision == unrelated(mol, x)


def test_the_wrong_hand_is_a_failure():
    mol, x = embedded("C[C@H](F)CC[C@@H](O)C", 4)
    mirrored = x * [1.0, 1.0, -1.0]
    assert right(mol, x).all() and not right(mol, mirrored).any()
    assert compare_ensembles(mol, x, mol, mirrored, asked=4, threshold=5.0).failed == 4
    assert right(mol, np.concatenate([x[:1], mirrored[:1], np.full_like(x[:1], np.nan)])).tolist() == [
        True,
        False,
        False,
    ]


def test_nothing_can_be_further_apart_than_unrelated_structures():
    mol, x = embedded("OCCCCCCCN", 12)
    assert heavy_atom_rmsds(mol, x, mol, x).max() < unrelated(mol, x)


def test_coverage_needs_something_to_cover():
    mol, x = embedded("CCO", 1)
    refuses(InputError, "known conformers", compare_ensembles, mol, x[:0], mol, x, asked=1, threshold=0.5)
