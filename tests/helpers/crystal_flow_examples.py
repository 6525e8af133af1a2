"""Crystals and networks for the tests of the crystal flow."""

from collections.abc import Sequence
from dataclasses import fields
from functools import cache

import numpy as np
import torch

from molflow_sim import Molecule, SpaceGroup
from molflow_sim.dataset import CrystalRecord
from molflow_sim.models.crystal_flow import ContactNetwork, ContactSettings, CrystalBatch, CrystalFlow
from molflow_sim.models.crystal_flow.model import batch_of
from molflow_sim.packing import random_packings


@cache
def molecule_for(smiles: str) -> Molecule:
    """One conformer."""
    return Molecule.from_smiles(smiles, n_conformers=1)


def flow(seed: int) -> CrystalFlow:
    """An untrained flow that moves things."""
    torch.manual_seed(seed)
    network = ContactNetwork(ContactSettings(width=16, radial=8))
    torch.nn.init.normal_(network.force.out.weight, std=0.5)
    return CrystalFlow(network)


def packed(smiles: str, n: int, seed: int, z_prime: int = 1) -> CrystalBatch:
    """Random packings of all common groups, in float32 as the sampler has them."""
    return batch_of(random_packings(molecule_for(smiles), n, seed=seed, z_prime=z_prime))


def collate(parts: Sequence[CrystalBatch]) -> CrystalBatch:
    """One batch of several with the same M; atoms and operations are padded to the largest."""
    atoms = max(p.numbers.shape[1] for p in parts)
    images = max(p.frac_tran.shape[1] for p in parts)
    joined = {}
    for f in fields(CrystalBatch):
        size = atoms if f.name in ("numbers", "conformer") else images
        padded = f.name in ("numbers", "conformer", "frac_rot", "frac_tran", "cart_rot")
        joined[f.name] = torch.cat([_padded(getattr(p, f.name), size) if padded else getattr(p, f.name) for p in parts])
    return CrystalBatch(**joined)


def _padded(x: torch.Tensor, size: int) -> torch.Tensor:
    missing = size - x.shape[1]
    return x if missing == 0 else torch.cat([x, x.new_zeros(len(x), missing, *x.shape[2:])], 1)


def batch_for(smiles: str, group: str, n: int, seed: int, z_prime: int = 1) -> CrystalBatch:
    """Random packings in double precision, on the general position."""
    packings = random_packings(molecule_for(smiles), 20 * n, seed=seed, space_groups=[group], z_prime=z_prime)
    general = np.flatnonzero([packings.placements[k].is_general for k in packings.placement])[:n]
    made = batch_of(packings.select(general)).to(dtype=torch.float64)
    # Float32 rounding of the inputs would hide what is tested.
    known = SpaceGroup.from_name(group)
    cell = torch.from_numpy(packings.cell[general])
    rotation = torch.from_numpy(packings.rotation[general])
    cart = torch.from_numpy(known.cartesian_rotations).expand_as(made.cart_rot)
    tran = torch.from_numpy(known.translations).expand_as(made.frac_tran)
    return type(made)(
        made.numbers, made.conformer, cell, torch.from_numpy(packings.centroid[general]), rotation,
        made.frac_rot, tran, cart, made.n_images, made.site_translation, made.site_rotation,
    )  # fmt: skip


def positions_in_cell(batch: CrystalBatch, b: int) -> torch.Tensor:
    """Cartesian positions (I, N, 3) of all copies of the first molecule of crystal b."""
    n = int(batch.n_images[b])
    centre = (batch.frac_rot[b, :n] @ batch.centroid[b, 0] + batch.frac_tran[b, :n]) @ batch.cell[b]
    body = batch.conformer[b] @ batch.rotation[b, 0].T
    return centre[:, None] + torch.einsum("gxy,ny->gnx", batch.cart_rot[b, :n], body)


def record_for(smiles: str, group: str, seed: int) -> CrystalRecord:
    """A random packing as a record of a data set."""
    batch, known = batch_for(smiles, group, 1, seed), SpaceGroup.from_name(group)
    molecule = molecule_for(smiles)
    return CrystalRecord(
        numbers=np.asarray(molecule.numbers), bonds=np.asarray(molecule.bonds),
        conformers=molecule.symmetrised(0)[None],
        space_group=known.name, rotations=known.rotations, translations=known.translations,
        cartesian_rotations=known.cartesian_rotations, images=(tuple(range(known.order)),),
        cell=batch.cell[0].numpy(), centroid=batch.centroid[0].numpy(), orientation=batch.rotation[0].numpy(),
        energy=0.0, relative_energy=0.0, smiles=smiles, name="", key=smiles, split="train", source="",
        experimental=False, relaxed=True, racemic=True,
    )  # fmt: skip


def description_of(record: CrystalRecord) -> list[float]:
    """Sums over distances below 7 Å from the atoms of one molecule, weighted by element: the same for one crystal."""
    everything = record.positions()
    weight = np.asarray(record.numbers, float)
    shifts = np.array(np.meshgrid(*[np.arange(-4, 5)] * 3)).reshape(3, -1).T @ record.cell
    others = (everything[None] + shifts[:, None, None]).reshape(-1, *everything.shape[1:])
    centre = everything[0].mean(0)
    reach = 7.0 + 2.0 * np.linalg.norm(everything[0] - centre, axis=1).max()
    others = others[np.linalg.norm(others.mean(1) - centre, axis=1) < reach]
    length = np.linalg.norm(everything[0][None, :, None] - others[:, None], axis=-1)
    near = (length < 7.0) & (length > 1e-6)
    pair = weight[:, None] * weight[None]
    return [float((near * pair).sum()), *(float((np.exp(-k * length) * near * pair).sum()) for k in (0.3, 0.7, 1.5))]
