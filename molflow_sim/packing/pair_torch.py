"""The press's pair energy and rigid-body gradients in torch, for accelerators and as the compiled kernel's reference.

Analytic pair gradients, no automatic differentiation; pair arithmetic in `pair_dtype`, sums in float64.
"""

from __future__ import annotations

import torch

_PAIRS_PER_CHUNK = 1 << 19


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
    zeros = lambda *shape: torch.zeros(*shape, dtype=torch.float64, device=device)  # noqa: E731
    energy, grad_cell = zeros(b), zeros(b, 3, 3)
    grad_centroid, grad_rotation = zeros(b * m, 3), zeros(b * m, 3)
    world = torch.einsum("bmxy,bny->bmnx", geometry.rotation, tables.conformers[geometry.conformer])
    crystal = torch.repeat_interleave(torch.arange(b, device=device), neighbours.start[1:] - neighbours.start[:-1])
    chunk = max(1, _PAIRS_PER_CHUNK // tables.n_atoms**2)
    parameters = [x.to(pair_dtype) for x in (tables.pa, tables.pb, tables.pc, tables.pq, tables.contact)]
    for rows in torch.arange(len(neighbours), device=device).split(chunk):
        c, i, j, g = crystal[rows], neighbours.i[rows], neighbours.j[rows], neighbours.g[rows]
        weight = neighbours.weight[rows]
        group = geometry.group[c]
        rotation, cart = tables.frac_rot[group, g], tables.cart_rot[group, g]
        delta = torch.einsum("exy,ey->ex", rotation, geometry.centroid[c, j])
        delta = delta + tables.frac_tran[group, g] + neighbours.n[rows] - geometry.centroid[c, i]
        centre = torch.einsum("ex,exy->ey", delta, geometry.cell[c])
        a = world[c, i]
        image = torch.einsum("exy,eny->enx", cart, world[c, j]) + centre[:, None]
        vector = image.to(pair_dtype)[:, None] - a.to(pair_dtype)[:, :, None]
        r = (vector.square().sum(-1) + 1e-12).sqrt()
        pair_energy, slope = (_overlap if soft else _exp6)(r, tables, *parameters)
        force = (slope / r)[..., None] * vector
        row_force = force.sum(2, dtype=torch.float64)  # on each atom of i, shape (E, N, 3)
        g_vec = row_force.sum(1) * weight[:, None]
        torque = torch.linalg.cross(a, row_force).sum(1) * weight[:, None]
        energy.index_add_(0, c, pair_energy.sum((1, 2), dtype=torch.float64) * weight)
        grad_cell.index_add_(0, c, delta[:, :, None] * g_vec[:, None, :])
        f = torch.einsum("exy,ey->ex", geometry.cell[c], g_vec)
        grad_centroid.index_add_(0, c * m + i, -f)
        grad_centroid.index_add_(0, c * m + j, torch.einsum("eyx,ey->ex", rotation, f))
        grad_rotation.index_add_(0, c * m + i, -torque)
        # Central forces: the torque on j about its own centre follows from the one about i's.
        other = torque - torch.linalg.cross(centre, g_vec)
        sign = torch.linalg.det(cart)[:, None]
        grad_rotation.index_add_(0, c * m + j, sign * torch.einsum("eyx,ey->ex", cart, other))
    return energy, grad_cell, grad_centroid.view(b, m, 3), grad_rotation.view(b, m, 3)


def _exp6(r, tables, pa, pb, pc, pq, contact):
    rc = r.clamp_min(tables.r_min)
    inv = rc.reciprocal()
    u3 = (inv * inv) ** 3
    rep = pa * torch.exp(-pb * rc)
    disp = pc * u3
    wall = disp * u3 * tables.guard
    coul = pq * inv
    slope = -pb * rep + (6.0 * disp - 12.0 * wall - coul) * inv
    return rep - disp + wall + coul + slope * (r - rc), slope


def _overlap(r, tables, pa, pb, pc, pq, contact):
    h = (contact - r).clamp_min(0.0)
    return tables.stiffness * h * h, -2.0 * tables.stiffness * h
