"""The flow over internal coordinates: its density, samples, invariances, continuity and fit."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from refusals import refuses
from torch import Tensor

from molflow_sim.cg import BeadFrames, InternalCoordinates
from molflow_sim.cg.teacher import BeadFlow, TeacherSettings, fit_teacher, teacher_training
from molflow_sim.coarse import BeadTopology
from molflow_sim.errors import InputError, StoreError, TrajectoryError, WeightsError
from molflow_sim.geometry.torsions import dihedral_angle
from molflow_sim.training.weights import load_weights, save_weights

SMALL = TeacherSettings(
    n_blocks=1,
    hidden=(16, 16),
    local_hidden=(16,),
    torsion_components=4,
    angle_components=3,
    bond_components=3,
    min_frames=20,
)


def chain(n: int, branch: bool = False) -> BeadTopology:
    bonds = [(i, i + 1) for i in range(n - 1)]
    if branch:  # the last bead on the third one instead
        bonds[-1] = (2, n - 1)
    return BeadTopology(names=tuple(f"B{i}" for i in range(n)), masses=np.full(n, 12.0), bonds=np.array(bonds))


def frames_of(n_beads: int, n_frames: int = 200, seed: int = 0, branch: bool = False) -> BeadFrames:
    """Independent bonds and angles; each torsion around one of two values, near the seam or at 1 rad."""
    random = np.random.default_rng(seed)
    topology = chain(n_beads, branch)
    side = random.integers(0, 2, (n_frames, max(n_beads - 3, 0)))
    q = (
        random.normal(1.5, 0.05, (n_frames, n_beads - 1)),
        random.normal(1.9, 0.08, (n_frames, n_beads - 2)),
        np.where(side, math.pi, 1.0) + random.normal(0.0, 0.25, side.shape),
    )
    x, _ = InternalCoordinates(topology).to_cartesian(*(torch.from_numpy(v) for v in q))
    return BeadFrames.from_arrays(x.numpy(), topology, 300.0)


def rough_flow(n_beads: int, settings: TeacherSettings = SMALL, branch: bool = False, scale: float = 3.0) -> BeadFlow:
    """An untrained flow in float64 whose conditioners matter."""
    flow = BeadFlow.from_frames(frames_of(n_beads, branch=branch), settings, seed=1).double()
    with torch.no_grad():
        for part in flow.sets:
            for parameter in part.conditioner.parameters():
                parameter *= scale if parameter.dim() > 1 else 1.0
            last = list(part.conditioner.parameters())[-1]
            last += torch.randn(last.shape, generator=torch.Generator().manual_seed(0), dtype=last.dtype)
    return flow.requires_grad_(False)


def rotation(seed: int) -> Tensor:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return torch.from_numpy(q if np.linalg.det(q) > 0 else -q)


def draw(flow: BeadFlow, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    return flow.sample(n, torch.Generator().manual_seed(seed))


class TestDensity:
    @pytest.mark.parametrize("n_beads", [3, 4])
    @pytest.mark.parametrize("augmented", [0, 2])
    def test_the_joint_density_integrates_to_one(self, n_beads, augmented):
        # Importance sampling from a density that is known and wider, in internal coordinates.
        flow = rough_flow(n_beads, dataclasses.replace(SMALL, n_augmentations=augmented))
        generator = torch.Generator().manual_seed(0)
        n = 30_000
        nb, na, nt = n_beads - 1, n_beads - 2, n_beads - 3
        wide_b, wide_c, wide_eta = 1.5 * flow.bond_scale, 1.3 * flow.angle_scale, 1.3

        def normal(size: int) -> Tensor:
            return torch.randn(n, size, generator=generator, dtype=torch.float64)

        zb, zc, ze = normal(nb), normal(na), normal(augmented)
        bonds, cosines, eta = flow.bond_mean + wide_b * zb, flow.angle_mean + wide_c * zc, wide_eta * ze
        torsions = (torch.rand(n, nt, generator=generator, dtype=torch.float64) - 0.5) * 2 * math.pi
        inside = (bonds > 0).all(-1) & (cosines.abs() < 1).all(-1)
        log_q = -0.5 * ((zb**2).sum(-1) + (zc**2).sum(-1) + (ze**2).sum(-1))
        log_q = log_q - wide_b.log().sum() - wide_c.log().sum() - augmented * math.log(wide_eta)
        log_q = log_q - 0.5 * (nb + na + augmented) * math.log(2 * math.pi) - nt * math.log(2 * math.pi)
        bonds, angles, torsions, eta = (v[inside] for v in (bonds, (-cosines).acos(), torsions, eta))
        x, log_det = flow.internal.to_cartesian(bonds, angles, torsions)
        # From −cos θ to θ the proposal gains sin θ.
        log_p = flow.joint_log_prob(x, eta) + log_det - angles.sin().log().sum(-1)
        ratio = torch.zeros(n, dtype=torch.float64)
        ratio[inside] = (log_p - log_q[inside]).exp()
        error = ratio.std() / math.sqrt(n)
        assert abs(ratio.mean() - 1.0) < 4 * error and error < 0.15

    @pytest.mark.parametrize(("n_beads", "n_blocks"), [(3, 1), (4, 1), (4, 2), (5, 1)])
    def test_samples_follow_the_density(self, n_beads, n_blocks):
        # The mean of q/p over samples of p is the integral of q, one, for any other density q: here, another flow.
        settings = dataclasses.replace(SMALL, floor=0.1, n_blocks=n_blocks)
        flow, other = rough_flow(n_beads, settings, scale=2.0), rough_flow(n_beads, settings, scale=0.5)
        x, eta = draw(flow, 10_000)
        ratio = (other.joint_log_prob(x, eta) - flow.joint_log_prob(x, eta)).exp()
        error = ratio.std() / math.sqrt(len(x))
        assert abs(ratio.mean() - 1.0) < 4 * error and error < 0.05 and ratio.std() > 0.03

    def test_the_same_configuration_is_drawn_and_scored(self):
        flow = rough_flow(5)
        x, eta = draw(flow, 50)
        *units, _ = flow.to_units(x)
        assert all(((u >= 0) & (u <= 1)).all() for u in units)
        again, _ = draw(flow, 50)
        assert torch.equal(x, again)
        assert torch.isfinite(flow.joint_log_prob(x, eta)).all()

    def test_the_importance_estimate_lies_above_the_bound_and_tends_to_the_marginal(self):
        flow = rough_flow(4, dataclasses.replace(SMALL, n_augmentations=1))
        x, _ = draw(flow, 30)
        generator = torch.Generator().manual_seed(0)
        estimate = flow.log_prob(x, 500, generator)
        *units, slope = flow.to_units(x)
        several = flow.draw_augmentation((500, 30), generator)
        bound = slope + flow.unit_log_ratio(*(u.expand(500, *u.shape) for u in units), several).mean(0)  # eq. 7
        eta = torch.linspace(-9, 9, 1001, dtype=torch.float64)[:, None, None].expand(-1, 30, 1)
        joint = flow.joint_log_prob(x.expand(1001, *x.shape), eta).exp()
        exact = torch.trapezoid(joint, eta[:, 0, 0], dim=0).log()
        assert (bound < exact).all()
        assert (estimate - exact).abs().max() < 0.2

    def test_without_augmentation_the_density_is_exact_whatever_the_number_of_draws(self):
        flow = rough_flow(5, dataclasses.replace(SMALL, n_augmentations=0))
        x, eta = draw(flow, 10)
        assert eta.shape == (10, 0)
        assert torch.equal(flow.log_prob(x, 1), flow.log_prob(x, 64))
        assert torch.allclose(flow.log_prob(x), flow.joint_log_prob(x, eta))


class TestSymmetry:
    @pytest.mark.parametrize("branch", [False, True])
    def test_turning_and_shifting_the_molecule_changes_nothing(self, branch):
        flow = rough_flow(5, branch=branch)
        x, eta = draw(flow, 20)
        moved = x @ rotation(3).T + torch.tensor([3.0, -1.0, 7.0], dtype=torch.float64)
        assert torch.allclose(flow.joint_log_prob(moved, eta), flow.joint_log_prob(x, eta), atol=1e-9)

    @pytest.mark.parametrize("branch", [False, True])
    def test_the_mirror_image_has_another_energy(self, branch):
        flow = rough_flow(5, branch=branch)
        x, eta = draw(flow, 20)
        mirrored = x * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
        assert (flow.joint_log_prob(mirrored, eta) - flow.joint_log_prob(x, eta)).abs().min() > 1e-3


class TestContinuity:
    @pytest.mark.parametrize("column", [0, 1])
    def test_energy_and_forces_cross_the_seam_of_every_torsion_without_a_step(self, column):
        # Differences across the seam shrink with the distance; a step would stay.
        flow = rough_flow(5)
        bonds, angles = torch.full((1, 4), 1.5).double(), torch.full((1, 3), 1.9).double()

        def at(torsion: float) -> Tensor:
            torsions = torch.tensor([[0.4, -2.0]]).double()
            torsions[0, column] = torsion
            x, _ = flow.internal.to_cartesian(bonds, angles, torsions)
            x.requires_grad_()
            energy = flow.energy(x, torch.tensor([[0.3, -0.8]]).double()).sum()
            return torch.cat([energy.detach()[None], torch.autograd.grad(energy, x)[0].flatten()])

        wide, narrow = ((at(math.pi - h) - at(-math.pi + h)).abs() for h in (1e-5, 1e-6))
        assert wide.max() > 0 and (narrow < 0.2 * wide + 1e-10).all()

    def test_beyond_the_data_the_energy_stays_finite_and_pulls_back(self):
        flow = rough_flow(5)
        bonds, angles = torch.full((3, 4), 1.5).double(), torch.full((3, 3), 1.9).double()
        bonds[:, 1] = torch.tensor([2.5, 4.0, 0.2])
        x, _ = flow.internal.to_cartesian(bonds, angles, torch.full((3, 2), 0.4).double())
        x.requires_grad_()
        energy = flow.energy(x, torch.zeros(3, 2).double())
        (gradient,) = torch.autograd.grad(energy.sum(), x)
        assert torch.isfinite(energy).all() and torch.isfinite(gradient).all()
        direction = torch.nn.functional.normalize(x[:, 2] - x[:, 1], dim=-1).detach()
        pull = ((gradient[:, 2:] * direction[:, None]).sum((1, 2))).detach()
        assert pull[0] > 0 and pull[1] > 0 and pull[2] < 0


class TestFit:
    def test_a_trained_flow_reproduces_two_basins_on_the_seam(self):
        frames = frames_of(5, 2000)
        plan = dataclasses.replace(teacher_training(2000), max_steps=200, learning_rate=3e-3)
        flow = fit_teacher(frames, SMALL, plan, progress=False)
        assert not flow.training
        x, _ = draw(flow, 5000)
        torsion = dihedral_angle(*(x[:, i] for i in range(4))).double()
        near_seam = float((torsion.abs() > 2.1).double().mean())
        assert 0.4 < near_seam < 0.6
        at_one = torsion[(torsion - 1.0).abs() < 1.0]
        assert abs(float(at_one.mean()) - 1.0) < 0.05 and abs(float(at_one.std()) - 0.25) < 0.06
        bonds = flow.internal.to_internal(x)[0]
        assert (bonds.mean(0) - 1.5).abs().max() < 0.01 and (bonds.std(0) - 0.05).abs().max() < 0.01

    def test_the_same_seed_gives_the_same_flow_and_leaves_torch_s_random_numbers_alone(self):
        frames, plan = frames_of(4), dataclasses.replace(teacher_training(200), max_steps=5)
        state = torch.random.get_rng_state()
        flows = [fit_teacher(frames, SMALL, plan, progress=False) for _ in range(2)]
        assert torch.equal(state, torch.random.get_rng_state())
        first, second = (flow.state()[0] for flow in flows)
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_a_finished_training_is_read_back_and_one_on_other_frames_refused(self, tmp_path):
        plan = dataclasses.replace(teacher_training(200), max_steps=3)
        first, second = (fit_teacher(frames_of(4), SMALL, plan, tmp_path, progress=False) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
        assert (tmp_path / "metrics.csv").exists()
        with pytest.raises(StoreError, match=r"another training .frames: there"):
            fit_teacher(frames_of(4, seed=5), SMALL, plan, tmp_path, progress=False)

    def test_frames_that_are_too_few_not_finite_or_of_two_beads_are_refused(self):
        with pytest.raises(TrajectoryError, match="too few"):
            fit_teacher(frames_of(4, 30), TeacherSettings(min_frames=100), progress=False)
        frames = frames_of(4)
        positions = frames.positions.copy()
        positions[17, 2, 1] = np.nan
        with pytest.raises(TrajectoryError, match="frame 17"):
            BeadFlow.from_frames(dataclasses.replace(frames, positions=positions), SMALL)
        positions = np.random.default_rng(0).normal(size=(50, 2, 3))
        with pytest.raises(TrajectoryError, match="three"):
            BeadFlow.from_frames(BeadFrames.from_arrays(positions, chain(2), 300.0), SMALL)


class TestState:
    @pytest.mark.parametrize("branch", [False, True])
    def test_saved_and_loaded_it_is_the_same_density(self, tmp_path, branch):
        flow = BeadFlow.from_frames(frames_of(5, branch=branch), SMALL, seed=2)
        save_weights(tmp_path, "teacher", *flow.state())
        back = BeadFlow.from_state(*load_weights(tmp_path, "teacher"))
        assert back.settings == flow.settings and back.temperature == 300.0
        assert back.topology == flow.topology and not back.training
        x, eta = draw(flow, 10)
        assert torch.equal(back.joint_log_prob(x, eta), flow.joint_log_prob(x, eta))

    def test_a_card_of_another_kind_and_tensors_that_do_not_fit_are_refused(self):
        tensors, card = BeadFlow.from_frames(frames_of(4), SMALL).state()
        refuses(WeightsError, "kind", BeadFlow.from_state, tensors, {**card, "kind": "something else"})
        refuses(WeightsError, "fit", BeadFlow.from_state, {k: v for k, v in list(tensors.items())[:-1]}, card)
        with pytest.raises(WeightsError, match=r"do not fit the flow .*of another shape: .* not .* more") as caught:
            BeadFlow.from_state(tensors, {**card, "settings": {**card["settings"], "hidden": [8, 8]}})
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
        with pytest.raises(WeightsError, match="bond_mean is missing"):
            BeadFlow.from_state({k: v for k, v in tensors.items() if k != "bond_mean"}, card)
        refuses(WeightsError, "unknown: more", BeadFlow.from_state, {**tensors, "more": torch.zeros(1)}, card)


def test_settings_that_cannot_work_are_refused():
    for wrong in ({"n_blocks": 0}, {"n_augmentations": -1}, {"floor": 0.0}, {"least_width": 1.5}, {"sharpness": 0.0}):
        with pytest.raises(InputError):
            TeacherSettings(**wrong)
