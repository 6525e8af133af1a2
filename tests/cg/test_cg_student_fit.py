"""Fitting a student: exact forces of a known density, noisy ones, frames alone, and what is refused."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bead_examples import fake_frames
from refusals import refuses

from molflow_sim.cg import BeadFrames, CGNetSettings, InternalCoordinates
from molflow_sim.cg.student.langevin import Langevin
from molflow_sim.cg.student.training import _ForceMatching, fit_student, student_train_settings
from molflow_sim.coarse import backbone_topology
from molflow_sim.errors import InputError, NonFiniteError, StoreError, TrainingError
from molflow_sim.evaluate.free_energy import dihedral, histogram, kl_divergence
from molflow_sim.training import TrainSettings
from molflow_sim.units import BOLTZMANN

TOPOLOGY = backbone_topology()
KT = BOLTZMANN * 300.0
CENTRES, SHARES, SHARPNESS = (-1.4, 1.2), (0.7, 0.3), 4.0
NETWORK = CGNetSettings(width=48, depth=3)
SHORT = TrainSettings(
    max_steps=1200,
    batch_size=128,
    learning_rate=3e-3,
    warmup_steps=50,
    ema_decay=0.99,
    validate_every=200,
    device="cpu",
)


def energy(x: torch.Tensor) -> torch.Tensor:
    """-kT log p of narrow bonds and angles and torsions in two basins, in eV."""
    bonds, angles, torsions, log_det = InternalCoordinates(TOPOLOGY).to_internal(x)
    basins = sum(s * torch.exp(SHARPNESS * torch.cos(torsions - c)) for s, c in zip(SHARES, CENTRES))
    log_p = -0.5 * ((bonds - 1.45) / 0.03).square().sum(-1) - 0.5 * ((angles - 2.0) / 0.05).square().sum(-1)
    return -KT * (log_p + basins.log().sum(-1) - log_det)


def exact_samples(n: int, seed: int = 0) -> SimpleNamespace:
    """Independent draws of that density with its forces."""
    rng = np.random.default_rng(seed)
    centre = rng.choice(CENTRES, p=SHARES, size=(n, 2))
    x, _ = InternalCoordinates(TOPOLOGY).to_cartesian(
        torch.tensor(1.45 + 0.03 * rng.normal(size=(n, 4))),
        torch.tensor(2.0 + 0.05 * rng.normal(size=(n, 3))),
        torch.tensor(centre + rng.vonmises(0.0, SHARPNESS, size=(n, 2))),
    )
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(energy(x).sum(), x)
    return SimpleNamespace(
        positions=x.detach().numpy(), forces=-gradient.numpy(), weights=np.ones(n), topology=TOPOLOGY, temperature=300.0
    )


def torsions_of(positions: np.ndarray) -> np.ndarray:
    return histogram(dihedral(positions, TOPOLOGY.phi_psi_indices())[:, 0], 24, [(-math.pi, math.pi)])[0]


@pytest.fixture(scope="module")
def fitted():
    return fit_student(exact_samples(4000), "flow-forces", NETWORK, SHORT, progress=False)


def test_the_forces_of_a_known_potential_are_recovered(fitted):
    fresh = exact_samples(500, seed=1)
    _, forces = fitted.energy_and_forces(fresh.positions)
    error = np.square(forces - fresh.forces).mean() / np.square(fresh.forces).mean()
    torsional = np.square(_torsion_part(fitted, fresh) - 1.0).mean()
    assert error < 0.01, error
    assert torsional < 0.1, torsional


def _torsion_part(net, fresh):
    """Energy differences between the basins and their middle, over the true ones."""
    turns = torch.linspace(-math.pi, math.pi, 13, dtype=torch.float64)[:-1]
    torsions = torch.stack([turns, torch.full_like(turns, CENTRES[0])], 1)
    x, _ = InternalCoordinates(TOPOLOGY).to_cartesian(
        torch.full((12, 4), 1.45, dtype=torch.float64), torch.full((12, 3), 2.0, dtype=torch.float64), torsions
    )
    true, own = energy(x), net.energy(x).detach()
    spread = float((true - true.mean()).std())
    return (1.0 + ((own - own.mean()) - (true - true.mean())) / spread).numpy()


def test_a_simulation_of_the_student_has_the_torsions_of_the_data(fitted):
    data = exact_samples(4000, seed=2)
    run = Langevin(fitted.energy_and_forces, data.positions[:400], TOPOLOGY.masses, 300.0, friction=5e-3)
    seen = []
    for _ in range(60):
        run.run(25)
        seen.append(run.positions.copy())
    target, own = torsions_of(exact_samples(50_000, seed=3).positions), torsions_of(np.concatenate(seen[10:]))
    assert abs(kl_divergence(target, own)) < 0.03
    lengths = np.linalg.norm(np.diff(np.concatenate(seen), axis=1), axis=-1)
    assert lengths.min() > 1.25 and lengths.max() < 1.65


def test_samples_of_another_flow_are_another_training(tmp_path):
    quick = (NETWORK, replace(SHORT, max_steps=3), tmp_path)
    fit_student(exact_samples(200), "flow-forces", *quick, progress=False)
    other = exact_samples(200, seed=5)
    refuses(StoreError, "another training", fit_student, other, "flow-forces", *quick, progress=False)


def test_force_matching_finds_the_mean_force_beneath_noise():
    data = exact_samples(4000)
    rng = np.random.default_rng(0)
    noisy = data.forces + 1.0 * rng.normal(size=data.forces.shape)
    frames = BeadFrames.from_arrays(data.positions, TOPOLOGY, 300.0, noisy)
    net = fit_student(frames, "force-matching", NETWORK, replace(SHORT, max_steps=600), progress=False)
    fresh = exact_samples(500, seed=1)
    _, forces = net.energy_and_forces(fresh.positions)
    assert np.square(forces - fresh.forces).mean() < 0.2 * np.square(noisy - data.forces).mean()


def test_the_weights_kept_are_the_best_on_held_out_data():
    data = exact_samples(200)
    noisy = data.forces + 3.0 * np.random.default_rng(0).normal(size=data.forces.shape)
    frames = BeadFrames.from_arrays(data.positions, TOPOLOGY, 300.0, noisy)
    plan = replace(SHORT, max_steps=600, validate_every=50, ema_decay=0.9)
    fresh = exact_samples(500, seed=1)

    def error(plan):
        net = fit_student(frames, "force-matching", NETWORK, plan, progress=False)
        return np.square(net.energy_and_forces(fresh.positions)[1] - fresh.forces).mean()

    # Looked at once, at the end, the noise has been learned by heart.
    assert error(plan) < 0.8 * error(replace(plan, validate_every=600))


def test_the_density_alone_is_fitted_from_frames():
    data = exact_samples(4000)
    frames = BeadFrames.from_arrays(data.positions, TOPOLOGY, 300.0)
    plan = replace(student_train_settings(4000, "density"), max_steps=150, learning_rate=5e-3)
    net = fit_student(frames, "density", NETWORK, plan, progress=False)
    start = fit_student(frames, "density", NETWORK, replace(plan, max_steps=1), progress=False)
    difference = {}
    for name, model in (("fitted", net), ("prior", start)):
        difference[name] = np.square(_torsion_part(model, None) - 1.0).mean()
    assert difference["fitted"] < 0.5 * difference["prior"], difference


def test_weights_of_the_samples_count():
    data = exact_samples(2000)
    wrong = data.forces.copy()
    wrong[1000:] *= -1.0
    weights = np.concatenate([np.ones(1000), np.full(1000, 1e-6)])
    mixed = SimpleNamespace(**{**vars(data), "forces": wrong, "weights": weights})
    net = fit_student(mixed, "flow-forces", NETWORK, replace(SHORT, max_steps=400), progress=False)
    fresh = exact_samples(300, seed=1)
    error = np.square(net.energy_and_forces(fresh.positions)[1] - fresh.forces).mean()
    assert error < 0.05 * np.square(fresh.forces).mean()


def test_overlapping_samples_that_have_no_weight_do_not_drown_the_others():
    data = exact_samples(64)
    net = fit_student(data, "flow-forces", NETWORK, replace(SHORT, max_steps=5), progress=False)
    apart = _ForceMatching(net, data.positions, data.forces, data.weights)
    clashing = data.positions[:1].copy()
    clashing[0, 4] = clashing[0, 0] + 1e-3  # the prior's repulsion has an exponent of six: its force is 10²⁰ here
    loss = _ForceMatching(
        net,
        np.concatenate([data.positions, clashing]),
        np.concatenate([data.forces, data.forces[:1]]),
        np.append(data.weights, 1e-40),
    )
    assert loss.unit == pytest.approx(apart.unit)
    value = loss(net.mlp, loss.batches(np.arange(65), 65, 0).batch(0))["loss"].item()
    known = apart(net.mlp, apart.batches(np.arange(64), 64, 0).batch(0))["loss"].item()
    assert value == pytest.approx(known, rel=0.01)


def test_large_systems_need_no_stored_jacobian(monkeypatch):
    data = exact_samples(64)
    net = fit_student(data, "flow-forces", NETWORK, replace(SHORT, max_steps=5), progress=False)
    stored = _ForceMatching(net, data.positions, data.forces, data.weights)
    monkeypatch.setattr("molflow_sim.cg.student.training._MEMORY", 0)
    live = _ForceMatching(net, data.positions, data.forces, data.weights)
    rows = np.arange(64)
    values = []
    for loss in (stored, live):
        net.mlp.zero_grad()
        value = loss(net.mlp, loss.batches(rows, 64, 0).batch(0))["loss"]
        value.backward()
        values.append((float(value.detach()), net.mlp.hidden[0].weight.grad.clone()))
    assert live.stored is False and stored.stored is True
    assert values[0][0] == pytest.approx(values[1][0], rel=1e-4)
    assert torch.allclose(values[0][1], values[1][1], rtol=1e-3, atol=1e-6)


def test_the_same_seed_gives_the_same_student_and_a_finished_folder_is_not_trained_again(tmp_path):
    data = exact_samples(300)
    plan = replace(SHORT, max_steps=60, validate_every=20)
    one = fit_student(data, "flow-forces", NETWORK, plan, tmp_path, progress=False)
    two = fit_student(data, "flow-forces", NETWORK, plan, progress=False)
    again = fit_student(data, "flow-forces", NETWORK, plan, tmp_path, progress=False)
    for other in (two, again):
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


def test_what_cannot_be_fitted_is_refused():
    frames = fake_frames()
    refuses(InputError, "method", fit_student, frames, "guess", NETWORK, SHORT)
    refuses(InputError, "needs forces", fit_student, frames, "force-matching", NETWORK, SHORT)
    refuses(TrainingError, "too few", fit_student, fake_frames(10), "density", NETWORK, SHORT)
    data = exact_samples(50)
    data.forces[3, 1, 2] = np.nan
    with pytest.raises(NonFiniteError):
        fit_student(data, "flow-forces", NETWORK, SHORT)
    data = exact_samples(50)
    data.energies = np.full(50, np.nan)
    refuses(NonFiniteError, "energies", fit_student, data, "flow-forces", NETWORK, SHORT, progress=False)


def test_energies_fix_the_weights_of_basins_that_poor_forces_leave_open():
    data = exact_samples(1500, seed=3)
    rng = np.random.default_rng(4)
    noisy = data.forces + 20.0 * data.forces.std() * rng.normal(size=data.forces.shape)
    energies = energy(torch.from_numpy(data.positions)).numpy() + 0.3  # any zero of energy will do
    known = SimpleNamespace(**{**vars(data), "forces": noisy, "energies": energies})
    fresh = exact_samples(800, seed=5)
    expected = energy(torch.from_numpy(fresh.positions)).numpy() / KT
    spread = []
    for weight in (0.0, 1.0):
        net = fit_student(known, "flow-forces", NETWORK, SHORT, energy_weight=weight, progress=False)
        spread.append(np.std(net.energy_and_forces(fresh.positions)[0] / KT - expected))
    assert spread[1] < 0.3 and spread[1] < 0.5 * spread[0]
