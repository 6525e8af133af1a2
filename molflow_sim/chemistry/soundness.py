"""Whether conformers are whole molecules: bonds of usual length, nothing in the way of anything."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii
from rdkit import Chem

BOND = (0.7, 1.3)
"""Shortest and longest bond, of the sum of covalent radii."""
CONTACT = 1.25
"""Atoms three bonds or more apart are no closer than this, of the sum of covalent radii; 1.7 for hydrogens."""
CONTACT_H = 1.7
RING_PLANE = 0.35
"""Å; how far an atom of an aromatic ring may lie off its plane."""


def sound(rdmol: Chem.Mol, positions: np.ndarray) -> np.ndarray:
    """Which conformers (K, N, 3) in Å are finite, with whole bonds, free of overlap, and flat in aromatic rings."""
    x = np.asarray(positions, dtype=float)
    good = np.isfinite(x).all((1, 2))
    numbers = np.array([a.GetAtomicNum() for a in rdmol.GetAtoms()])
    radii = covalent_radii[numbers]
    i, j = np.triu_indices(len(numbers), 1)
    steps = Chem.GetDistanceMatrix(rdmol)[i, j]
    total = radii[i] + radii[j]
    closest = np.where((numbers[i] == 1) & (numbers[j] == 1), CONTACT_H, CONTACT) * total
    low = np.where(steps == 1, BOND[0] * total, np.where(steps > 2, closest, 0.0))
    high = np.where(steps == 1, BOND[1] * total, np.inf)
    for k in np.flatnonzero(good):
        d = np.linalg.norm(x[k, i] - x[k, j], axis=1)
        good[k] = bool(np.all((d >= low) & (d <= high)))
    for ring in rdmol.GetRingInfo().AtomRings():
        if len(ring) < 7 and all(rdmol.GetAtomWithIdx(a).GetIsAromatic() for a in ring):
            atoms = x[good][:, list(ring)]
            normal = np.linalg.svd(atoms - atoms.mean(1, keepdims=True))[2][:, 2]
            off = np.abs(np.einsum("krx,kx->kr", atoms - atoms.mean(1, keepdims=True), normal)).max(1)
            good[good] = off <= RING_PLANE
    return good
