"""Random packings and the press on real molecules."""

from dataclasses import replace

import numpy as np
import pytest
from ase.neighborlist import neighbor_list
from refusals import refuses
from scipy.spatial.transform import Rotation
from special_positions import special

from molflow_sim import Molecule, parametrize
from molflow_sim.errors import CrystalError, InputError, SpaceGroupError, StoreError
from molflow_sim.packing import PressSettings, RigidPackings, press, random_packings
from molflow_sim.packing.cell_reduction import reduce_cells
from molflow_sim.packing.press import stages
from molflow_sim.packing.tables import PressTables
from molflow_sim.symmetry import cell_parameters
from molflow_sim.units import KJ_PER_MOL


@pytest.fixture(scope="module")
def benzene() -> Molecule:
    return Molecule.from_smiles("c1ccccc1")


@pytest.fixture(scope="module")
def pressed(benzene) -> RigidPackings:
    return press(random_packings(benzene, 200, seed=5), parametrize(benzene))


def test_the_same_seed_gives_the_same_packings(benzene):
    a, b = random_packings(benzene, 30, seed=3), random_packings(benzene, 30, seed=3)
    assert np.array_equal(a.cell, b.cell) and np.array_equal(a.rotation, b.rotation)
    assert not np.array_equal(a.cell, random_packings(benzene, 30, seed=4).cell)


def test_cells_start_with_the_molecules_volume(benzene):
    p = random_packings(benzene, 100, seed=0)
    coefficient = p.z * benzene.volume / p.volume
    assert coefficient.min() > 0.49 and coefficient.max() < 0.63


def test_named_space_groups_are_used_and_enantiopure_molecules_get_sohncke_groups_only(benzene):
    alanine = Molecule.from_smiles("C[C@H](N)C(=O)O")
    p = random_packings(alanine, 60, seed=1)
    assert all((np.linalg.det(q.cart_rot) > 0).all() for q in p.placements)
    refuses(SpaceGroupError, "enantiopure", random_packings, alanine, 5, space_groups=["P -1"])
    p = random_packings(benzene, 40, space_groups=["P 21 21 21", "P -1"], seed=2)
    assert set(p.space_groups) == {"P 21 21 21", "P -1"}
    refuses(SpaceGroupError, "unknown space group", random_packings, benzene, 4, space_groups=["P 99"])


def test_symmetric_molecules_also_go_to_special_positions(benzene):
    p = random_packings(benzene, 200, space_groups=["P b c a"], seed=2)
    assert set(p.z_prime) == {0.5, 1.0}


@pytest.mark.parametrize("bad", [{"n": 0}, {"n": 3, "z_prime": 0}, {"n": 3, "z_prime": 9}])
def test_numbers_out_of_range_are_refused(benzene, bad):
    with pytest.raises(InputError):
        random_packings(benzene, **bad)


def test_nearly_all_random_benzene_packings_reach_a_sensible_minimum(pressed):
    assert pressed.ok.mean() > 0.97 and np.isfinite(pressed.energy[pressed.ok]).all()
    assert 0.85 < np.median(pressed.density[pressed.ok]) < 1.2


def test_the_experimental_benzene_structure_is_among_two_hundred(pressed):
    """Pbca with a, b, c = 7.39, 9.42, 6.81 Å at 138 K (Bacon, Curry & Wilson 1964), within 5 %."""
    best = np.argsort(np.where(pressed.ok, pressed.energy, np.inf))[:40]
    cells = np.sort(np.linalg.norm(pressed.cell[best], axis=-1), axis=1)
    assert (np.abs(cells / np.array([6.81, 7.39, 9.42]) - 1).max(1) < 0.05).any()


def test_pressing_again_changes_nothing(benzene, pressed):
    low = pressed.select(np.argsort(np.where(pressed.ok, pressed.energy, np.inf))[:30])
    again = press(low, parametrize(benzene), PressSettings(soft_evaluations=0, squeeze_evaluations=0))
    assert np.abs(again.energy - low.energy).max() < 0.5 * KJ_PER_MOL


def test_special_positions_keep_their_symmetry(benzene):
    p = random_packings(benzene, 60, space_groups=["C 1 2/m 1"], seed=3)
    q = press(p, parametrize(benzene))
    special = np.flatnonzero((q.z_prime < 1) & q.ok)
    assert len(special) > 10
    for i in special[:10]:
        place = q.placements[q.placement[i]]
        moved = q.centroid[i, 0] - place.site_centroid
        moved -= np.rint(moved)
        free = np.einsum("xy,y->x", place.translation_projector, moved @ q.cell[i])
        assert np.allclose(free, moved @ q.cell[i], atol=1e-6)


def test_torch_backend_reaches_the_same_minima(benzene):
    start = press(random_packings(benzene, 24, seed=8), parametrize(benzene))
    settings = PressSettings(soft_evaluations=0, squeeze_evaluations=0)
    a, b = (press(start, parametrize(benzene), settings, backend=k) for k in ("numba", "torch"))
    close = np.abs(a.energy - b.energy) < 1e-3 * np.abs(a.energy)
    assert close.mean() > 0.9


def test_overlapping_and_flat_cells_give_a_status_not_nan(benzene):
    p = random_packings(benzene, 20, seed=1)
    cell = p.cell.copy()
    cell[:10] *= 0.3
    cell[10:, 2, 2] *= 0.05
    squashed = RigidPackings.proposed(
        benzene, p.conformers, p.placements, p.placement, p.conformer, cell, p.centroid, p.rotation
    )
    q = press(squashed, parametrize(benzene))
    assert len(q) == 20 and np.isfinite(q.energy[q.ok]).all()
    assert all((reason == "") == ok for reason, ok in zip(q.reasons, q.ok))


def test_two_molecules_in_the_asymmetric_unit(benzene):
    q = press(random_packings(benzene, 30, z_prime=2, seed=1), parametrize(benzene))
    assert q.ok.mean() > 0.9 and set(q.z_prime) == {2.0}


def test_several_molecules_of_one_shape_come_back_in_whatever_body_frames_and_hands_they_are_given():
    acetamide = Molecule.from_smiles("CC(N)=O", n_conformers=1)
    packings = random_packings(acetamide, 2, space_groups="P 1 21/c 1", z_prime=2)
    drawn = packings.crystal(0)
    np.testing.assert_array_equal(RigidPackings.from_crystals([drawn]).rotation[0], packings.rotation[0])
    one, two = drawn.asymmetric_unit
    turn = Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix()
    for sign in (1.0, -1.0):  # the same atoms by another frame, or another hand
        body = sign * two.conformer
        told = replace(two, conformer=body @ turn.T, orientation=two.orientation @ turn.T)
        crystal = replace(drawn, asymmetric_unit=(one, told))
        again = RigidPackings.from_crystals([crystal])
        np.testing.assert_allclose(again.crystal(0).unit_cell()[1], crystal.unit_cell()[1], atol=1e-8)
        assert np.sign(np.linalg.det(again.rotation[0])).tolist() == [1.0, sign]

    bent = replace(two, conformer=two.conformer + 0.3 * (np.arange(9) == 8)[:, None])
    other = replace(drawn, asymmetric_unit=(one, bent))
    refuses(CrystalError, "only of one shape", RigidPackings.from_crystals, [other])
    halves = special("inversion")
    twice = replace(halves, asymmetric_unit=halves.asymmetric_unit * 2)
    refuses(CrystalError, "in general positions", RigidPackings.from_crystals, [twice])


def test_saved_packings_come_back_the_same_and_a_truncated_file_is_a_named_error(tmp_path, benzene, pressed):
    pressed.save(tmp_path / "batch.npz")
    back = RigidPackings.load(tmp_path / "batch.npz", benzene)
    assert np.array_equal(back.energy, pressed.energy) and back.space_groups == pressed.space_groups
    assert np.array_equal(back.crystal(3).to_ase().positions, pressed.crystal(3).to_ase().positions)
    path = tmp_path / "batch.npz"
    pressed.save(path)
    path.write_bytes(path.read_bytes()[:2000])
    refuses(StoreError, r"batch\.npz is damaged", RigidPackings.load, path, benzene)


def test_joining_keeps_every_row(pressed):
    parts = [pressed.select(slice(0, 50)), pressed.select(slice(50, None))]
    joined = RigidPackings.concatenate(parts)
    assert joined.space_groups == pressed.space_groups and np.array_equal(joined.index, pressed.index)


def test_reduced_cells_describe_the_same_crystals(benzene):
    p = random_packings(benzene, 60, space_groups=["P -1", "P 1 21/c 1", "C 1 2/c 1"], seed=6)
    shear = np.array([[1, 0, 0], [0, 1, 0], [2, 0, 1]])
    q = RigidPackings.proposed(
        benzene, p.conformers, p.placements, p.placement, p.conformer,
        # c + 2a keeps the glide c/2, so the operations stand as they are
        shear @ p.cell, p.centroid @ np.linalg.inv(shear), p.rotation,
    )  # fmt: skip
    reduced = reduce_cells(q)
    angles = np.abs(cell_parameters(reduced.cell)[:, 3:] - 90).max(1)
    assert angles.max() < 45
    for i in range(0, 60, 7):
        distances = [np.sort(neighbor_list("d", x.crystal(i).to_ase(), 4.0)) for x in (q, reduced)]
        assert len(distances[0]) == len(distances[1])
        assert np.allclose(*distances, atol=1e-6)


def test_the_last_stage_has_no_pressure(benzene, pressed):
    p = parametrize(benzene)
    tables = PressTables(
        p.numbers, pressed.conformers, p.exp6_a, p.exp6_b, p.exp6_c, p.charges, benzene.bonds, pressed.placements
    )
    assert [s.pressure > 0 for s in stages(PressSettings(), tables)] == [True, True, False, False]
