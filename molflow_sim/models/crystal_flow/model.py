"""The crystal flow: random packings in, packings that look like low-energy crystals out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from molflow_sim.models.crystal_flow.network import ContactNetwork, ContactSettings, Velocity
from molflow_sim.models.crystal_flow.path import distance, interpolate, step
from molflow_sim.models.crystal_flow.state import CrystalBatch
from molflow_sim.models.crystal_flow.velocity import VelocityField, compiles, fused_velocity, velocity_field
from molflow_sim.ordered import product
from molflow_sim.threads import one_torch_thread
from molflow_sim.training.weights import load_into

if TYPE_CHECKING:
    from molflow_sim.packing import RigidPackings

BATCH = 64
STEPS = 4
"""Euler steps of a sample unless said otherwise."""


class CrystalFlow(nn.Module):
    """A trained velocity field over symmetric packings of rigid molecules (a `molflow_sim.training.model.Model`).

    Parameters
    ----------
    network : ContactNetwork
    card : dict
        What the weights are: data, seed, version, metrics, SHA-256.
    """

    kind: ClassVar[str] = "crystal-flow"
    config = "molflow_sim.models.crystal_flow.config:CrystalFlowConfig"
    trainer = "molflow_sim.models.crystal_flow.train:train_crystal_flow"

    def __init__(self, network: ContactNetwork, card: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.network, self.card = network.eval(), dict(card or {})

    def loss(self, batch: tuple[Any, ...]) -> dict[str, Tensor]:
        """See `flow_matching_loss`; batches as `PairBatches` gives them."""
        return flow_matching_loss(self.network, batch)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See `Model.state`."""
        head = {"kind": self.kind, "network": asdict(self.network.settings)}
        return self.network.state_dict(), {**self.card, **head}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> Self:
        """See `Model.from_state`."""
        network = ContactNetwork(ContactSettings.from_dict(card.get("network"), "network"))
        load_into(network, {k: v.float() for k, v in tensors.items()}, "crystal flow")
        return cls(network, card)

    def velocity(self, batch: CrystalBatch, time: float, excess: float) -> Velocity:
        """The velocity field at one time for all crystals of a batch, without gradients."""
        return velocity_field(self.network, batch)(batch, time, excess)

    @property
    def packing_coefficient(self) -> tuple[float, float]:
        """Range of (molecular volume)/(cell volume per molecule) that the flow was trained to start from."""
        from molflow_sim.packing.random_packing import PACKING_COEFFICIENT

        low, high = self.card.get("config", {}).get("packing_coefficient", PACKING_COEFFICIENT)
        return float(low), float(high)

    def integrate(self, packings: RigidPackings, *, steps: int = STEPS, excess: float = 0.0) -> RigidPackings:
        """Packings carried from time 0 to 1; one whose numbers fail on the way stays where it began."""
        from molflow_sim.symmetry.spacegroup import SpaceGroup, cell_matrix, cell_parameters

        cell, centroid, rotation = packings.cell.copy(), packings.centroid.copy(), packings.rotation.copy()
        # Crystals of one placement go together: equal numbers of operations leave nothing to pad.
        order = np.argsort(packings.placement, kind="stable")
        field: VelocityField | None = None
        for rows in np.split(order, np.arange(BATCH, len(order), BATCH)):
            with one_torch_thread():  # a busy machine would lose most of its time in barriers
                batch = batch_of(packings.select(rows))
                field = field or velocity_field(self.network, batch)
                for k in range(steps):
                    batch = step(batch, field(batch, k / steps, excess), 1.0 / steps)
            new_cell, good = _sound(batch, torch.from_numpy(packings.cell[rows]))
            parameters = cell_parameters(new_cell)
            names = [packings.space_groups[i] for i in rows]
            legal = np.stack([cell_matrix(SpaceGroup.from_name(g).constrain(p)) for g, p in zip(names, parameters)])
            at = rows[good]
            cell[at] = legal[good]
            centroid[at] = batch.centroid.double().numpy()[good]
            rotation[at] = _rotations(batch.rotation.double())[good]
        return replace(packings, cell=cell, centroid=centroid, rotation=rotation)


def flow_matching_loss(network: nn.Module, batch: tuple[Any, ...]) -> dict[str, Tensor]:
    """Mean squared error of the velocity in Å² per unit time (see `path.distance`), bounded for wild pairs.

    Lipman et al. (2023), eq. 14, on the product of lattice, torus and SO(3).
    """
    start, end, excess, time = batch
    between, target = interpolate(start, end, time)
    if compiles(network, between):
        moving = fused_velocity(network, between, time, excess)
    else:
        moving = network(between, time, excess)
    error = distance(between, moving, target)
    size = distance(between, target)
    # Square roots beyond the usual size: a few long detours must not set the pace.
    scale = 30.0
    loss = torch.where(error < scale, error, 2.0 * torch.sqrt(scale * error.clamp_min(1e-6)) - scale)
    return {"loss": loss.mean(), "explained": 1.0 - error.sum() / size.sum()}


def batch_of(packings: RigidPackings) -> CrystalBatch:
    """Packings as the tensors the network takes, in float32."""
    from molflow_sim.symmetry.placements import stacked_operations

    used, which = np.unique(packings.placement, return_inverse=True)
    places = [packings.placements[k] for k in used]
    frac_rot, frac_tran, cart_rot = stacked_operations(places)

    def single(x: np.ndarray | list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(np.asarray(x), dtype=np.float32))

    numbers = torch.from_numpy(np.asarray(packings.molecule.numbers).astype(np.int64))
    return CrystalBatch(
        numbers.expand(len(which), -1),
        single(packings.conformers[packings.conformer]),
        single(packings.cell),
        single(packings.centroid),
        single(packings.rotation),
        single(frac_rot[which]),
        single(frac_tran[which]),
        single(cart_rot[which]),
        torch.tensor([p.n_images for p in places])[torch.from_numpy(which)],
        single(np.stack([p.translation_projector for p in places])[which]),
        single(np.stack([p.rotation_projector for p in places])[which]),
    )


def _sound(batch: CrystalBatch, before: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Cells (n, 3, 3) and which crystals are finite with a cell of sensible volume and heights."""
    cell = batch.cell.double()
    finite = torch.isfinite(cell).all(2).all(1) & torch.isfinite(batch.centroid).all(2).all(1)
    finite &= torch.isfinite(batch.rotation).flatten(1).all(1)
    cell = torch.where(finite[:, None, None], cell, before)
    volume = torch.linalg.det(cell)
    ratio = volume / torch.linalg.det(before)
    height = volume[:, None] / torch.linalg.cross(cell[:, [1, 2, 0]], cell[:, [2, 0, 1]]).norm(dim=2)
    good = finite & (ratio > 0.2) & (ratio < 5.0) & (height > 2.0).all(1)
    cell = torch.where(good[:, None, None], cell, before)
    return cell.numpy(), good.numpy()


def _rotations(rotation: Tensor) -> np.ndarray:
    """The nearest rotations: Newton's iteration doubles the digits, of which float32 has left six or seven."""
    for _ in range(3):
        rotation = 0.5 * product(rotation, 3.0 * torch.eye(3).to(rotation) - product(rotation.mT, rotation))
    return rotation.numpy()
