"""Least squares for a molecule's own exp-6 parameters and charges, one set for each class of equivalent atoms.

Parameters are ln A, B and ln C of like pairs and the charge of each class: functional form and combination rules are
those of the force field, so that every pair loop and front end takes them. A Gaussian prior holds them near the start,
and bounds keep enough of the repulsion that the guard term makes every pair repulsive at short range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import least_squares

from molflow_sim.bespoke.lessons import Lessons, class_parameters
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.forcefield.parameters import MoleculeParameters


@dataclass(frozen=True)
class FitSettings:
    """What counts how much; chosen on molecules that no benchmark is judged on.

    Attributes
    ----------
    energy, force, torque, expansion : float
        Errors that weigh equally: kJ/mol, kJ/mol/Å, kJ/mol, kJ/mol.
    softening : float
        kJ/mol above the lowest packings at which an error counts half.
    disturbed : float
        Weight of a disturbed packing; that of a pressed one is 1.
    spread_a, spread_b, spread_c, spread_q : float
        Standard deviations of the prior: of ln A, of B in 1/Å, of ln C, of charges in e.
    farthest_a, farthest_b, farthest_c : float
        How far ln A, B (1/Å) and ln C may move from the start.
    rounds : int
        How often the sums over exp(-B r) are made anew; in between they are linear in B.
    step_b : float
        Farthest that B moves in one round, 1/Å.
    """

    energy: float = 1.0
    force: float = 50.0
    torque: float = 100.0
    expansion: float = 150.0
    softening: float = 25.0
    disturbed: float = 1.0
    spread_a: float = 0.6
    spread_b: float = 0.2
    spread_c: float = 0.5
    spread_q: float = 0.2
    farthest_a: float = 1.2
    farthest_b: float = 0.4
    farthest_c: float = 0.7
    rounds: int = 2
    step_b: float = 0.2


_NEUTRAL = 1e-6  # e; the charge a molecule may have while it is fitted
_DIGITS = 6  # of what is found; the rest differs between processors


def fit(
    lessons: Lessons, target: np.ndarray, start: MoleculeParameters, settings: FitSettings | None = None
) -> MoleculeParameters:
    """Parameters whose energies and rigid derivatives come nearest to a target.

    Parameters
    ----------
    lessons : Lessons
    target : (n, ROWS) array
        Energies per molecule and derivatives to reproduce, eV and Å.
    start : MoleculeParameters
        Where the parameters start from and are drawn to.
    settings : FitSettings, optional
    """
    s = settings or FitSettings()
    classes, count = lessons.classes, np.bincount(lessons.classes)
    k = len(count)
    zero = class_parameters(start, classes).ravel()
    spread = np.repeat([s.spread_a, s.spread_b, s.spread_c, s.spread_q], k)
    far = np.repeat([s.farthest_a, s.farthest_b, s.farthest_c, np.inf], k)
    reach = np.repeat([np.inf, s.step_b, np.inf, np.inf], k)
    weight = _weights(target, lessons.pressed, s)
    prior = np.concatenate([np.diag(1.0 / spread), np.append(np.zeros(3 * k), count / _NEUTRAL)[None]])
    now = zero
    for _ in range(s.rounds):
        sums = _Sums(lessons, now[k : 2 * k])

        def residual(x: np.ndarray, sums: _Sums = sums) -> np.ndarray:
            return np.append((weight * (sums.rows(x)[0] - target)).ravel(), prior @ (x - zero))

        def slope(x: np.ndarray, sums: _Sums = sums) -> np.ndarray:
            return np.concatenate([(weight[..., None] * sums.rows(x)[1]).reshape(-1, 4 * k), prior])

        bounds = np.maximum(zero - far, now - reach), np.minimum(zero + far, now + reach)
        now = least_squares(
            residual, now.clip(bounds[0] + 1e-9, bounds[1] - 1e-9), slope, bounds, x_scale=spread, max_nfev=15,
            ftol=1e-4, xtol=1e-4, gtol=1e-4,
        ).x  # fmt: skip
    a, b, c, q = np.round(now, _DIGITS).reshape(4, k)[:, classes]
    q = q - q.mean()
    return replace(
        start, exp6_a=np.exp(a), exp6_b=b, exp6_c=np.exp(c), charges=q - q.mean(), charge_model="bespoke"
    )  # fmt: skip


class _Sums:
    """Energies and derivatives as a function of the parameters, B near the values that the sums were made for."""

    def __init__(self, lessons: Lessons, b: np.ndarray) -> None:
        self.lessons, self.b = lessons, b.copy()
        self.p, self.r = lessons.repulsion(0.5 * np.add.outer(b, b))
        self._last: tuple[bytes, tuple[np.ndarray, np.ndarray]] = (b"", (b, b))

    def rows(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows (n, ROWS) at ln A, B, ln C and q (4 K,), and their derivatives (n, ROWS, 4 K)."""
        if self._last[0] != x.tobytes():
            ln_a, b, ln_c, q = x.astype(np.float32).reshape(4, -1)
            a, c = np.exp(0.5 * ln_a), np.exp(0.5 * ln_c)
            away = 0.5 * (b - self.b.astype(np.float32))
            repulsion = a * ((self.p - np.add.outer(away, away) * self.r) @ a)
            steepness = a * (self.r @ a)
            dispersion, potential = c * (self.lessons.dispersion @ c), self.lessons.coulomb @ q
            value = sum(v.sum(-1, dtype=float) for v in (repulsion, dispersion, q * potential))
            slopes = np.concatenate([repulsion, -steepness, dispersion, 2.0 * potential], -1)
            self._last = x.tobytes(), (value, slopes.astype(float))
        return self._last[1]


def _weights(target: np.ndarray, pressed: np.ndarray, s: FitSettings) -> np.ndarray:
    """One over the tolerance of each number (n, ROWS), in 1/eV."""
    above = (target[:, 0] - np.quantile(target[pressed, 0], 0.02)).clip(0.0) / KJ_PER_MOL
    tolerance = np.array([s.energy, *3 * [s.force], *3 * [s.torque], s.expansion]) * KJ_PER_MOL
    weight = np.where(pressed, 1.0, s.disturbed**0.5) / (1.0 + above / s.softening)
    return weight[:, None] / tolerance
