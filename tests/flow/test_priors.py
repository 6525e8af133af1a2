"""Random cells and rotations have the distributions they claim."""

import numpy as np
import pytest

from molflow_sim.flow.priors import FLATTEST, log_normal_cells, rotations
from molflow_sim.models.mol_crystal_flow import P1Settings


def test_rotations_are_proper_and_uniform():
    rotation = rotations(np.random.default_rng(0).random((20000, 3)))
    assert np.allclose(rotation @ rotation.swapaxes(1, 2), np.eye(3)) and np.allclose(np.linalg.det(rotation), 1.0)
    # Uniform: every column is a uniform point of the sphere, and the angle has density (1 - cos θ) / π.
    assert np.abs(rotation.mean(0)).max() < 0.02 and np.allclose((rotation**2).mean(0), 1 / 3, atol=0.01)
    angle = np.arccos(np.clip((np.trace(rotation, axis1=1, axis2=2) - 1) / 2, -1, 1))
    for limit in (0.5, 1.0, 2.0):
        assert (angle < limit).mean() == pytest.approx((limit - np.sin(limit)) / np.pi, abs=0.01)


def test_cells_have_the_volume_they_are_scaled_to():
    cells = log_normal_cells(np.random.default_rng(0), (0, 0, 0), (0.2,) * 3, 4000, np.full(4000, 700.0), 0.08)
    logs = np.log(np.linalg.det(cells) / 700.0)
    assert abs(logs.mean()) < 0.01 and logs.std() == pytest.approx(0.08, abs=0.005)
    assert np.array_equal(cells, np.tril(cells)) and cells.diagonal(axis1=1, axis2=2).min() > 0


def test_the_published_prior_has_log_normal_lengths_and_angles_between_60_and_120():
    chosen = P1Settings.published()
    cells = log_normal_cells(np.random.default_rng(0), chosen.length_mean, chosen.length_std, 4000)
    lengths = np.linalg.norm(cells, axis=-1)
    assert np.allclose(np.log(lengths).mean(0), [1.910, 2.218, 2.543], atol=0.02)
    assert np.allclose(np.log(lengths).std(0), [0.217, 0.162, 0.225], atol=0.01)
    unit = cells / lengths[..., None]
    angles = np.degrees(np.arccos((unit[:, [1, 0, 0]] * unit[:, [2, 2, 1]]).sum(-1)))
    assert angles.min() >= 59.9 and angles.max() <= 120.1
    assert (np.linalg.det(unit) >= FLATTEST - 1e-4).all()
