"""The velocity field for training on a CPU: the torch network's velocities and gradients by compiled loops.

Several times faster than the same in torch, whose time goes into tensors of size (pairs, width). Everything that has
the size of atoms stays in torch; only sums over pairs are compiled, forwards and backwards, with filters as tables.
"""

from __future__ import annotations

from typing import Any, TypeGuard, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from molflow_sim.models.crystal_flow.graph import intramolecular_edges
from molflow_sim.models.crystal_flow.inference import compiles
from molflow_sim.models.crystal_flow.network import (
    ContactNetwork,
    Velocity,
    _Messages,
    arms,
    radial_functions,
)
from molflow_sim.models.crystal_flow.state import CrystalBatch

INTERVALS = 512
"""Of the tables of filters: their linear interpolation is wrong by about 2e-4 of a filter's size, and they stay in the
processor's cache."""


def usable(network: nn.Module, batch: CrystalBatch) -> TypeGuard[ContactNetwork]:
    """Whether `fused_velocity` may stand for the network here: contacts, float32, on a CPU, with numba."""
    return isinstance(network, ContactNetwork) and compiles(network, batch)


def fused_velocity(network: ContactNetwork, batch: CrystalBatch, time: Tensor, quality: Tensor) -> Velocity:
    """``network(batch, time, quality)``, differentiable in the weights (not in the crystals).

    Parameters
    ----------
    network : ContactNetwork
    batch : CrystalBatch
    time, quality : Tensor, shape (B,)
        Everything in float32 on the CPU, see `usable`.

    Returns
    -------
    Velocity
    """
    from molflow_sim.models.crystal_flow.compiled_graph import contacts

    s = network.settings
    b, m, n = len(batch), batch.centroid.shape[1], batch.numbers.shape[1]
    h = _molecules(network, batch)[:, None] + network.told(batch, time, quality)[:, None]
    h = h.expand(b, m, n, -1).reshape(b, m * n, -1)
    pairs = contacts(batch, s.outer_cutoff)
    grid = _grid(s.outer_cutoff, s.radial)
    table = torch.stack([grid @ f.weight.T for f in (network.force.filter, network.force.fade)], 1)
    arm = arms(batch).contiguous().numpy()
    return network.moved_by(
        batch,
        h,
        lambda layer, sent: _summed(layer, sent, pairs, s.outer_cutoff, grid, b),
        lambda receive, send: _Pushes.apply(table, receive, send, network.force.out.weight, pairs, s.outer_cutoff, arm),
    )


def _molecules(network: ContactNetwork, batch: CrystalBatch) -> Tensor:
    """Scalars (B, N, width) of atoms by what their own molecule is; see `ContactNetwork.molecules`."""
    from molflow_sim.models.crystal_flow.compiled_graph import Contacts

    s = network.settings
    b, n = batch.numbers.shape
    edges = intramolecular_edges(batch.moved(batch.cell, batch.centroid[:, :1], batch.rotation[:, :1]), s.inner_cutoff)
    count = torch.bincount(edges.receiver, minlength=b * n)
    start = np.concatenate([[0], count.cumsum(0).numpy()])
    # Found row by row, so sorted by the receiving atom; no sum over them needs their directions.
    pairs = Contacts(start, edges.sender.int().numpy(), np.empty((0, 3), np.float32), edges.distance.numpy())
    grid = _grid(s.inner_cutoff, s.radial)
    h = network.embed(network.element[batch.numbers]).reshape(b * n, -1)
    for layer in network.inner:
        known = cast(_Messages, layer)
        h = known.updated(h, _summed(known, known.sent(h), pairs, s.inner_cutoff, grid, b))
    shaped: Tensor = h.reshape(b, n, -1)
    return shaped


def _grid(cutoff: float, radial: int) -> Tensor:
    return radial_functions(torch.linspace(0.0, cutoff, INTERVALS + 1), cutoff, radial)


def _summed(layer: _Messages, sent: Tensor, pairs: Any, cutoff: float, grid: Tensor, n_crystals: int) -> Tensor:
    total: Tensor = _Sums.apply(grid @ layer.filter.weight.T, sent, pairs, cutoff, n_crystals)
    return total


def _array(x: Tensor) -> np.ndarray:
    array: np.ndarray = x.detach().contiguous().numpy()
    return array


class _Sums(torch.autograd.Function):
    """`add_messages`."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, sent: Tensor, pairs: Any, cutoff: float, n_crystals: int) -> Tensor:
        from molflow_sim.models.crystal_flow.compiled import add_messages

        ctx.save_for_backward(table, sent)
        ctx.given = pairs, cutoff, n_crystals
        return torch.from_numpy(add_messages(pairs, cutoff, _array(table), _array(sent), n_crystals))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        from molflow_sim.models.crystal_flow.compiled_gradients import messages_gradient

        pairs, cutoff, n_crystals = ctx.given
        table, sent = (_array(x) for x in ctx.saved_tensors)
        of_table, of_sent = messages_gradient(pairs, cutoff, table, sent, _array(grad), n_crystals)
        return torch.from_numpy(of_table), torch.from_numpy(of_sent), None, None, None


class _Pushes(torch.autograd.Function):
    """`add_pushes`."""

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, receive: Tensor, send: Tensor, weight: Tensor, pairs: Any, cutoff: float,
        arm: np.ndarray,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        from molflow_sim.models.crystal_flow.compiled import add_pushes

        ctx.save_for_backward(table, receive, send, weight)
        ctx.given = pairs, cutoff, arm
        sums = add_pushes(pairs, cutoff, _array(table), _array(receive), _array(send), _array(weight), arm)
        return tuple(torch.from_numpy(x).float() for x in sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, force: Tensor, torque: Tensor, virial: Tensor) -> tuple[Any, ...]:
        from molflow_sim.models.crystal_flow.compiled_gradients import pushes_gradient

        pairs, cutoff, arm = ctx.given
        table, receive, send, weight = (_array(x) for x in ctx.saved_tensors)
        along = _array(force), _array(torque), _array(virial)
        grads = pushes_gradient(pairs, cutoff, table, receive, send, weight, arm, *along)
        return (*(torch.from_numpy(x) for x in grads), None, None, None)
