"""The crystal flow moves what symmetry leaves free, and answers the same however a crystal is described."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from crystal_flow_examples import batch_for, description_of, flow, positions_in_cell, record_for
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refuses
from scipy.spatial.transform import Rotation

from molflow_sim import Molecule, SpaceGroup, parametrize
from molflow_sim.errors import InputError, ParameterError, SpaceGroupError, WeightsError
from molflow_sim.generators.protocol import CrystalRequest
from molflow_sim.models.crystal_flow.equivalents import (
    equivalents,
    molecule_turns,
    nearest,
    origin_shifts,
    polar_directions,
)
from molflow_sim.models.crystal_flow.generator import FlowGenerator
from molflow_sim.models.crystal_flow.graph import intermolecular_edges
from molflow_sim.models.crystal_flow.model import batch_of
from molflow_sim.models.crystal_flow.network import Velocity
from molflow_sim.models.crystal_flow.path import interpolate, step
from molflow_sim.packing import random_packings
from molflow_sim.packing.packings import OVERLAP_FREE
from molflow_sim.packing.selection import select_low
from molflow_sim.training.model import load_model, save_model

GROUPS = ["P 1", "P -1", "P 1 21/c 1", "P 21 21 21", "P n a 21", "C 1 2/c 1", "P 41 21 2", "R -3:H"]


def velocities(batch, seed: int = 0) -> Velocity:
    time = torch.linspace(0.1, 0.9, len(batch), dtype=batch.cell.dtype)
    with torch.no_grad():
        return flow(seed).network.double()(batch, time, torch.zeros_like(time))


def same(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-9) -> None:
    assert float(a.abs().max()) > 1e-6, "nothing moves, so nothing is tested"
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("group", GROUPS)
def test_edges_are_the_pairs_of_atoms_of_other_molecules_in_reach(group) -> None:
    batch = batch_for("CC(N)=O", group, 2, seed=3)
    edges = intermolecular_edges(batch, 5.0)
    n = batch.numbers.shape[1]
    for b in range(len(batch)):
        own = batch.positions()[b, 0]
        cell, everything = batch.cell[b], positions_in_cell(batch, b)
        shifts = torch.cartesian_prod(*[torch.arange(-6.0, 7.0, dtype=cell.dtype)] * 3) @ cell
        away = (everything.reshape(-1, 3)[None] + shifts[:, None]).reshape(-1, 3)
        separation = torch.cdist(own, away)
        # All atoms in reach, less those of the molecule itself.
        expected = int((separation < 5.0).sum()) - int((torch.cdist(own, own) < 5.0).sum())
        assert int(((edges.receiver // n) == b).sum()) == expected > 0


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), group=st.sampled_from(GROUPS))
def test_the_conformers_frame_does_not_matter(seed, group) -> None:
    batch = batch_for("CC(N)=O", group, 2, seed)
    turn = torch.from_numpy(Rotation.random(random_state=seed).as_matrix())
    other = replace(batch, conformer=batch.conformer @ turn.T, rotation=batch.rotation @ turn.T)
    for a, b in zip(velocities(batch)[:2], velocities(other)[:2]):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), group=st.sampled_from(GROUPS))
def test_lattice_translations_of_a_molecule_do_not_matter(seed, group) -> None:
    batch = batch_for("CC(N)=O", group, 2, seed)
    shift = torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64)
    a, b = velocities(batch), velocities(batch.moved(batch.cell, batch.centroid + shift, batch.rotation))
    same(a.strain, b.strain)
    torch.testing.assert_close(a.centre, b.centre, rtol=0, atol=1e-9)


@pytest.mark.parametrize("group", GROUPS)
def test_the_choice_of_origin_does_not_matter(group) -> None:
    batch = batch_for("CC(N)=O", group, 2, seed=5)
    known = SpaceGroup.from_name(group)
    a = velocities(batch)
    for shift in origin_shifts(known.rotations, known.translations):
        other = batch.moved(batch.cell, batch.centroid + torch.from_numpy(shift), batch.rotation)
        same(a.strain, velocities(other).strain)
        torch.testing.assert_close(a.turn, velocities(other).turn, rtol=0, atol=1e-9)
    # Along a polar axis any shift will do.
    free = torch.from_numpy(polar_directions(known.cartesian_rotations)) @ torch.tensor([0.3, 0.4, 0.5]).double()
    along = free @ torch.linalg.inv(batch.cell)
    same(a.strain, velocities(batch.moved(batch.cell, batch.centroid + along[:, None], batch.rotation)).strain)


@pytest.mark.parametrize("group", [g for g in GROUPS if g != "P 1"])
def test_any_symmetry_copy_may_stand_for_the_molecule(group) -> None:
    batch = batch_for("CC(N)=O", group, 2, seed=7)
    a = velocities(batch)
    proper = [g for g in range(int(batch.n_images[0])) if float(torch.linalg.det(batch.cart_rot[0, g])) > 0]
    for g in proper:
        turn = batch.cart_rot[:, g]
        centroid = torch.einsum("bxy,bmy->bmx", batch.frac_rot[:, g], batch.centroid) + batch.frac_tran[:, g, None]
        b = velocities(batch.moved(batch.cell, centroid, turn[:, None] @ batch.rotation))
        same(a.strain, b.strain)
        torch.testing.assert_close(a.centre @ turn.transpose(1, 2), b.centre, rtol=0, atol=1e-9)
        torch.testing.assert_close(a.turn @ turn.transpose(1, 2), b.turn, rtol=0, atol=1e-9)


def test_a_mirror_image_moves_as_a_mirror_image() -> None:
    batch = batch_for("C[C@H](N)C(=O)O", "P 21 21 21", 2, seed=1)
    mirrored = replace(batch, conformer=-batch.conformer, centroid=-batch.centroid, frac_tran=-batch.frac_tran)
    a, b = velocities(batch), velocities(mirrored)
    same(a.strain, b.strain)
    same(a.centre, -b.centre)
    same(a.turn, b.turn)


def test_the_network_sees_how_a_molecule_is_turned_against_the_cell() -> None:
    batch = batch_for("CC(N)=O", "P 1", 1, seed=2)
    turn = torch.from_numpy(Rotation.from_rotvec([0.4, -0.3, 0.5]).as_matrix())
    a, b = velocities(batch), velocities(batch.moved(batch.cell, batch.centroid, turn @ batch.rotation))
    assert float((a.strain - b.strain).abs().max()) > 1e-6


@pytest.mark.parametrize("group", GROUPS)
def test_a_path_begins_and_ends_where_it_should_and_its_velocity_is_its_derivative(group) -> None:
    start, end = batch_for("CC(N)=O", group, 3, seed=1), batch_for("CC(N)=O", group, 3, seed=9)
    end = start.moved(end.cell, end.centroid, end.rotation)
    zero, one = torch.zeros(3).double(), torch.ones(3).double()
    first, last = interpolate(start, end, zero)[0], interpolate(start, end, one)[0]
    torch.testing.assert_close(first.cell, start.cell)
    torch.testing.assert_close(last.cell, end.cell)
    torch.testing.assert_close(last.rotation, end.rotation, rtol=0, atol=1e-7)
    away = last.centroid - end.centroid
    torch.testing.assert_close(away - away.round(), torch.zeros_like(away), rtol=0, atol=1e-9)
    h = 1e-5
    between, velocity = interpolate(start, end, 0.4 * one)
    later = interpolate(start, end, (0.4 + h) * one)[0]
    reached = step(between, velocity, h)
    torch.testing.assert_close(reached.cell, later.cell, rtol=0, atol=1e-8)
    torch.testing.assert_close(reached.rotation, later.rotation, rtol=0, atol=1e-8)
    # Displacements along a polar axis are not the flow's business.
    away = ((later.centroid - reached.centroid) - (later.centroid - reached.centroid).round()) @ start.cell
    polar = torch.from_numpy(polar_directions(SpaceGroup.from_name(group).cartesian_rotations))
    torch.testing.assert_close(away - away @ polar, torch.zeros_like(away), rtol=0, atol=1e-8)


@pytest.mark.parametrize("group", GROUPS)
def test_every_equivalent_description_is_the_same_crystal(group) -> None:
    record = record_for("CC(N)=O", group, seed=4)
    centroids, rotations = equivalents(record, molecule_turns(record.numbers, record.conformers[0]))
    assert len(centroids) >= len(record.rotations) // 2
    expected = description_of(record)
    for k in np.unique(np.linspace(0, len(centroids) - 1, 16).astype(int)):
        centroid, rotation = centroids[k], rotations[k]
        other = replace(record, centroid=centroid[None], orientation=rotation[None])
        assert description_of(other) == pytest.approx(expected, abs=1e-6)


def test_the_nearest_description_is_no_farther_than_the_first() -> None:
    record = record_for("c1ccccc1", "P 1 21/c 1", seed=4)
    choices = equivalents(record, molecule_turns(record.numbers, record.conformers[0]))
    rng = np.random.default_rng(0)
    centroid, rotation = rng.random((5, 3)), Rotation.random(5, random_state=1).as_matrix()
    cell = np.broadcast_to(record.cell, (5, 3, 3))
    zero = np.zeros((3, 3))
    cost = nearest(centroid, rotation, cell, choices, zero, 1.5)[2]
    one = nearest(centroid, rotation, cell, (choices[0][:1], choices[1][:1]), zero, 1.5)[2]
    assert (cost <= one + 1e-12).all() and cost.mean() < 0.8 * one.mean()


@pytest.mark.parametrize(
    ("smiles", "order"), [("c1ccccc1", 12), ("O", 2), ("C", 12), ("C[C@H](N)C(=O)O", 1), ("c1ccc2ccccc2c1", 4)]
)
def test_a_molecules_own_turns_are_found(smiles, order) -> None:
    molecule = Molecule.from_smiles(smiles, n_conformers=1)
    assert len(molecule_turns(np.asarray(molecule.numbers), molecule.symmetrised(0))) == order


def test_molecules_on_special_positions_stay_there_and_symmetry_is_exact() -> None:
    molecule = Molecule.from_smiles("c1ccccc1", n_conformers=1)
    start = random_packings(molecule, 40, seed=0)
    special = np.flatnonzero(start.z_prime < 1.0)
    assert len(special) > 3
    there = flow(0).integrate(start, steps=4)
    assert there.placement.tolist() == start.placement.tolist()
    before, after = batch_of(start.select(special)), batch_of(there.select(special))
    moved = (after.centroid - before.centroid + 0.5) % 1.0 - 0.5
    fixed = torch.eye(3) - before.site_translation
    assert float((moved @ after.cell @ fixed.transpose(1, 2)).abs().max()) < 1e-3
    turned = after.rotation[:, 0] @ before.rotation[:, 0].transpose(1, 2)
    stuck = before.site_rotation.diagonal(dim1=1, dim2=2).sum(1) < 0.5
    if stuck.any():
        torch.testing.assert_close(turned[stuck], torch.eye(3).expand_as(turned[stuck]), rtol=0, atol=1e-4)


def test_proposals_are_repeatable_plausible_and_of_the_groups_asked_for() -> None:
    molecule = Molecule.from_smiles("CC(N)=O", n_conformers=1)
    a = FlowGenerator(steps=3).draw(flow(0), CrystalRequest(molecule, space_groups=["P 1 21/c 1", "P -1"]), 8, seed=3)
    b = FlowGenerator(steps=3).draw(flow(0), CrystalRequest(molecule, space_groups=["P 1 21/c 1", "P -1"]), 8, seed=3)
    np.testing.assert_array_equal(a.cell, b.cell)
    assert set(a.space_groups) <= {"P 1 21/c 1", "P -1"}
    assert np.isfinite(a.density).all() and (a.density > 0.2).all()
    start = random_packings(molecule, 8, seed=3, space_groups=["P 1 21/c 1", "P -1"])
    assert np.abs(a.cell - start.cell).max() > 1e-3


def test_of_several_draws_the_lower_ones_are_proposed_and_numbered_in_order() -> None:
    molecule = Molecule.from_smiles("CC(N)=O", n_conformers=1)
    parameters = parametrize(molecule)
    one = FlowGenerator(steps=2, draws=1).draw(flow(0), CrystalRequest(molecule), 60, seed=3, first_index=120)
    best = FlowGenerator(steps=2, draws=3).draw(flow(0), CrystalRequest(molecule), 20, seed=3, first_index=40)
    assert best.index.tolist() == list(range(40, 60))
    expected = select_low(one, parameters, 10, of=30)
    np.testing.assert_array_equal(best.cell, expected.cell)
    assert set(best.status) == {OVERLAP_FREE}


def test_a_molecule_without_parameters_is_proposed_as_drawn(monkeypatch) -> None:
    def refuse(molecule):
        raise ParameterError("no types for this molecule")

    monkeypatch.setattr("molflow_sim.forcefield.parametrize", refuse)
    molecule = Molecule.from_smiles("CC(N)=O", n_conformers=1)
    with pytest.warns(UserWarning, match="no types"):
        made = FlowGenerator(steps=2, draws=3).draw(flow(0), CrystalRequest(molecule), 3, seed=3)
    assert len(made) == 3


def test_enantiopure_molecules_get_sohncke_groups_and_keep_their_hand() -> None:
    molecule = Molecule.from_smiles("C[C@H](N)C(=O)O", n_conformers=1)
    made = FlowGenerator(steps=2).draw(flow(0), CrystalRequest(molecule), 12, seed=0)
    assert all(SpaceGroup.from_name(g).is_sohncke for g in made.space_groups)
    assert np.linalg.det(made.rotation).min() > 0.99
    with pytest.raises(SpaceGroupError):
        FlowGenerator().draw(flow(0), CrystalRequest(molecule, space_groups=["P -1"]), 2, seed=0)
    refuses(InputError, "steps", FlowGenerator, steps=0)


def test_weights_are_read_back_and_changed_ones_refused(tmp_path) -> None:
    molecule = Molecule.from_smiles("CC(N)=O", n_conformers=1)
    one = flow(0)
    one.card = {"data": {"atoms": [20, 30]}}
    save_model(tmp_path, one)
    two = load_model(tmp_path)
    with pytest.warns(UserWarning, match="20 to 30"):
        made = FlowGenerator(steps=2, draws=1, relief=0).draw(two, CrystalRequest(molecule), 4, seed=1)
    np.testing.assert_allclose(made.cell, one.integrate(random_packings(molecule, 4, seed=1), steps=2).cell, atol=1e-5)
    path = tmp_path / "crystal_flow.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    refuses(WeightsError, "SHA-256", load_model, tmp_path)
