"""The terms of the loss (Appendix C), and the assignment of starts to true conformers (eq. 11)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from molflow_sim.geometry.torsions import dihedral_angle
from molflow_sim.models.coarsenconf.batch import Layout, PairBatch


def laid_on(x: Tensor, y: Tensor, atoms: Layout) -> Tensor:
    """Structures x (M, 3), moved and turned to lie best on structures y (M, 3) (Kabsch); the motion has no gradient."""
    with torch.no_grad():
        a, b = x - atoms.mean(x)[atoms.group], y - atoms.mean(y)[atoms.group]
        u, _, vt = torch.linalg.svd(atoms.sum(b.unsqueeze(-1) * a.unsqueeze(-2)))
        sign = torch.sign(torch.linalg.det(u) * torch.linalg.det(vt))
        u = torch.cat([u[..., :2], u[..., 2:] * sign.view(-1, 1, 1)], -1)
        rotation = (u @ vt)[atoms.group]
    centred = x - atoms.mean(x)[atoms.group]
    return (rotation @ centred.unsqueeze(-1)).squeeze(-1) + atoms.mean(y)[atoms.group]


def square_errors(x: Tensor, y: Tensor, atoms: Layout) -> Tensor:
    """Squared distance of an atom from where it is to be, Å², mean over each structure, (S,)."""
    return atoms.mean(((x - y) ** 2).sum(-1))


def distance_errors(x: Tensor, y: Tensor, batch: PairBatch) -> Tensor:
    """(d² − d²_true)² in Å⁴, mean over the pairs of one and two bonds of each structure, (S,)."""
    into, out = batch.pairs[:, batch.near]
    error = (((x[into] - x[out]) ** 2).sum(-1) - ((y[into] - y[out]) ** 2).sum(-1)) ** 2
    owner, n = batch.atoms.group[into], len(batch.atoms.table)
    count = torch.bincount(owner, minlength=n).clamp_min(1)
    return error.new_zeros(n).index_add(0, owner, error) / count


def torsion_errors(x: Tensor, y: Tensor, batch: PairBatch) -> Tensor:
    """1 − cos of the error of each torsion, mean over those of each structure, (S,)."""
    gap = dihedral_angle(*(x[i] for i in batch.torsions)) - dihedral_angle(*(y[i] for i in batch.torsions))
    return batch.turning.mean(1.0 - torch.cos(gap))


@torch.no_grad()
def assigned(x: Tensor, batch: PairBatch) -> Tensor:
    """The true conformer (M, 3) that each structure x (M, 3) is to become, by the best assignment in its group.

    With as many structures as true conformers, all of the same share, the plan of optimal transport is a permutation
    (Birkhoff), which `scipy.optimize.linear_sum_assignment` finds exactly; no library of transport is needed.
    """
    count = batch.ends.shape[1]
    if count == 1:
        return batch.ends[:, 0]
    errors = []
    for k in range(count):
        y = batch.ends[:, k]
        errors.append(square_errors(laid_on(x, y, batch.atoms), y, batch.atoms) + distance_errors(x, y, batch))
    cost = torch.stack(errors, -1).cpu().numpy()  # (S, K): in row p of a group, column k is conformer (p + k) mod K
    chosen = np.zeros(len(cost), int)
    for group in torch.unique(batch.group).tolist():
        rows = np.flatnonzero(batch.group.cpu().numpy() == group)
        straight = np.stack([np.roll(cost[row], place) for place, row in enumerate(rows)])
        _, columns = linear_sum_assignment(straight)
        chosen[rows] = (columns - np.arange(len(rows))) % count
    pick = torch.as_tensor(chosen, device=x.device)[batch.atoms.group]
    return batch.ends[torch.arange(len(x), device=x.device), pick]
