"""Linear, orthogonal maps from atoms to beads.

A bead is one atom or the centre of mass of a group, and no atom belongs to two beads: the condition under which the
density of the beads determines a potential of mean force simply (Noid et al., J. Chem. Phys. 128, 244114 (2008)).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.cg.peptides import backbone_atoms, bonded_pairs, calpha_atoms, with_bonds
from molflow_sim.coarse.contraction import contracted_bonds
from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.errors import MappingError

if TYPE_CHECKING:
    import mdtraj

Bonds = Sequence[tuple[int, int]] | np.ndarray
PRESETS = {"backbone": backbone_atoms, "calpha": calpha_atoms}
"""Atoms of peptides, one bead each: N, CA and C with the C and N of caps (C-N-CA-C-N for capped alanine), or CA."""


@dataclass(frozen=True, eq=False)
class BeadMapping:
    """A map r = Ξ R from N atoms to B beads.

    Parameters
    ----------
    topology : BeadTopology
        The beads, bonded as one tree.
    weights : ndarray, shape (B, N)
        Ξ: the share of each atom in each bead; rows add up to 1.

    Raises
    ------
    MappingError
        A shape that does not fit, a row that does not add up to 1, an atom in two beads (it is named), or beads that
        do not form one tree (which beads are apart or on a ring is said).
    """

    topology: BeadTopology
    weights: np.ndarray

    def __post_init__(self) -> None:
        weights = np.array(self.weights, dtype=np.float64)
        if weights.ndim != 2 or len(weights) != self.topology.n_beads:
            raise MappingError(f"weights of shape {weights.shape} for {self.topology.n_beads} beads")
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise MappingError("weights must be finite and not negative")
        shared = np.flatnonzero((weights > 0).sum(axis=0) > 1)
        if len(shared):
            beads = ", ".join(self.topology.label(int(b)) for b in np.flatnonzero(weights[:, shared[0]]))
            raise MappingError(f"the map is not orthogonal: atom {shared[0]} belongs to several beads ({beads})")
        wrong = np.flatnonzero(~np.isclose(weights.sum(axis=1), 1.0, rtol=0, atol=1e-9))
        if len(wrong):
            raise MappingError(f"the weights of bead {wrong[0]} add up to {weights[wrong[0]].sum():.6g}, not 1")
        if self.topology.n_beads < 2:
            raise MappingError("one bead has no internal motion to model: select at least two")
        self.topology.require_tree()
        weights.setflags(write=False)
        object.__setattr__(self, "weights", weights)

    @property
    def n_atoms(self) -> int:
        """Number of atoms of the fine system, N."""
        return self.weights.shape[1]

    @property
    def atoms(self) -> np.ndarray:
        """Indices of the atoms that belong to a bead, ascending."""
        return np.flatnonzero(self.weights.any(axis=0))

    def apply(self, positions: np.ndarray) -> np.ndarray:
        """Bead positions Ξ R.

        Parameters
        ----------
        positions : ndarray, shape (F, N, 3)
            Any unit of length; the molecule whole.

        Returns
        -------
        ndarray, shape (F, B, 3)
            Same unit and precision.

        Raises
        ------
        MappingError
            Another number of atoms than the map's.
        """
        return self._summed(self.weights, positions)

    def apply_forces(self, forces: np.ndarray) -> np.ndarray:
        """Mapped forces: the sum over the atoms of each bead.

        An unbiased choice for this kind of map where no constraint joins an atom of a bead to one outside it (Ciccotti,
        Kapral and Vanden-Eijnden, ChemPhysChem 6, 1809 (2005)); with such constraints (bonds to hydrogen) it is
        the usual approximation.

        Parameters
        ----------
        forces : ndarray, shape (F, N, 3)

        Returns
        -------
        ndarray, shape (F, B, 3)

        Raises
        ------
        MappingError
            Another number of atoms than the map's.
        """
        return self._summed(self.weights > 0, forces)

    def _summed(self, shares: np.ndarray, values: np.ndarray) -> np.ndarray:
        values, atoms = np.asarray(values), self.atoms
        if values.ndim != 3 or values.shape[1:] != (self.n_atoms, 3):
            raise MappingError(f"an array of shape {values.shape} for a map of {self.n_atoms} atoms")
        return np.matmul(shares[:, atoms].astype(values.dtype), values[:, atoms])

    @classmethod
    def from_selection(cls, topology: mdtraj.Topology, selection: str, bonds: Bonds | None = None) -> BeadMapping:
        """A bead per atom of an MDTraj selection, in the topology's order.

        Parameters
        ----------
        topology : mdtraj.Topology
            The atoms.
        selection : str
            In MDTraj's language, such as ``name CA``.
        bonds : sequence of pairs of bead indices, optional
            Default: as in `from_indices`.

        Raises
        ------
        MappingError
            A selection that cannot be parsed or selects nothing, or as in the class.
        """
        try:
            atoms = topology.select(selection)
        except Exception as error:  # the parser of selections raises many kinds
            raise MappingError(f"the selection {selection!r} cannot be read: {one_line(error)}") from error
        if not len(atoms):
            raise MappingError(f"the selection {selection!r} selects no atom of {topology.n_atoms}")
        return cls.from_indices(topology, atoms, bonds)

    @classmethod
    def from_indices(cls, topology: mdtraj.Topology, atoms: Iterable[int], bonds: Bonds | None = None) -> BeadMapping:
        """A bead per atom, in the order given.

        Parameters
        ----------
        topology : mdtraj.Topology
            The atoms.
        atoms : iterable of int
            Atom indices from 0.
        bonds : sequence of pairs of bead indices, optional
            Default: beads are bonded where their atoms are, and parts still apart are joined along the shortest paths
            of bonds through atoms that are not selected (so successive Cα of a chain are bonded).

        Raises
        ------
        MappingError
            An index out of range or given twice, an atom without mass, or as in the class.
        """
        return cls._from_groups(topology, [[i] for i in _indices(topology, atoms)], bonds)

    @classmethod
    def groups(
        cls, topology: mdtraj.Topology, groups: Sequence[Iterable[int]], bonds: Bonds | None = None
    ) -> BeadMapping:
        """A bead at the centre of mass of each group of atoms.

        Parameters
        ----------
        topology : mdtraj.Topology
            The atoms.
        groups : sequence of iterables of int
            Atom indices of each bead.
        bonds : sequence of pairs of bead indices, optional
            Default: groups are bonded where atoms of theirs are, then as in `from_indices`.

        Raises
        ------
        MappingError
            An empty group, an atom in two groups, or as in `from_indices`.
        """
        return cls._from_groups(topology, [_indices(topology, g) for g in groups], bonds)

    @classmethod
    def _from_groups(cls, topology: Any, groups: list[list[int]], bonds: Bonds | None) -> BeadMapping:
        if not groups or not all(groups):
            raise MappingError("a bead without atoms" if groups else "the mapping has no beads")
        members = [i for group in groups for i in group]
        if len(set(members)) != len(members):
            twice = next(i for i in members if members.count(i) > 1)
            raise MappingError(f"the map is not orthogonal: atom {twice} belongs to several beads")
        atoms = list(topology.atoms)
        mass = np.array([0.0 if a.element is None else float(a.element.mass) for a in atoms])
        for i in members:
            if not mass[i] > 0:
                raise MappingError(f"atom {i} ({atoms[i]}) has no element and so no mass: leave it out of the beads")
        if bonds is None:
            owner = np.full(len(atoms), -1, dtype=np.int64)
            for b, group in enumerate(groups):
                owner[group] = b
            pairs = bonded_pairs(with_bonds(topology))
            if not len(pairs) and len(groups) > 1:
                raise MappingError(
                    "the topology holds no bonds, so beads cannot be bonded: use a topology with bonds (a PDB with "
                    "CONECT records, PSF, prmtop), or give the bonds between the beads"
                )
            bonds = contracted_bonds(owner, len(groups), pairs)
        weights = np.zeros((len(groups), len(atoms)))
        for b, group in enumerate(groups):
            weights[b, group] = mass[group] / mass[group].sum()
        first = [atoms[group[0]] for group in groups]
        residues = list(dict.fromkeys(a.residue.index for a in first))
        residues.sort()
        beads = BeadTopology(
            names=tuple(a.name if len(g) == 1 else f"{a.name}+{len(g) - 1}" for a, g in zip(first, groups)),
            masses=np.array([mass[group].sum() for group in groups]),
            bonds=np.asarray(bonds, dtype=np.int64).reshape(-1, 2),
            elements=tuple(a.element.symbol if len(g) == 1 else "" for a, g in zip(first, groups)),
            residue_names=tuple(a.residue.name for a in first),
            residue_index=np.array([residues.index(a.residue.index) for a in first]),
            chain_index=np.array([a.residue.chain.index for a in first]),
        )
        beads.require_tree(_breaks([a.residue for a in first], beads.components))
        return cls(beads, weights)


def parse_beads(topology: mdtraj.Topology, text: str) -> BeadMapping:
    """The mapping that a text such as the command line's ``--beads`` asks for.

    Parameters
    ----------
    topology : mdtraj.Topology
        The atoms.
    text : str
        ``backbone`` or ``calpha``; atom indices from 0 (``4,6,8,14,16``); groups of atom indices, one bead each
        (``0,1,2; 3,4,5``); or a selection in MDTraj's language (``name CA``).

    Returns
    -------
    BeadMapping

    Raises
    ------
    MappingError
        As `BeadMapping`.
    """
    plain = text.strip()
    if not plain:
        raise MappingError(f"no beads are asked for: give a preset ({', '.join(PRESETS)}), a selection or indices")
    if plain in PRESETS:
        atoms = PRESETS[plain](topology)
        if not atoms:
            raise MappingError(f"no residue with atoms N, CA and C: the preset {plain!r} is for peptides")
        return BeadMapping.from_indices(topology, atoms)
    if re.fullmatch(r"[\d\s,;\[\]()]+", plain):
        groups = [[int(n) for n in re.findall(r"\d+", part)] for part in plain.split(";")]
        if len(groups) == 1:
            return BeadMapping.from_indices(topology, groups[0])
        return BeadMapping.groups(topology, [g for g in groups if g])
    return BeadMapping.from_selection(topology, plain)


def _breaks(residues: list[Any], parts: Sequence[Sequence[int]]) -> str:
    """Where a chain of residues goes on in another part of the beads, and whether residues are missing there."""
    part = {bead: n for n, beads in enumerate(parts) for bead in beads}
    order = sorted(part, key=lambda bead: residues[bead].index)
    found = []
    for a, b in pairwise(order):
        first, last = residues[a], residues[b]
        if part[a] != part[b] and first.chain.index == last.chain.index and first.index != last.index:
            between = list(first.chain.residues)
            between = between[between.index(first) : between.index(last) + 1]
            gaps = [(r.resSeq, s.resSeq) for r, s in pairwise(between) if s.resSeq > r.resSeq + 1]
            found += [f"residues missing between {r} and {s}" for r, s in gaps] or [f"{first} and {last} not bonded"]
    return "; ".join(found[:3])


def _indices(topology: Any, atoms: Iterable[int]) -> list[int]:
    given = list(atoms)
    indices = [int(i) for i in given]
    if any(i != g for i, g in zip(indices, given)):
        raise MappingError("atom indices must be whole numbers")
    wrong = [i for i in indices if not 0 <= i < topology.n_atoms]
    if wrong:
        raise MappingError(f"atom {wrong[0]} is not there: the topology has atoms 0 to {topology.n_atoms - 1}")
    return indices


def one_line(error: Exception) -> str:
    """The start of an error's text, or its name."""
    return " ".join(str(error).split())[:200] or type(error).__name__
