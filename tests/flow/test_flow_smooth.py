"""Smooth monotonic maps of the interval and the circle, and their networks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from molflow_sim.flow.conditioners import Conditioner, periodic_features
from molflow_sim.flow.smooth import (
    SmoothCircle,
    SmoothInterval,
    TruncatedNormalCDF,
    invert_increasing,
    ramp,
    split_ramps,
)

KINDS = (SmoothInterval, SmoothCircle)


def make(kind: type, seed: int, d: int = 1, k: int = 6, spread: float = 2.0, floor: float = 1e-6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    raw = spread * torch.randn(d * 3 * k, generator=generator, dtype=dtype)
    circular = kind is SmoothCircle
    return kind(split_ramps(raw, k, (0.05, 1.0 if circular else 2.0), circular), floor)


def slope(transform, x: Tensor) -> Tensor:
    return transform.call_and_ladj(x)[1].exp()


class TestRamp:
    def test_it_rises_from_zero_to_one_and_is_antisymmetric_about_its_middle(self):
        t = torch.linspace(-0.5, 1.5, 401, dtype=torch.float64)
        value, rise = ramp(t)
        assert value[0] < 1e-25 and value[-1] == 1.0
        assert (value.diff() >= 0).all() and (rise >= 0).all()
        assert torch.allclose(value + value.flip(0), torch.ones_like(t), atol=1e-15)

    @pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
    def test_slope_and_curvature_are_the_derivatives(self, sharpness):
        t = torch.linspace(0.05, 0.95, 37, dtype=torch.float64)
        h = 1e-5
        value, rise = ramp(torch.stack([t - h, t + h]), sharpness)
        t.requires_grad_()
        middle = ramp(t, sharpness)
        assert torch.allclose((value[1] - value[0]) / (2 * h), middle[1], rtol=1e-6, atol=1e-6)
        (first,) = torch.autograd.grad(middle[0].sum(), t, retain_graph=True)
        (second,) = torch.autograd.grad(middle[1].sum(), t)
        assert torch.allclose(first, middle[1], rtol=1e-14)
        assert torch.allclose((rise[1] - rise[0]) / (2 * h), second, rtol=1e-5, atol=1e-5)

    def test_every_value_and_gradient_is_finite_far_outside_and_at_the_ends(self):
        t = torch.tensor([-1e6, -1.0, 0.0, 1.0, 2.0, 1e6], requires_grad=True)
        value, rise = ramp(t)
        (value.sum() + rise.sum()).backward()
        assert torch.isfinite(value).all() and torch.isfinite(rise).all() and torch.isfinite(t.grad).all()


class TestMaps:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("seed", range(5))
    def test_the_density_is_normalised(self, kind, seed):
        # The trapezoid rule: exact to high order for a smooth periodic density, fine for the interval.
        x = torch.linspace(0, 1, 20001, dtype=torch.float64)[:, None]
        total = torch.trapezoid(slope(make(kind, seed), x)[:, 0], x[:, 0])
        assert abs(total - 1.0) < (1e-12 if kind is SmoothCircle else 1e-6)

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_log_slope_is_that_of_the_value(self, kind):
        transform = make(kind, 3, d=2)
        x = torch.rand(50, 2, dtype=torch.float64, requires_grad=True)
        y, log_slope = transform.call_and_ladj(x)
        (derivative,) = torch.autograd.grad(y.sum(), x)
        assert torch.allclose(derivative.log(), log_slope, atol=1e-12)
        assert torch.equal(transform(x), y)

    @pytest.mark.parametrize("kind", KINDS)
    def test_gradients_of_the_log_slope_agree_with_finite_differences(self, kind):
        k = 4
        raw = torch.randn(3 * k, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        x = torch.tensor([[0.31], [0.77]], dtype=torch.float64, requires_grad=True)

        def both(raw: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            circular = kind is SmoothCircle
            # A high floor: no term of the gradient hides behind another.
            return kind(split_ramps(raw, k, (0.2, 1.0), circular), 0.1).call_and_ladj(x)

        assert torch.autograd.gradcheck(both, (raw, x), eps=1e-6, atol=1e-7)

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10**6), spread=st.floats(0.0, 6.0), kind=st.sampled_from(KINDS))
    def test_the_inverse_undoes_the_map(self, seed, spread, kind):
        transform = make(kind, seed, d=3, spread=spread)
        y = torch.rand(64, 3, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
        x = transform.inv(y)
        assert ((x >= 0) & (x <= 1)).all()
        error = (transform(x) - y).abs()
        assert torch.minimum(error, 1.0 - error).max() < 1e-12  # on the circle 0 and 1 are one point

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_inverse_holds_in_single_precision(self, kind):
        transform = make(kind, 7, d=3, dtype=torch.float32)
        y = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0))
        x = transform.inv(y)
        error = (transform(x) - y).abs()
        # x itself is known to 1e-7 only, which the slope magnifies.
        assert (torch.minimum(error, 1.0 - error) / slope(transform, x).clamp_min(1.0)).max() < 1e-6

    def test_the_interval_keeps_its_ends(self):
        transform = make(SmoothInterval, 11, d=4)
        ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, 4)
        assert torch.allclose(transform(ends), ends, atol=1e-14)

    def test_the_circle_has_no_seam_in_the_density_nor_in_its_gradient(self):
        transform = make(SmoothCircle, 5)
        # The seam against a point in the middle of a period: the same finite differences, shifted.
        for x in (0.0, 0.4):
            at = torch.tensor([[x - 1e-6], [x + 1e-6]], dtype=torch.float64).remainder(1.0).requires_grad_()
            log_slope = transform.call_and_ladj(at)[1]
            (gradient,) = torch.autograd.grad(log_slope.sum(), at)
            scale = 1.0 + gradient.abs().max()
            assert (log_slope[1] - log_slope[0]).abs() < 4e-6 * scale
            assert (gradient[1] - gradient[0]).abs() < 1e-3 * scale

    def test_whole_turns_do_not_matter_on_the_circle(self):
        transform = make(SmoothCircle, 2, d=2)
        x = torch.rand(20, 2, dtype=torch.float64)
        for turns in (-2.0, 1.0):
            y, log_slope = transform.call_and_ladj(x + turns)
            assert torch.allclose(log_slope, transform.call_and_ladj(x)[1], atol=1e-9)
            difference = (y - transform(x)).abs()
            assert torch.minimum(difference, 1.0 - difference).max() < 1e-12

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_floor_bounds_the_density(self, kind):
        x = torch.linspace(0, 1, 5001, dtype=torch.float64)[:, None]
        density = slope(make(kind, 1, k=1, spread=0.0, floor=1e-3), x)
        narrow = make(kind, 1, k=2, spread=8.0, floor=1e-3)
        assert (density >= 1e-3).all() and (slope(narrow, x) >= 1e-3 * (1 - 1e-12)).all()

    def test_zero_parameters_give_an_even_density_on_the_circle(self):
        x = torch.linspace(0, 1, 1001, dtype=torch.float64)[:, None]
        density = slope(make(SmoothCircle, 0, k=10, spread=0.0), x)
        assert (density - 1.0).abs().max() < 0.02


def test_the_inverse_crosses_plateaus_where_newton_alone_diverges():
    def steps(x: Tensor) -> tuple[Tensor, Tensor]:
        value, rise = ramp((x - 0.3) / 0.01 + 0.5)
        return (1 - 1e-6) * value + 1e-6 * x, (1 - 1e-6) * rise / 0.01 + 1e-6

    target = torch.linspace(1e-9, 1 - 1e-9, 501, dtype=torch.float64)
    x = invert_increasing(steps, target, torch.zeros_like(target), torch.ones_like(target))
    assert (steps(x)[0] - target).abs().max() < 1e-12


class TestTruncatedNormal:
    def test_it_maps_the_limits_to_the_ends_and_back(self):
        mean, scale = torch.tensor([0.9, 0.2], dtype=torch.float64), torch.tensor([0.05, 0.6], dtype=torch.float64)
        transform = TruncatedNormalCDF(mean, scale, -1.0, 1.0)
        limits = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).expand(2, 2)
        assert torch.allclose(transform(limits)[:, 1], torch.tensor([0.0, 1.0], dtype=torch.float64))
        y = torch.linspace(0.01, 0.99, 21, dtype=torch.float64)[:, None].expand(21, 2)
        assert torch.allclose(transform(transform.inv(y)), y, atol=1e-9)

    def test_the_log_slope_is_finite_and_quadratic_far_from_the_data(self):
        one = torch.ones(1, dtype=torch.float64)
        transform = TruncatedNormalCDF(one, 0.1 * one, 0.0, math.inf)
        x = torch.tensor([[3.0], [3.1], [3.2]], dtype=torch.float64)
        log_slope = transform.call_and_ladj(x)[1][:, 0]
        assert torch.allclose(log_slope.diff().diff(), torch.tensor([-1.0], dtype=torch.float64), atol=1e-9)


class TestConditioner:
    def test_features_do_not_see_the_seam(self):
        a, b = torch.tensor([[-0.5, 0.2]]), torch.tensor([[0.5, 1.2]])
        assert periodic_features(a, 3).shape == (1, 12)
        assert torch.allclose(periodic_features(a, 3), periodic_features(b, 3), atol=1e-5)

    def test_without_features_the_parameters_are_constants_that_train(self):
        network = Conditioner(0, 6, (8,))
        output = network(torch.zeros(5, 0))
        output.sum().backward()
        assert output.shape == (5, 6) and network.constant.grad.abs().min() > 0
