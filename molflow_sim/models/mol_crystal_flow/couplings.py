"""Which prior molecule flows to which molecule of the crystal, and to which of a crystal's equivalent descriptions.

Prior centroids and prior rotations are independent, so each kind is assigned by itself. Molecules can stand for one
another only if they are of one species and one hand (one χ group). The direction matters: row i of the target
is paired with row ``source[i]`` of the prior, ``prior[source]``; the inverse permutation pairs strangers as soon as
three molecules change places in a ring.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from molflow_sim.flow.manifolds import rotation_distance
from molflow_sim.models.mol_crystal_flow.batch import P1Batch, Poses
from molflow_sim.models.mol_crystal_flow.settings import P1Settings


def assign(cost: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Cheapest pairing inside groups.

    Parameters
    ----------
    cost : ndarray (M, M)
        ``cost[i, j]`` of target i with source j.
    group : ndarray of int (M,)
        Of targets and sources alike; negative where there is no molecule.

    Returns
    -------
    source : ndarray of int (M,)
        A permutation: target i belongs to source ``source[i]``.
    """
    source = np.arange(len(group))
    for g in np.unique(group[group >= 0]):
        members = np.flatnonzero(group == g)
        if len(members) > 1:
            rows, columns = linear_sum_assignment(cost[np.ix_(members, members)])
            source[members[rows]] = members[columns]
    return source


def couple(prior: Poses, batch: P1Batch, settings: P1Settings) -> tuple[Poses, Poses]:
    """Pair prior and crystals.

    Parameters
    ----------
    prior : Poses
    batch : P1Batch
        With standard poses.
    settings : P1Settings

    Returns
    -------
    prior, target : Poses
        The prior with its molecules in another order; the crystals, possibly described differently (origin,
        symmetry-equivalent orientations), never changed.
    """
    target = batch.poses
    target = Poses(target.cell, target.frac, nearest_rotation(prior, target, batch, pairs=False), target.chi)
    if not settings.optimal_transport:
        return prior, target
    group = batch.group.cpu().numpy()
    cost, equivalent = _rotation_costs(prior, target, batch)
    turn_cost = cost.cpu().numpy()
    start, end = prior.frac.double().numpy(), target.frac.double().numpy()
    place, turn = np.empty_like(group), np.empty_like(group)
    shift = np.zeros((len(group), 1, 3))
    for b in range(len(group)):
        turn[b] = assign(turn_cost[b], group[b])
        shift[b, 0], place[b] = _place(start[b], end[b], group[b], settings.align_origin)
    frac = torch.remainder(target.frac + torch.as_tensor(shift, dtype=target.frac.dtype), 1.0)
    rows = torch.arange(len(group))[:, None]
    turn_rows = torch.as_tensor(turn)
    rotation = equivalent[rows, torch.arange(group.shape[1])[None], turn_rows]
    moved = Poses(prior.cell, prior.frac[rows, torch.as_tensor(place)], prior.rotation[rows, turn_rows], prior.chi)
    return moved, Poses(target.cell, frac, rotation, target.chi)


def nearest_rotation(prior: Poses, target: Poses, batch: P1Batch, pairs: bool = True) -> Tensor:
    """Of the orientations equivalent by a molecule's own symmetry, the nearest to the prior's.

    (B, M, M, 3, 3), target i against prior j, with `pairs`; otherwise (B, M, 3, 3), molecule by molecule.
    """
    images = _equivalents(target, batch)  # B, M, K, 3, 3
    if pairs:
        images = images.unsqueeze(2)
        start = prior.rotation[:, None, :, None]
    else:
        start = prior.rotation[:, :, None]
    closest = rotation_distance(start, images).argmin(-1)
    index = closest[..., None, None, None].expand(*closest.shape, 1, 3, 3)
    return torch.gather(images.expand(*closest.shape, *images.shape[-3:]), -3, index).squeeze(-3)


def _equivalents(target: Poses, batch: P1Batch) -> Tensor:
    """R D Q D (B, M, K, 3, 3): Q maps the shape on itself, D = diag(1, 1, hand)."""
    flip = torch.cat([torch.ones_like(target.chi[..., :2]), target.hand.unsqueeze(-1)], -1)[:, :, None]
    q = batch.shapes.symmetry[batch.species] * flip.unsqueeze(-1) * flip.unsqueeze(-2)
    return target.rotation.unsqueeze(2) @ q


def _rotation_costs(prior: Poses, target: Poses, batch: P1Batch) -> tuple[Tensor, Tensor]:
    """Squared angles (B, M, M) of target i against prior j, and the equivalent orientation each is reached by."""
    equivalent = nearest_rotation(prior, target, batch)
    return rotation_distance(prior.rotation[:, None], equivalent) ** 2, equivalent


def _place(frac0: np.ndarray, frac1: np.ndarray, group: np.ndarray, free: bool) -> tuple[np.ndarray, np.ndarray]:
    """Shift of the target's origin (3,) and the assignment of target molecules to the prior's that cost least together.

    Candidate shifts put a molecule of the target on the first one of the prior; the mean of what is left refines them.
    """
    real = np.flatnonzero(group >= 0)
    first = real[0]
    shifts = frac0[first] - frac1[group == group[first]] if free else np.zeros((1, 3))
    delta = frac1[:, None] - frac0[None] + shifts[:, None, None]
    delta -= np.floor(delta + 0.5)
    cost = (delta**2).sum(-1)
    best: tuple[float, np.ndarray, np.ndarray] = (np.inf, shifts[0], np.arange(len(group)))
    for k, shift in enumerate(shifts):
        source = assign(cost[k], group)
        paths = delta[k, real, source[real]]
        common = paths.mean(0) if free else np.zeros(3)
        total = float(((paths - common) ** 2).sum())
        if total < best[0]:
            best = (total, shift - common, source)
    return best[1], best[2]
