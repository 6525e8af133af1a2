"""The crystal flow: random packings in, packings that look like low-energy crystals out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from molflow_sim.errors import InputError, MolflowError, WeightsError
from molflow_sim.generators.crystals import FLOW_DRAWS
from molflow_sim.models.crystal_flow.inference import VelocityField, velocity_field
from molflow_sim.models.crystal_flow.network import ContactNetwork, ContactSettings, Velocity
from molflow_sim.models.crystal_flow.path import step
from molflow_sim.models.crystal_flow.state import CrystalBatch
from molflow_sim.ordered import product
from molflow_sim.threads import one_torch_thread
from molflow_sim.training.weights import load_weights, save_weights

if TYPE_CHECKING:
    from molflow_sim.forcefield.parameters import MoleculeParameters
    from molflow_sim.packing import RigidPackings
    from molflow_sim.systems.crystal import MolecularCrystal
    from molflow_sim.systems.molecule import Molecule

NAME = "crystal_flow"
BATCH = 64
SELECTED_TOGETHER = 10
"""Candidates whose draws compete: a choice of the lowest among many, which still follows from a candidate's number."""
STEPS = 4
"""Euler steps of a sample unless said otherwise."""


class CrystalFlow:
    """A trained velocity field over symmetric packings of rigid molecules.

    Parameters
    ----------
    network : ContactNetwork
    card : dict
        What the weights are: data, seed, version, metrics, SHA-256.
    """

    def __init__(self, network: ContactNetwork, card: dict[str, Any] | None = None) -> None:
        self.network, self.card = network.eval(), dict(card or {})

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None) -> CrystalFlow:
        """The weights that come with the package, or those of a folder.

        Raises
        ------
        WeightsError
            If they are missing, damaged, changed, or of another network.
        """
        where = files("molflow_sim") / "pretrained" if folder is None else Path(folder)
        tensors, card = load_weights(where, NAME)
        if card.get("kind") != "crystal flow, contact network":
            raise WeightsError(f"{where} holds weights of {card.get('kind', 'an unknown kind')}, not of a crystal flow")
        try:
            network = ContactNetwork(ContactSettings.from_dict(card["network"]))
            network.load_state_dict({k: v.float() for k, v in tensors.items()})
        except (KeyError, InputError, RuntimeError) as error:
            raise WeightsError(f"the weights in {where} do not fit their card: {error}") from None
        return cls(network, card)

    def save(self, folder: str | Path, card: dict[str, Any]) -> None:
        """Write weights and card; `from_pretrained(folder)` reads them."""
        head = {"kind": "crystal flow, contact network", "network": asdict(self.network.settings)}
        save_weights(folder, NAME, self.network.state_dict(), {**card, **head})
        self.card = load_weights(folder, NAME)[1]

    def velocity(self, batch: CrystalBatch, time: float, quality: float) -> Velocity:
        """The velocity field at one time for all crystals of a batch, without gradients."""
        return velocity_field(self.network, batch)(batch, time, quality)

    def propose(
        self,
        molecule: Molecule,
        n: int,
        *,
        seed: int,
        first_index: int = 0,
        space_groups: str | Sequence[str] = "common",
        z_prime: int = 1,
        steps: int = STEPS,
        draws: int = FLOW_DRAWS,
        quality: float = 0.0,
        relief: int | None = None,
    ) -> RigidPackings:
        """Draw random packings, carry them along the flow, part what still overlaps and keep the lower ones.

        Every packing keeps its space group and site exactly. What is drawn and not kept is the part of highest energy
        after a few steps of the potential (`molflow_sim.packing.selection`), among the draws for ten candidates whose
        numbers follow one another.

        Parameters
        ----------
        molecule : Molecule
        n : int
        seed, first_index, space_groups, z_prime
            As in `random_packings`, which makes the starts.
        steps : int
            Euler steps.
        draws : int
            Packings drawn for each one proposed; 1 takes them as the flow makes them, and needs no potential. A
            molecule that the potential does not know is done with 1, with a warning.
        quality : float
            Energy above the molecule's lowest packing to aim for, in 10 kJ/mol per molecule.
        relief : int, optional
            Evaluations of the soft overlap at the end, see `relieve`; 0 leaves the packings as the flow made them.

        Raises
        ------
        InputError
            If a number is out of range, or a space group cannot host the molecule (SpaceGroupError).

        Warns
        -----
        UserWarning
            If the molecule is smaller or larger than those trained on; the message gives the range.
        """
        from molflow_sim.packing import random_packings
        from molflow_sim.packing.relief import RELIEF_EVALUATIONS, relieve
        from molflow_sim.packing.selection import select_low

        if steps < 1 or draws < 1:
            raise InputError(f"steps and draws must be at least 1, got {steps} and {draws}")
        self._warn_of_size(molecule)
        parameters = _parameters(molecule) if draws > 1 else None
        draws = 1 if parameters is None else draws
        together = 1 if draws == 1 else SELECTED_TOGETHER
        first, last = first_index // together * together, -(-(first_index + n) // together) * together
        start = random_packings(
            molecule, (last - first) * draws, space_groups=space_groups, z_prime=z_prime, seed=seed,
            first_index=first * draws, packing_coefficient=self.packing_coefficient,
        )  # fmt: skip
        carried = self.carry(start, steps=steps, quality=quality)
        made = relieve(carried, RELIEF_EVALUATIONS if relief is None else relief)
        if parameters is None:
            return made
        kept = replace(select_low(made, parameters, together, of=together * draws), index=np.arange(first, last))
        return kept.select(slice(first_index - first, first_index - first + n))

    @property
    def packing_coefficient(self) -> tuple[float, float]:
        """Range of (molecular volume)/(cell volume per molecule) that the flow was trained to start from."""
        from molflow_sim.packing.random_packing import PACKING_COEFFICIENT

        low, high = self.card.get("config", {}).get("packing_coefficient", PACKING_COEFFICIENT)
        return float(low), float(high)

    def _warn_of_size(self, molecule: Molecule) -> None:
        low, high = self.card.get("data", {}).get("atoms", (0, 10**6))
        if not low <= molecule.n_atoms <= high:
            warnings.warn(
                f"{molecule.smiles or molecule.formula} has {molecule.n_atoms} atoms; the flow was trained on "
                f"molecules of {low} to {high} and may do no better than random packings",
                stacklevel=3,
            )

    def carry(
        self, packings: RigidPackings, *, steps: int = STEPS, quality: float = 0.0, begin: float = 0.0, end: float = 1.0
    ) -> RigidPackings:
        """Carry packings from one time to another; one whose numbers fail on the way stays where it began."""
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
                    time = begin + (end - begin) * k / steps
                    batch = step(batch, field(batch, time, quality), (end - begin) / steps)
            new_cell, good = _sound(batch, torch.from_numpy(packings.cell[rows]))
            parameters = cell_parameters(new_cell)
            names = [packings.space_groups[i] for i in rows]
            legal = np.stack([cell_matrix(SpaceGroup.from_name(g).constrain(p)) for g, p in zip(names, parameters)])
            at = rows[good]
            cell[at] = legal[good]
            centroid[at] = batch.centroid.double().numpy()[good]
            rotation[at] = _rotations(batch.rotation.double())[good]
        return replace(packings, cell=cell, centroid=centroid, rotation=rotation)

    def sample(
        self,
        molecule: Molecule,
        n: int = 1,
        *,
        space_groups: str | Sequence[str] = "common",
        z_prime: int = 1,
        seed: int = 0,
        steps: int = STEPS,
        draws: int = FLOW_DRAWS,
    ) -> list[MolecularCrystal]:
        """n crystals of a molecule, not pressed; see `propose`."""
        packings = self.propose(
            molecule, n, seed=seed, space_groups=space_groups, z_prime=z_prime, steps=steps, draws=draws
        )
        return [packings.crystal(k) for k in range(len(packings))]


def _parameters(molecule: Molecule) -> MoleculeParameters | None:
    """Force-field parameters for the selection; None, with a warning, for a molecule that has none."""
    from molflow_sim.forcefield import parametrize

    try:
        return parametrize(molecule)
    except MolflowError as error:
        warnings.warn(f"packings are proposed as the flow draws them, not by energy: {error.reason}", stacklevel=4)
        return None


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
