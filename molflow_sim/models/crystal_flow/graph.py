"""Who touches whom: pairs of atoms of different molecules within a cutoff, under periodicity and symmetry."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from molflow_sim.models.crystal_flow.state import CrystalBatch

MOST_SHIFTS = 5
"""Lattice translations looked at along an axis, each way: enough for any cell without gross overlap."""
PAIRS_AT_ONCE = 4_000_000


class Edges(NamedTuple):
    """E directed pairs; atoms are numbered ((b · M + m) · N + n) through the padded batch.

    receiver : (E,) an atom of the asymmetric unit; sender : (E,) the atom that the neighbour is a symmetry copy of;
    vector : (E, 3) from receiver to neighbour in Å; distance : (E,).
    """

    receiver: Tensor
    sender: Tensor
    vector: Tensor
    distance: Tensor


def intermolecular_edges(batch: CrystalBatch, cutoff: float) -> Edges:
    """Pairs of atoms of different molecules (images of the same one included) closer than `cutoff` Å.

    Differentiable in the geometry: distances are taken again for the pairs found.
    """
    m, n = batch.centroid.shape[1], batch.numbers.shape[1]
    with torch.no_grad():
        crystal, receiver, sender, op, shift = _molecule_pairs(batch, cutoff)
    own = batch.positions()
    chunks = []
    size = max(1, PAIRS_AT_ONCE // (n * n))
    for part in torch.arange(len(crystal), device=own.device).split(size):
        c, i, j, g, s = crystal[part], receiver[part], sender[part], op[part], shift[part]
        centre = torch.einsum("pxy,py->px", batch.frac_rot[c, g], batch.centroid[c, j]) + batch.frac_tran[c, g] + s
        turned = torch.einsum("pxy,pyz,pnz->pnx", batch.cart_rot[c, g], batch.rotation[c, j], batch.conformer[c])
        other = torch.einsum("px,pxy->py", centre, batch.cell[c])[:, None] + turned
        home = own[c, i]
        with torch.no_grad():
            near = torch.cdist(home, other, compute_mode="donot_use_mm_for_euclid_dist") < cutoff
            near &= batch.atom_mask[c][:, :, None] & batch.atom_mask[c][:, None, :]
            pair, first, second = near.nonzero(as_tuple=True)
        vector = other[pair, second] - home[pair, first]
        base = (c * m) * n
        chunks.append(((base + i * n)[pair] + first, (base + j * n)[pair] + second, vector))
    if not chunks:
        empty = torch.zeros(0, dtype=torch.long, device=own.device)
        return Edges(empty, empty, own.new_zeros(0, 3), own.new_zeros(0))
    receiver, sender, vector = (torch.cat(x) for x in zip(*chunks))
    return Edges(receiver, sender, vector, vector.norm(dim=-1).clamp_min(1e-3))


def intramolecular_edges(batch: CrystalBatch, cutoff: float) -> Edges:
    """Pairs of atoms of the same molecule closer than `cutoff` Å, in the body frame."""
    m, n = batch.centroid.shape[1], batch.numbers.shape[1]
    x = batch.conformer
    with torch.no_grad():
        near = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") < cutoff
        near &= batch.atom_mask[:, :, None] & batch.atom_mask[:, None, :]
        near &= ~torch.eye(n, dtype=torch.bool, device=x.device)
        c, i, j = near.nonzero(as_tuple=True)
    vector = x[c, j] - x[c, i]
    base = torch.arange(m, device=x.device)[:, None] * n + c * (m * n)
    repeat = (m, 1)
    return Edges(
        (base + i).reshape(-1),
        (base + j).reshape(-1),
        vector.repeat(*repeat),
        vector.norm(dim=-1).clamp_min(1e-3).repeat(m),
    )


def _molecule_pairs(batch: CrystalBatch, cutoff: float) -> tuple[Tensor, ...]:
    """(crystal, receiving molecule, sending molecule, operation, shift) of images that may have atoms in reach."""
    device = batch.cell.device
    b = len(batch)
    radius = batch.conformer.norm(dim=-1).amax(1)
    reach = cutoff + 2.0 * radius
    heights = 1.0 / torch.linalg.inv(batch.cell).norm(dim=1)
    images = torch.einsum("bgxy,bmy->bgmx", batch.frac_rot, batch.centroid) + batch.frac_tran[:, :, None]
    # delta[b, i, g, j]: from molecule i to the image of j, taken to the home cell.
    delta = images[:, None] - batch.centroid[:, :, None, None]
    home = torch.floor(delta + 0.5)
    delta = delta - home
    most = (torch.ceil(reach[:, None] / heights + 0.5)).clamp(max=MOST_SHIFTS).amax(0).long().tolist()
    axes = [torch.arange(-k, k + 1, device=device, dtype=delta.dtype) for k in most]
    grid = torch.cartesian_prod(*axes)
    ok = torch.arange(batch.frac_tran.shape[1], device=device) < batch.n_images[:, None]
    found = []
    rows_at_once = max(1, PAIRS_AT_ONCE // (len(grid) * delta[0].numel() // 3 + 1))
    for rows in torch.arange(b, device=device).split(rows_at_once):
        away = (delta[rows][:, :, :, :, None] + grid) @ batch.cell[rows][:, None, None, None]
        near = (away.norm(dim=-1) < reach[rows][:, None, None, None, None]) & ok[rows][:, None, :, None, None]
        c, i, g, j, s = near.nonzero(as_tuple=True)
        shift = grid[s] - home[rows[c], i, g, j]
        # The molecule itself: same molecule, identity, no translation.
        keep = ~((i == j) & (g == 0) & (grid[s] == 0).all(1))
        found.append((rows[c][keep], i[keep], j[keep], g[keep], shift[keep]))
    return tuple(torch.cat(x) for x in zip(*found))
