"""Body frames come from geometry, and so do hands and axis-flip states."""

import numpy as np
import pytest
import torch
from crystal_examples import molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refuses
from scipy.spatial.transform import Rotation

from molflow_sim.errors import NonFiniteError
from molflow_sim.models.mol_crystal_flow import frames
from molflow_sim.models.mol_crystal_flow.batch import Poses
from molflow_sim.models.mol_crystal_flow.features import NAMES, chemical_features, geometric_features
from molflow_sim.models.mol_crystal_flow.frames import CHI_STATES, body_frame, proper_pose

SMILES = ["CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "NC(N)=O", "c1ccccc1", "c1ccc2ccccc2c1", "CC#N", "ClC(Cl)(Cl)Cl"]
# Proper rotations of the (ideal) molecules; chiral conformers; alanine and aspirin have no symmetry.
ORDERS = [1, 1, 2, 12, 4, 3, 12]
ACHIRAL = [False, False, False, True, True, True, True]
seeds = st.integers(0, 10_000)


def _apart(numbers: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Largest distance in Å from an atom of x to the nearest of its element in y."""
    r = np.linalg.norm(x[:, None] - y[None], axis=-1)
    r[numbers[:, None] != numbers[None]] = np.inf
    return float(r.min(1).max())


@pytest.mark.parametrize("smiles", SMILES)
def test_the_canonical_form_does_not_depend_on_how_the_conformer_is_turned_or_reflected(smiles):
    m = molecule(smiles)
    reference = body_frame(m.numbers, m.conformers[0])
    for seed in range(6):
        q = Rotation.random(random_state=seed).as_matrix()
        for sign in (1.0, -1.0):
            other = body_frame(m.numbers, sign * m.conformers[0] @ q.T)
            assert _apart(m.numbers, other.canonical, reference.canonical) < frames.MATCH
            assert other.achiral == reference.achiral
            assert other.hand == (reference.hand if reference.achiral else sign * reference.hand)
            assert np.linalg.det(other.rotation) == pytest.approx(1.0)
            back = other.canonical * [1, 1, other.hand] @ other.rotation.T
            assert np.allclose(back, sign * m.conformers[0] @ q.T, atol=1e-9)


@pytest.mark.parametrize(("smiles", "order", "achiral"), zip(SMILES, ORDERS, ACHIRAL))
def test_the_symmetry_of_a_shape_is_found(smiles, order, achiral):
    m = molecule(smiles)
    frame = body_frame(m.numbers, m.conformers[0])
    assert len(frame.symmetry) == order and frame.achiral == achiral
    for q in frame.symmetry:
        assert np.linalg.det(q) == pytest.approx(1.0)
        assert _apart(m.numbers, frame.canonical @ q.T, frame.canonical) < frames.MATCH
    if achiral:
        assert np.linalg.det(frame.mirror) == pytest.approx(-1.0)
        assert _apart(m.numbers, frame.canonical @ frame.mirror.T, frame.canonical) < frames.MATCH


@pytest.mark.parametrize("smiles", SMILES)
def test_trap_4_chi_does_not_come_from_the_signs_an_eigensolver_happens_to_return(smiles, monkeypatch):
    m = molecule(smiles)
    reference = body_frame(m.numbers, m.conformers[0])
    true_eigh = np.linalg.eigh
    for signs in CHI_STATES:

        def other_signs(matrix, signs=signs):
            values, vectors = true_eigh(matrix)
            return values, vectors * signs

        monkeypatch.setattr(np.linalg, "eigh", other_signs)
        found = body_frame(m.numbers, m.conformers[0])
        assert found.hand == reference.hand
        assert _apart(m.numbers, found.canonical, reference.canonical) < frames.MATCH


@given(seed=seeds, state=st.sampled_from([tuple(c) for c in CHI_STATES]))
@settings(max_examples=50, deadline=None)
def test_every_chi_of_one_hand_describes_the_same_copy_with_a_proper_rotation(seed, state):
    rotation = Rotation.random(random_state=seed).as_matrix()
    x = np.random.default_rng(seed).normal(size=(7, 3))
    tensors = (torch.tensor(x)[None] for x in (np.eye(3), np.zeros((1, 3)), rotation[None], np.array([state])))
    poses = Poses(*tensors).standard()
    standard, hand = poses.rotation[0, 0].numpy(), poses.hand.item()
    assert poses.chi.tolist() == [[[1.0, 1.0, hand]]]
    assert np.linalg.det(standard) == pytest.approx(1.0)
    assert np.allclose((x * state) @ rotation.T, (x * [1, 1, hand]) @ standard.T)


@given(seed=seeds, smiles=st.sampled_from(SMILES), improper=st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_copy_is_a_proper_rotation_of_the_canonical_form_or_its_mirror_image(seed, smiles, improper):
    m = molecule(smiles)
    frame = body_frame(m.numbers, m.conformers[0])
    q = Rotation.random(random_state=seed).as_matrix() * (-1.0 if improper else 1.0)
    rotation, hand = proper_pose(q, frame)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    copy = m.conformers[0] @ q.T
    assert _apart(m.numbers, frame.canonical * [1, 1, hand] @ rotation.T, copy) < frames.MATCH
    assert hand == (1 if frame.achiral else frame.hand * (-1 if improper else 1))
    if not frame.achiral:  # atom by atom
        assert np.allclose(frame.canonical * [1, 1, hand] @ rotation.T, copy, atol=1e-9)


def test_atoms_in_a_line_and_single_atoms_have_frames_and_nan_has_none():
    for numbers, x in ((np.array([7, 7]), [[0.55, 0, 0], [-0.55, 0, 0]]), (np.array([18]), [[0.0, 0, 0]])):
        frame = body_frame(numbers, np.array(x))
        assert frame.achiral and np.linalg.det(frame.rotation) == pytest.approx(1.0)
    refuses(NonFiniteError, "NaN", body_frame, np.array([6, 8]), np.array([[0.0, 0, 0], [np.nan, 0, 0]]))


@given(seed=seeds, smiles=st.sampled_from(SMILES))
@settings(max_examples=20, deadline=None)
def test_the_geometric_features_are_invariant(seed, smiles):
    m = molecule(smiles)
    q = Rotation.random(random_state=seed).as_matrix() * (-1) ** seed
    reference, turned = (body_frame(m.numbers, x).moments for x in (m.conformers[0], m.conformers[0] @ q.T + 3.0))
    assert np.allclose(geometric_features(m.n_atoms, turned), geometric_features(m.n_atoms, reference), atol=1e-7)


def test_the_eighteen_features_have_the_known_values_for_aspirin():
    m = molecule("CC(=O)Oc1ccccc1C(=O)O")
    moments = body_frame(m.numbers, m.conformers[0]).moments
    values = [*geometric_features(m.n_atoms, moments), *chemical_features(m.rdmol)]
    found = dict(zip(NAMES, values, strict=True))
    assert (
        found["atoms"] == 21 and found["heavy_atoms"] == 13 and found["molar_mass"] == pytest.approx(180.16, abs=0.01)
    )
    assert (found["donors"], found["acceptors"], found["rings"], found["aromatic_rings"]) == (1, 3, 1, 1)
    assert found["stereocentres"] == 0 and found["tpsa"] == pytest.approx(63.6, abs=0.1)
    assert found["radius_of_gyration"] ** 2 == pytest.approx(sum(found[f"moment_{i}"] for i in (1, 2, 3)))
