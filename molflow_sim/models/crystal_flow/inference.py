"""The velocity field for sampling: on a CPU with numba by compiled loops, elsewhere by the torch network.

Which of the two depends on the installation, the device and the type of the numbers alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from molflow_sim.models.crystal_flow.network import ContactNetwork, Velocity, arms, radial_functions
from molflow_sim.models.crystal_flow.state import CrystalBatch

if TYPE_CHECKING:
    from molflow_sim.models.crystal_flow.network import _Messages

INTERVALS = 2048
"""Of the tables of filters. Linear interpolation is then wrong by less than 2e-5 of a filter's size."""

VelocityField = Callable[[CrystalBatch, float, float], Velocity]


def velocity_field(network: ContactNetwork, batch: CrystalBatch) -> VelocityField:
    """The network as a function of batch, time and quality, without gradients.

    The weights are taken over now, and changes of them are not seen; the batches given later may hold other crystals,
    on the same device.

    Parameters
    ----------
    network : ContactNetwork
    batch : CrystalBatch

    Returns
    -------
    callable
        ``field(batch, time, quality)``, a `Velocity`; time in [0, 1], quality in units of 10 kJ/mol per molecule.
    """
    if compiles(network, batch):
        return _CompiledField(network)
    return lambda moved, time, quality: reference_velocity(network, moved, time, quality)


def reference_velocity(network: ContactNetwork, batch: CrystalBatch, time: float, quality: float) -> Velocity:
    """The velocities that the torch network gives, at one time and quality for all crystals."""
    with torch.no_grad():
        velocity: Velocity = network(batch, *_filled(batch, time, quality))
        return velocity


def compiles(network: ContactNetwork, batch: CrystalBatch) -> bool:
    """Whether the compiled loops can be used: numba, and everything in float32 on the CPU."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    kinds = {(x.device.type, x.dtype) for x in (*network.parameters(), batch.cell, batch.conformer)}
    return kinds == {("cpu", torch.float32)}


def _filled(batch: CrystalBatch, time: float, quality: float) -> tuple[Tensor, Tensor]:
    full = batch.cell.new_full((len(batch),), 1.0)
    return time * full, quality * full


class _CompiledField:
    """Filters as tables, and molecules as the features that their inner layers give, once per conformer."""

    def __init__(self, network: ContactNetwork) -> None:
        self.network = network
        self.cutoff = network.settings.outer_cutoff
        with torch.no_grad():
            grid = torch.linspace(0.0, self.cutoff, INTERVALS + 1, dtype=torch.float64)
            radial = radial_functions(grid, self.cutoff, network.settings.radial)

            def table(*filters: torch.nn.Linear) -> np.ndarray:
                return torch.stack([radial @ f.weight.double().T for f in filters], 1).float().numpy()

            layers = cast("list[_Messages]", list(network.outer))
            self.filters = {layer: np.ascontiguousarray(table(layer.filter)[:, 0]) for layer in layers}
            self.force_filters = table(network.force.filter, network.force.fade)
        self._features: dict[bytes, Tensor] = {}
        self._conformers: Tensor | None = None

    def __call__(self, batch: CrystalBatch, time: float, quality: float) -> Velocity:
        from molflow_sim.models.crystal_flow.compiled import add_messages, add_pushes
        from molflow_sim.models.crystal_flow.compiled_graph import contacts

        network = self.network
        b, m, n = len(batch), batch.centroid.shape[1], batch.numbers.shape[1]
        pairs = contacts(batch, self.cutoff)

        def sums(layer: _Messages, sent: Tensor) -> Tensor:
            return torch.from_numpy(add_messages(pairs, self.cutoff, self.filters[layer], sent.numpy(), b))

        def pushes(receive: Tensor, send: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            force, torque, virial = add_pushes(
                pairs, self.cutoff, self.force_filters, receive.numpy(), send.numpy(),
                network.force.out.weight.detach().numpy(), arms(batch).contiguous().numpy(),
            )  # fmt: skip
            return torch.from_numpy(force).float(), torch.from_numpy(torque).float(), torch.from_numpy(virial).float()

        with torch.no_grad():
            h = self._molecules(batch) + network.told(batch, *_filled(batch, time, quality))[:, None]
            h = h.expand(b, m, n, -1).reshape(b, m * n, -1)
            return network.moved_by(batch, h, sums, pushes)

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
