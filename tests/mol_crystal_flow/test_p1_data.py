"""Crystals become P 1 batches and stay the same crystals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from crystal_examples import crystal
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from p1_examples import NAMES, cloud, cocrystal, data, record, same_crystal
from refusals import refuses
from scipy.spatial.transform import Rotation

from molflow_sim.errors import CrystalError, StoreError, TrainingError
from molflow_sim.models.mol_crystal_flow import P1Batches, P1Data, P1Settings
from molflow_sim.models.mol_crystal_flow.batch import standard_frame
from molflow_sim.models.mol_crystal_flow.data import change_basis
from molflow_sim.symmetry import SpaceGroup, cell_matrix, cell_parameters
from molflow_sim.symmetry.reduction import reduced_basis
from molflow_sim.systems.crystal import MolecularCrystal

seeds = st.integers(0, 10_000)


def _cell(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    parameters = np.r_[rng.uniform(4, 15, 3), rng.uniform(55, 125, 3)]
    if seed % 3 == 0:
        parameters[3:] = 90.0
    if seed % 6 == 0:
        parameters[1] = parameters[0]
    c = np.cos(np.radians(parameters[3:]))
    assume(1 + 2 * c.prod() - (c**2).sum() > 0.05)
    rows = cell_matrix(parameters)
    for _ in range(seed % 4):
        i, j = rng.choice(3, 2, replace=False)
        rows[i] += rng.integers(-2, 3) * rows[j]
    return rows


@given(seed=seeds)
@settings(max_examples=200, deadline=None)
def test_the_niggli_cell_is_the_one_gemmi_finds(seed):
    gemmi = pytest.importorskip("gemmi")
    cell = _cell(seed)
    change = reduced_basis(cell)
    assert round(np.linalg.det(change)) == 1
    theirs = gemmi.GruberVector(gemmi.UnitCell(*cell_parameters(cell)), "P")
    theirs.niggli_reduce(epsilon=1e-6)
    assert np.allclose(cell_parameters(change @ cell), theirs.get_cell().parameters, atol=1e-3)


@pytest.mark.parametrize("name", ["C 1 2/c 1", "I 41/a", "F d d 2", "R 3"])
def test_of_a_centred_cell_the_primitive_one_is_taken(name):
    """The same crystal, with half, a quarter or a third of the molecules in the cell."""
    group = SpaceGroup.from_name(name)
    unit = crystal("urea").asymmetric_unit[0]
    parameters = group.constrain(np.array([[11.0, 12.0, 13.0, 80.0, 100.0, 95.0]]))
    centred = MolecularCrystal(
        crystal("urea").molecules,
        (replace(unit, centroid=np.array([0.11, 0.23, 0.37]), images=tuple(range(group.order))),),
        group, cell_matrix(parameters)[0],
    )  # fmt: skip
    found = P1Data.from_crystals([centred])
    assert not found.skipped
    times = {"C": 2, "I": 2, "F": 4, "R": 3}[name[0]]
    assert len(found.crystals[0].shape) * times == group.order
    assert np.linalg.det(found.crystals[0].cell) * times == pytest.approx(centred.volume)
    theirs, ours = cloud(centred), np.repeat(cloud(found.batch([0])), times, axis=0)
    assert np.allclose(*(np.sort(c[c[:, 2] < 5.9][:, 2]) for c in (theirs, ours)), atol=1e-3)


def test_a_flat_cell_is_refused_by_name():
    refuses(CrystalError, "volume", reduced_basis, np.array([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]]))


@given(seed=seeds)
@settings(max_examples=50, deadline=None)
def test_the_standard_frame_is_a_rotation_of_the_cell_in_numpy_and_torch_alike(seed):
    cell = _cell(seed) @ Rotation.random(random_state=seed).as_matrix()
    standard, _, (turn,) = change_basis(np.eye(3), cell, np.zeros((1, 3)), np.eye(3)[None])
    assert np.allclose(turn @ turn.T, np.eye(3)) and np.linalg.det(turn) == pytest.approx(1)
    assert np.allclose(cell @ turn.T, standard, atol=1e-9) and np.allclose(standard, np.tril(standard))
    other, other_turn = standard_frame(torch.tensor(cell))
    assert np.allclose(other.numpy(), standard, atol=1e-9) and np.allclose(other_turn.numpy(), turn, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_trap_1_the_reduced_cell_is_not_put_around_unchanged_cartesians(name):
    """All distances between atoms, across cell borders too, are those of the crystal that went in."""
    original = crystal(name)
    batch = data().batch([NAMES.index(name)])
    assert same_crystal(original, batch)
    # Keeping Cartesian orientations while the frame turns makes another crystal: the check notices.
    c = data().crystals[NAMES.index(name)]
    skewed = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]])
    cell, frac, rotation = change_basis(skewed, c.cell, c.frac, c.rotation)
    poses = batch.poses
    moved = batch.with_poses(
        type(poses)(
            torch.tensor(cell).float()[None], torch.tensor(frac).float()[None], torch.tensor(rotation).float()[None],
            poses.chi,
        )
    )  # fmt: skip
    assert same_crystal(original, moved)
    from_parameters = moved.with_poses(type(poses)(moved.poses.cell, moved.poses.frac, poses.rotation, poses.chi))
    turned = not np.allclose(rotation, c.rotation, atol=1e-3)
    assert same_crystal(original, from_parameters) is not turned


def test_the_copies_of_a_racemic_space_group_have_both_hands_and_proper_rotations():
    aspirin, glycolic = data().crystals[4], data().crystals[3]
    assert sorted(aspirin.hand) == [-1, -1, 1, 1]  # P 21/c
    assert len(set(glycolic.hand)) == 1  # P 21 21 21
    for c in data().crystals:
        assert np.allclose(np.linalg.det(c.rotation), 1.0)
        assert np.allclose(c.cell, np.tril(c.cell)) and np.allclose(reduced_basis(c.cell), np.eye(3))


def test_a_mirror_image_has_mirrored_distances_and_opposite_hands():
    for k in range(5):
        plain, mirrored = data().batch([k]), data().batch([k], inverted=[True])
        assert same_crystal(plain, mirrored)  # distances are blind to reflection
        chiral = not data().shapes[data().crystals[k].shape[0]].frame.achiral
        if chiral:
            assert torch.equal(mirrored.poses.hand, -plain.poses.hand)
        assert torch.allclose(torch.linalg.det(mirrored.poses.rotation), torch.ones(1), atol=1e-5)


def test_unlike_molecules_share_a_cell():
    original = cocrystal()
    found = P1Data.from_crystals([original])
    batch = found.batch([0])
    assert batch.mask.all() and len(found.shapes) == 2 and batch.species.tolist() == [[0, 0, 1]]
    assert same_crystal(original, batch)


def test_crystals_of_different_sizes_are_padded():
    found = P1Data.from_crystals([cocrystal(), crystal("aspirin"), crystal("acetonitrile")])
    batch = found.batch([0, 1, 2])
    assert batch.mask.sum(1).tolist() == [3, 4, 2] and (batch.group[~batch.mask] == -1).all()
    assert all(same_crystal(c, batch, k=k) for k, c in enumerate([cocrystal(), crystal("aspirin")]))


def test_what_is_out_of_range_is_left_out_with_its_reason():
    found = P1Data.from_crystals([crystal("urea"), crystal("aspirin")], max_atoms=10)
    assert len(found) == 1 and found.skipped[0][1].startswith("CrystalError: 21 atoms")
    assert "more than the 1" in P1Data.from_crystals([crystal("urea")], max_z=1).skipped[0][1]
    refuses(TrainingError, "CrystalError", P1Batches, P1Data.from_crystals([crystal("urea")], max_z=1), P1Settings(), 4)


def test_saved_data_come_back_and_damaged_files_are_named(tmp_path):
    path = tmp_path / "crystals.npz"
    data().save(path)
    again, _ = P1Data.load(path)
    for k in range(len(data())):
        assert torch.allclose(again.batch([k]).positions(), data().batch([k]).positions())
        assert torch.equal(
            again.batch([k], inverted=[True]).positions(), data().batch([k], inverted=[True]).positions()
        )
    path.write_bytes(path.read_bytes()[:500])
    refuses(StoreError, r"crystals.npz", P1Data.load, path)


def test_a_record_of_a_data_set_gives_the_same_batch_as_its_crystal():
    found = P1Data.from_records([record("aspirin")], [0.5])
    assert found.weights == [0.5] and not found.skipped
    assert torch.allclose(found.batch([0]).positions(), data().batch([4]).positions(), atol=1e-5)


def test_batches_depend_on_seed_and_step_alone():
    one, two = (P1Batches(data(), P1Settings.small(), 6, seed=3) for _ in range(2))
    for step in (0, 7):
        a, b = one.batch(step), two.batch(step)
        assert torch.equal(a.t, b.t) and torch.equal(a.velocity.omega, b.velocity.omega)
    assert not torch.equal(one.batch(0).t, one.batch(1).t)
    assert not torch.equal(one.batch(0).t, P1Batches(data(), P1Settings.small(), 6, seed=4).batch(0).t)


def test_the_fingerprint_used_here_sees_a_molecule_that_moved_a_tenth_of_an_angstrom():
    batch = data().batch([0])
    moved = batch.poses.frac.clone()
    moved[0, 0, 0] += 0.02
    p = batch.poses
    assert not same_crystal(batch, batch.with_poses(type(p)(p.cell, moved, p.rotation, p.chi)))
    assert len(cloud(batch)) > 100
