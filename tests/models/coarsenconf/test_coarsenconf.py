"""CoarsenConf: what its modules commute with, its divergence and losses, and that it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conformer_examples import MOLECULES, pair_batch, pairs_of
from scipy.spatial.transform import Rotation

from molflow_sim.errors import InputError
from molflow_sim.geometry.torsions import dihedral_angle
from molflow_sim.models.coarsenconf import CoarsenConf, CoarsenConfSettings
from molflow_sim.models.coarsenconf.batch import Layout, PairBatches
from molflow_sim.models.coarsenconf.latent import Gaussian, divergence
from molflow_sim.models.coarsenconf.losses import (
    assigned,
    distance_errors,
    laid_on,
    square_errors,
    torsion_errors,
)
from molflow_sim.models.coarsenconf.settings import DECODERS, Annealed
from molflow_sim.models.coarsenconf.turning import turned
from molflow_sim.testing import validate_model

SMALL = CoarsenConfSettings.small()
TURN = Rotation.random(random_state=1).as_matrix()
MIRROR = np.diag([1.0, 1.0, -1.0])
MOTIONS = {"rotation": TURN, "reflection": TURN @ MIRROR}


def model(**changes) -> CoarsenConf:
    torch.manual_seed(0)
    made = CoarsenConf(replace(SMALL, **changes)).double().eval()
    with torch.no_grad():  # a network that moves atoms visibly
        made.decoder.selection.scale.fill_(0.5)
        if made.decoder.turning is not None:
            made.decoder.turning.scale.fill_(2.0)
        for layer in made.decoder.layers:
            layer.messages.shift[-1].weight.mul_(20.0)
    return made


def parts(flow, batch):
    """All that is made on the way: invariants, vectors (last axis is xyz), and positions."""
    end = batch.ends[:, 0]
    start = flow.encoder(batch, batch.start)
    true = (flow.true_encoder or flow.encoder)(batch, end, read=start)
    prior, posterior = flow.latent.prior(start), flow.latent.posterior(batch, start, true, end)
    z = posterior.draw(batch.noise)
    told, shift = flow.decoder.selection(batch, start.atoms[-1], z)
    invariant = {
        "atoms": start.atoms[-1], "true atoms": true.atoms[-1], "beads": true.beads[-1], "told": told,
        "prior": prior.log_variance, "posterior": posterior.log_variance,
    }  # fmt: skip
    vectors = {
        "beads": true.vectors,
        "prior": prior.mean,
        "posterior": posterior.mean,
        "latent": z,
        "shift": shift.unsqueeze(-1),
    }
    x = flow.decoder(batch, start, z, placed=end)
    free = flow.decode(batch)
    return invariant, vectors, {"decoded": x, "sampled": free}


VARIANTS = [
    {"decoder": "one-pass"},
    {"decoder": "autoregressive"},
    {"share_inputs": False, "share_layers": True, "displacements": False, "turns": False},
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("motion", MOTIONS)
@torch.no_grad()
def test_every_module_turns_and_reflects_with_its_molecule_and_does_not_see_translations(variant, motion):
    flow, q = model(**variant), MOTIONS[motion]
    before = parts(flow, pair_batch(flow.settings))
    after = parts(flow, pair_batch(flow.settings, turn=q))
    t = torch.as_tensor(q)
    for name, value in before[0].items():
        assert torch.allclose(after[0][name], value, atol=1e-8), name
    for name, value in before[1].items():
        assert torch.allclose(after[1][name], torch.einsum("xy,nyf->nxf", t, value), atol=1e-8), name
    for name, value in before[2].items():
        assert torch.allclose(after[2][name], value @ t.T, atol=1e-8), name
    start = pair_batch(flow.settings).start
    assert (before[2]["sampled"] - start).abs().max() > 0.01


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_atoms_may_stand_in_any_order(variant):
    flow = model(**variant)

    def backwards(n):
        return np.arange(n)[::-1].copy()

    first, again = (pair_batch(flow.settings, MOLECULES[:1], order=o) for o in (None, backwards))
    rows = torch.as_tensor(backwards(len(first.start)))
    for a, b in zip(parts(flow, first), parts(flow, again)):
        for name in a:
            per_atom = name in ("atoms", "true atoms", "told", "shift", "decoded", "sampled")
            assert torch.allclose(b[name], a[name][rows] if per_atom else a[name], atol=1e-8), name


@torch.no_grad()
def test_a_molecule_does_not_see_the_others_of_its_batch():
    for decoder in DECODERS:
        flow = model(decoder=decoder)
        alone, both = pair_batch(flow.settings, MOLECULES[:1]), pair_batch(flow.settings, MOLECULES[:2])
        assert torch.allclose(flow.decode(both)[: len(alone.start)], flow.decode(alone), atol=1e-10)


@torch.no_grad()
def test_the_prior_is_told_nothing_of_the_true_conformer():
    flow = model()
    batch = pair_batch(flow.settings)
    other = replace(batch, ends=batch.ends.flip(0))
    start = flow.encoder(batch, batch.start)
    _, vectors, _ = parts(flow, batch)
    _, changed, _ = parts(flow, other)
    assert torch.equal(vectors["prior"], changed["prior"])
    assert not torch.allclose(vectors["posterior"], changed["posterior"])
    assert torch.equal(flow.latent.prior(start).mean, vectors["prior"])


@torch.no_grad()
def test_teacher_forcing_on_own_beads_is_what_sampling_does_and_later_beads_do_not_move_earlier_ones():
    flow = model(decoder="autoregressive")
    batch = pair_batch(flow.settings, MOLECULES[:1])
    start = flow.encoder(batch, batch.start)
    z = batch.noise
    sampled = flow.decoder(batch, start, z)
    assert torch.allclose(flow.decoder(batch, start, z, placed=sampled), sampled, atol=1e-9)
    last = batch.rank == batch.rank.max()
    elsewhere = torch.where(last.unsqueeze(1), sampled + 3.0, sampled)
    assert torch.allclose(flow.decoder(batch, start, z, placed=elsewhere)[~last], sampled[~last], atol=1e-9)
    first = torch.where((batch.rank == 0).unsqueeze(1), sampled + 3.0, sampled)
    assert not torch.allclose(flow.decoder(batch, start, z, placed=first)[last], sampled[last], atol=1e-3)


@torch.no_grad()
def test_torsions_turn_by_their_angles_and_bonds_stay_also_beside_a_molecule_without_torsions():
    flow = model()
    batch = pair_batch(flow.settings, ("Cc1ccccc1", *MOLECULES[:2]))
    assert batch.turning.there.sum(1).tolist() == [0, *(len(pairs_of(s).graph.torsions) for s in MOLECULES[:2])]
    angles = torch.linspace(-3.0, 2.5, batch.torsions.shape[1], dtype=torch.float64)
    x = turned(batch, batch.start, angles)
    gap = dihedral_angle(*(x[i] for i in batch.torsions)) - dihedral_angle(*(batch.start[i] for i in batch.torsions))
    assert torch.allclose(torch.cos(gap - angles), torch.ones_like(gap))
    assert distance_errors(x, batch.start, batch).max() < 1e-20
    assert torch.allclose(torsion_errors(x, batch.start, batch), batch.turning.mean(1.0 - torch.cos(angles)))
    start = flow.encoder(batch, batch.start)
    made = flow.decoder.turning(batch, start.atoms[-1], batch.noise)
    assert distance_errors(made, batch.start, batch).max() < 1e-20
    assert torsion_errors(made, batch.start, batch)[1:].min() > 1e-3
    other = flow.decoder.turning(batch, start.atoms[-1], -0.5 * batch.noise)
    assert torsion_errors(other, made, batch)[1:].min() > 1e-6


def test_the_divergence_is_that_of_torch_and_nothing_between_equals():
    rng = torch.Generator().manual_seed(0)
    means = [torch.randn(4, 3, 5, generator=rng, dtype=torch.float64) for _ in range(2)]
    logs = [torch.randn(4, 5, generator=rng, dtype=torch.float64) for _ in range(2)]
    q, p = (Gaussian(m, v) for m, v in zip(means, logs))
    known = [torch.distributions.Normal(m, torch.exp(0.5 * v).unsqueeze(1).expand_as(m)) for m, v in zip(means, logs)]
    assert torch.allclose(divergence(q, p), torch.distributions.kl_divergence(*known).sum((1, 2)))
    assert divergence(q, q).abs().max() < 1e-12


def test_alignment_undoes_a_motion_but_not_a_reflection():
    atoms = Layout.of([6, 7])
    y = torch.randn(13, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = y @ torch.as_tensor(TURN).T + 2.0
    assert torch.allclose(laid_on(x, y, atoms), y, atol=1e-9)
    assert square_errors(laid_on(y * torch.tensor([1.0, 1.0, -1.0]), y, atoms), y, atoms).min() > 0.1


def test_the_loss_of_distances_sees_bonds_and_angles_alone():
    batch = pair_batch(SMALL)
    x = batch.ends[:, 0]
    assert distance_errors(x @ torch.as_tensor(TURN).T, x, batch).max() < 1e-20
    d = torch.linalg.vector_norm(x[batch.pairs[0]] - x[batch.pairs[1]], dim=-1)[batch.near]
    first = d[batch.pairs[0][batch.near] < len(batch.atoms.table[0])]
    stretched = distance_errors(1.1 * x, x, batch)[0]
    assert float(stretched) == pytest.approx(float(((0.21 * first**2) ** 2).mean()), rel=1e-9)


def test_starts_of_a_group_are_assigned_one_to_one_at_the_lowest_cost():
    settings = replace(SMALL, group=3, matching="random", torsion_share=0.0)
    batch = PairBatches([pairs_of(MOLECULES[0])], settings, 6, 0).batch(0)
    # structures that are the other pairs' conformers: each must find its own
    wanted = torch.stack([batch.ends[i, 1] for i in range(len(batch.start))])
    assert torch.allclose(assigned(wanted, batch), wanted, atol=1e-5)
    found = assigned(batch.start, batch)
    table = batch.atoms.table
    cost = [
        square_errors(laid_on(batch.start, batch.ends[:, k], batch.atoms), batch.ends[:, k], batch.atoms)
        for k in range(3)
    ]
    got = square_errors(laid_on(batch.start, found, batch.atoms), found, batch.atoms)
    shift = [torch.stack([cost[(k) % 3] for k in (a, a, a)]) for a in range(3)]
    assert all(got.sum() <= s[0].sum() + 0.3 for s in shift) and len(table) == 6


def test_weights_of_the_loss_grow_by_steps_or_by_factors():
    assert [Annealed(0.0, 0.5, 10).at(k) for k in (0, 5, 10, 99)] == [0.0, 0.25, 0.5, 0.5]
    grown = Annealed(1e-6, 1e-1, 5, geometric=True)
    assert [grown.at(k) for k in range(6)] == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
    assert Annealed(0.2, 0.7).at(0) == 0.7
    batches = PairBatches([pairs_of(MOLECULES[0])], replace(SMALL, distance=Annealed(0.0, 0.5, 10)), 2, 0)
    assert float(batches.batch(5).distance_weight) == 0.25
    with pytest.raises(InputError, match="above zero"):
        Annealed(0.0, 1.0, 5, geometric=True)


def test_settings_that_cannot_work_are_refused():
    for wrong in (
        {"heads": 3},
        {"decoder": "both"},
        {"matching": "best"},
        {"dropout": 1.0},
        {"softness": 0.0},
        {"torsion_share": 2.0},
    ):
        with pytest.raises(InputError):
            replace(SMALL, **wrong)


def test_the_model_keeps_its_protocol():
    for decoder in DECODERS:
        settings = replace(SMALL, decoder=decoder)
        records = [pairs_of(s) for s in MOLECULES[:2]]
        validate_model(CoarsenConf(settings), PairBatches(records, settings, 3, 0).batch(1))


def test_one_molecule_is_learned_by_heart():
    settings = replace(SMALL, encoder_layers=1, matching="random", torsion_share=0.0, kl=Annealed(0.0, 0.0))
    torch.manual_seed(0)
    flow = CoarsenConf(settings)
    batch = PairBatches([pairs_of("OCCc1ccc(F)cc1")], settings, 2, 0).batch(1)
    optimiser = torch.optim.Adam(flow.parameters(), 5e-3)
    for _ in range(80):
        optimiser.zero_grad()
        found = flow.loss(batch)
        found["loss"].backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimiser.step()
    assert found["start_rmsd"].item() > 0.3
    assert found["rmsd"].item() < 0.1
