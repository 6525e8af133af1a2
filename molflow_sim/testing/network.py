"""Checks that every network on structures must pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

Arrays = Mapping[str, Tensor]


def validate_network(
    function: Callable[[dict[str, Tensor]], Arrays],
    inputs: Arrays,
    *,
    vectors: Sequence[str] = (),
    frames: Sequence[str] = (),
    tensors: Sequence[str] = (),
    axial: Sequence[str] = (),
    shifted: Sequence[str] = (),
    reordered: Sequence[Sequence[str]] = (),
    reflections: bool = False,
    differentiable: Sequence[str] | None = None,
    tolerance: float = 1e-8,
    seed: int = 0,
) -> None:
    """Hold a network to the symmetries of space: rotation, translation, order, batched = single, and gradients.

    Parameters
    ----------
    function : callable
        Named arrays to named arrays, each with one row for each structure of the batch (first axis), float64.
    inputs : mapping of str to Tensor
        At least two structures.
    vectors, frames, tensors : sequence of str
        Inputs and outputs that turn with the structure by Q: x Qᵀ (last axis), Q x (last but one), Q x Qᵀ. What is not
        named does not change.
    axial : sequence of str
        Those of them that do not change sign under an inversion.
    shifted : sequence of str
        Inputs (and outputs) to which one vector for each structure may be added.
    reordered : sequence of sequences of str
        Names whose second axis may be reordered together, such as all that belongs to atoms.
    reflections : bool
        Whether the network commutes with reflections, too.
    differentiable : sequence of str, optional
        Inputs whose gradients are compared with finite differences; those in `vectors` and `shifted` unless given.
    tolerance : float
        Relative to the largest value of an output.
    seed : int
        Of rotations, shifts and orders.

    Raises
    ------
    ValueError
        Names the failed check, the output and the deviation.
    """
    rng = np.random.default_rng(seed)
    inputs = dict(inputs)
    size = len(next(iter(inputs.values())))
    if size < 2:
        raise ValueError("inputs: give at least two structures, so that batches can be compared with single ones")
    with torch.no_grad():
        wanted = dict(function(dict(inputs)))
        for name, value in wanted.items():
            if len(value) != size or not bool(torch.isfinite(value).all()):
                raise ValueError(f"outputs: {name} has not one finite row for each structure")
        _rotated(function, inputs, wanted, (vectors, frames, tensors, axial), reflections, tolerance, rng)
        if shifted:
            shift = torch.from_numpy(rng.normal(size=(size, 3)))

            def moved(arrays: Arrays) -> dict[str, Tensor]:
                along = {k: shift.reshape(size, *[1] * (v.dim() - 2), 3) for k, v in arrays.items() if k in shifted}
                return {k: v + along[k].to(v) if k in along else v for k, v in arrays.items()}

            _same("translation", function(moved(inputs)), moved(wanted), tolerance)
        for names in reordered:
            order = torch.from_numpy(rng.permutation(next(inputs[k].shape[1] for k in names if k in inputs)))

            def mixed(arrays: Arrays, names: Sequence[str] = names, order: Tensor = order) -> dict[str, Tensor]:
                return {k: v[:, order] if k in names else v for k, v in arrays.items()}

            _same(f"order of {', '.join(names)}", function(mixed(inputs)), mixed(wanted), tolerance)
        for k in range(size):
            one = function({name: value[k : k + 1] for name, value in inputs.items()})
            _same("batched = single", one, {name: value[k : k + 1] for name, value in wanted.items()}, tolerance)
    chosen = [*vectors, *shifted] if differentiable is None else differentiable
    for name in dict.fromkeys(k for k in chosen if k in inputs):
        _differentiated(function, inputs, name, rng)


def _rotated(
    function: Callable[[dict[str, Tensor]], Arrays],
    inputs: dict[str, Tensor],
    wanted: dict[str, Tensor],
    kinds: Sequence[Sequence[str]],
    reflections: bool,
    tolerance: float,
    rng: np.random.Generator,
) -> None:
    vectors, frames, tensors, axial = kinds
    size = len(next(iter(inputs.values())))
    q = torch.linalg.qr(torch.from_numpy(rng.normal(size=(size, 3, 3))))[0]
    q = q * torch.linalg.det(q)[:, None, None]
    for sign, check in ((1.0, "rotation"), *(((-1.0, "reflection"),) if reflections else ())):

        def turned(arrays: Arrays, sign: float = sign) -> dict[str, Tensor]:
            out = dict(arrays)
            for k, v in arrays.items():
                own = (q * (1.0 if k in axial else sign)).to(v).reshape(size, *[1] * max(v.dim() - 3, 0), 3, 3)
                if k in vectors:
                    flat = v if v.dim() > 2 else v[:, None]
                    out[k] = (flat @ own.mT).reshape(v.shape)
                elif k in frames:
                    out[k] = own @ v
                elif k in tensors:
                    out[k] = own @ v @ own.mT
            return out

        _same(check, function(turned(inputs)), turned(wanted), tolerance)


def _same(check: str, found: Arrays, wanted: Arrays, tolerance: float) -> None:
    for name, value in wanted.items():
        deviation, scale = float((found[name] - value).abs().max()), max(float(value.abs().max()), 1e-12)
        if not deviation <= tolerance * scale:
            raise ValueError(f"{check}: {name} differs by {deviation:.3g} (scale {scale:.3g})")


def _differentiated(
    function: Callable[[dict[str, Tensor]], Arrays], inputs: dict[str, Tensor], name: str, rng: np.random.Generator
) -> None:
    """The derivative along a random direction against central differences of fourth order."""
    weights: dict[str, Tensor] = {}

    def total(x: Tensor) -> Tensor:
        out = function({**inputs, name: x})
        for k, v in out.items():
            weights.setdefault(k, torch.from_numpy(rng.normal(size=v.shape)).to(v))
        return torch.stack([(weights[k] * v).sum() for k, v in out.items()]).sum()

    x = inputs[name].detach().clone().requires_grad_(True)
    along = torch.from_numpy(rng.normal(size=x.shape)).to(x)
    (gradient,) = torch.autograd.grad(total(x), x, allow_unused=True)
    if gradient is None:
        raise ValueError(f"gradients: the outputs do not depend on {name}")
    found, step = float((gradient * along).sum()), 1e-4
    with torch.no_grad():
        ends = [float(total(inputs[name] + k * step * along)) for k in (-2, -1, 1, 2)]
    expected = (ends[0] - 8.0 * ends[1] + 8.0 * ends[2] - ends[3]) / (12.0 * step)
    if not abs(found - expected) <= 1e-5 * max(abs(expected), float(gradient.abs().max())):
        raise ValueError(f"gradients: by {name} {found:.6g}, finite differences give {expected:.6g}")
