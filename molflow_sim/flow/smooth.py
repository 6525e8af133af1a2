"""Infinitely smooth monotonic maps of the unit interval and of the circle.

Each map is the cumulative distribution of a mixture of bumps and of a uniform floor. A bump is the slope of the ramp

    σ(t) = ρ(t) / (ρ(t) + ρ(1 − t)),   ρ(t) = exp(α (1 − 1/t)),   0 < t < 1,

which rises from 0 to 1 with every derivative zero at both ends. A bump therefore ends after a finite width without a
break in any derivative, and one that reaches across the seam of the circle goes on at the other side, exactly. Köhler,
Krämer, Noé, "Smooth normalizing flows", NeurIPS 2021.

The analytic direction is that of the density (data to uniform), which training and forces need; sampling runs the other
way by a bracketed Newton iteration. Both maps are `torch.distributions` transforms with zuko's ``call_and_ladj``, so
they compose with what those libraries hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import Transform, constraints

# Where the clamp takes over, the ramp is within exp(-_EXPONENT) of its end: below rounding, even beside the floor.
_EXPONENT = 60.0


class Ramps(NamedTuple):
    """Mixtures of K ramps, one mixture for each of D coordinates.

    Attributes
    ----------
    weights : Tensor, shape (..., D, K)
        Shares of the bumps; they sum to 1.
    centres : Tensor, shape (..., D, K)
        Centres of the bumps, in periods of the circle or units of the interval.
    widths : Tensor, shape (..., D, K)
        Full widths of the bumps' supports, > 0; at most 1 on the circle.
    """

    weights: Tensor
    centres: Tensor
    widths: Tensor


class _Ramp(torch.autograd.Function):
    """σ and σ′ with the derivatives written out: a quarter of the operations that autograd would record."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
        edge = sharpness / _EXPONENT
        t = t.clamp(edge, 1.0 - edge)
        left, right = t.reciprocal(), (1.0 - t).reciprocal()
        exponent = (right - left).mul_(sharpness)  # σ = sigmoid(exponent)
        first = (left * left).addcmul_(right, right).mul_(sharpness)  # its derivative in t
        value, rest = torch.sigmoid(exponent), torch.sigmoid(-exponent)
        slope = value * rest * first
        if ctx.needs_input_grad[0]:
            second = (right**3 - left**3).mul_(2.0 * sharpness)
            ctx.save_for_backward(slope, ((rest - value) * first).add_(second.div_(first)).mul_(slope))
        return value, slope

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_value: Tensor, grad_slope: Tensor) -> tuple[Tensor, None]:
        slope, curvature = ctx.saved_tensors
        return torch.addcmul(grad_value * slope, grad_slope, curvature), None


def ramp(t: Tensor, sharpness: float = 1.0) -> tuple[Tensor, Tensor]:
    """The ramp σ and its slope, differentiable once.

    Parameters
    ----------
    t : Tensor, any shape
        Arguments; below 0 the ramp is 0, above 1 it is 1 (to 1e-26, where the argument is clamped).
    sharpness : float
        α: the larger, the narrower the bump within its support.

    Returns
    -------
    (Tensor, Tensor)
        σ(t) and dσ/dt, of `t`'s shape.
    """
    value, slope = _Ramp.apply(t, sharpness)
    return value, slope


def split_ramps(raw: Tensor, n_components: int, widths: tuple[float, float], circular: bool) -> Ramps:
    """Turn a conditioner's unconstrained output into mixtures.

    Zero everywhere gives bumps of equal weight, evenly spread over the domain.

    Parameters
    ----------
    raw : Tensor, shape (..., D·3·K)
        Unconstrained numbers.
    n_components : int
        K.
    widths : (float, float)
        Least and largest width of a bump. The least one bounds how rugged the density can become.
    circular : bool
        Whether the centres live on the circle (any real number, whole periods do not matter) or inside [0, 1].

    Returns
    -------
    Ramps
        Fields of shape (..., D, K).
    """
    weights, centres, sizes = raw.unflatten(-1, (-1, 3, n_components)).unbind(-2)
    start = _even_centres(n_components, circular, raw.dtype, raw.device)
    centres = centres + start if circular else torch.sigmoid(centres + start)
    low, high = widths
    return Ramps(torch.softmax(weights, dim=-1), centres, low + (high - low) * torch.sigmoid(sizes))


@lru_cache
def _even_centres(n: int, circular: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    grid = (torch.arange(n, dtype=dtype, device=device) + 0.5) / n
    return grid if circular else torch.logit(grid)


class _RampTransform(Transform):
    bijective = True
    sign = +1

    def __init__(self, ramps: Ramps, floor: float = 1e-6, sharpness: float = 1.0) -> None:
        super().__init__()
        self.ramps = ramps
        self.floor = floor
        self.sharpness = sharpness

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Value and log-slope at `x`, both of shape (..., D)."""
        value, slope = self._value_and_slope(x)
        return self._onto_codomain(value), slope.log()

    def _call(self, x: Tensor) -> Tensor:
        return self._onto_codomain(self._value_and_slope(x)[0])

    def _onto_codomain(self, value: Tensor) -> Tensor:
        return value

    def _value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class SmoothInterval(_RampTransform):
    """Map [0, 1] onto itself by the cumulative distribution of bumps cut off at both ends.

    Parameters
    ----------
    ramps : Ramps
        Mixtures with fields of shape (..., D, K) and centres inside [0, 1].
    floor : float
        Share of the uniform density, hence the least slope of the map.
    sharpness : float
        α of the ramps.
    """

    domain = constraints.unit_interval
    codomain = constraints.unit_interval

    def _value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, centres, widths = self.ramps
        rate = widths.reciprocal()
        start = 0.5 - centres * rate  # argument of the ramp at x = 0
        arguments = torch.stack(torch.broadcast_tensors(start + x.unsqueeze(-1) * rate, start, start + rate))
        value, slope = ramp(arguments, self.sharpness)
        # The divisor is near 1/2 or more: centres lie inside.
        share = (1.0 - self.floor) * weights / (value[2] - value[1])
        return (
            (share * (value[0] - value[1])).sum(-1) + self.floor * x,
            (share * slope[0] * rate).sum(-1) + self.floor,
        )

    @torch.no_grad()
    def _inverse(self, y: Tensor) -> Tensor:
        return invert_increasing(self._value_and_slope, y, torch.zeros_like(y), torch.ones_like(y))


class SmoothCircle(_RampTransform):
    """Map the circle (one period is [0, 1)) onto itself by an increasing map of degree one, without a seam.

    Parameters
    ----------
    ramps : Ramps
        Mixtures with fields of shape (..., D, K) and widths of at most 1.
    floor : float
        Share of the uniform density, hence the least slope of the map.
    sharpness : float
        α of the ramps.
    """

    domain = constraints.unit_interval
    codomain = constraints.unit_interval

    def _onto_codomain(self, value: Tensor) -> Tensor:
        return value - value.detach().floor()

    def _value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, centres, widths = self.ramps
        shifted = x.unsqueeze(-1) - centres + 0.5
        turns = shifted.detach().floor()
        rate = widths.reciprocal()
        value, slope = ramp((shifted - turns - 0.5) * rate + 0.5, self.sharpness)
        share = (1.0 - self.floor) * weights
        return (share * (value + turns)).sum(-1) + self.floor * x, (share * slope * rate).sum(-1) + self.floor

    @torch.no_grad()
    def _inverse(self, y: Tensor) -> Tensor:
        zero = torch.zeros_like(y)
        first = self._value_and_slope(zero)[0]
        x = invert_increasing(self._value_and_slope, y + (first - y).ceil(), zero, zero + 1.0)
        return x - x.floor()


def invert_increasing(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], target: Tensor, low: Tensor, high: Tensor, max_steps: int = 100
) -> Tensor:
    """Solve f(x) = target for many increasing functions at once: Newton's method inside a shrinking bracket.

    A Newton step that would leave the bracket, or that does not at least halve the last one, gives way to a bisection.

    Parameters
    ----------
    function : callable
        Takes x and returns the values and the slopes, both of x's shape.
    target : Tensor
        Wanted values, within [f(low), f(high)] up to rounding.
    low, high : Tensor
        Brackets of order one, of `target`'s shape.
    max_steps : int
        Bound on the evaluations.

    Returns
    -------
    Tensor
        The roots, to a few roundings of `target`'s dtype in x or in the value, whichever is met first.
    """
    rounding = 2 * torch.finfo(target.dtype).eps
    tolerance = rounding * target.abs().clamp_min(1.0)
    x = 0.5 * (low + high)
    last = high - low
    for _ in range(max_steps):
        value, slope = function(x)
        error = value - target
        above = error > 0
        high = torch.where(above, x, high)
        low = torch.where(above, low, x)
        step = error / slope
        newton = x - step
        good = (newton > low) & (newton < high) & (step.abs() <= 0.5 * last)
        following = torch.where(good, newton, 0.5 * (low + high))
        done = (error.abs() <= tolerance) | (step.abs() <= rounding) | (high - low <= rounding)
        following = torch.where(done, x, following)
        last = (following - x).abs()
        x = following
        if bool(done.all()):
            break
    return x


class TruncatedNormalCDF(Transform):
    """Map an interval, with or without ends, onto [0, 1] by a truncated normal distribution's cumulative function.

    Beyond the data the density of what is mapped falls off as this normal distribution does, whose energy is harmonic:
    finite, with finite and continuous forces, everywhere inside the limits.

    Parameters
    ----------
    mean, scale : Tensor, shape (D,)
        Of the normal distribution.
    lower, upper : float
        Limits; ±inf for none.
    """

    domain = constraints.real
    codomain = constraints.unit_interval
    bijective = True
    sign = +1

    def __init__(self, mean: Tensor, scale: Tensor, lower: float = -math.inf, upper: float = math.inf) -> None:
        super().__init__()
        self.mean, self.scale = mean, scale
        self.first = torch.special.ndtr((lower - mean) / scale)
        self.mass = torch.special.ndtr((upper - mean) / scale) - self.first
        self.constant = -(0.5 * math.log(2.0 * math.pi) + scale.log() + self.mass.log())

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Value and log-slope at `x`, both of shape (..., D)."""
        z = (x - self.mean) / self.scale
        return (torch.special.ndtr(z) - self.first) / self.mass, self.constant - 0.5 * z * z

    def _call(self, x: Tensor) -> Tensor:
        return self.call_and_ladj(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        tiny = torch.finfo(y.dtype).eps  # rounding can reach the ends, whose images may lie at infinity
        return self.mean + self.scale * torch.special.ndtri((self.first + y * self.mass).clamp(tiny, 1.0 - tiny))
