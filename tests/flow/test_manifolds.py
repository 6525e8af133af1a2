"""Geodesics on the torus and on SO(3)."""

import math

import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from p1_examples import haar

from molflow_sim.flow import manifolds as mf

F64 = torch.float64
seeds = st.integers(0, 2**31 - 1)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(seed=seeds)
@settings(max_examples=50, deadline=None)
def test_wrap_gives_the_shortest_image(seed):
    delta = 20 * (torch.rand(100, 3, generator=_generator(seed), dtype=F64) - 0.5)
    wrapped = mf.wrap(delta)
    assert (wrapped >= -0.5).all() and (wrapped < 0.5).all()
    assert torch.allclose((wrapped - delta).round(), wrapped - delta, atol=1e-12)


def test_wrap_of_a_half_is_minus_a_half():
    assert mf.wrap(torch.tensor([0.5, -0.5, 1.5], dtype=F64)).tolist() == [-0.5, -0.5, -0.5]


def test_torus_points_stay_below_one_even_where_rounding_would_reach_it():
    x = mf.torus_exp(torch.zeros(3), torch.tensor([-1e-12, 1e-12, -0.25]))
    assert (x >= 0).all() and (x < 1).all()


@given(seed=seeds, t=st.floats(0.05, 0.95))
@settings(max_examples=50, deadline=None)
def test_the_torus_velocity_is_the_derivative_of_the_path(seed, t):
    g = _generator(seed)
    x0, x1 = torch.rand(20, 3, generator=g, dtype=F64), torch.rand(20, 3, generator=g, dtype=F64)
    h = 1e-5
    time = torch.tensor(t, dtype=F64)
    forward, velocity = mf.torus_interpolate(x0, x1, time + h)
    backward, _ = mf.torus_interpolate(x0, x1, time - h)
    assert torch.allclose(mf.wrap(forward - backward) / (2 * h), velocity, atol=1e-8)


@given(seed=seeds)
@settings(max_examples=50, deadline=None)
def test_the_torus_path_joins_its_ends_and_ignores_their_images(seed):
    g = _generator(seed)
    x0, x1 = torch.rand(20, 3, generator=g, dtype=F64), torch.rand(20, 3, generator=g, dtype=F64)
    shift = torch.randint(-3, 4, (20, 3), generator=g).to(F64)
    for time, end in ((0.0, x0), (1.0, x1)):
        xt, velocity = mf.torus_interpolate(x0, x1 + shift, torch.tensor(time, dtype=F64))
        assert mf.wrap(xt - end).abs().max() < 1e-12
        assert velocity.abs().max() <= 0.5 + 1e-12


@given(seed=seeds, t=st.floats(0.05, 0.95))
@settings(max_examples=50, deadline=None)
def test_the_angular_velocity_is_the_derivative_in_the_space_frame(seed, t):
    r0, r1 = haar((20,), seed), haar((20,), seed + 1)
    h, time = 1e-5, torch.full((20,), t, dtype=F64)
    rt, omega = mf.rotation_interpolate(r0, r1, time)
    derivative = (mf.rotation_interpolate(r0, r1, time + h)[0] - mf.rotation_interpolate(r0, r1, time - h)[0]) / (2 * h)
    zero = torch.zeros(20, dtype=F64)
    x, y, z = omega.unbind(-1)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(20, 3, 3)
    assert torch.allclose(derivative, skew @ rt, atol=1e-7)
    # and in the body frame, dR/dt = R [ω_b]
    body = (rt.mT @ omega[..., None])[..., 0]
    assert torch.allclose(mf.to_space(rt, body), omega, atol=1e-12)
    assert torch.allclose(body, (r0.mT @ omega[..., None])[..., 0], atol=1e-9)


@given(seed=seeds)
@settings(max_examples=50, deadline=None)
def test_the_rotation_path_is_the_published_geodesic(seed):
    """R_t = R_0 exp(t log(R_0ᵀ R_1))."""
    g = _generator(seed)
    r0, r1 = haar((20,), seed), haar((20,), seed + 1)
    t = torch.rand(20, generator=g, dtype=F64)
    rt, _ = mf.rotation_interpolate(r0, r1, t)
    published = r0 @ roma.rotvec_to_rotmat(t[:, None] * roma.rotmat_to_rotvec(r0.transpose(-1, -2) @ r1))
    assert torch.allclose(rt, published, atol=1e-8)
    assert torch.allclose(mf.rotation_interpolate(r0, r1, torch.ones(20, dtype=F64))[0], r1, atol=1e-9)
    assert torch.allclose(mf.rotation_distance(r0, rt), t * mf.rotation_distance(r0, r1), atol=1e-8)


@given(seed=seeds, t=st.floats(0.0, 0.9))
@settings(max_examples=50, deadline=None)
def test_a_step_along_the_velocity_stays_on_the_geodesic(seed, t):
    r0, r1 = haar((20,), seed), haar((20,), seed + 1)
    rt, omega = mf.rotation_interpolate(r0, r1, torch.full((20,), t, dtype=F64))
    assert torch.allclose(mf.rotation_step(rt, omega, 1.0 - t), r1, atol=1e-9)
    # what is left at time t, over the time that is left, is the velocity
    assert torch.allclose(roma.rotmat_to_rotvec(r1 @ rt.mT) / (1.0 - t), omega, atol=1e-6)


def test_small_and_half_turns_have_the_right_distance_and_finite_gradients():
    for angle in (1e-7, 1e-3, 1.0, math.pi - 1e-6, math.pi):
        turn = roma.rotvec_to_rotmat(torch.tensor([0.0, angle, 0.0], dtype=F64))
        assert mf.rotation_distance(turn, torch.eye(3, dtype=F64)).item() == pytest.approx(angle, abs=1e-9)
        assert roma.rotmat_to_rotvec(turn).norm().item() == pytest.approx(angle, abs=1e-7)
    omega = torch.zeros(3, dtype=F64, requires_grad=True)
    roma.rotvec_to_rotmat(omega)[0, 1].backward()
    assert torch.isfinite(omega.grad).all()
