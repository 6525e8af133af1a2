"""Minimisation of one molecule on an expensive surface, guided by a cheap one that resembles it.

At each step the cheap surface, plus what it lacks at the present geometry to second order, is minimised within a trust
radius, and the expensive one is asked once, where that leads. The difference of their gradients gives the first order;
its Hessian is learnt on the way (SR1: Nocedal & Wright, Numerical Optimization, 2006, eq. 6.24, in the trust-region
method of their algorithm 6.2). Bends and torsions that a straight step would stretch bonds for are thus the cheap
surface's matter. From minima of MMFF94, GFN2-xTB takes half the gradients of BFGS that begins with MMFF94's Hessian.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FLOOR = 0.5
"""eV/Å²; eigenvalues of a Hessian below (soft torsions, and what stands on a saddle) count as this much."""
MAX_MOVE = 0.25
"""Å; furthest that an atom goes in a step of the cheap surface."""
RISE = 1e-4
"""eV; a step that rises by more is taken back."""
TRUST, LEAST_TRUST, MOST_TRUST = 0.3, 0.02, 0.6
"""Å; how far an atom goes in a step of the expensive surface: at first, at least and at most."""
WALL = 100.0
"""eV/Å²; stiffness of the wall at the trust radius."""
INNER = 40
"""Gradients of the cheap surface for one of the expensive one."""

Surface = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class Minimum:
    """Where a minimisation ended.

    Attributes
    ----------
    positions : ndarray, shape (N, 3)
        Å.
    energy : float
        eV.
    force : float
        eV/Å, the largest force on an atom.
    converged : bool
    evaluations : int
    """

    positions: np.ndarray
    energy: float
    force: float
    converged: bool
    evaluations: int


def guided(
    surface: Surface,
    guide: Surface,
    positions: np.ndarray,
    hessian: np.ndarray,
    *,
    force: float,
    evaluations: int,
    stop: Callable[[np.ndarray, float, float], bool] = lambda positions, energy, force: False,
) -> Minimum:
    """The minimum that the expensive surface leads to.

    Parameters
    ----------
    surface, guide : callable
        The expensive and the cheap one: energy in eV and gradient (N, 3) in eV/Å of positions (N, 3) in Å.
    positions : ndarray (N, 3)
    hessian : ndarray (3N, 3N)
        eV/Å², of the guide at `positions`.
    force : float
        eV/Å; converged once no atom feels more.
    evaluations : int
        Of `surface`, at most.
    stop : callable, optional
        ``stop(positions, energy, largest force)``: whether what is on its way there is of no use.
    """
    inverse = positive_inverse(hessian)
    x = np.array(positions, float)
    energy, gradient = surface(x)
    cheap, slope = guide(x)
    lack = np.zeros_like(inverse)
    trust, done = TRUST, 1
    while (largest := _largest(gradient)) > force and done < evaluations and not stop(x, energy, largest):
        near = _Corrected(guide, x, gradient - slope, lack, trust)
        y = newton(near, x, inverse.copy(), force=0.2 * force, evaluations=INNER).positions
        y = x + (y - x) * min(1.0, 1.3 * trust / max(_largest(y - x), 1e-12))
        expected = near(y)[0] - cheap
        (found, found_gradient), (found_cheap, found_slope) = surface(y), guide(y)
        done += 1
        step = (y - x).ravel()
        residue = (found_gradient - gradient - found_slope + slope).ravel() - lack @ step
        slant = float(residue @ step)
        if abs(slant) > 1e-6 * float(np.linalg.norm(residue) * np.linalg.norm(step)):
            lack += np.outer(residue, residue) / slant
        if found > energy + RISE:
            trust = max(0.25 * _largest(y - x), LEAST_TRUST)
            continue
        gain = (found - energy) / min(expected, -1e-12)
        trust = min(1.5 * trust, MOST_TRUST) if gain > 0.6 else max(0.5 * trust, LEAST_TRUST) if gain < 0.25 else trust
        x, energy, gradient, cheap, slope = y, found, found_gradient, found_cheap, found_slope
    return Minimum(x, energy, largest, largest <= force, done)


class _Corrected:
    """The guide with what it lacks about `x`, and a wall about each atom at the trust radius."""

    def __init__(self, guide: Surface, x: np.ndarray, first: np.ndarray, second: np.ndarray, trust: float) -> None:
        self.guide, self.x, self.first, self.second, self.trust = guide, x, first, second, trust

    def __call__(self, y: np.ndarray) -> tuple[float, np.ndarray]:
        energy, gradient = self.guide(y)
        step = y - self.x
        curved = (self.second @ step.ravel()).reshape(-1, 3)
        length = np.sqrt((step**2).sum(1))
        beyond = np.maximum(length - self.trust, 0.0)
        energy += np.vdot(self.first, step) + 0.5 * np.vdot(curved, step) + 0.5 * WALL * float(beyond @ beyond)
        return energy, gradient + self.first + curved + (WALL * beyond / np.maximum(length, 1e-9))[:, None] * step


def newton(surface: Surface, positions: np.ndarray, inverse: np.ndarray, *, force: float, evaluations: int) -> Minimum:
    """The minimum of a surface by BFGS (Nocedal & Wright, eq. 6.17) from an inverse Hessian, which is updated in place.

    Parameters
    ----------
    surface : callable
        Energy in eV and gradient (N, 3) in eV/Å of positions (N, 3) in Å.
    positions : ndarray (N, 3)
    inverse : ndarray (3N, 3N)
        Å²/eV, positive definite; see `positive_inverse`.
    force : float
        eV/Å; converged once no atom feels more.
    evaluations : int
        At most.
    """
    x = np.array(positions, float)
    energy, gradient = surface(x)
    done = 1
    direction, scale = _direction(inverse, gradient)
    while (largest := _largest(gradient)) > force and done < evaluations:
        step = scale * direction
        trial, slope = surface(x + step)
        done += 1
        s, change = step.ravel(), (slope - gradient).ravel()
        curvature = float(s @ change)
        if curvature > 1e-8 * float(s @ s):
            mixed = inverse @ change
            inverse += ((curvature + float(change @ mixed)) / curvature**2) * np.outer(s, s)
            mixed = np.outer(mixed, s)
            inverse -= (mixed + mixed.T) / curvature
        if trial > energy + RISE and scale > 0.02:
            direction, scale = step, 0.3  # back, along the same line
            continue
        x, energy, gradient = x + step, trial, slope
        direction, scale = _direction(inverse, gradient)
    return Minimum(x, energy, largest, largest <= force, done)


def positive_inverse(hessian: np.ndarray) -> np.ndarray:
    """Inverse of a Hessian in eV/Å² whose eigenvalues are made at least `FLOOR`."""
    values, vectors = np.linalg.eigh(hessian)
    return (vectors / np.maximum(np.abs(values), FLOOR)) @ vectors.T


def _direction(inverse: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, float]:
    """Newton's step (N, 3) and the part of it that moves no atom too far."""
    direction = -(inverse @ gradient.ravel()).reshape(-1, 3)
    if np.vdot(direction, gradient) >= 0.0:
        direction = -gradient
    return direction, min(1.0, MAX_MOVE / max(_largest(direction), 1e-12))


def _largest(vectors: np.ndarray) -> float:
    return float(np.sqrt((vectors**2).sum(1).max()))
