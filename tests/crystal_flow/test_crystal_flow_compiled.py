"""The compiled velocity field is the torch network: same contacts, same velocities, on everything a sampler meets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from crystal_flow_examples import collate, flow, molecule_for, packed
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import threads, without_chemistry

from molflow_sim.models.crystal_flow import CrystalBatch, CrystalFlow
from molflow_sim.models.crystal_flow.compiled_graph import contacts
from molflow_sim.models.crystal_flow.graph import intermolecular_edges
from molflow_sim.models.crystal_flow.model import batch_of
from molflow_sim.models.crystal_flow.network import radial_functions
from molflow_sim.models.crystal_flow.velocity import INTERVALS, compiles, reference_velocity, velocity_field
from molflow_sim.packing import random_packings
from molflow_sim.training.model import shared_model

SMILES = ["CC(N)=O", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "O=C=O"]
pytestmark = pytest.mark.filterwarnings("ignore:.*the flow was trained on")


def assert_same_velocities(
    network_of: CrystalFlow, batch: CrystalBatch, time: float, excess: float = 0.0, tolerance: float = 1e-4
) -> None:
    """To `tolerance` of the largest component of each of the three fields."""
    assert compiles(network_of.network, batch)
    found = velocity_field(network_of.network, batch)(batch, time, excess)
    expected = reference_velocity(network_of.network, batch, time, excess)
    for name, a, b in zip(found._fields, found, expected):
        largest = float(b.abs().max())
        assert float((a - b).abs().max()) <= tolerance * largest, name
    assert float(expected.strain.abs().max()) > 1e-6, "nothing moves, so nothing is tested"


@pytest.fixture(scope="module")
def trained() -> CrystalFlow:
    return shared_model(CrystalFlow.kind)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), smiles=st.sampled_from(SMILES), z_prime=st.sampled_from([1, 2]))
def test_contacts_are_those_of_the_torch_search(seed, smiles, z_prime) -> None:
    batch = packed(smiles, 12, seed, z_prime=z_prime)
    expected, found = intermolecular_edges(batch, 6.0), contacts(batch, 6.0)
    receiver = np.repeat(np.arange(len(found.start) - 1), np.diff(found.start))
    # Pairs at the very edge may fall on either side; their filters vanish.
    inside, sure = found.distance < 5.999, expected.distance.numpy() < 5.999

    def listed(receiver, sender, vector) -> np.ndarray:
        rows = np.column_stack([receiver, sender, vector])
        return rows[np.lexsort(np.round(rows.T[::-1], 2))]

    a = listed(receiver[inside], found.sender[inside], (found.line * found.distance[:, None])[inside])
    b = listed(expected.receiver[sure], expected.sender[sure], expected.vector[sure])
    assert len(a) == len(b) > 0
    np.testing.assert_array_equal(a[:, :2], b[:, :2])
    np.testing.assert_allclose(
        np.linalg.norm(a[:, 2:], axis=1).sum(), np.linalg.norm(b[:, 2:], axis=1).sum(), rtol=1e-5
    )
    assert np.median(np.abs(a[:, 2:] - b[:, 2:])) < 1e-5


@pytest.mark.parametrize("smiles", SMILES)
@pytest.mark.parametrize("time", [0.0, 0.5, 1.0])
def test_trained_velocities_agree_in_all_common_groups_and_on_special_positions(trained, smiles, time) -> None:
    packings = random_packings(molecule_for(smiles), 24, seed=4)
    if smiles in ("c1ccccc1", "O=C=O"):
        assert (packings.z_prime < 1.0).sum() >= 2, "no special positions, so they are not tested"
    assert len(set(packings.space_groups)) >= 4
    assert len({packings.placements[k].n_images for k in packings.placement}) >= 2, "nothing is padded"
    assert_same_velocities(trained, batch_of(packings), time, excess=0.3)


def test_two_molecules_in_the_asymmetric_unit_and_overlaps_in_small_cells_agree(trained) -> None:
    assert_same_velocities(trained, packed("CC(N)=O", 16, 5, z_prime=2), 0.5)
    batch = packed("CC(N)=O", 12, 8)
    assert_same_velocities(trained, batch.moved(0.6 * batch.cell, batch.centroid, batch.rotation), 0.5)


def test_molecules_of_several_sizes_and_conformers_agree_in_one_batch(trained) -> None:
    batch = collate([packed(smiles, 6, 2) for smiles in SMILES])
    assert (batch.numbers == 0).any()
    assert_same_velocities(trained, batch, 0.25)
    # Padding may sit anywhere.
    order = torch.randperm(batch.numbers.shape[1], generator=torch.Generator().manual_seed(0))
    assert_same_velocities(
        trained, replace(batch, numbers=batch.numbers[:, order], conformer=batch.conformer[:, order]), 0.25
    )


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), smiles=st.sampled_from(SMILES))
def test_untrained_networks_of_another_size_agree(seed, smiles) -> None:
    assert_same_velocities(flow(seed), packed(smiles, 8, seed), 0.7, excess=0.5)


def test_a_crystal_without_contacts_stands_still(trained) -> None:
    batch = packed("CC(N)=O", 3, 8)
    velocity = trained.velocity(batch.moved(50.0 * batch.cell, batch.centroid, batch.rotation), 0.5, 0.0)
    assert all(float(part.abs().max()) == 0.0 for part in velocity)


def test_a_crystal_that_is_not_a_number_leaves_the_others_alone(trained) -> None:
    batch = packed("CC(N)=O", 4, 8)
    whole = trained.velocity(batch, 0.5, 0.0)
    for name in ("cell", "centroid", "rotation"):
        broken = getattr(batch, name).clone()
        broken[1] = float("nan")
        found = trained.velocity(replace(batch, **{name: broken}), 0.5, 0.0)
        torch.testing.assert_close(found.strain[[0, 2, 3]], whole.strain[[0, 2, 3]], rtol=1e-5, atol=1e-6)


def test_tables_are_finer_than_single_precision_cares_about(trained) -> None:
    settings_of = trained.network.settings
    batch = packed("CC(N)=O", 1, 0)
    field = velocity_field(trained.network, batch)
    # Linear interpolation is worst halfway.
    middle = (torch.arange(INTERVALS, dtype=torch.float64) + 0.5) * settings_of.outer_cutoff / INTERVALS
    radial = radial_functions(middle, settings_of.outer_cutoff, settings_of.radial)
    for layer, table in field.filters.items():
        exact = (radial @ layer.filter.weight.detach().double().T).numpy()
        assert np.abs(0.5 * (table[1:] + table[:-1]).numpy() - exact).max() < 2e-5 * np.abs(exact).max()


def test_samples_do_not_depend_on_the_number_of_threads() -> None:
    start = random_packings(molecule_for("CC(N)=O"), 16, seed=3)
    made = []
    for n in (1, 2, 3):
        with threads(n):
            made.append(flow(0).integrate(start, steps=3))
    for other in made[1:]:
        np.testing.assert_array_equal(made[0].cell, other.cell)
        np.testing.assert_array_equal(made[0].rotation, other.rotation)


def test_a_trajectory_ends_where_the_torch_network_takes_it(trained, monkeypatch) -> None:
    start = random_packings(molecule_for("CC(N)=O"), 16, seed=3, packing_coefficient=trained.packing_coefficient)
    compiled = trained.integrate(start)
    monkeypatch.setattr("molflow_sim.models.crystal_flow.velocity.compiles", lambda *_: False)
    reference = trained.integrate(start)
    assert np.abs(reference.cell - start.cell).max() > 0.1
    np.testing.assert_allclose(compiled.cell, reference.cell, atol=2e-3)
    np.testing.assert_allclose(compiled.rotation, reference.rotation, atol=2e-3)


def test_changed_weights_are_seen(trained) -> None:
    changed = flow(0)
    batch = packed("CC(N)=O", 4, 1)
    before = changed.velocity(batch, 0.5, 0.0)
    with torch.no_grad():
        changed.network.force.out.weight.data.mul_(2.0)
    after = changed.velocity(batch, 0.5, 0.0)
    torch.testing.assert_close(after.strain, 2.0 * before.strain, rtol=1e-4, atol=1e-6)


def test_double_precision_goes_through_torch() -> None:
    batch = packed("CC(N)=O", 2, 1).to(dtype=torch.float64)
    double = flow(0)
    double.network.double()
    assert not compiles(double.network, batch)
    assert double.velocity(batch, 0.5, 0.0).strain.dtype == torch.float64


def test_without_numba_the_torch_network_samples() -> None:
    script = """
        import torch
        from molflow_sim.models.crystal_flow import ContactNetwork, ContactSettings, CrystalBatch, CrystalFlow
        eye = torch.eye(3)
        batch = CrystalBatch(
            torch.tensor([[7, 7]]), torch.tensor([[[-0.6, 0.0, 0.0], [0.6, 0.0, 0.0]]]), 4.0 * eye[None],
            torch.tensor([[[0.1, 0.2, 0.3]]]), eye[None, None], eye[None, None], torch.zeros(1, 1, 3),
            eye[None, None], torch.tensor([1]), eye[None], eye[None],
        )
        moved = CrystalFlow(ContactNetwork(ContactSettings(width=8))).velocity(batch, 0.5, 0.0)
        assert torch.isfinite(moved.strain).all() and float(moved.strain.abs().max()) > 0
        print("moved")
    """
    assert without_chemistry(script, also="numba").startswith("moved")
