"""The velocity field by compiled loops, on a CPU with numba; elsewhere by the torch network.

Several times faster than the same in torch, whose time goes into tensors of size (pairs, width): everything that has
the size of atoms stays in torch, only sums over pairs are compiled, forwards and backwards, with filters as tables.
Training makes the tables anew in every step (`fused_velocity`), sampling finer ones once (`velocity_field`). Which of
the two ways is taken depends on the installation, the device and the type of the numbers alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeGuard, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from molflow_sim.models.crystal_flow.graph import intramolecular_edges
from molflow_sim.models.crystal_flow.network import ContactNetwork, Velocity, _Messages, arms, radial_functions
from molflow_sim.models.crystal_flow.state import CrystalBatch

INTERVALS = 2048
"""Of the tables of filters in sampling: linear interpolation is then wrong by less than 2e-5 of a filter's size."""
TRAINING_INTERVALS = 512
"""In training: wrong by about 2e-4 of a filter's size, and in the processor's cache with their gradients."""

VelocityField = Callable[[CrystalBatch, float, float], Velocity]


def compiles(network: nn.Module, batch: CrystalBatch) -> TypeGuard[ContactNetwork]:
    """Whether the compiled loops can be used: contacts, numba, and everything in float32 on the CPU."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    kinds = {(x.device.type, x.dtype) for x in (*network.parameters(), batch.cell, batch.conformer)}
    return isinstance(network, ContactNetwork) and kinds == {("cpu", torch.float32)}


def velocity_field(network: ContactNetwork, batch: CrystalBatch) -> VelocityField:
    """The network as a function of batch, time and excess, without gradients.

    The weights are taken over now, and changes of them are not seen; the batches given later may hold other crystals,
    on the same device.

    Parameters
    ----------
    network : ContactNetwork
    batch : CrystalBatch

    Returns
    -------
    callable
        ``field(batch, time, excess)``, a `Velocity`; time in [0, 1], excess in units of 10 kJ/mol per molecule.
    """
    if compiles(network, batch):
        return _CompiledField(network)
    return lambda moved, time, excess: reference_velocity(network, moved, time, excess)


def reference_velocity(network: ContactNetwork, batch: CrystalBatch, time: float, excess: float) -> Velocity:
    """The velocities that the torch network gives, at one time and excess for all crystals."""
    with torch.no_grad():
        velocity: Velocity = network(batch, *_filled(batch, time, excess))
        return velocity


def fused_velocity(network: ContactNetwork, batch: CrystalBatch, time: Tensor, excess: Tensor) -> Velocity:
    """``network(batch, time, excess)``, differentiable in the weights (not in the crystals).

    Parameters
    ----------
    network : ContactNetwork
    batch : CrystalBatch
    time, excess : Tensor, shape (B,)
        Everything in float32 on the CPU, see `compiles`.

    Returns
    -------
    Velocity
    """
    h = _embedded(network, batch)[:, None] + network.conditioning(batch, time, excess)[:, None]
    return _moved(network, batch, h, *_tables(network, TRAINING_INTERVALS, torch.float32))


class _CompiledField:
    """Filters as tables, and molecules as the features that their inner layers give, once per conformer."""

    def __init__(self, network: ContactNetwork) -> None:
        self.network = network
        with torch.no_grad():
            self.filters, self.force_filters = _tables(network, INTERVALS, torch.float64)
        self._features: dict[bytes, Tensor] = {}
        self._conformers: Tensor | None = None

    @torch.no_grad()
    def __call__(self, batch: CrystalBatch, time: float, excess: float) -> Velocity:
        h = self._molecules(batch) + self.network.conditioning(batch, *_filled(batch, time, excess))[:, None]
        return _moved(self.network, batch, h, self.filters, self.force_filters)

    def _molecules(self, batch: CrystalBatch) -> Tensor:
        """Features (B, 1, N, W) of atoms by their own molecule, worked out for one conformer at a time."""
        if batch.conformer is not self._conformers:
            keys = [n.tobytes() + x.tobytes() for n, x in zip(batch.numbers.numpy(), batch.conformer.numpy())]
            for row, key in enumerate(keys):
                if key not in self._features:
                    one = batch.select(slice(row, row + 1))
                    one = one.moved(one.cell, one.centroid[:, :1], one.rotation[:, :1])
                    self._features[key] = self.network.molecules(one)
            self._conformers, self._known = batch.conformer, torch.stack([self._features[key] for key in keys])[:, None]
        return self._known


def _filled(batch: CrystalBatch, time: float, excess: float) -> tuple[Tensor, Tensor]:
    full = batch.cell.new_full((len(batch),), 1.0)
    return time * full, excess * full


def _tables(network: ContactNetwork, intervals: int, dtype: torch.dtype) -> tuple[dict[nn.Module, Tensor], Tensor]:
    """Filters of the layers between molecules (K + 1, W), and those of the force layer (K + 1, 2, W), in float32."""
    radial = _grid(network.settings.outer_cutoff, network.settings.radial, intervals, dtype)
    layers = cast("list[_Messages]", list(network.outer))
    force = torch.stack([radial @ f.weight.to(dtype).T for f in (network.force.filter, network.force.fade)], 1)
    return {layer: (radial @ layer.filter.weight.to(dtype).T).float() for layer in layers}, force.float()


def _grid(cutoff: float, radial: int, intervals: int, dtype: torch.dtype) -> Tensor:
    return radial_functions(torch.linspace(0.0, cutoff, intervals + 1, dtype=dtype), cutoff, radial)


def _moved(
    network: ContactNetwork, batch: CrystalBatch, h: Tensor, filters: Mapping[nn.Module, Tensor], force_filters: Tensor
) -> Velocity:
    """Velocities from atoms' scalars h (B, 1 or M, N, W), see `ContactNetwork.moved_by`."""
    from molflow_sim.models.crystal_flow.compiled_graph import contacts

    cutoff, weight = network.settings.outer_cutoff, network.force.out.weight
    b, m, n = len(batch), batch.centroid.shape[1], batch.numbers.shape[1]
    pairs, arm = contacts(batch, cutoff), arms(batch).contiguous().numpy()
    return network.moved_by(
        batch,
        h.expand(b, m, n, -1).reshape(b, m * n, -1),
        lambda layer, sent: cast(Tensor, _Sums.apply(filters[layer], sent, pairs, cutoff, b)),
        lambda receive, send: _Pushes.apply(force_filters, receive, send, weight, pairs, cutoff, arm),
    )


def _embedded(network: ContactNetwork, batch: CrystalBatch) -> Tensor:
    """Scalars (B, N, width) of atoms by what their own molecule is; see `ContactNetwork.molecules`."""
    from molflow_sim.models.crystal_flow.compiled_graph import Contacts

    s = network.settings
    b, n = batch.numbers.shape
    edges = intramolecular_edges(batch.moved(batch.cell, batch.centroid[:, :1], batch.rotation[:, :1]), s.inner_cutoff)
    count = torch.bincount(edges.receiver, minlength=b * n)
    start = np.concatenate([[0], count.cumsum(0).numpy()])
    # Found row by row, so sorted by the receiving atom; no sum over them needs their directions.
    pairs = Contacts(start, edges.sender.int().numpy(), np.empty((0, 3), np.float32), edges.distance.numpy())
    grid = _grid(s.inner_cutoff, s.radial, TRAINING_INTERVALS, torch.float32)
    h = network.embed(network.element[batch.numbers]).reshape(b * n, -1)
    for layer in cast("list[_Messages]", list(network.inner)):
        h = layer.updated(h, _Sums.apply(grid @ layer.filter.weight.T, layer.sent(h), pairs, s.inner_cutoff, b))
    shaped: Tensor = h.reshape(b, n, -1)
    return shaped


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
