"""Bonds from geometry: who is bonded, what is missing, and how two bond graphs map onto each other."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from rdkit import Chem

from molflow_sim.errors import DisorderedCrystalError, MissingHydrogensError, OverlappingAtomsError

_SLACK, _SLACK_H = 0.40, 0.30  # Å beyond the sum of covalent radii (Cordero et al., Dalton Trans. 2832, 2008)
_USUAL = 0.15  # Å beyond that sum which bonds of usual length do not exceed
_DOUBLE = {6: 1.41, 7: 1.31, 8: 1.25}  # Å: a carbon this close to C, N, O is unsaturated, however bent (fullerenes)
_MAX_NEIGHBOURS = {1: 1, 6: 4, 7: 4, 8: 3, 9: 1, 14: 5, 15: 6, 16: 6, 17: 4, 35: 1, 53: 5}


def neighbour_pairs(
    positions: np.ndarray, cell: np.ndarray | None, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs within `cutoff` Å, each once: indices (p, 2), cell shifts (p, 3) of the second atom, distances (p,)."""
    from vesin import NeighborList

    box = np.zeros((3, 3)) if cell is None else np.ascontiguousarray(cell, dtype=float)
    i, j, shifts, d = NeighborList(cutoff=float(cutoff), full_list=False).compute(
        points=np.ascontiguousarray(positions, dtype=float), box=box, periodic=cell is not None, quantities="ijSd"
    )
    return np.stack([i, j], axis=1).astype(int), shifts.astype(int), d


def perceive_bonds(
    numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray | None = None, labels: list[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Bonds by covalent radii.

    A hydrogen keeps its nearest neighbour only, and an atom with more neighbours than its element can have loses the
    most stretched ones.

    Parameters
    ----------
    numbers : ndarray (N,)
    positions : ndarray (N, 3)
        Å.
    cell : ndarray (3, 3), optional
        Rows in Å; without it the atoms are in open space.
    labels : list of str, optional
        Names of the atoms for the errors.

    Returns
    -------
    bonds : ndarray (nb, 2) of int
    shifts : ndarray (nb, 3) of int
        Lattice translation of the second atom.

    Raises
    ------
    OverlappingAtomsError
        If two atoms are closer than any bond allows.
    DisorderedCrystalError
        If an atom has more hydrogens at bonding distance than its element can bind.
    """
    radii = covalent_radii[numbers]
    pairs, shifts, d = neighbour_pairs(positions, cell, 2 * radii.max() + _SLACK)
    i, j = pairs.T
    hydrogens = (numbers[i] == 1).astype(int) + (numbers[j] == 1)
    total = radii[i] + radii[j]
    closest = np.select([hydrogens == 2, hydrogens == 1], [0.70, 0.55], default=0.68 * total)
    bad = np.flatnonzero((d < closest) | ((i == j) & (d < total + _SLACK_H)))
    if len(bad):
        k = bad[d[bad].argmin()]
        names = [labels[a] if labels else f"{chemical_symbols[numbers[a]]}{a + 1}" for a in (i[k], j[k])]
        raise OverlappingAtomsError(
            f"{names[0]} and {names[1]} are {d[k]:.2f} Å apart, closer than any bond; check for disorder"
        )
    stretch = d - total
    keep = (stretch < np.where(hydrogens > 0, _SLACK_H, _SLACK)) & (hydrogens < 2)
    if len(numbers) == 2 and np.all(numbers == 1):
        keep = stretch < _SLACK_H
    chosen = np.flatnonzero(keep)
    chosen = chosen[np.argsort(stretch[chosen], kind="stable")]
    # a bridging hydrogen between borons is real, any other second neighbour of a hydrogen is a contact
    room = np.array([_MAX_NEIGHBOURS.get(int(z), 6) for z in numbers])
    boron = numbers == 5
    out = []
    for k in chosen:
        a, b = i[k], j[k]
        bridge = (numbers[a] == 1 and boron[b]) or (numbers[b] == 1 and boron[a])
        if (room[a] > 0 and room[b] > 0) or (bridge and min(room[a], room[b]) > -1):
            out.append(k)
            room[a] -= 1
            room[b] -= 1
    taken = set(out)
    own = np.bincount(pairs[out].ravel(), weights=np.repeat(hydrogens[out] == 1, 2), minlength=len(numbers))
    for k in chosen:  # a bond of usual length that finds no place beside hydrogens
        full = next((int(a) for a in pairs[k] if numbers[a] != 1 and room[a] <= 0 and own[a] > 1), None)
        if k not in taken and full is not None and stretch[k] < _USUAL:
            other = int(pairs[k].sum()) - full
            one, two = (labels[a] if labels else f"{chemical_symbols[numbers[a]]}{a + 1}" for a in (full, other))
            raise DisorderedCrystalError(
                f"atom {one} has {own[full]:.0f} hydrogens and no bond left for {two}: disorder that is not marked; "
                "give one ordered model"
            )
    out = sorted(out)
    return pairs[out], shifts[out]


def check_hydrogens(numbers: np.ndarray, positions: np.ndarray, bonds: np.ndarray, labels: list[str]) -> None:
    """Refuse a whole molecule whose carbon geometry tells that hydrogens are missing.

    Three neighbours must lie in a plane with their carbon, two in a line, and lone oxygen or nitrogen atoms are
    water or ammonia without hydrogens.

    Raises
    ------
    MissingHydrogensError
        Naming the atom.
    DisorderedCrystalError
        An oxygen with three neighbours, two of them hydrogens.
    """
    neighbours: list[list[int]] = [[] for _ in numbers]
    for a, b in bonds:
        neighbours[a].append(int(b))
        neighbours[b].append(int(a))
    for atom, near in enumerate(neighbours):
        z = numbers[atom]
        vectors = positions[near] - positions[atom]
        lengths = np.linalg.norm(vectors, axis=1) if len(near) else np.zeros(0)
        missing = False
        if z == 8 and len(near) > 2 and (numbers[near] == 1).sum() > 1:
            raise DisorderedCrystalError(
                f"atom {labels[atom]} has {len(near)} neighbours: disordered hydrogens that are not marked, or an "
                "oxonium ion; give one ordered, neutral model"
            )
        if z in (7, 8) and not near:
            missing = True
        elif z == 6 and len(near) == 3:
            unit = vectors / lengths[:, None]
            height = abs(np.linalg.det(unit))  # 0 in a plane, 0.77 at a tetrahedral centre
            double = any(d < _DOUBLE.get(int(numbers[b]), 0.0) for b, d in zip(near, lengths))
            missing = bool(height > 0.45) and not double
        elif z == 6 and len(near) == 2:
            missing = bool(vectors[0] @ vectors[1] / lengths.prod() > -0.87)
        elif z == 6 and len(near) == 1:
            missing = bool(lengths[0] > 1.25 and numbers[near[0]] != 16)
        elif z == 6 and not near:
            missing = True
        if missing:
            raise MissingHydrogensError(
                f"atom {labels[atom]} has {len(near)} neighbours in a geometry that needs more; hydrogen atoms are "
                "missing from the structure: add them before reading it"
            )


def skeleton(rdmol: Chem.Mol) -> Chem.Mol:
    """The bare bond graph: elements and single bonds, no charges, no stereochemistry.

    With all hydrogens explicit this identifies a constitution, and it treats the two oxygens of a nitro group or
    a carboxylate alike.
    """
    numbers = [atom.GetAtomicNum() for atom in rdmol.GetAtoms()]
    return graph_mol(numbers, [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in rdmol.GetBonds()])


def isotopes_of(rdmol: Chem.Mol) -> np.ndarray:
    """Mass numbers (N,) where they are given, else 0."""
    return np.array([atom.GetIsotope() for atom in rdmol.GetAtoms()], dtype=int)


def graph_mol(numbers: list[int], bonds: list[tuple[int, int]]) -> Chem.Mol:
    """An unsanitized RDKit molecule of bare atoms and single bonds, ready for substructure matching."""
    mol = Chem.RWMol()
    for z in numbers:
        atom = Chem.Atom(int(z))
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    for i, j in bonds:
        mol.AddBond(int(i), int(j), Chem.BondType.SINGLE)
    out = mol.GetMol()
    out.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(out)
    return out


def automorphisms(rdmol: Chem.Mol, atoms: np.ndarray | None = None, max_matches: int = 2000) -> np.ndarray:
    """Permutations (M, n) of the bond graph induced on `atoms` that map it on itself, the identity among them.

    ``perm[i]`` is the position (within `atoms`) that i is mapped to. At most `max_matches` are listed: molecules
    with many interchangeable groups have astronomically many.
    """
    n = rdmol.GetNumAtoms()
    atoms = np.arange(n) if atoms is None else np.asarray(atoms)
    where = {int(a): k for k, a in enumerate(atoms)}
    numbers = [rdmol.GetAtomWithIdx(int(a)).GetAtomicNum() for a in atoms]
    # an isotope-like label keeps carbons with different numbers of stripped hydrogens apart
    bonds = [
        (where[b.GetBeginAtomIdx()], where[b.GetEndAtomIdx()])
        for b in rdmol.GetBonds()
        if b.GetBeginAtomIdx() in where and b.GetEndAtomIdx() in where
    ]
    graph = graph_mol(numbers, bonds)
    for k, a in enumerate(atoms):
        graph.GetAtomWithIdx(k).SetIsotope(int(rdmol.GetAtomWithIdx(int(a)).GetDegree()) + 1)
    matches = graph.GetSubstructMatches(graph, uniquify=False, useChirality=False, maxMatches=max_matches)
    identity = tuple(range(len(atoms)))
    return np.array(list(dict.fromkeys([identity, *matches])), dtype=int)
