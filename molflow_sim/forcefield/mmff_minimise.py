"""Compiled minimisation of conformers on MMFF94, each by itself: L-BFGS (J. Nocedal, Math. Comput. 35, 773 (1980)).

Several times as fast as RDKit's minimiser, and with what conformers need beside: electrostatics divided by a dielectric
constant, and torsions held near the angles that they have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numba as nb
import numpy as np

from molflow_sim.forcefield.mmff import MMFFTerms
from molflow_sim.forcefield.mmff_compiled import _arrays, _between, _bonded, _cross, _dot, _nonbonded, _pull, _sum
from molflow_sim.threads import share

MEMORY = 12
MAX_MOVE = 0.3
"""Longest move of an atom in one step, Å."""
_FIRST = 0.02  # Å²/eV: inverse curvature of the first step
_TINY_NORMAL = 1e-11


@dataclass(frozen=True, eq=False)
class Minima:
    """Outcome of `minimise`.

    Attributes
    ----------
    positions : ndarray (K, N, 3)
        Å.
    energies : ndarray (K,)
        eV, of the field that was minimised without what holds torsions; NaN or infinite where a start was hopeless.
    max_force : ndarray (K,)
        Largest component of a force that is left, eV/Å, what holds torsions included.
    """

    positions: np.ndarray
    energies: np.ndarray
    max_force: np.ndarray


def in_dielectric(terms: MMFFTerms, dielectric: float) -> MMFFTerms:
    """The terms with electrostatics divided by a relative permittivity."""
    return terms if dielectric == 1.0 else replace(terms, coulomb=terms.coulomb / dielectric, _tensors={})


def minimise(
    terms: MMFFTerms,
    positions: np.ndarray,
    *,
    max_steps: int = 500,
    fmax: float = 0.02,
    held: np.ndarray | None = None,
    stiffness: float = 2.0,
) -> Minima:
    """Take conformers of one molecule to minima.

    Parameters
    ----------
    terms : MMFFTerms
        See `in_dielectric`.
    positions : ndarray (K, N, 3)
        Å.
    max_steps : int
        Of each.
    fmax : float
        eV/Å; no component of a force is larger at the end.
    held : ndarray (T, 4) of int, optional
        Torsions that are held near the angle φ₀ that they have by `stiffness` (1 - cos(φ - φ₀)).
    stiffness : float
        eV.
    """
    x = np.array(positions, dtype=float)
    energies, forces = np.zeros(len(x)), np.zeros(len(x))
    torsions = np.zeros((0, 4), dtype=np.int64) if held is None else np.asarray(held, dtype=np.int64).reshape(-1, 4)
    arguments = (x, *_arrays(terms), torsions, stiffness, max_steps, fmax, energies, forces)
    share(len(x), lambda first, last: _minimise_all(first, last, *arguments))  # type: ignore[call-arg]
    return Minima(x, energies, forces)


@nb.njit
def _sine_and_cosine(x, i, j, k, l):
    a, b, d = _between(x, j, i), _between(x, k, j), _between(x, l, k)
    n, m = _cross(a, b), _cross(b, d)
    norm = 1.0 / math.sqrt((_dot(n, n) + _TINY_NORMAL) * (_dot(m, m) + _TINY_NORMAL))
    return -math.sqrt(_dot(b, b)) * _dot(a, m) * norm, _dot(n, m) * norm


@nb.njit
def _hold(x, g, torsions, start, stiffness):
    """Energy of what holds the torsions, its gradient added to g; away from straight chains, where there is none."""
    energy = 0.0
    for row, (i, j, k, l) in enumerate(torsions):
        a, b, d = _between(x, j, i), _between(x, k, j), _between(x, l, k)
        n, m = _cross(a, b), _cross(b, d)
        nn, mm, rb = _dot(n, n), _dot(m, m), math.sqrt(_dot(b, b))
        if nn < 1e-3 or mm < 1e-3:
            continue
        sine, cosine = _sine_and_cosine(x, i, j, k, l)
        s0, c0 = start[row]
        energy += stiffness * (1.0 - cosine * c0 - sine * s0)
        slope = stiffness * (sine * c0 - cosine * s0)
        # Blondel & Karplus, J. Comput. Chem. 17, 1132 (1996): derivatives by the bond vectors
        _pull(g, j, i, _sum(-slope * rb / nn, n, 0.0, n))
        _pull(g, k, l, _sum(slope * rb / mm, m, 0.0, m))
        p, q = _dot(a, b) / (nn * rb), _dot(d, b) / (mm * rb)
        _pull(g, k, j, _sum(slope * p, n, slope * q, m))
    return energy


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _minimise_all(
    first, last, positions, bonds, bond, angles, angle, linear, linear_k, planes, plane_k, torsions, torsion_v,
    pairs, pair, held, stiffness, max_steps, fmax, energies, forces,
):  # fmt: skip
    n = positions.shape[1]
    s, y, rho = np.zeros((MEMORY, n, 3)), np.zeros((MEMORY, n, 3)), np.zeros(MEMORY)
    alpha = np.zeros(MEMORY)
    start = np.zeros((len(held), 2))
    trial, gradient, new_gradient, direction = np.zeros((n, 3)), np.zeros((n, 3)), np.zeros((n, 3)), np.zeros((n, 3))
    for c in range(first, last):
        x = positions[c]
        for row, (i, j, k, l) in enumerate(held):
            start[row] = _sine_and_cosine(x, i, j, k, l)
        gradient[:] = 0.0
        energy = _bonded(
            x, gradient, bonds, bond, angles, angle, linear, linear_k, planes, plane_k, torsions, torsion_v
        )
        energy += _nonbonded(x, gradient, pairs, pair) + _hold(x, gradient, held, start, stiffness)
        stored = newest = 0
        scale, tries, step = _FIRST, 0, 0
        while step < max_steps and math.isfinite(energy) and np.abs(gradient).max() > fmax:
            step += 1
            direction[:] = gradient
            for back in range(stored):
                h = (newest - back) % MEMORY
                alpha[h] = rho[h] * (s[h] * direction).sum()
                direction -= alpha[h] * y[h]
            direction *= scale
            for forth in range(stored - 1, -1, -1):
                h = (newest - forth) % MEMORY
                direction += (alpha[h] - rho[h] * (y[h] * direction).sum()) * s[h]
            slope = -(direction * gradient).sum()
            if not slope < 0.0:
                stored, scale = 0, _FIRST
                direction[:] = scale * gradient
                slope = -(direction * gradient).sum()
            longest = 0.0
            for a in range(n):
                longest = max(longest, direction[a, 0] ** 2 + direction[a, 1] ** 2 + direction[a, 2] ** 2)
            length = min(1.0, MAX_MOVE / math.sqrt(longest))
            tries = 0
            while True:
                trial[:] = x - length * direction
                new_gradient[:] = 0.0
                new = _bonded(
                    trial, new_gradient, bonds, bond, angles, angle, linear, linear_k, planes, plane_k, torsions,
                    torsion_v,
                )  # fmt: skip
                new += _nonbonded(trial, new_gradient, pairs, pair) + _hold(trial, new_gradient, held, start, stiffness)
                tries += 1
                if new <= energy + 1e-4 * length * slope + 1e-10 * abs(energy):
                    break
                if tries >= 12:
                    break
                rise = new - energy - length * slope
                length *= min(0.5, max(0.1, -0.5 * length * slope / rise)) if math.isfinite(rise) else 0.1
            if tries >= 12:
                if stored == 0:
                    break
                stored, scale = 0, _FIRST
                continue
            newest = (newest + 1) % MEMORY
            s[newest] = trial - x
            y[newest] = new_gradient - gradient
            curvature = (s[newest] * y[newest]).sum()
            if curvature > 1e-10:
                rho[newest] = 1.0 / curvature
                scale = curvature / (y[newest] * y[newest]).sum()
                stored = min(stored + 1, MEMORY)
            else:
                stored = 0
            x[:] = trial
            gradient[:] = new_gradient
            energy = new
        forces[c] = np.abs(gradient).max()
        gradient[:] = 0.0
        energies[c] = energy - _hold(x, gradient, held, start, stiffness)


def energies(terms: MMFFTerms, positions: np.ndarray) -> np.ndarray:
    """Energies (K,) in eV of conformers (K, N, 3) in Å as they are."""
    from molflow_sim.forcefield.mmff_compiled import mmff_molecules

    x = np.ascontiguousarray(positions, dtype=float)
    return mmff_molecules(terms, x.reshape(-1, 3), terms.n_atoms * np.arange(len(x)))[0]
