"""The cluster flow: starts are coupled to ends, molecules stay rigid, weights come back."""

import numpy as np
import pytest
import torch
from refusals import refuses
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from molflow_sim.errors import InputError, StoreError, TrainingError
from molflow_sim.models.cluster_flow import ClusterFlow, ClusterFlowConfig, ClusterFlowSettings, train_cluster_flow
from molflow_sim.models.cluster_flow.batch import ClusterBatch, Item, collate
from molflow_sim.models.cluster_flow.couplings import couple
from molflow_sim.models.cluster_flow.data import ClusterData, Poses, read_clusters
from molflow_sim.models.cluster_flow.network import ClusterNetwork, rigid_motion
from molflow_sim.models.cluster_flow.paths import PathBatches, atom_item, diffusion, rigid_item
from molflow_sim.models.cluster_flow.settings import VARIANTS
from molflow_sim.testing import validate_model, validate_network
from molflow_sim.training.settings import TrainSettings

SMALL = ClusterFlowSettings.small()


def small(variant: str) -> ClusterFlowSettings:
    from dataclasses import replace

    return replace(SMALL, variant=variant)


# ------------------------------------------------------------------ starts and ends


def test_a_coupled_end_is_the_same_cluster_and_never_further_away(records):
    record, rng = records[0], np.random.default_rng(0)
    n = len(record.end.hand)
    start = Poses(8.0 * rng.normal(size=(n, 3)), Rotation.random(n, random_state=1).as_matrix(), record.end.hand)
    turns = np.concatenate([np.eye(3)[None], Rotation.random(5, random_state=2).as_matrix()])
    end = couple(start, record.end, record.symmetry, turns)
    before, after = (np.sort(cdist(e.centre, e.centre).ravel()) for e in (record.end, end))
    np.testing.assert_allclose(after, before, atol=1e-9)
    assert np.array_equal(np.sort(end.hand), np.sort(record.end.hand)) and np.array_equal(end.hand, start.hand)
    all_atoms = [np.sort(cdist(*2 * [e.positions(record.body).reshape(-1, 3)]).ravel()) for e in (record.end, end)]
    np.testing.assert_allclose(*all_atoms, atol=0.35)  # equivalent orientations, to the symmetry's tolerance

    def cost(e):
        return ((e.centre - e.centre.mean(0) - start.centre + start.centre.mean(0)) ** 2).sum()

    assert cost(end) < cost(record.end)


def test_a_start_that_is_the_end_in_disguise_is_recognised(records):
    record = records[0]
    turn, order = (
        Rotation.random(random_state=3).as_matrix(),
        np.random.default_rng(4).permutation(len(record.end.hand)),
    )
    start = Poses(record.end.centre[order] @ turn.T, turn @ record.end.rotation[order], record.end.hand[order])
    end = couple(start, record.end, record.symmetry, Rotation.random(200, random_state=5).as_matrix())
    np.testing.assert_allclose(end.positions(record.body), start.positions(record.body), atol=0.2)


def test_equivalent_orientations_take_the_nearest():
    """Water turned by 180° about its axis stands as before: its hydrogens must not change places."""
    from conftest import cluster_record

    record = cluster_record("O", size=3)
    assert len(record.symmetry) == 2
    flipped = Poses(record.end.centre, record.end.rotation @ record.symmetry[1], record.end.hand)
    end = couple(flipped, record.end, record.symmetry, np.eye(3)[None])
    np.testing.assert_allclose(end.rotation, flipped.rotation, atol=1e-9)


def test_the_velocity_of_the_rigid_path_is_a_rigid_motion(records):
    record = records[0]
    item = rigid_item(record, SMALL, np.random.default_rng(3))
    n = len(record.numbers)
    velocity = torch.as_tensor(item.velocity)
    molecule = torch.arange(len(record.end.hand)).repeat_interleave(n)
    x = torch.as_tensor(item.position)
    centre = x.view(-1, n, 3).mean(1)[molecule]
    again = rigid_motion(velocity, x - centre, molecule, len(record.end.hand))
    np.testing.assert_allclose(again, velocity, atol=0.05 * float(velocity.abs().max()))


@pytest.mark.parametrize("variant", ["ve", "vp"])
def test_the_widths_of_diffusion_have_the_rates_they_say(variant):
    s = small(variant)
    for t in (0.1, 0.5, 0.9):
        _, _, mean_rate, sigma_rate = diffusion(t, s)
        low, high = diffusion(t - 1e-5, s), diffusion(t + 1e-5, s)
        assert mean_rate == pytest.approx((high[0] - low[0]) / 2e-5, rel=1e-4, abs=1e-9)
        assert sigma_rate == pytest.approx((high[1] - low[1]) / 2e-5, rel=1e-4)
    assert diffusion(1.0, s)[0] == 1.0 and diffusion(0.0, s)[1] > 4.0


# ------------------------------------------------------------------ network and model


@pytest.mark.parametrize("variant", ["rigid", "lerp", "ve"])
def test_the_network_is_equivariant_and_blind_to_order_and_place(variant, records):
    torch.manual_seed(0)
    network = ClusterNetwork(small(variant)).double()
    items = [rigid_item(records[k], SMALL, np.random.default_rng(k)) for k in (0, 1)]
    m, n = len(records[0].end.hand), len(records[0].numbers)

    def function(inputs):
        rows = []
        for x, start, t in zip(inputs["x"], inputs["start"], inputs["t"]):
            flat = x.reshape(-1, 3)
            batch = collate([Item(records[0].numbers, flat.numpy(), flat.numpy(), 0.0, flat.numpy())])
            rows.append(
                network(
                    ClusterBatch(
                        batch.numbers, batch.molecule, batch.cluster, flat, start.reshape(-1, 3), t[None], flat
                    )
                ).view(m, n, 3)
            )
        return {"v": torch.stack(rows)}

    x = torch.stack([torch.as_tensor(i.position).view(m, n, 3) for i in items])
    start = x + 0.3 * torch.randn_like(x)
    inputs = {"x": x, "start": start, "t": torch.tensor([0.3, 0.8], dtype=torch.float64)}
    with torch.no_grad():
        validate_network(
            function, inputs, vectors=("x", "start", "v"), shifted=(), reordered=(("x", "start", "v"),),
            reflections=True, differentiable=(),
        )  # fmt: skip
        moved = function({**inputs, "x": x + 3.0, "start": start + 3.0})["v"]
        torch.testing.assert_close(moved, function(inputs)["v"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_a_model(variant, data):
    settings = small(variant)
    torch.manual_seed(0)
    model = ClusterFlow(settings)
    batches = PathBatches(data.of("train"), data.of("train").weights(4.0, 0.3), settings, 2)
    validate_model(model, batches.batch(0))
    one, again = batches.batch(5), batches.batch(5)
    assert torch.equal(one.position, again.position) and not torch.equal(one.position, batches.batch(6).position)


def test_molecules_stay_rigid_and_what_moves_turns_with_the_start(records):
    torch.manual_seed(0)
    model, record = ClusterFlow(SMALL).eval(), records[0]
    start = record.start.positions(record.body)
    end = model.move(record.numbers, start)
    for a, b in zip(start, end):
        np.testing.assert_allclose(cdist(b, b), cdist(a, a), atol=1e-9)
    assert np.abs(end - start).max() > 0.01
    turn = Rotation.random(random_state=1).as_matrix()
    np.testing.assert_allclose(model.move(record.numbers, start @ turn.T + 5.0), end @ turn.T + 5.0, atol=1e-3)


def test_sampling_follows_a_known_field_to_its_end(records, monkeypatch):
    """With the true velocity of the rigid path, Euler steps end where the path does."""
    record, model = records[0], ClusterFlow(small("rigid"))
    end = record.end.positions(record.body)
    end = end - end.reshape(-1, 3).mean(0)
    start = record.start.positions(record.body)
    middle = start.reshape(-1, 3).mean(0)

    def velocity(batch):
        x = batch.position.double().view(end.shape)
        rest = (torch.as_tensor(end) - x) / (1.0 - float(batch.time))
        return (rest / 5.0).reshape(-1, 3).float()

    monkeypatch.setattr(model.network, "forward", velocity)
    error = np.linalg.norm(model.move(record.numbers, start, steps=100) - middle - end, axis=-1).mean()
    assert error < 0.1


# ------------------------------------------------------------------ data and training


def test_clusters_are_written_and_read_back_and_the_split_keeps_molecules_together(data, tmp_path):
    data.save(tmp_path / "clusters.npz")
    back = read_clusters(tmp_path)
    assert len(back) == len(data) and back.size == 6 and back.identity
    for a, b in zip(back.records, data.records):
        assert (a.name, a.key, a.split) == (b.name, b.key, b.split)
        np.testing.assert_array_equal(a.numbers, b.numbers)
        np.testing.assert_allclose(a.end.positions(a.body), b.end.positions(b.body))
        np.testing.assert_allclose(a.symmetry, b.symmetry)
    refuses(StoreError, "molflow dataset clusters", read_clusters, tmp_path / "nothing")
    for damaged in (b"abc", b"", data.packed()[:300]):
        (tmp_path / "bad.npz").write_bytes(damaged)
        refuses(StoreError, "no archive", read_clusters, tmp_path / "bad.npz")


def test_low_packings_and_measured_crystals_get_their_shares(records):
    from dataclasses import replace

    some = [replace(records[0], relative_energy=0.0), replace(records[1], relative_energy=4.0)]
    some += [replace(records[2], experimental=True), replace(records[3], experimental=True)]
    weights = ClusterData(some).weights(4.0, 0.25)
    assert weights.sum() == pytest.approx(1.0) and weights[2:].sum() == pytest.approx(0.25)
    assert weights[0] / weights[1] == pytest.approx(np.e)


def test_training_goes_on_where_it_was_stopped_and_leaves_weights(data, tmp_path):
    config = ClusterFlowConfig(flow=SMALL, training=TrainSettings(max_steps=4, batch_size=2, validate_every=2))
    model = train_cluster_flow(data, config, tmp_path / "a", progress=False)
    assert model.card["range"] == {"max_atoms": 6, "molecules": 6} and model.card["data"]["train molecules"] == 3
    again = train_cluster_flow(data, config, tmp_path / "a", progress=False)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))
    refuses(TrainingError, "none of", train_cluster_flow, data, ClusterFlowConfig(max_atoms=1), tmp_path / "b")
    refuses(InputError, "variant", ClusterFlowSettings, variant="other")


def test_an_atom_start_is_the_datas(records):
    item = atom_item(records[0], small("gnn-md"), np.random.default_rng(0))
    start = records[0].start.positions(records[0].body).reshape(-1, 3)
    np.testing.assert_allclose(item.start, start - start.mean(0))
    end = records[0].end.positions(records[0].body).reshape(-1, 3)
    np.testing.assert_allclose(item.position + item.velocity, end - end.mean(0), atol=1e-9)
