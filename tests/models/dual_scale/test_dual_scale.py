"""The dual-scale flow: what it commutes with, what it trains on, and what it makes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from frame_examples import small_turn, write_frames
from rdkit import Chem

from molflow_sim.errors import InputError, TrainingError, TrajectoryError, WeightsError
from molflow_sim.models.dual_scale import DualScale, DualScaleSettings, read_frames
from molflow_sim.models.dual_scale.batch import Item, collate
from molflow_sim.models.dual_scale.data import TEST, TRAIN, VALIDATION
from molflow_sim.models.dual_scale.graphs import ATOMS, BEADS, ClusterGraph, MoleculeGraphs
from molflow_sim.models.dual_scale.model import integrate, pair_loss, predicted, times
from molflow_sim.models.dual_scale.paths import PathBatches, prepare, with_data
from molflow_sim.testing import validate_model

SMALL = DualScaleSettings.small()


def mol(smiles: str) -> Chem.Mol:
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    return read_frames(write_frames(tmp_path_factory.mktemp("frames") / "frames.npz", "CCCc1ccccc1", copies=3))


@pytest.fixture(scope="module")
def data(frames):
    return prepare(frames, SMALL, TRAIN)


@pytest.fixture(scope="module")
def settings(data):
    return with_data(SMALL, data)


def model(settings, **changes) -> DualScale:
    torch.manual_seed(0)
    return DualScale(replace(settings, **changes)).double()


def kinds(settings):
    """Both networks at both scales."""
    egnn = {name: replace(getattr(settings, name), network="egnn") for name in (BEADS, ATOMS)}
    return [(model(settings, **changes), scale) for changes in ({}, egnn) for scale in (BEADS, ATOMS)]


def point_batch(data, settings, name, t=0.6, order=None):
    """Some structures on their paths, their molecules in an order."""
    rng = np.random.default_rng(3)
    one, items = data[0], []
    for k in range(2):
        graph = one.graph
        scale = graph.scale(name)
        prior = scale.prior(getattr(settings, name), name == ATOMS)
        end = one.beads[k] if name == BEADS else one.atoms[k]
        anchors = one.beads[k][graph.owner] if name == ATOMS else np.zeros_like(end)
        start = prior.mean(anchors) + prior.noise(rng)
        rows = (
            np.arange(len(end))
            if order is None
            else np.concatenate([np.flatnonzero(scale.molecule == m) for m in order])
        )
        items.append(Item(scale, prior, anchors[rows], start[rows], end[rows], t))
    return collate(items, dtype=torch.float64)


def moved(points, q):
    q = torch.as_tensor(q)
    return replace(points, **{name: getattr(points, name) @ q.T for name in ("anchors", "mean", "start", "end")})


def ends(flow, name, points):
    network, x, t = getattr(flow, name), points.position, points.time
    with torch.no_grad():
        return predicted(network, points, x, t, points.estimate(x, t))


def test_predictions_turn_with_the_cluster_and_follow_molecules_that_change_places(data, settings):
    q = small_turn(np.random.default_rng(0), 1.0)
    for flow, name in kinds(settings):
        points = point_batch(data, settings, name)
        found = ends(flow, name, points)
        assert torch.allclose(ends(flow, name, moved(points, q)), found @ torch.as_tensor(q).T, atol=1e-8)
        order = [2, 0, 1]
        scale = data[0].graph.scale(name)
        rows = np.concatenate([np.flatnonzero(scale.molecule == m) for m in order])
        exchanged = ends(flow, name, point_batch(data, settings, name, order=order))
        assert torch.allclose(exchanged[: scale.n], found[: scale.n][rows], atol=1e-8)


def test_a_cluster_does_not_see_the_others_of_its_batch(data, settings):
    for flow, name in kinds(settings):
        points = point_batch(data, settings, name)
        n = data[0].graph.scale(name).n
        inside = points.pairs[0] < n
        first = replace(
            points, **{k: getattr(points, k)[:n] for k in (
                "nodes", "structure", "molecule", "anchors", "mean", "variance", "start", "end")},
            pairs=points.pairs[:, inside], pair_features=points.pair_features[inside], t=points.t[:1],
        )  # fmt: skip
        assert torch.allclose(ends(flow, name, first), ends(flow, name, points)[:n], atol=1e-10)


def test_a_right_prediction_leads_to_the_end_by_exact_steps_and_by_published_ones():
    class Oracle(torch.nn.Module):
        guided = False

        def forward(self, batch, x, t, guess):
            return (target - batch.estimate(x, t)) / batch.unknown(t).clamp_min(1e-9)

    graph = ClusterGraph([MoleculeGraphs(mol("CCCC"), SMALL)], [0, 0])
    scale = graph.scale(ATOMS)
    prior = scale.prior(replace(SMALL.atoms, sigma=1.0), True)
    start = prior.noise(np.random.default_rng(0))
    target = torch.randn(scale.n, 3, dtype=torch.float64)
    points = collate([Item(scale, prior, start * 0, start, start, 0.0)], dtype=torch.float64)
    for velocity in ("exact", "published"):
        assert torch.allclose(integrate(Oracle(), points, times(7, 2.0), velocity), target)
    assert times(4, 1.0).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0] and np.diff(times(9, 2.0))[-1] < 0.02


def test_the_linear_estimate_is_as_far_off_as_it_says(data, settings):
    """Where ends spread as the prior does: here, ends drawn from it."""
    scale = data[0].graph.scale(ATOMS)
    prior = scale.prior(replace(settings.atoms, sigma=1.5, bond_length=1.5, prior="harmonic"), True)
    rng = np.random.default_rng(0)
    zero = np.zeros((scale.n, 3))
    items = [
        Item(scale, prior, zero, prior.noise(rng), prior.noise(rng), t) for t in (0.1, 0.5, 0.9) for _ in range(60)
    ]
    points = collate(items, dtype=torch.float64)
    x, t = points.position, points.time
    off = ((points.end - points.estimate(x, t)) / points.unknown(t)).pow(2).reshape(3, -1).mean(1)
    assert torch.allclose(off, torch.ones(3, dtype=torch.float64), atol=0.1)


def test_batches_depend_on_seed_and_step_alone_and_alignment_shortens_their_paths(data, settings):
    batches = PathBatches(data, settings, 2, 3, 0)
    first, again = batches.batch(5), PathBatches(data, settings, 2, 3, 0).batch(5)
    assert torch.equal(first.atoms.start, again.atoms.start) and torch.equal(first.beads.end, again.beads.end)
    assert len(first.atoms.t) == 2 and len(first.beads.t) == 3
    loose = PathBatches(data, replace(settings, align=False), 2, 3, 0)

    def length(source):
        return sum(float((b.end - b.start).pow(2).mean()) for k in range(12) for b in (source.batch(k).beads,))

    assert length(batches) < 0.9 * length(loose)


def test_atoms_are_trained_on_beads_with_noise_of_the_size_asked_for(data, settings):
    for noise in (0.0, 0.3):
        points = PathBatches(data, replace(settings, bead_noise=noise, align=False), 8, 1, 0).batch(0).atoms
        owner = torch.as_tensor(np.concatenate([data[0].graph.owner + 6 * k for k in range(8)]))
        means = torch.zeros(48, 3).index_add(0, owner, points.end) / torch.bincount(owner).unsqueeze(1)
        assert float((points.anchors - means[owner]).std()) == pytest.approx(noise, abs=0.05)


def test_wrong_lengths_of_bonds_cost_and_turning_a_molecule_does_not(data, settings):
    points = point_batch(data, settings, ATOMS, t=0.95)
    unit = points.unknown(points.time)
    turned = points.end @ torch.as_tensor(small_turn(np.random.default_rng(0))).T - points.end
    stretched = 0.1 * points.end
    assert float(pair_loss(points, turned, unit)) == pytest.approx(0.0, abs=1e-12)
    assert float(pair_loss(points, stretched, unit)) > 1.0
    early = point_batch(data, settings, ATOMS, t=0.1)
    assert float(pair_loss(early, stretched, early.unknown(early.time))) < 0.1


def test_the_model_keeps_its_protocol(data, settings):
    for scales in ("dual", "single"):
        own = replace(settings, scales=scales)
        prepared = prepare_again(data, own)
        validate_model(DualScale(own), PathBatches(prepared, own, 1, 2, 0).batch(1))


def prepare_again(data, settings):
    return [replace(d, graph=ClusterGraph([MoleculeGraphs(mol("CCCc1ccccc1"), settings)], d.graph.order)) for d in data]


def test_one_scale_is_the_same_network_without_beads(data, settings):
    single = DualScale(replace(settings, scales="single"))
    assert single.beads is None and single.atoms.state_dict().keys() == DualScale(settings).atoms.state_dict().keys()
    made = single.sample(single.graph([mol("CCCC")], [0, 0]), seed=0, index=3)
    assert made.atoms.shape == (8, 3) and made.beads is None and set(made.seconds) == {ATOMS}


def test_a_sample_is_the_same_whatever_else_is_drawn_and_beads_can_be_given(settings):
    flow = DualScale(settings)
    graph = flow.graph([mol("CCCc1ccccc1"), mol("CO")], [0, 0, 1])
    a = flow.sample(graph, 0, 7)
    flow.sample(graph, 0, 8)
    assert np.array_equal(flow.sample(graph, 0, 7).atoms, a.atoms)
    assert not np.allclose(flow.sample(graph, 1, 7).atoms, a.atoms)
    given = flow.sample(graph, 0, 7, beads=a.beads + 5.0)
    assert np.array_equal(given.beads, a.beads + 5.0) and set(given.seconds) == {ATOMS}


def test_molecules_beyond_the_trained_range_are_warned_about(settings, data):
    flow = DualScale(settings)
    flow.remember_range([d.graph for d in data])
    with pytest.warns(UserWarning, match="trained range"):
        flow.sample(flow.graph([mol("CC")], [0] * 4), 0, 0)


def test_weights_that_do_not_fit_are_named(settings):
    tensors, card = DualScale(settings).state()
    with pytest.raises(WeightsError, match="do not fit"):
        DualScale.from_state(tensors, {**card, "settings": {**card["settings"], "scales": "single"}})
    with pytest.raises(InputError, match="mapping must be one of"):
        DualScaleSettings(mapping="cubes")
    with pytest.raises(InputError, match="bead_noise"):
        DualScaleSettings(bead_noise=-1.0)


# ------------------------------------------------------------------ frames


def test_frames_are_split_and_their_hydrogens_left_out(frames):
    (one,) = frames
    assert one.positions.shape == (40, 63, 3) and one.heavy().shape == (40, 27, 3)
    assert [len(one.heavy(side)) for side in (TRAIN, VALIDATION, TEST)] == [32, 4, 4]


def test_molecules_of_a_periodic_box_are_put_near_one_another_and_stay_where_they_move(tmp_path, frames):
    path = write_frames(tmp_path / "a.npz", "CCCc1ccccc1", copies=3)
    with np.load(path) as archive:
        arrays = dict(archive)
    cell = 40.0 * np.eye(3)
    whole = read_frames(path)[0].positions
    shifts = np.repeat(np.array([[0, 0, 0], [1, 0, 0], [0, -2, 1]]), 21, 0)
    np.savez(path, **{**arrays, "positions": arrays["positions"] + (shifts @ cell).astype(np.float32), "cell": cell})
    assert np.allclose(read_frames(path)[0].positions, whole, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda a: a.pop("copies"), "no copies"),
        (lambda a: a.update(copies=np.array([4])), "84 atoms"),
        (lambda a: a["numbers"].__setitem__(0, 7), "atom 0"),
        (lambda a: a["positions"].__setitem__((3, 0, 0), np.nan), "frame 3"),
        (lambda a: a["positions"].__setitem__((3, 0, 0), 50.0), "bond"),
        (lambda a: a["split"].fill(2), "training"),
        (lambda a: a.update(numbers=a["numbers"][:5]), r"numbers of shape \(5,\)"),
        (lambda a: a.update(smiles=np.array([], str), copies=np.array([], int)), "0 SMILES"),
        (lambda a: a.update(copies=np.array(["three"])), "must be numbers"),
        (lambda a: a.update(cell=np.full((3, 3), np.nan)), "no box"),
        (lambda a: a.update(cell=40.0 * np.eye(3)[:2]), "no box"),
        (lambda a: a.update(cell=np.diag([40.0, 40.0, 0.0])), "no box"),
    ],
)
def test_frames_that_cannot_be_used_are_named(tmp_path, change, word):
    path = write_frames(tmp_path / "a.npz", "CCCc1ccccc1", copies=3)
    with np.load(path) as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(path, **arrays)
    with pytest.raises(TrajectoryError, match=word):
        read_frames(path)


def test_no_frames_and_broken_files_are_named(tmp_path):
    with pytest.raises(TrajectoryError, match=r"no \.npz"):
        read_frames(tmp_path)
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(TrajectoryError, match="cannot be read"):
        read_frames(tmp_path)
    with pytest.raises(TrainingError, match="no frames"):
        PathBatches([], SMALL, 1, 1, 0)


def test_bonds_are_as_long_as_those_of_the_frames_that_have_some(tmp_path):
    frames = {s: read_frames(write_frames(tmp_path / f"{s}.npz", s, copies=2, frames=10)) for s in ("O", "CCCC")}
    alone = with_data(SMALL, prepare(frames["CCCC"], SMALL, TRAIN)).atoms.bond_length
    both = with_data(SMALL, prepare(frames["O"] + frames["CCCC"], SMALL, TRAIN)).atoms.bond_length
    assert both == alone > 1.0 and with_data(SMALL, prepare(frames["O"], SMALL, TRAIN)).atoms.bond_length == 0.0


def test_several_boxes_of_the_same_molecules_are_one_and_others_are_not(tmp_path):
    write_frames(tmp_path / "a.npz", "CCCC", copies=2)
    write_frames(tmp_path / "b.npz", "CCCC", copies=2, frames=10, seed=1)
    write_frames(tmp_path / "c.npz", "CCCC", copies=3, frames=10)
    alike, other = read_frames(tmp_path)
    assert alike.positions.shape == (50, 28, 3) and alike.name == "a + b" and len(other.positions) == 10
