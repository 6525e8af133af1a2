"""MMFF94 energies of whole molecules in torch: batched, differentiable, without neighbour lists.

Layout: internally the atoms come first and the batch last, (N, 3·batch), so that every gather copies contiguous rows
and every elementwise operation runs over the batch. Difference vectors are one product with an incidence matrix
(small molecules) or two gathers (large ones).
"""

from __future__ import annotations

import numpy as np
import torch

from molflow_sim.errors import InputError
from molflow_sim.forcefield.mmff import MMFFTerms

TERMS = ("bond", "angle", "stretch_bend", "out_of_plane", "torsion", "vdw", "electrostatic")
"""Names of the energies that `mmff_energies` returns, in the order of the equations."""

# Added under square roots: keeps the derivative of |x| at x = 0 finite (it is 0), and changes no energy visibly.
_TINY = 1e-24
# The same for the squared plane normals (Å⁴) of a torsion, whose force diverges as three of its atoms become collinear.
_TINY_NORMAL = 1e-11


def mmff_energies(terms: MMFFTerms, positions: torch.Tensor) -> dict[str, torch.Tensor]:
    """MMFF94 energy of each term.

    Parameters
    ----------
    terms : MMFFTerms
        Terms of one molecule with N atoms.
    positions : (..., N, 3) tensor
        Cartesian positions in Å of whole molecules (no periodic images), float32 or float64.

    Returns
    -------
    dict of (...,) tensors
        Energies in eV under the names of `TERMS`; their sum is the MMFF94 energy. Differentiable in `positions`, with
        finite gradients for linear angles and planar torsions too.

    Raises
    ------
    InputError
        The shape of `positions` is not (..., N, 3).
    """
    if positions.shape[-2:] != (terms.n_atoms, 3):
        raise InputError(f"positions must have shape (..., {terms.n_atoms}, 3), not {tuple(positions.shape)}")
    batch = positions.shape[:-2]
    p = _tensors(terms, positions.dtype, positions.device)
    x = positions.reshape(-1, terms.n_atoms * 3).T.reshape(terms.n_atoms, -1)  # (N, 3·batch)
    vectors = _differences(p, x)  # (rows, 3, batch)
    bond, ij, kj, lin_ij, lin_kj, oop_i, oop_k, oop_l, tor_ij, tor_jk, tor_kl, pair = vectors.split(p["sizes"])

    angle, stretch_bend = _angle(p, ij, kj)
    vdw, electrostatic = _nonbonded(p, pair)
    energies = {
        "bond": _bond(p, bond),
        "angle": angle + _linear(p, lin_ij, lin_kj),
        "stretch_bend": stretch_bend,
        "out_of_plane": _out_of_plane(p, oop_i, oop_k, oop_l),
        "torsion": _torsion(p, tor_ij, tor_jk, tor_kl),
        "vdw": vdw,
        "electrostatic": electrostatic,
    }
    return {name: value.reshape(batch) for name, value in energies.items()}


def _norm(v: torch.Tensor) -> torch.Tensor:
    """Length over the component axis (1) with a finite derivative at 0."""
    return torch.sqrt(_dot(v, v) + _TINY)


def _dot(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (u * v).sum(1)


def _bond(p: dict, d: torch.Tensor) -> torch.Tensor:
    """Quartic stretching, Halgren 1996 eq. 2 (cubic constant -2/Å)."""
    s = _norm(d) - p["bond_r0"]
    return (p["bond_half_k"] * s * s * (1 - 2 * s + (7 / 3) * s * s)).sum(0)


def _angle(p: dict, u: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cubic bending, eq. 3 (cubic constant -0.4/rad), and stretch-bend coupling, eq. 5."""
    cross = torch.linalg.cross(u, v, dim=1)
    t = torch.atan2(_norm(cross), _dot(u, v)) - p["angle_theta0"]
    bend = (p["angle_half_k"] * t * t * (1 - 0.4 * t)).sum(0)
    coupling = p["sb_k0"] * (_norm(u) - p["sb_r0"]) + p["sb_k1"] * (_norm(v) - p["sb_r1"])
    return bend, (coupling * t).sum(0)


def _linear(p: dict, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Bending of linear centres, eq. 4."""
    return (p["linear_k"] * (1 + _dot(u, v) / (_norm(u) * _norm(v)))).sum(0)


def _out_of_plane(p: dict, u: torch.Tensor, v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Out-of-plane bending, eq. 6: χ is the angle between w and the plane of u and v."""
    normal = torch.linalg.cross(u, v, dim=1)
    sine = _dot(normal, w) / (_norm(normal) * _norm(w))
    chi = torch.asin(sine.clamp(-1 + 1e-7, 1 - 1e-7))
    return (p["oop_half_k"] * chi * chi).sum(0)


def _torsion(p: dict, b1: torch.Tensor, b2: torch.Tensor, b3: torch.Tensor) -> torch.Tensor:
    """Torsion, eq. 7, as a polynomial in c = cos φ (cos 2φ = 2c² - 1, cos 3φ = 4c³ - 3c): smooth at φ = 0 and π."""
    n1 = torch.linalg.cross(b1, b2, dim=1)
    n2 = torch.linalg.cross(b2, b3, dim=1)
    c = _dot(n1, n2) * torch.rsqrt(_dot(n1, n1) + _TINY_NORMAL) * torch.rsqrt(_dot(n2, n2) + _TINY_NORMAL)
    v1, v2, v3 = p["v1"], p["v2"], p["v3"]
    # V1/2 (1 + c) + V2/2 (2 - 2c²) + V3/2 (1 - 3c + 4c³), collected in powers of c
    return (0.5 * (v1 + 2 * v2 + v3) + c * (0.5 * (v1 - 3 * v3) + c * (2 * v3 * c - v2))).sum(0)


def _nonbonded(p: dict, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Buffered 14-7, eq. 8, and buffered Coulomb, eq. 9."""
    r = _norm(d)
    rho = r * p["vdw_inverse_r"]
    rho2 = rho * rho
    rho7 = rho2 * rho2 * rho2 * rho
    g = 1.07 / (rho + 0.07)
    g2 = g * g
    vdw = p["vdw_epsilon"] * (g2 * g2 * g2 * g) * (1.12 / (rho7 + 0.12) - 2)
    return vdw.sum(0), (p["coulomb"] / (r + 0.05)).sum(0)


# Above this many incidence-matrix entries two gathers beat the dense product.
_DENSE_LIMIT = 40_000


def _differences(p: dict, x: torch.Tensor) -> torch.Tensor:
    """All difference vectors that the terms need, (rows, 3, batch)."""
    if "incidence" in p:
        d = p["incidence"] @ x
    else:
        d = x.index_select(0, p["head"]) - x.index_select(0, p["tail"])
    return d.reshape(d.shape[0], 3, -1)


def _tensors(terms: MMFFTerms, dtype: torch.dtype, device: torch.device) -> dict:
    """Parameters as (rows, 1) tensors, made once for each dtype and device."""
    key = (dtype, str(device))
    if key not in terms._tensors:
        terms._tensors[key] = _build(terms, dtype, device)
    return terms._tensors[key]


def stretch_bends_by_angle(terms: MMFFTerms) -> tuple[np.ndarray, np.ndarray]:
    """Stretch-bend constants and reference lengths (na, 2) in the rows of their angles; zero constants elsewhere."""
    sb_k, sb_r0 = np.zeros((len(terms.angles), 2)), np.ones((len(terms.angles), 2))
    row_of = {tuple(a): row for row, a in enumerate(terms.angles.tolist())}
    for atoms, k, r0 in zip(terms.stretch_bends.tolist(), terms.stretch_bend_k, terms.stretch_bend_r0):
        sb_k[row_of[tuple(atoms)]], sb_r0[row_of[tuple(atoms)]] = k, r0
    return sb_k, sb_r0


def _build(terms: MMFFTerms, dtype: torch.dtype, device: torch.device) -> dict:
    """Lay the terms out for `mmff_energies`."""
    sb_k, sb_r0 = stretch_bends_by_angle(terms)
    columns = {
        "bond_r0": terms.bond_r0,
        "bond_half_k": terms.bond_k / 2,
        "angle_theta0": terms.angle_theta0,
        "angle_half_k": terms.angle_k / 2,
        "sb_k0": sb_k[:, 0],
        "sb_k1": sb_k[:, 1],
        "sb_r0": sb_r0[:, 0],
        "sb_r1": sb_r0[:, 1],
        "linear_k": terms.linear_k,
        "oop_half_k": terms.out_of_plane_k / 2,
        "v1": terms.torsion_v[:, 0],
        "v2": terms.torsion_v[:, 1],
        "v3": terms.torsion_v[:, 2],
        "vdw_inverse_r": 1 / terms.vdw_r,
        "vdw_epsilon": terms.vdw_epsilon,
        "coulomb": terms.coulomb,
    }
    b, a, l = terms.bonds, terms.angles, terms.linear_angles
    o, t, pairs = terms.out_of_planes, terms.torsions, terms.pairs
    vectors = [  # (from, to), in the order in which mmff_energies splits them
        (b[:, 0], b[:, 1]),
        (a[:, 1], a[:, 0]),
        (a[:, 1], a[:, 2]),
        (l[:, 1], l[:, 0]),
        (l[:, 1], l[:, 2]),
        (o[:, 1], o[:, 0]),
        (o[:, 1], o[:, 2]),
        (o[:, 1], o[:, 3]),
        (t[:, 1], t[:, 0]),
        (t[:, 2], t[:, 1]),
        (t[:, 3], t[:, 2]),
        (pairs[:, 0], pairs[:, 1]),
    ]
    tail, head = (np.concatenate(side) for side in zip(*vectors))
    out: dict = {name: torch.tensor(v, dtype=dtype, device=device)[:, None] for name, v in columns.items()}
    out["sizes"] = [len(start) for start, _ in vectors]
    if len(head) * terms.n_atoms <= _DENSE_LIMIT:
        incidence = np.zeros((len(head), terms.n_atoms))
        incidence[np.arange(len(head)), head] = 1
        incidence[np.arange(len(head)), tail] -= 1
        out["incidence"] = torch.tensor(incidence, dtype=dtype, device=device)
    else:
        out["head"] = torch.tensor(head, device=device)
        out["tail"] = torch.tensor(tail, device=device)
    return out
