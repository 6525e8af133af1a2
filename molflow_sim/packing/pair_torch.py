"""The press's pair energy and rigid-body gradients in torch, for accelerators and as the compiled kernel's reference.

Analytic pair gradients, no automatic differentiation; pair arithmetic in `pair_dtype`, sums in float64.
"""

from __future__ import annotations

import torch

_PAIRS_PER_CHUNK = 1 << 17  # a few tensors of this size fit a core's cache


def evaluate(tables, geometry, neighbours, soft: bool, pair_dtype: torch.dtype = torch.float32):
    """Pair energy and gradients of a batch of rigid crystals.

    Parameters
    ----------
    tables : PressTables
    geometry : Geometry
        B crystals with M molecules in the asymmetric unit.
    neighbours : Neighbours
    soft : bool
        Soft overlap (the press's first stage) instead of the potential.

    Returns
    -------
    energy : (B,) eV per asymmetric unit
    grad_cell : (B, 3, 3) eV/Å, dE/d(cell) at fixed fractional centres
    grad_centroid : (B, M, 3) eV, dE/d(fractional centre)
    grad_rotation : (B, M, 3) eV/rad, for a rotation vector applied from the left
    """
    b, m = geometry.centroid.shape[:2]
    device = geometry.cell.device
    crystal = torch.repeat_interleave(torch.arange(b, device=device), neighbours.start[1:] - neighbours.start[:-1])
    i, j, g, weight = neighbours.i, neighbours.j, neighbours.g, neighbours.weight
    group, cell = geometry.group[crystal], geometry.cell[crystal]
    rotation, cart = tables.frac_rot[group, g], tables.cart_rot[group, g]
    delta = (rotation @ geometry.centroid[crystal, j][..., None]).squeeze(-1)
    delta = delta + tables.frac_tran[group, g] + neighbours.n - geometry.centroid[crystal, i]
    centre = (delta[:, None] @ cell).squeeze(1)
    world = tables.conformers[geometry.conformer][:, None] @ geometry.rotation.transpose(2, 3)
    a = world[crystal, i]
    image = world[crystal, j] @ cart.transpose(1, 2) + centre[:, None]

    kernel = _overlap if soft else _exp6
    parameters = [x.to(pair_dtype) for x in (tables.pa, tables.pb, tables.pc, tables.pq, tables.contact)]
    x, y = a.to(pair_dtype), image.to(pair_dtype)
    chunk = max(1, (_PAIRS_PER_CHUNK if device.type == "cpu" else 64 * _PAIRS_PER_CHUNK) // tables.n_atoms**2)
    parts = [_pairs(kernel, tables, u, v, parameters) for u, v in zip(x.split(chunk), y.split(chunk), strict=True)]
    pair_energy = torch.cat([p[0] for p in parts]).double()
    row_force = torch.cat([p[1] for p in parts]).double()  # gradient on the separation, by atom of i: (E, N, 3)

    g_vec = row_force.sum(1) * weight[:, None]
    torque = torch.linalg.cross(a, row_force).sum(1) * weight[:, None]
    f = (cell @ g_vec[..., None]).squeeze(-1)
    # Central forces: the torque on j about its own centre follows from the one about i's.
    other = torque - torch.linalg.cross(centre, g_vec)
    sign = torch.linalg.det(tables.cart_rot)[group, g][:, None]
    zeros = lambda *shape: torch.zeros(*shape, dtype=torch.float64, device=device)  # noqa: E731
    energy = zeros(b).index_add_(0, crystal, pair_energy * weight)
    grad_cell = zeros(b, 3, 3).index_add_(0, crystal, delta[:, :, None] * g_vec[:, None, :])
    to_i, to_j = crystal * m + i, crystal * m + j
    grad_centroid = zeros(b * m, 3).index_add_(0, to_i, -f)
    grad_centroid.index_add_(0, to_j, (f[:, None] @ rotation).squeeze(1))
    grad_rotation = zeros(b * m, 3).index_add_(0, to_i, -torque)
    grad_rotation.index_add_(0, to_j, sign * (other[:, None] @ cart).squeeze(1))
    return energy, grad_cell, grad_centroid.view(b, m, 3), grad_rotation.view(b, m, 3)


def _pairs(kernel, tables, x: torch.Tensor, y: torch.Tensor, parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Energy (E,) and force rows (E, N, 3) of molecule pairs at x, y (E, N, 3); in place, to stay in cache."""
    r = y[:, None, :, 0] - x[:, :, None, 0]
    r.square_().add_(1e-12)
    for k in (1, 2):
        d = y[:, None, :, k] - x[:, :, None, k]
        r.addcmul_(d, d)
    r.sqrt_()
    energy, slope = kernel(r, tables, *parameters)
    slope.div_(r)
    force = torch.bmm(slope, y)
    force.addcmul_(slope.sum(2, keepdim=True), x, value=-1.0)
    return energy.sum((1, 2)), force


def _exp6(r, tables, pa, pb, pc, pq, contact):
    rc = r.clamp_min(tables.r_min)
    inv = rc.reciprocal()
    repulsion = rc.mul(pb).neg_().exp_().mul_(pa)
    u3 = inv.square().pow_(3)
    dispersion = u3.mul(pc)
    wall = u3.mul_(dispersion).mul_(tables.guard)
    coulomb = inv.mul(pq)
    slope = dispersion.mul(6.0).sub_(wall, alpha=12.0).sub_(coulomb).mul_(inv).addcmul_(repulsion, pb, value=-1.0)
    energy = repulsion.sub_(dispersion).add_(wall).add_(coulomb).addcmul_(slope, r - rc)
    return energy, slope


def _overlap(r, tables, pa, pb, pc, pq, contact):
    h = (contact - r).clamp_min_(0.0)
    slope = h.mul(-2.0 * tables.stiffness)
    return h.square_().mul_(tables.stiffness), slope
