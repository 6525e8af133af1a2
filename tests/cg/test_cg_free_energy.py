"""Free energies from samples and their distances."""

import math

import mdtraj
import numpy as np
import pytest
from bead_examples import DATA, alanine_data, fake_frames, needs_data
from hypothesis import given
from hypothesis import strategies as st
from refusals import refuses

from molflow_sim.errors import InputError, NonFiniteError
from molflow_sim.evaluate.free_energy import (
    coverage,
    dihedral,
    free_energy,
    free_energy_mse,
    histogram,
    kl_divergence,
    phi_psi_histogram,
)

KT = 8.617333262e-5 * 300.0 * 96.48533212331 / 4.184  # kcal/mol


@needs_data
def test_the_published_frames_of_capped_alanine_score_as_published():
    frames = alanine_data()
    reference = np.load(DATA / "reference_phi_psi.npy")
    phi, psi = dihedral(frames.positions, frames.topology.phi_psi_indices()).T
    own = phi_psi_histogram(phi, psi)
    assert kl_divergence(reference, own) == pytest.approx(0.039, abs=0.001)
    assert coverage(reference, own) == pytest.approx(0.978, abs=0.001)
    # Another sign or order of the torsions would not do:
    assert coverage(reference, phi_psi_histogram(-phi, psi)) < 0.2
    assert kl_divergence(reference, phi_psi_histogram(psi, phi)) > 0.5 or (
        coverage(reference, phi_psi_histogram(psi, phi)) < 0.5
    )


def test_torsions_agree_with_mdtraj():
    frames = fake_frames(30)
    indices = frames.topology.phi_psi_indices()
    expected = mdtraj.compute_dihedrals(mdtraj.Trajectory(frames.positions / 10, frames.topology.to_mdtraj()), indices)
    assert dihedral(frames.positions, indices) == pytest.approx(expected, abs=1e-3)
    assert dihedral(frames.positions, indices[0]) == pytest.approx(expected[:, 0], abs=1e-3)
    assert dihedral(frames.positions[0], indices[0]).shape == ()


def test_a_bin_holds_its_share_of_the_samples_and_axis_0_is_phi():
    phi, psi = np.array([-math.pi, -math.pi, 0.01, math.pi]), np.array([0.01, 0.01, 3.1, 0.01])
    p = phi_psi_histogram(phi, psi)
    assert p.shape == (60, 60) and p.sum() == pytest.approx(1.0)
    assert p[0, 30] == 0.75  # π and −π are the same angle
    assert p[30, 59] == 0.25


@given(st.integers(0, 2**32 - 1), st.integers(-3, 3))
def test_full_turns_change_nothing(seed, turns):
    phi, psi = np.random.default_rng(seed).uniform(-3.0, 3.0, (2, 50))
    turned = phi_psi_histogram(phi + 2 * math.pi * turns, psi, bins=7)
    assert turned == pytest.approx(phi_psi_histogram(phi, psi, bins=7))


def test_weights_count_as_repeats():
    rng = np.random.default_rng(0)
    x, n = rng.normal(size=20), rng.integers(0, 4, 20)
    a, edges = histogram(x, 5, weights=n)
    b, _ = histogram(np.repeat(x, n), 5, ranges=[(x.min(), x.max())])
    assert a == pytest.approx(b) and len(edges) == 1


def test_samples_outside_the_range_lower_the_sum():
    assert histogram(np.array([0.5, 0.5, 3.0, -1.0]), 4, ranges=[(0.0, 1.0)])[0].sum() == 0.5


@given(st.integers(0, 2**32 - 1))
def test_divergence_is_zero_for_itself_and_positive_on_common_ground(seed):
    p, q = np.random.default_rng(seed).dirichlet(np.ones(12), size=2)
    assert kl_divergence(p, p) == 0.0 and free_energy_mse(p, p) == 0.0 and coverage(p, p) == pytest.approx(1.0)
    assert kl_divergence(p, q) >= 0.0


def test_only_common_bins_count_and_nothing_is_normalised_again():
    p, q = np.array([0.5, 0.25, 0.25, 0.0]), np.array([0.25, 0.25, 0.0, 0.5])
    assert kl_divergence(p, q) == pytest.approx(0.5 * math.log(2))
    assert free_energy_mse(p, q, 300.0) == pytest.approx((KT * math.log(2)) ** 2 / 2)
    assert coverage(p, q) == pytest.approx(0.75)


def test_a_model_with_no_common_bin_is_infinitely_far():
    p, q = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert kl_divergence(p, q) == math.inf and free_energy_mse(p, q) == math.inf and coverage(p, q) == 0.0


def test_the_free_energy_is_zero_at_the_most_probable_bin_and_infinite_where_empty():
    f = free_energy(np.array([0.5, 0.25, 0.0]), 300.0)
    assert f == pytest.approx([0.0, KT * math.log(2), math.inf])


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: kl_divergence(np.ones(3), np.ones(4)), InputError, "cannot be compared"),
        (lambda: coverage(np.array([np.nan]), np.ones(1)), NonFiniteError, "NaN"),
        (lambda: kl_divergence(np.array([-1.0]), np.ones(1)), InputError, "negative"),
        (lambda: coverage(np.zeros(2), np.ones(2)), InputError, "populates no bin"),
        (lambda: free_energy(np.ones(2), 0.0), InputError, "temperature"),
        (lambda: histogram(np.array([])), InputError, "F > 0"),
        (lambda: histogram(np.array([np.inf])), NonFiniteError, "infinite"),
        (lambda: histogram(np.ones(2), weights=np.ones(3)), InputError, "2 samples"),
        (lambda: histogram(np.ones(2), weights=-np.ones(2)), InputError, "negative"),
        (lambda: dihedral(np.zeros((2, 4, 3)), [0, 1, 2]), InputError, "torsions of shape"),
        (lambda: dihedral(np.zeros((2, 4, 3)), [0, 1, 2, 4]), InputError, "bead 4 of 4"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, error, message):
    refuses(error, message, call)


def test_empty_bins_around_the_data_change_no_digit_of_the_coverage():
    rng = np.random.default_rng(0)
    for n in range(5, 60):
        p, q = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(n)) * (rng.random(n) < 0.6)
        wide = [np.concatenate([np.zeros(n % 13), x, np.zeros(n % 7)]) for x in (p, q)]
        assert coverage(*wide) == coverage(p, q)
