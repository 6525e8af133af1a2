"""Samples with forces from the flow: exact gradients, averages, filter, repulsion."""

import dataclasses

import numpy as np
import pytest
import torch
from test_cg_teacher import SMALL, chain, draw, rough_flow

from molflow_sim.cg.teacher import ForceSampleSettings, mean_forces, sample_with_forces
from molflow_sim.cg.teacher.forces import rarity, repulsion_weights
from molflow_sim.errors import InputError, NonFiniteError
from molflow_sim.evaluate.free_energy import dihedral
from molflow_sim.units import BOLTZMANN


@pytest.mark.parametrize("branch", [False, True])
@pytest.mark.parametrize("n_beads", [4, 5])
def test_forces_are_minus_the_gradient_of_the_energy_at_fixed_augmentation(n_beads, branch):
    flow = rough_flow(n_beads, branch=branch)
    x, eta = draw(flow, 4)
    forces = mean_forces(flow, x, eta, 1)
    h = 1e-3
    numeric = torch.zeros_like(x)
    for i in range(n_beads):
        for axis in range(3):
            shifts = torch.zeros(4, 1, n_beads, 3, dtype=torch.float64)
            shifts[:, 0, i, axis] = h * torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64) * 0.1
            e = flow.energy(x + shifts, eta.expand(4, *eta.shape))
            numeric[:, i, axis] = -(e[0] - 8 * e[1] + 8 * e[2] - e[3]) / (12 * 0.1 * h)
    scale = forces.abs().amax(dim=(1, 2), keepdim=True)
    assert ((forces - numeric) / scale).abs().max() < 1e-6


def test_there_is_no_net_force_and_no_torque():
    flow = rough_flow(5)
    x, eta = draw(flow, 20)
    forces = mean_forces(flow, x, eta, 1)
    scale = forces.abs().max()
    assert forces.sum(1).abs().max() < 1e-10 * scale
    assert torch.linalg.cross(x, forces).sum(1).abs().max() < 1e-9 * scale


class TestAveraging:
    def test_many_augmentations_give_the_gradient_of_the_marginal(self):
        flow = rough_flow(4, dataclasses.replace(SMALL, n_augmentations=1))
        x, _ = draw(flow, 5)
        grid = torch.linspace(-9, 9, 801, dtype=torch.float64)[:, None, None].expand(-1, 5, 1)
        x.requires_grad_()
        joint = flow.joint_log_prob(x.expand(801, *x.shape), grid)
        marginal = torch.logsumexp(joint, 0)
        exact = BOLTZMANN * 300.0 * torch.autograd.grad(marginal.sum(), x)[0]
        estimate = mean_forces(flow, x.detach(), None, 5000, torch.Generator().manual_seed(0))
        assert (estimate - exact).abs().max() < 0.08 * exact.abs().max()

    def test_the_average_is_unbiased_and_less_noisy_for_few_augmentations_too(self):
        # Pairs (x, η) from the flow: the mean of force · f(x) over them must not depend on the number of draws.
        flow = rough_flow(4, dataclasses.replace(SMALL, n_augmentations=2))
        x, eta = draw(flow, 6000)
        single = mean_forces(flow, x, eta, 1)
        several = mean_forces(flow, x, eta, 4, torch.Generator().manual_seed(1))
        end = torch.nn.functional.normalize(x[:, 3] - x[:, 0], dim=-1)
        difference = ((single - several)[:, 3] * end).sum(-1)
        assert abs(difference.mean()) < 4 * difference.std() / len(x) ** 0.5
        assert (several**2).mean() < (single**2).mean()

    def test_without_augmented_coordinates_nothing_is_averaged(self):
        flow = rough_flow(4, dataclasses.replace(SMALL, n_augmentations=0))
        x, eta = draw(flow, 5)
        assert torch.equal(mean_forces(flow, x, eta, 8), mean_forces(flow, x, eta, 1))


class TestSamples:
    def test_shapes_units_and_reproducibility(self):
        flow = rough_flow(5).float()
        samples = sample_with_forces(flow, 300, seed=4, settings=ForceSampleSettings(relative_bound=0.0))
        assert samples.positions.shape == samples.forces.shape == (300, 5, 3)
        assert samples.positions.dtype == samples.forces.dtype == np.float64
        assert samples.kept_fraction == 1.0 and samples.temperature == 300.0 and len(samples) == 300
        assert abs(samples.weights.mean() - 1.0) < 1e-12
        assert 1 <= samples.effective_sample_size <= 300 and "effective sample size" in samples.summary
        again = sample_with_forces(flow, 300, seed=4, settings=ForceSampleSettings(relative_bound=0.0))
        assert np.array_equal(samples.forces, again.forces)
        assert next(flow.parameters()).dtype == torch.float32  # the flow itself is not changed

    def test_bounds_drop_samples_with_large_forces(self):
        flow = rough_flow(5)
        free = sample_with_forces(flow, 500, settings=ForceSampleSettings(relative_bound=0.0))
        square = (free.forces**2).mean(axis=(1, 2)) / (BOLTZMANN * 300.0) ** 2 * 100.0  # (kT/nm)²
        relative = sample_with_forces(flow, 500, settings=ForceSampleSettings(relative_bound=2.0))
        assert relative.bound == pytest.approx(2.0 * np.median(square))
        assert len(relative) == (square <= relative.bound).sum() < 500
        limit = float(np.quantile(square, 0.3))
        both = ForceSampleSettings(relative_bound=2.0, absolute_bound=limit)
        absolute = sample_with_forces(flow, 500, settings=both)
        assert absolute.bound == limit and absolute.kept_fraction == pytest.approx(0.3, abs=0.01)

    def test_impossible_bounds_and_settings_are_refused(self):
        with pytest.raises(NonFiniteError, match="none of 50"):
            sample_with_forces(rough_flow(4), 50, settings=ForceSampleSettings(absolute_bound=1e-9))
        for wrong in (
            {"n_augmentations": 0},
            {"relative_bound": -1.0},
            {"repulsion_strength": float("nan")},
            {"flatness": 0.5},
        ):
            with pytest.raises(InputError):
                ForceSampleSettings(**wrong)


class TestEnergies:
    def test_without_augmentation_they_are_the_flows_energies(self):
        flow = rough_flow(4, dataclasses.replace(SMALL, n_augmentations=0))
        samples = sample_with_forces(flow, 50)
        x = torch.from_numpy(samples.positions)
        assert np.allclose(samples.energies, flow.double().energy(x, x.new_zeros(len(x), 0)).detach().numpy())

    def test_with_augmentation_they_estimate_the_density_of_positions(self):
        flow = rough_flow(4)
        samples = sample_with_forces(flow, 50, settings=ForceSampleSettings(energy_augmentations=64))
        many = flow.double().log_prob(torch.from_numpy(samples.positions), 4000, torch.Generator().manual_seed(9))
        difference = -samples.energies / (BOLTZMANN * 300.0) - many.detach().numpy()
        assert np.abs(difference).mean() < 0.2 * np.std(many.detach().numpy())

    def test_none_are_made_if_none_are_wanted(self):
        assert (
            sample_with_forces(rough_flow(4), 30, settings=ForceSampleSettings(energy_augmentations=0)).energies is None
        )


class TestFlatness:
    def test_rarity_is_that_of_the_rarest_torsion(self):
        torsions = np.zeros((100, 2))
        torsions[:4, 0] = 3.0  # 4 of 100 in another bin of the first torsion
        torsions[4:14, 1] = -2.0
        expected = np.ones(100)
        expected[:4], expected[4:14] = 96 / 4, 90 / 10
        assert np.allclose(rarity(torsions), expected)

    def test_bins_go_round_the_circle(self):
        assert np.allclose(rarity(np.array([[0.01], [0.01 + 2 * np.pi], [0.01 - 2 * np.pi]])), 1.0)

    def test_rare_torsions_come_more_often_and_at_flatness_one_as_the_flow_has_them(self):
        flow = rough_flow(4)
        plain, flat = (
            sample_with_forces(flow, 2000, settings=ForceSampleSettings(relative_bound=0.0, flatness=f))
            for f in (1, 50)
        )
        bins = [np.histogram(dihedrals(s.positions), 24, (-np.pi, np.pi))[0] / len(s) for s in (plain, flat)]
        entropy = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in bins]
        assert entropy[1] > entropy[0] + 0.02 and entropy[1] < np.log(24)

    def test_the_forces_are_those_of_the_configurations_taken(self):
        # At fixed configuration and augmentation nothing changes; without augmentation that can be seen directly.
        flow = rough_flow(4, dataclasses.replace(SMALL, n_augmentations=0))
        taken = sample_with_forces(flow, 200, settings=ForceSampleSettings(relative_bound=0.0, flatness=20.0))
        x = torch.from_numpy(taken.positions)
        again = mean_forces(flow.double(), x, x.new_zeros(len(x), 0), 1).numpy()
        assert np.allclose(taken.forces, again, rtol=1e-9, atol=1e-9 * np.abs(again).max())


def dihedrals(x):
    return dihedral(x, (0, 1, 2, 3))


class TestRepulsion:
    @pytest.mark.parametrize("branch, pairs", [(False, [[0, 3], [0, 4], [1, 4]]), (True, [[0, 3], [0, 4]])])
    def test_only_pairs_three_bonds_apart_count(self, branch, pairs):
        everything = 1.0 + np.arange(25.0).reshape(5, 5)  # one limit per pair, all above the distances
        x, k = np.zeros((2, 5, 3)), 1e-3
        x[1] = 100.0 * np.eye(5, 3)  # no pair is close
        weights = repulsion_weights(x, chain(5, branch=branch), ForceSampleSettings(repulsion_strength=k), everything)
        expected = -0.5 * k * sum(everything[i, j] ** 2 for i, j in pairs)
        assert np.log(weights[0] / weights[1]) == pytest.approx(expected)

    def test_overlapping_beads_are_weighed_down_by_the_harmonic_energy(self):
        x = np.zeros((2, 4, 3))
        x[:, :, 0] = np.arange(4) * 1.5
        x[1, 3] = [0.0, 2.0, 0.0]  # 2 Å from bead 0
        settings = ForceSampleSettings(repulsion_distance=2.5, repulsion_strength=8.0)
        weights = repulsion_weights(x, chain(4), settings, np.zeros((4, 4)))
        assert weights[1] / weights[0] == pytest.approx(np.exp(-0.5 * 8.0 * 0.5**2))

    def test_by_default_the_least_distances_of_the_frames_are_the_limit(self):
        flow = rough_flow(4)
        samples = sample_with_forces(flow, 400, settings=ForceSampleSettings(relative_bound=0.0))
        distance = np.linalg.norm(samples.positions[:, 0] - samples.positions[:, 3], axis=-1)
        close = distance < float(flow.least_distances[0, 3])
        assert np.ptp(samples.weights[~close]) == 0.0
        assert close.sum() == 0 or samples.weights[close].max() < samples.weights[~close].max()
