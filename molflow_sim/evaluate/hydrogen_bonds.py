"""Hydrogen bonds between the molecules of a crystal, and the motifs that they make.

Motifs are named by graph sets (Etter, Acc. Chem. Res. 23, 120, 1990; Bernstein, Davis, Shimoni & Chang, Angew. Chem.
Int. Ed. 34, 1555, 1995), written on one line: ``R2,2(8)`` is a ring of 8 atoms with 2 acceptors and 2 donated hydrogens
(the superscript first), ``C(4)`` a chain with 4 atoms in its period, ``D`` a bond that is part of neither.

Rings are those of two molecules joined by two bonds, and those of more molecules that one kind of bond closes; chains
follow one kind of bond. Bonds are of one kind if hydrogens and acceptors are equivalent in the molecule's graph, so
molecules that symmetry does not relate (Z' > 1) make one chain if they do the same.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from rdkit import Chem

from molflow_sim.chemistry.bonds import neighbour_pairs
from molflow_sim.evaluate.validity import unit_cell_bonds

MAX_LENGTH = {7: 2.5, 8: 2.5, 16: 2.9}
"""Å; longest H...A by the element of the acceptor, for X-H of neutron length."""
MIN_ANGLE = 120.0
"""Degrees; smallest D-H...A."""
SECOND = 0.3
"""Å beyond the shortest H...A of a hydrogen within which another acceptor shares it."""
MAX_RING = 24
"""Atoms of the largest ring named."""
_DONORS = (7, 8, 16)


@dataclass(frozen=True)
class HydrogenBond:
    """A hydrogen bond; those that symmetry makes equal are one.

    Attributes
    ----------
    donor, acceptor : str
        Elements.
    length : float
        D...A in Å.
    hydrogen_length : float
        H...A in Å.
    angle : float
        D-H...A in degrees.
    motif : str
        Graph sets, several joined by ``/``.
    """

    donor: str
    acceptor: str
    length: float
    hydrogen_length: float
    angle: float
    motif: str

    def __str__(self) -> str:
        return f"{self.donor}-H...{self.acceptor} {self.length:.2f} {self.motif}"


def hydrogen_bonds(crystal: Any) -> tuple[HydrogenBond, ...]:
    """Distinct hydrogen bonds between the molecules of a crystal, the shortest first.

    Parameters
    ----------
    crystal : MolecularCrystal
        With X-H bonds of neutron length (`from_cif(..., normalise_hydrogens=True)`); X-ray ones lose weak bonds.
    """
    numbers, positions, molecule, species = crystal.unit_cell()
    links = _links(crystal, numbers, positions, molecule, species)
    motifs = _motifs(links, _Graphs(crystal, molecule, species))
    found: list[HydrogenBond] = []
    for link, names in sorted(zip(links, motifs), key=lambda x: x[0].lengths):
        donor, acceptor = (chemical_symbols[numbers[a]] for a in (link.donor, link.acceptor))
        apart, length, angle = link.lengths
        bond = HydrogenBond(donor, acceptor, apart, length, angle, "/".join(sorted(names, key=_order)))
        if not any(_same(bond, other) for other in found):
            found.append(bond)
    return tuple(sorted(found, key=lambda b: b.length))


def hydrogen_bond_text(crystal: Any) -> str:
    """One line for a table: each kind of bond with its shortest D...A in Å and its motif; ``none`` without bonds."""
    lines: dict[tuple[str, str, str], str] = {}
    for bond in hydrogen_bonds(crystal):
        lines.setdefault((bond.donor, bond.acceptor, bond.motif), str(bond))
    return "; ".join(lines.values()) or "none"


def acceptors(rdmol: Chem.Mol) -> np.ndarray:
    """Whether each atom (n,) has a lone pair to offer: O; N with two neighbours at most, or an amine's; S of C=S."""
    flags = []
    for atom in rdmol.GetAtoms():
        z, degree = atom.GetAtomicNum(), atom.GetDegree()
        amine = degree == 3 and atom.GetHybridization() == Chem.HybridizationType.SP3
        flags.append(z == 8 or (z == 7 and (degree < 3 or amine)) or (z == 16 and degree == 1))
    return np.array(flags)


@dataclass(frozen=True)
class _Link:
    """A hydrogen bond of the cell: atoms, and the lattice translation of the acceptor's molecule."""

    donor: int
    hydrogen: int
    acceptor: int
    shift: tuple[int, ...]
    lengths: tuple[float, float, float]  # D...A, H...A, angle


class _Graphs:
    """Molecules of the cell by their bond graphs: who an atom is, and how far two atoms of a molecule are."""

    def __init__(self, crystal: Any, molecule: np.ndarray, species: np.ndarray) -> None:
        self.molecule, self.species = molecule, species
        self.start = np.searchsorted(molecule, np.arange(len(species)))
        self.distances = [Chem.GetDistanceMatrix(m.rdmol).astype(int) for m in crystal.molecules]
        self.ranks = [list(Chem.CanonicalRankAtoms(m.rdmol, breakTies=False)) for m in crystal.molecules]

    def kind(self, atom: int) -> tuple[int, int]:
        m = self.molecule[atom]
        return int(self.species[m]), self.ranks[self.species[m]][atom - self.start[m]]

    def path(self, a: int, b: int) -> int:
        """Atoms of the shortest path between two atoms of a molecule, both counted."""
        m = self.molecule[a]
        return int(self.distances[self.species[m]][a - self.start[m], b - self.start[m]]) + 1


def _links(crystal: Any, numbers: np.ndarray, positions: np.ndarray, molecule: np.ndarray, species: np.ndarray) -> list:
    donor = np.full(len(numbers), -1)
    for a, b in unit_cell_bonds(crystal):
        for x, h in ((a, b), (b, a)):
            if numbers[h] == 1 and numbers[x] in _DONORS:
                donor[h] = x
    acceptor = np.concatenate([acceptors(crystal.molecules[s].rdmol) for s in species])
    atoms = np.flatnonzero((donor >= 0) | acceptor)
    if not (donor >= 0).any() or not acceptor.any():
        return []
    pairs, shifts, lengths = neighbour_pairs(positions[atoms], crystal.cell, max(MAX_LENGTH.values()))
    pairs = np.concatenate([atoms[pairs], atoms[pairs][:, ::-1]])
    shifts, lengths = np.concatenate([shifts, -shifts]), np.tile(lengths, 2)
    nearest: dict[int, float] = {}
    links = []
    for k in np.argsort(lengths, kind="stable"):
        (h, a), shift, length = pairs[k], shifts[k], float(lengths[k])
        d = donor[h]
        own = molecule[h] == molecule[a] and not shift.any()
        if d < 0 or not acceptor[a] or own or length > MAX_LENGTH[int(numbers[a])]:
            continue
        to_acceptor = positions[a] + shift @ crystal.cell - positions[h]
        to_donor = positions[d] - positions[h]
        cosine = to_acceptor @ to_donor / (length * np.linalg.norm(to_donor))
        angle = float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
        if angle < MIN_ANGLE or length > nearest.setdefault(int(h), length) + SECOND:
            continue
        apart = float(np.linalg.norm(to_acceptor - to_donor))
        links.append(_Link(int(d), int(h), int(a), tuple(int(s) for s in shift), (apart, length, angle)))
    return links


def _motifs(links: list[_Link], graphs: _Graphs) -> list[set[str]]:
    """Names of the motifs that each link is part of."""
    names: list[set[str]] = [set() for _ in links]
    mutual = _pair_rings(links, graphs, names)
    kinds = defaultdict(list)
    for k, link in enumerate(links):
        donor, acceptor = graphs.kind(link.hydrogen), graphs.kind(link.acceptor)
        if k not in mutual and donor[0] == acceptor[0]:
            kinds[donor, acceptor].append(k)
    for members in kinds.values():
        _chains_and_rings(members, links, graphs, names)
    for own in names:
        if not own:
            own.add("D")
    return names


def _pair_rings(links: list[_Link], graphs: _Graphs, names: list[set[str]]) -> set[int]:
    """Name the smallest ring of two molecules for each link; return the links whose partner gives the bond back."""
    between = defaultdict(list)
    for k, link in enumerate(links):
        m, n = int(graphs.molecule[link.hydrogen]), int(graphs.molecule[link.acceptor])
        back = tuple(-s for s in link.shift)
        forward = (m, n, link.shift) <= (n, m, back)
        key = (m, n, link.shift) if forward else (n, m, back)
        ends = (link.hydrogen, link.acceptor) if forward else (link.acceptor, link.hydrogen)
        between[key].append((k, *ends))
    smallest: dict[int, tuple[int, str]] = {}
    mutual = set()
    for members in between.values():
        for x, (k, a, b) in enumerate(members):
            for l, c, d in members[x + 1 :]:
                if links[k].hydrogen == links[l].hydrogen:
                    continue
                size = graphs.path(a, c) + graphs.path(b, d)
                gives_back = (a == links[k].hydrogen) != (c == links[l].hydrogen)
                if size > MAX_RING:
                    continue
                if gives_back:
                    mutual |= {k, l}
                shared = 1 if not gives_back and links[k].acceptor == links[l].acceptor else 2
                for member in (k, l):
                    if size < smallest.get(member, (MAX_RING + 1, ""))[0]:
                        smallest[member] = (size, f"R{shared},2({size})")
    for k, (_, name) in smallest.items():
        names[k].add(name)
    return mutual


def _chains_and_rings(members: list[int], links: list[_Link], graphs: _Graphs, names: list[set[str]]) -> None:
    """Follow bonds of one kind from molecule to molecule, by the shortest way through each."""
    donates = defaultdict(list)
    for k in members:
        donates[graphs.molecule[links[k].hydrogen]].append(k)
    steps = [
        (k, l, graphs.path(links[k].acceptor, links[l].hydrogen))
        for k in members
        for l in donates[graphs.molecule[links[k].acceptor]]
    ]
    if not steps:
        return
    size = min(step[2] for step in steps)
    after = defaultdict(list)
    for k, l, n in steps:
        if n == size:
            after[k].append((l, np.array(links[k].shift)))
            after[l].append((k, -np.array(links[k].shift)))
    seen: dict[int, np.ndarray] = {}
    for first in members:
        if first in seen or not after[first]:
            continue
        seen[first] = np.zeros(3, int)
        component, infinite = [first], False
        for k in component:  # grows
            for l, shift in after[k]:
                place = seen[k] + shift
                if l not in seen:
                    seen[l] = place
                    component.append(l)
                elif np.any(seen[l] != place):
                    infinite = True
        closed = len(component) > 2 and all(len(after[k]) == 2 for k in component)
        n = len(component)
        for k in component:
            if infinite:
                names[k].add(f"C({size})")
            elif closed:
                names[k].add(f"R{n},{n}({n * size})")


def _order(name: str) -> tuple[bool, bool, str]:
    return name[0] == "D", name[0] == "C", name


def _same(a: HydrogenBond, b: HydrogenBond) -> bool:
    alike = (a.donor, a.acceptor, a.motif) == (b.donor, b.acceptor, b.motif)
    gap = abs(a.length - b.length) + abs(a.hydrogen_length - b.hydrogen_length) + abs(a.angle - b.angle)
    return alike and gap < 0.02
