"""Ways to divide a molecule into beads: by its rings, or by cuts through its torsions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from molflow_sim.coarse.beads import MoleculeBeads
from molflow_sim.errors import MappingError

if TYPE_CHECKING:
    from rdkit import Chem

GROUP = 6
"""Heavy atoms up to which a substituent that a double bond holds in a ring's plane belongs to the ring's bead."""
SUBSTITUENT = 2
"""Heavy atoms up to which a substituent on a single bond belongs to the bead that it hangs on."""
AMIDE = "[#7;!$([#7]=*)]-[CX3]=[O,S]"
"""SMARTS; its first two atoms are the ends of a bond that does not turn."""


def ring_beads(rdmol: Chem.Mol, split_from: int = 3, largest: int = 0, whole: Sequence[str] = ()) -> MoleculeBeads:
    """A bead for every ring, and one for every chain between and beside rings.

    Parameters
    ----------
    rdmol : rdkit.Chem.Mol
        With or without explicit hydrogens.
    split_from : int
        Fused systems of at least this many rings are divided ring by ring, smaller ones are one bead. An atom that
        rings share goes to the ring that has fewest atoms so far; atoms that symmetry makes alike go alike.
    largest : int
        Chains of more heavy atoms are cut into pieces of at most this many; 0 for no limit.
    whole : sequence of str
        SMARTS of rings that stay one bead inside of a larger system.

    Returns
    -------
    MoleculeBeads
        Substituents of a few atoms stay with their ring: up to `SUBSTITUENT` on a single bond, up to `GROUP` where a
        double bond holds them.
    """
    heavy = _heavy_graph(rdmol)
    rank = _ranks(rdmol)
    groups = [set(ring) for ring in _divided_rings(rdmol, split_from, whole, rank)]
    in_rings = set().union(*groups) if groups else set()
    chains = nx.connected_components(heavy.subgraph(set(heavy) - in_rings))
    for chain in sorted((set(c) for c in chains), key=len):
        held = [(i, j) for i in chain for j in heavy[i] if j in in_rings]
        double = [(i, j) for i, j in held if heavy[i][j]["order"] > 1.0]
        if held and len(chain) <= (GROUP if double else SUBSTITUENT):
            _, ring_atom = min(double or held, key=lambda pair: (rank[pair[1]], pair[1]))
            next(group for group in groups if ring_atom in group).update(chain)
        else:
            groups += _pieces(heavy.subgraph(chain), largest, rank)
    return _beads(rdmol, groups)


def torsion_beads(rdmol: Chem.Mol, smallest: int = 1) -> MoleculeBeads:
    """The rigid parts between torsions: what is left together when every rotatable bond is cut.

    Parameters
    ----------
    rdmol : rdkit.Chem.Mol
        With or without explicit hydrogens.
    smallest : int
        Parts of fewer heavy atoms are joined to the smallest part beside them.
    """
    heavy, rank = _heavy_graph(rdmol), _ranks(rdmol)
    parts = heavy.copy()
    parts.remove_edges_from(rotatable_bonds(rdmol))
    groups = [set(c) for c in nx.connected_components(parts)]
    while len(groups) > 1 and min(map(len, groups)) < smallest:
        groups.sort(key=lambda g: (len(g), min(rank[i] for i in g), min(g)))
        least = groups.pop(0)
        beside = [g for g in groups if any(j in g for i in least for j in heavy[i])]
        beside[0].update(least)
    return _beads(rdmol, groups)


def rotatable_bonds(rdmol: Chem.Mol) -> list[tuple[int, int]]:
    """Bonds whose torsions are free: single, in no ring, with a heavy atom beyond either end.

    Bonds of amides (also thioamides, carbamates and the like) and between two double bonds (C=C-C=C, C=C-C=O) are not,
    as in Reidenbach and Krishnapriyan, "CoarsenConf" (2023), Appendix D. Bonds between aromatic rings, or from a ring
    to a carbonyl group, are. `chemistry.rotors` counts those of amides, too: they have two conformers, but are rigid.
    """
    heavy = _heavy_graph(rdmol)
    held = {frozenset(match[:2]) for match in rdmol.GetSubstructMatches(_pattern(AMIDE))}
    double = {i for i, j, bond in heavy.edges(data=True) if bond["order"] == 2.0 for i in (i, j)}
    return [
        (i, j)
        for i, j, bond in heavy.edges(data=True)
        if bond["order"] == 1.0
        and not bond["ring"]
        and min(heavy.degree(i), heavy.degree(j)) > 1
        and frozenset((i, j)) not in held
        and not (i in double and j in double)
    ]


def _y6(rdmol: Chem.Mol) -> MoleculeBeads:
    beads = ring_beads(rdmol, whole=["c1ccc2nsnc2c1"])
    heavy = int((beads.owner >= 0).sum())
    if (heavy, beads.n_beads) != (101, 13):
        raise MappingError(
            f"the map 'y6' is for Y6 (101 heavy atoms, 13 beads), not for {heavy} heavy atoms with {beads.n_beads}; "
            "use 'rings'"
        )
    return beads


MAPS: dict[str, Callable[[Chem.Mol], MoleculeBeads]] = {
    "rings": ring_beads,
    "rings-6": partial(ring_beads, largest=6),
    "torsions": partial(torsion_beads, smallest=3),
    "y6": _y6,
}
"""Maps by name. ``y6`` has the 13 beads of the published map, which is shown there in a picture only; the division is
ours: four thiophenes, two pyrroles, the benzothiadiazole, the two end groups (two fused rings with what double bonds
hold in their plane) and the four alkyl chains. ``rings-6`` cuts chains into pieces of at most six atoms."""


def bead_map(rdmol: Chem.Mol, name: str) -> MoleculeBeads:
    """The beads of a molecule by the name of a map.

    Raises
    ------
    MappingError
        An unknown name, or a map that is not made for the molecule.
    """
    if name not in MAPS:
        raise MappingError(f"unknown map {name!r} from atoms to beads; choose from {', '.join(MAPS)}")
    return MAPS[name](rdmol)


def _divided_rings(rdmol: Chem.Mol, split_from: int, whole: Sequence[str], rank: list[int]) -> list[set[int]]:
    """Ring systems as sets of atoms, large ones divided into their rings."""
    from rdkit import Chem

    rings = [set(ring) for ring in Chem.GetSymmSSSR(rdmol)]
    for match in (set(m) for smarts in whole for m in rdmol.GetSubstructMatches(Chem.MolFromSmarts(smarts))):
        inside = [ring for ring in rings if ring <= match]
        if len(inside) > 1:
            rings = [ring for ring in rings if ring not in inside] + [set().union(*inside)]
    touching = nx.Graph()
    touching.add_nodes_from(range(len(rings)))
    touching.add_edges_from((a, b) for a in range(len(rings)) for b in range(a) if rings[a] & rings[b])
    found: list[set[int]] = []
    for part in nx.connected_components(touching):
        system = [rings[k] for k in sorted(part)]
        found += _divided(system, rank) if len(system) >= split_from else [set().union(*system)]
    return found


def _divided(rings: list[set[int]], rank: list[int]) -> list[set[int]]:
    """Every atom of fused rings in one of them."""
    holders = {i: [k for k, ring in enumerate(rings) if i in ring] for i in set().union(*rings)}
    own = [{i for i in ring if len(holders[i]) == 1} for ring in rings]
    shared = sorted({rank[i] for i in holders if len(holders[i]) > 1})
    for kind in shared:  # atoms that symmetry makes alike are shared out together, before any of them counts
        size = [len(atoms) for atoms in own]
        for i in sorted(i for i in holders if rank[i] == kind and len(holders[i]) > 1):
            own[min(holders[i], key=lambda k: (size[k], -len(rings[k]), _kind(rings[k], rank), k))].add(i)
    return [atoms for atoms in own if atoms]


def _kind(ring: set[int], rank: list[int]) -> list[int]:
    return sorted(rank[i] for i in ring)


def _pieces(chain: nx.Graph, largest: int, rank: list[int]) -> list[set[int]]:
    """A tree of atoms cut where the halves are most alike, until no piece is too large."""
    if not largest or len(chain) <= largest:
        return [set(chain)]
    cuts = []
    for i, j in chain.edges:
        rest = chain.copy()
        rest.remove_edge(i, j)
        side = set(nx.node_connected_component(rest, i))
        cuts.append((abs(len(chain) - 2 * len(side)), sorted((rank[i], rank[j])), sorted((i, j)), side))
    side = min(cuts, key=lambda cut: cut[:3])[3]
    return [p for s in (side, set(chain) - side) for p in _pieces(chain.subgraph(s), largest, rank)]


def _beads(rdmol: Chem.Mol, groups: list[set[int]]) -> MoleculeBeads:
    return MoleculeBeads.from_groups(rdmol, sorted(sorted(group) for group in groups))


@lru_cache(maxsize=8)
def _pattern(smarts: str) -> Chem.Mol:
    from rdkit import Chem

    return Chem.MolFromSmarts(smarts)


def _heavy_graph(rdmol: Chem.Mol) -> nx.Graph:
    """Heavy atoms and their bonds, with order (1.5 where aromatic) and whether in a ring."""
    graph = nx.Graph()
    graph.add_nodes_from(a.GetIdx() for a in rdmol.GetAtoms() if a.GetAtomicNum() > 1)
    for bond in rdmol.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if i in graph and j in graph:
            graph.add_edge(i, j, order=bond.GetBondTypeAsDouble(), ring=bond.IsInRing())
    return graph


def _ranks(rdmol: Chem.Mol) -> list[int]:
    """Numbers that are equal for atoms that symmetry makes alike, the same in any order of the atoms."""
    from rdkit import Chem

    return np.array(Chem.CanonicalRankAtoms(Chem.Mol(rdmol), breakTies=False, includeChirality=False)).tolist()
