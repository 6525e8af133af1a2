"""Molecular clusters: whole molecules one after another, in open space or in a periodic box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.errors import ClusterError
from molflow_sim.systems import cluster_export, cluster_read
from molflow_sim.systems.molecule import Molecule
from molflow_sim.units import AMU_PER_A3

if TYPE_CHECKING:
    import mdtraj
    from ase import Atoms
    from openmm import app

    from molflow_sim.systems.crystal import MolecularCrystal


@dataclass(frozen=True, eq=False)
class MolecularCluster:
    """A number of molecules, of one or several species.

    Attributes
    ----------
    species : tuple of Molecule
        The distinct molecules: bond graphs and charges; their conformers are not used.
    order : ndarray (n_molecules,) of int
        Species of every molecule, in the order in which their atoms stand.
    positions : ndarray (N, 3)
        Å; whole molecules, one after another, atoms in the order of their `Molecule`.
    cell : ndarray (3, 3) or None
        Rows of a periodic box in Å; None in open space.
    info : mapping
        Free notes: name, source, ...

    Raises
    ------
    ClusterError
        If shapes or counts do not match, numbers are not finite, or the box has no volume.
    """

    species: tuple[Molecule, ...]
    order: np.ndarray
    positions: np.ndarray
    cell: np.ndarray | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        species = tuple(self.species)
        order, positions = np.array(self.order), np.array(self.positions, dtype=float)
        if order.ndim != 1 or not len(order) or not np.issubdtype(order.dtype, np.integer):
            raise ClusterError("the order must be a list of species numbers, one for each of at least one molecule")
        if order.min() < 0 or order.max() >= len(species):
            raise ClusterError(f"the order names species {order.max()}; there are {len(species)}, numbered from 0")
        atoms = int(sum(species[s].n_atoms for s in order))
        if positions.shape != (atoms, 3):
            raise ClusterError(
                f"{len(order)} molecules have {atoms} atoms, so positions must be ({atoms}, 3), not {positions.shape}"
            )
        if not np.isfinite(positions).all():
            raise ClusterError("the positions contain NaN or infinite coordinates")
        object.__setattr__(self, "species", species)
        object.__setattr__(self, "order", order.astype(int))
        object.__setattr__(self, "positions", positions)
        if self.cell is None:
            return
        cell = np.array(self.cell, dtype=float)
        if cell.shape != (3, 3) or not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-3:
            raise ClusterError("the box must be three finite, independent row vectors in Å; None for open space")
        object.__setattr__(self, "cell", cell)

    # ------------------------------------------------------------------ numbers

    @property
    def n_molecules(self) -> int:
        """Number of molecules."""
        return len(self.order)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Atoms of every molecule (n_molecules,)."""
        return np.array([self.species[s].n_atoms for s in self.order])

    @cached_property
    def firsts(self) -> np.ndarray:
        """Index of the first atom of every molecule (n_molecules,)."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]])

    @cached_property
    def numbers(self) -> np.ndarray:
        """Atomic numbers (N,)."""
        return np.concatenate([self.species[s].numbers for s in self.order])

    @cached_property
    def molecule_index(self) -> np.ndarray:
        """Molecule of every atom (N,)."""
        return np.repeat(np.arange(self.n_molecules), self.sizes)

    @cached_property
    def masses(self) -> np.ndarray:
        """Atomic masses (N,) in amu."""
        return np.concatenate([self.species[s].masses for s in self.order])

    @cached_property
    def bonds(self) -> np.ndarray:
        """Bonded pairs of atoms (nb, 2)."""
        return np.concatenate([self.species[s].bonds + first for s, first in zip(self.order, self.firsts)])

    @cached_property
    def centres(self) -> np.ndarray:
        """Centres of mass of the molecules (n_molecules, 3) in Å."""
        weighted = np.add.reduceat(self.masses[:, None] * self.positions, self.firsts)
        return weighted / np.add.reduceat(self.masses, self.firsts)[:, None]

    @property
    def density(self) -> float:
        """Density of a periodic box in g/cm³.

        Raises
        ------
        ClusterError
            In open space, where there is none.
        """
        if self.cell is None:
            raise ClusterError("a cluster in open space has no density; give it a box: replace(cluster, cell=...)")
        return float(self.masses.sum() / abs(np.linalg.det(self.cell)) * AMU_PER_A3)

    @cached_property
    def formula(self) -> str:
        """Molecules and how many there are, e.g. ``(C6H6)17`` or ``(C2H5NO)10(H2O)5``."""
        counts = np.bincount(self.order, minlength=len(self.species))
        return "".join(f"({m.formula}){c}" for m, c in zip(self.species, counts) if c)

    # ------------------------------------------------------------------ changed

    def with_positions(self, positions: np.ndarray, cell: np.ndarray | None = None) -> MolecularCluster:
        """The same molecules at other positions (N, 3) in Å, in another box if one is given."""
        return replace(self, positions=positions, cell=self.cell if cell is None else cell)

    def with_info(self, **notes: Any) -> MolecularCluster:
        """The same cluster with entries added to `info`."""
        return replace(self, info={**self.info, **notes})

    # ------------------------------------------------------------------ in and out

    @classmethod
    def from_crystal(cls, crystal: MolecularCrystal, n: int = 17, *, centre: int = 0) -> MolecularCluster:
        """A molecule of a crystal and the n - 1 nearest to it, the nearest first, in open space.

        Parameters
        ----------
        crystal : MolecularCrystal
        n : int
            Molecules in all. Near means a small distance between centres of mass.
        centre : int
            Which molecule of the asymmetric unit is in the middle.

        Raises
        ------
        ClusterError
            `n` is below 1, or there is no such molecule.
        """
        return cls(**cluster_read.from_crystal(crystal, n, centre))

    @classmethod
    def from_atoms(cls, atoms: Atoms, *, molecules: Sequence[Molecule] | None = None) -> MolecularCluster:
        """Recognise the molecules of ASE atoms, from distances; periodic atoms in all directions make a periodic box.

        Molecules come in the order of their first atoms; ``arrays["molecule"]``, where the atoms have it, tells them
        apart even if they overlap. Atoms that stand in the order of their molecule stay there, others are put into it.

        Parameters
        ----------
        atoms : ase.Atoms
        molecules : sequence of Molecule, optional
            Species to recognise, so that their atom order is kept; any other is then refused.

        Raises
        ------
        ClusterError
            Atoms periodic in one or two directions, no atoms, or a molecule that is not supported (an ion, a radical).
        CrystalError
            As `MolecularCrystal.from_ase`: overlapping atoms, missing hydrogens, endless networks.
        """
        return cls(**cluster_read.from_atoms(atoms, molecules))

    def to_ase(self) -> Atoms:
        """ASE atoms; ``arrays["molecule"]``, ``info`` with SMILES and the plain notes."""
        return cluster_export.to_ase(self)

    def to_mdtraj(self) -> mdtraj.Trajectory:
        """One frame of MDTraj, with topology and box; lengths in nm."""
        return cluster_export.to_mdtraj(self)

    def to_openmm_topology(self) -> app.Topology:
        """OpenMM topology: one chain, a residue for each molecule, bonds with their orders, the box."""
        return cluster_export.to_openmm_topology(self)

    def to_csv(self) -> str:
        """Text as in COD-Cluster17: a header, then a line for every atom.

        Columns: ``mol_idx`` (from 0), ``atom_type`` (element symbol), ``x``, ``y``, ``z`` in Å. The format has no box.
        """
        return cluster_export.to_csv(self)

    @classmethod
    def from_csv(cls, source: str | Path, *, molecules: Sequence[Molecule] | None = None) -> MolecularCluster:
        """Read a file, or text, of COD-Cluster17's format (`to_csv`).

        Species are recognised as in `from_atoms`; ``mol_idx`` tells molecules apart, even if they overlap.

        Raises
        ------
        ClusterError
            A file that cannot be read or is not of that format; else as `from_atoms`.
        """
        return cls(**cluster_read.from_csv(source, molecules))

    def __repr__(self) -> str:
        where = "open" if self.cell is None else f"box, {self.density:.3f} g/cm³"
        return f"MolecularCluster({self.formula}, {len(self.positions)} atoms, {where})"
