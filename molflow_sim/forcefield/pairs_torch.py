"""The pair loop of the crystal potential in torch: analytic pair gradients on any device, no autograd.

Same function as the compiled loop of `molflow_sim.forcefield.pairs`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from molflow_sim.forcefield.neighbours import NeighbourList
from molflow_sim.forcefield.pairs import GUARD, MIN_DISTANCE


@dataclass(eq=False)
class PairList:
    """Half list of atom pairs: home atom i, image atom j + shift (indices in group order, whole batch)."""

    i: torch.Tensor
    j: torch.Tensor
    shift: torch.Tensor
    system: torch.Tensor


def expand(
    entries: NeighbourList, group_start: np.ndarray, atom_system: np.ndarray, device: torch.device, dtype: torch.dtype
) -> PairList:
    """Turn the entries of groups into pairs of atoms on a device."""
    size = np.diff(group_start)
    group = np.repeat(np.arange(len(size)), entries.count)
    slot = np.concatenate([np.arange(s, s + c) for s, c in zip(entries.start, entries.count)] or [np.empty(0, int)])
    per_entry = size[group]
    first = np.repeat(np.cumsum(per_entry) - per_entry, per_entry)
    i = np.repeat(group_start[:-1][group], per_entry) + np.arange(per_entry.sum()) - first
    slot = np.repeat(slot, per_entry)
    return PairList(
        i=torch.as_tensor(i, device=device),
        j=torch.as_tensor(entries.atom[slot].astype(np.int64), device=device),
        shift=torch.as_tensor(entries.shift[slot], device=device).to(dtype),
        system=torch.as_tensor(atom_system[i], device=device),
    )


def pair_terms(
    r: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    qq: torch.Tensor,
    cutoff: float,
    onset: float,
    alpha: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Energy (eV) and dE/dr (eV/Å) of pairs at distances r (Å): switched exp-6 and real-space Ewald.

    Parameters
    ----------
    r, a, b, c, qq : (P,) tensors
        Distance, A, B, C of each pair and the product of its charges times e²/4πε₀.
    cutoff, onset, alpha : float
        Cutoff and switching onset in Å, Ewald splitting in 1/Å.

    Returns
    -------
    tuple of (P,) tensors
        Zero beyond the cutoff; linear below `MIN_DISTANCE`.
    """
    rc = r.clamp(MIN_DISTANCE, cutoff)
    inv = 1.0 / rc
    u6 = inv**6
    rep = a * torch.exp(-b * rc)
    disp = c * u6
    wall = disp * u6 * GUARD
    v = rep - disp + wall
    dv = (6.0 * disp - 12.0 * wall) * inv - b * rep
    t = ((rc - onset) / (cutoff - onset)).clamp(min=0.0)
    switch = 1.0 + t**3 * (-10.0 + t * (15.0 - 6.0 * t))
    d_switch = -30.0 * t**2 * (1.0 - t) ** 2 / (cutoff - onset)
    direct = qq * torch.erfc(alpha * rc) * inv
    gauss = torch.exp(-((alpha * rc) ** 2))
    d = dv * switch + v * d_switch - direct * inv - (2.0 * alpha / math.sqrt(math.pi)) * qq * gauss * inv
    inside = r < cutoff
    d = torch.where(inside, d, 0.0)
    return torch.where(inside, v * switch + direct + d * (r - rc), 0.0), d


def evaluate(
    pairs: PairList,
    positions: torch.Tensor,
    cells: torch.Tensor,
    sqrt_a: torch.Tensor,
    half_b: torch.Tensor,
    sqrt_c: torch.Tensor,
    charge: torch.Tensor,
    cutoff: float,
    onset: float,
    alpha: float,
    pair_dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Energy (S,), forces (n, 3) and virial (S, 3, 3) of a batch; arguments as in `pairs.pair_chunks`.

    Differences of positions are taken in float64, pair terms in `pair_dtype`, sums in float64. Pairs go in chunks:
    small ones that stay in cache on a CPU, large ones on an accelerator.
    """
    energy = positions.new_zeros(len(cells))
    forces = torch.zeros_like(positions)
    virial = positions.new_zeros(len(cells), 9)
    chunk = 1 << 16 if positions.device.type == "cpu" else 1 << 23
    for lo in range(0, len(pairs.i), chunk):
        i, j = pairs.i[lo : lo + chunk], pairs.j[lo : lo + chunk]
        system = pairs.system[lo : lo + chunk]
        shift = torch.einsum("pi,pij->pj", pairs.shift[lo : lo + chunk].to(positions.dtype), cells[system])
        delta = positions[j] + shift - positions[i]
        delta = delta.to(pair_dtype)
        r = torch.linalg.vector_norm(delta, dim=1)
        e, d = pair_terms(
            r,
            (sqrt_a[i] * sqrt_a[j]).to(pair_dtype),
            (half_b[i] + half_b[j]).to(pair_dtype),
            (sqrt_c[i] * sqrt_c[j]).to(pair_dtype),
            (charge[i] * charge[j]).to(pair_dtype),
            cutoff,
            onset,
            alpha,
        )
        pull = ((d / r.clamp(min=1e-6)).unsqueeze(1) * delta).to(positions.dtype)
        delta = delta.to(positions.dtype)
        energy.index_add_(0, system, e.to(positions.dtype))
        forces.index_add_(0, i, pull)
        forces.index_add_(0, j, -pull)
        virial.index_add_(0, system, (delta.unsqueeze(2) * pull.unsqueeze(1)).reshape(-1, 9))
    return energy, forces, virial.view(-1, 3, 3)
