"""Beads, their masses and the bonds between them: the topology of a coarse-grained molecule."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, shortest_path

from molflow_sim.errors import MappingError

if TYPE_CHECKING:
    import mdtraj

_BACKBONE = ("C", "N", "CA", "C", "N")


@dataclass(frozen=True, eq=False)
class BeadTopology:
    """A molecule of B beads joined by bonds.

    Any graph can be held; internal coordinates need a tree (`is_tree`).

    Parameters
    ----------
    names : tuple of str, length B
        Bead names (the atom's name where a bead is an atom).
    masses : ndarray, shape (B,)
        Bead masses in amu, all above zero.
    bonds : ndarray of int, shape (nb, 2)
        Bonded pairs in any order; stored with i < j, sorted and read-only.
    elements : tuple of str, length B
        Element symbols; an empty text for a bead that is no single atom. Default: all empty.
    residue_names : tuple of str, length B
        Name of the residue that each bead belongs to. Default: "CG".
    residue_index, chain_index : ndarray of int, shape (B,)
        Residue (counted through the molecule) and chain of each bead. Default: all 0.

    Raises
    ------
    MappingError
        Lengths that differ, a mass that is not positive, a bond out of range, given twice or of a bead with itself.
    """

    names: tuple[str, ...]
    masses: np.ndarray
    bonds: np.ndarray
    elements: tuple[str, ...] = ()
    residue_names: tuple[str, ...] = ()
    residue_index: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    chain_index: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        n = len(self.names)
        bonds = np.asarray(self.bonds, dtype=np.int64).reshape(-1, 2)
        bonds = np.sort(bonds, axis=1)
        bonds = bonds[np.lexsort((bonds[:, 1], bonds[:, 0]))]
        given: dict[str, Any] = {
            "names": tuple(str(x) for x in self.names),
            "masses": np.array(self.masses, dtype=np.float64).reshape(-1),
            "bonds": bonds,
            "elements": tuple(self.elements) or ("",) * n,
            "residue_names": tuple(self.residue_names) or ("CG",) * n,
        }
        for name in ("residue_index", "chain_index"):
            value = np.array(getattr(self, name), dtype=np.int64).reshape(-1)
            given[name] = value if value.size else np.zeros(n, dtype=np.int64)
        for name, value in given.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            if name != "bonds" and len(value) != n:
                raise MappingError(f"a bead topology of {n} beads has {len(value)} {name}")
            object.__setattr__(self, name, value)
        if n == 0:
            raise MappingError("a bead topology needs at least one bead")
        if not (np.isfinite(self.masses).all() and (self.masses > 0).all()):
            bad = int(np.flatnonzero(~(np.isfinite(self.masses) & (self.masses > 0)))[0])
            raise MappingError(f"bead {bad} ({self.names[bad]}) has a mass of {self.masses[bad]} amu")
        if len(bonds) and (bonds.min() < 0 or bonds.max() >= n):
            raise MappingError(f"a bond names a bead that is not there (beads are 0 to {n - 1})")
        if (bonds[:, 0] == bonds[:, 1]).any():
            raise MappingError("a bond joins a bead to itself")
        if len(np.unique(bonds, axis=0)) != len(bonds):
            raise MappingError("a bond is given twice")

    @property
    def n_beads(self) -> int:
        """Number of beads."""
        return len(self.names)

    @cached_property
    def neighbours(self) -> tuple[tuple[int, ...], ...]:
        """Bonded beads of each bead, ascending."""
        lists: list[list[int]] = [[] for _ in self.names]
        for i, j in self.bonds.tolist():
            lists[i].append(j)
            lists[j].append(i)
        return tuple(tuple(sorted(x)) for x in lists)

    @cached_property
    def separations(self) -> np.ndarray:
        """Bonds between any two beads along the shortest way, shape (B, B); infinite between parts that are apart."""
        return shortest_path(bond_graph(self.n_beads, self.bonds), directed=False, unweighted=True)

    @cached_property
    def components(self) -> tuple[tuple[int, ...], ...]:
        """Connected parts, each as ascending bead indices, ordered by their first bead."""
        n, part = connected_components(bond_graph(self.n_beads, self.bonds), directed=False)
        return tuple(tuple(np.flatnonzero(part == k).tolist()) for k in range(n))

    @property
    def is_tree(self) -> bool:
        """Whether all beads are joined and no ring is closed."""
        return len(self.components) == 1 and len(self.bonds) == self.n_beads - 1

    def require_tree(self, why: str = "") -> None:
        """Check that the beads form one tree.

        Parameters
        ----------
        why : str
            What is known of the reason where they are apart, for the message.

        Raises
        ------
        MappingError
            Says which beads are not joined to the others, or which beads lie on a ring.
        """
        if len(self.components) > 1:
            shown = "; ".join(_some([self.label(i) for i in part]) for part in self.components[:4])
            raise MappingError(
                f"the beads are not joined by bonds into one molecule: {len(self.components)} parts ({shown}); "
                f"{why + ': ' if why else ''}select beads of one molecule or give the bonds"
            )
        if not self.is_tree:
            import networkx as nx

            core = nx.k_core(nx.Graph(self.bonds.tolist()), 2)  # without leaves, taken off again and again
            ring = _some([self.label(i) for i in sorted(core)], 12)
            raise MappingError(
                f"the bonds between the beads close a ring ({ring}); internal coordinates need a tree: "
                "choose fewer beads or give the bonds without the closing one"
            )

    def has_beads_of(self, other: BeadTopology) -> bool:
        """Whether names and bonds are those of the other."""
        return self.names == other.names and np.array_equal(self.bonds, other.bonds)

    def label(self, bead: int) -> str:
        """Short text for messages and axes, such as ``ALA2-CA``."""
        return f"{self.residue_names[bead]}{int(self.residue_index[bead]) + 1}-{self.names[bead]}"

    @cached_property
    def angles(self) -> np.ndarray:
        """All angles i-j-k along bonds with i < k, shape (na, 3), sorted by (j, i, k)."""
        found = [
            (i, j, k) for j, around in enumerate(self.neighbours) for n, i in enumerate(around) for k in around[n + 1 :]
        ]
        return _rows(found, 3)

    @cached_property
    def dihedrals(self) -> np.ndarray:
        """All proper dihedrals i-j-k-l along bonds with j < k, shape (nd, 4), sorted by (j, k, i, l)."""
        found = [
            (i, j, k, l)
            for j, k in self.bonds.tolist()
            for i in self.neighbours[j]
            for l in self.neighbours[k]
            if i != k and l != j and i != l
        ]
        return _rows(found, 4)

    @cached_property
    def impropers(self) -> np.ndarray:
        """Torsions (a, b, c, d) that hold the handedness of branches, shape (ni, 4).

        Around a bead c with neighbours b < a < d ...: b is the first neighbour and the axis b-c; each further
        neighbour d is turned against the second one, a. Empty for linear chains.
        """
        found = [
            (around[1], around[0], centre, further)
            for centre, around in enumerate(self.neighbours)
            for further in around[2:]
        ]
        return _rows(found, 4)

    def phi_psi_indices(self) -> np.ndarray | None:
        """Beads of the backbone torsions φ and ψ, shape (2, 4), or None.

        Of the chain C-N-CA-C-N: φ = C-N-CA-C and ψ = N-CA-C-N, with IUPAC's sign as in `evaluate.free_energy.dihedral`.
        None where the topology holds no such chain of bonded beads, or more than one (no single φ/ψ pair describes it).
        """
        paths = [[i] for i, name in enumerate(self.names) if name == _BACKBONE[0]]
        for name in _BACKBONE[1:]:
            paths = [[*p, j] for p in paths for j in self.neighbours[p[-1]] if self.names[j] == name and j not in p]
        if len(paths) != 1:
            return None
        (path,) = paths
        return np.array([path[:4], path[1:]], dtype=np.int64)

    def to_mdtraj(self) -> mdtraj.Topology:
        """The same beads as an `mdtraj.Topology` (beads without an element become virtual sites)."""
        import mdtraj

        topology = mdtraj.Topology()
        atoms: list[Any] = []
        chains: dict[int, Any] = {}
        residue: Any = None
        last: tuple[int, int] | None = None
        for i, name in enumerate(self.names):
            chain_id, residue_id = int(self.chain_index[i]), int(self.residue_index[i])
            if (chain_id, residue_id) != last:  # MDTraj keeps a residue's atoms together: a new one keeps our order
                if chain_id not in chains:
                    chains[chain_id] = topology.add_chain()
                residue = topology.add_residue(self.residue_names[i], chains[chain_id], resSeq=residue_id + 1)
                last = (chain_id, residue_id)
            element = mdtraj.element.get_by_symbol(self.elements[i]) if self.elements[i] else mdtraj.element.virtual
            atoms.append(topology.add_atom(name, element, residue))
        for i, j in self.bonds.tolist():
            topology.add_bond(atoms[i], atoms[j])
        return topology

    def to_json(self) -> str:
        """The topology as JSON text; `from_json` gives it back exactly."""
        return json.dumps(self._dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> BeadTopology:
        """Read what `to_json` wrote.

        Raises
        ------
        MappingError
            Text that is no bead topology.
        """
        try:
            content = json.loads(text)
            return cls(**{key: content[key] for key in _FIELDS})
        except (ValueError, KeyError, TypeError) as error:
            raise MappingError(f"this is no bead topology: {error}") from error

    def _dict(self) -> dict[str, Any]:
        values = {key: getattr(self, key) for key in _FIELDS}
        return {key: value.tolist() if isinstance(value, np.ndarray) else list(value) for key, value in values.items()}

    def __eq__(self, other: object) -> bool:
        return self._dict() == other._dict() if isinstance(other, BeadTopology) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.names, self.masses.tobytes(), self.bonds.tobytes()))


_FIELDS = ("names", "masses", "bonds", "elements", "residue_names", "residue_index", "chain_index")


def backbone_topology() -> BeadTopology:
    """Five beads C-N-CA-C-N of capped alanine (ACE-ALA-NME), as the preset `backbone` makes them."""
    return BeadTopology(
        names=_BACKBONE,
        masses=np.array([12.01078, 14.00672, 12.01078, 12.01078, 14.00672]),
        bonds=np.array([[0, 1], [1, 2], [2, 3], [3, 4]]),
        elements=("C", "N", "C", "C", "N"),
        residue_names=("ACE", "ALA", "ALA", "ALA", "NME"),
        residue_index=np.array([0, 1, 1, 1, 2]),
    )


def bond_graph(n: int, bonds: np.ndarray) -> csr_array:
    """Bonds (nb, 2) between n points as a sparse matrix, for `scipy.sparse.csgraph`."""
    return csr_array((np.ones(len(bonds), dtype=np.int8), (bonds[:, 0], bonds[:, 1])), shape=(n, n))


def _rows(found: Sequence[tuple[int, ...]], width: int) -> np.ndarray:
    rows = np.array(found, dtype=np.int64).reshape(-1, width)
    rows.setflags(write=False)
    return rows


def _some(labels: list[str], most: int = 6) -> str:
    return ", ".join(labels[:most]) + (f", … ({len(labels)} beads)" if len(labels) > most else "")
