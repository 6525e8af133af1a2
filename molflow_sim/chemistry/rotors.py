"""Bonds about which the heavy atoms of a molecule turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rdkit import Chem

_ROTOR = Chem.MolFromSmarts("[!#1;!$(*#*);!$([#6X2])]-&!@[!#1;!$(*#*);!$([#6X2])]")


@dataclass(frozen=True, eq=False)
class Rotors:
    """Single bonds outside of rings with heavy atoms on both sides, amides among them.

    Attributes
    ----------
    torsions : ndarray (T, 4) of int
        A torsion about each, its ends heavy atoms.
    moving : ndarray (T, N) of bool
        Atoms on the side of the third atom.
    """

    torsions: np.ndarray
    moving: np.ndarray

    def __len__(self) -> int:
        return len(self.torsions)

    @property
    def axes(self) -> np.ndarray:
        """Atoms (T, 2) of the bonds."""
        return np.ascontiguousarray(self.torsions[:, 1:3])


def rotors(rdmol: Chem.Mol) -> Rotors:
    """The rotors of a molecule with explicit hydrogens; the smaller side of each is the one that moves."""
    n = rdmol.GetNumAtoms()
    heavy = [a.GetAtomicNum() > 1 for a in rdmol.GetAtoms()]
    near = [[b.GetIdx() for b in a.GetNeighbors()] for a in rdmol.GetAtoms()]
    torsions, moving = [], []
    for j, k in sorted({tuple(sorted(pair)) for pair in rdmol.GetSubstructMatches(_ROTOR)}):
        ends = [[a for a in near[one] if a != two and heavy[a]] for one, two in ((j, k), (k, j))]
        if not (ends[0] and ends[1]):
            continue
        side = _side(near, j, k)
        if 2 * sum(side) > n:
            j, k, ends, side = k, j, ends[::-1], _side(near, k, j)
        torsions.append((ends[0][0], j, k, ends[1][0]))
        moving.append(side)
    return Rotors(np.array(torsions, dtype=np.int64).reshape(-1, 4), np.array(moving, dtype=bool).reshape(-1, n))


def _side(near: list[list[int]], j: int, k: int) -> list[bool]:
    """Which atoms hang on k when the bond to j is cut."""
    inside = [False] * len(near)
    inside[k] = True
    stack = [k]
    while stack:
        for a in near[stack.pop()]:
            if not inside[a] and a != j:
                inside[a] = True
                stack.append(a)
    return inside
