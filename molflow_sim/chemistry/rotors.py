"""Bonds about which molecules turn: single, in no ring, neither end with a triple bond.

Three answers to what counts, for three uses:

- `torsions`: something on both sides, be it hydrogens; what MMFF94 is to hold or not;
- `torsions` without ``methyl``: those whose turning gives another conformer, hydroxyl and amino groups among them;
- `rotors`: heavy atoms on both sides, since RMSDs see no hydrogens.

All have amides. `coarse.maps.rotatable_bonds` leaves out amides and conjugated bonds: there the question is which
parts of a molecule are rigid. `conformers.count_rotors` is RDKit's count with ring puckers, for how many embeddings a
molecule needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rdkit import Chem

_TURNING = Chem.MolFromSmarts("[!$(*#*)&!D1]-&!@[!$(*#*)&!D1]")


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
    for j, k in _bonds(rdmol):
        ends = [[a for a in near[one] if a != two and heavy[a]] for one, two in ((j, k), (k, j))]
        if not (ends[0] and ends[1]):
            continue
        side = _side(near, j, k)
        if 2 * sum(side) > n:
            j, k, ends, side = k, j, ends[::-1], _side(near, k, j)
        torsions.append((ends[0][0], j, k, ends[1][0]))
        moving.append(side)
    return Rotors(np.array(torsions, dtype=np.int64).reshape(-1, 4), np.array(moving, dtype=bool).reshape(-1, n))


def torsions(rdmol: Chem.Mol, methyl: bool = True) -> list[tuple[int, int, int, int]]:
    """Atoms of one torsion about each turning bond of a molecule with explicit hydrogens.

    Without `methyl`, bonds to an atom that carries three hydrogens alone (methyl, ammonium) are left out.
    """

    def beside(atom: int, other: int) -> list[Chem.Atom]:
        return [n for n in rdmol.GetAtomWithIdx(atom).GetNeighbors() if n.GetIdx() != other]

    found = []
    for j, k in _bonds(rdmol):
        ends = beside(j, k), beside(k, j)
        if methyl or all(len(near) < 3 or any(n.GetAtomicNum() > 1 for n in near) for near in ends):
            found.append((ends[0][0].GetIdx(), j, k, ends[1][0].GetIdx()))
    return found


def _bonds(rdmol: Chem.Mol) -> list[tuple[int, ...]]:
    return sorted({tuple(sorted(pair)) for pair in rdmol.GetSubstructMatches(_TURNING)})


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
