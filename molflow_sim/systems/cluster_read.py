"""Clusters in: cut out of a crystal, recognised among atoms, read from COD-Cluster17's files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.chemistry.bonds import perceive_bonds
from molflow_sim.errors import ClusterError
from molflow_sim.systems.assembly import connected, heavy_hydrogen
from molflow_sim.systems.cluster_export import CSV_HEADER
from molflow_sim.systems.molecule import Molecule
from molflow_sim.systems.species import SpeciesTable

if TYPE_CHECKING:
    from ase import Atoms

    from molflow_sim.systems.crystal import MolecularCrystal


def from_crystal(crystal: MolecularCrystal, n: int, centre: int) -> dict[str, Any]:
    """What a `MolecularCluster` is made of, see `MolecularCluster.from_crystal`."""
    if n < 1 or not 0 <= centre < len(crystal.asymmetric_unit):
        raise ClusterError(
            f"{n} molecules around molecule {centre}: n must be at least 1, and the asymmetric unit has "
            f"{len(crystal.asymmetric_unit)} molecules, numbered from 0"
        )
    copies: list[tuple[int, np.ndarray]] = []
    first = 0
    for k, rigid in enumerate(crystal.asymmetric_unit):
        if k == centre:
            first = len(copies)
        copies += [(rigid.species, x) for x in crystal.copies(k)]
    masses = [crystal.molecules[s].masses for s, _ in copies]
    centres = np.array([m @ x / m.sum() for m, (_, x) in zip(masses, copies)])
    which, shifts = nearest_molecules(centres, crystal.cell, first, n)
    positions = [copies[c][1] + shift @ crystal.cell - centres[first] for c, shift in zip(which, shifts)]
    return {
        "species": crystal.molecules,
        "order": np.array([copies[c][0] for c in which]),
        "positions": np.concatenate(positions),
        "info": dict(crystal.info),
    }


def nearest_molecules(centres: np.ndarray, cell: np.ndarray, first: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n molecules of a crystal nearest to one of them, itself included, the nearest first.

    Parameters
    ----------
    centres : ndarray (z, 3)
        Å, centres of the molecules of the cell, in any images.
    cell : ndarray (3, 3)
        Rows in Å.
    first, n : int
        The molecule in the middle, and how many in all.

    Returns
    -------
    which : ndarray (n,) of int
        Molecules of the cell.
    shifts : ndarray (n, 3) of int
        Their lattice translations.
    """
    inverse = np.linalg.inv(cell)
    # molecules moved next to the middle one, then a block of cells that holds a sphere with more than n centres
    home = -np.rint((centres - centres[first]) @ inverse)
    reach = 1.5 * (0.75 * (n + 1) * abs(np.linalg.det(cell)) / (len(centres) * np.pi)) ** (1 / 3)
    while True:
        counts = np.ceil(reach * np.linalg.norm(inverse, axis=0) + 0.5).astype(int)
        block = np.array(list(product(*(range(-c, c + 1) for c in counts))))
        gaps = centres[:, None] + (home[:, None] + block) @ cell - centres[first]
        distances = np.linalg.norm(gaps, axis=-1)
        if np.sum(distances < reach) >= n:
            break
        reach *= 1.3
    # rounded, so that equal distances are in the order of the copies and cells on every machine
    chosen = np.argsort(np.round(distances, 6).ravel(), kind="stable")[:n]
    which, where = np.unravel_index(chosen, distances.shape)
    return which, home[which] + block[where]


def recognise(
    atoms: Atoms, molecules: Sequence[Molecule] | None = None
) -> tuple[tuple[Molecule, ...], list[int], np.ndarray, np.ndarray]:
    """The molecules of atoms, see `MolecularCluster.from_atoms`.

    Returns
    -------
    species : tuple of Molecule
    order : list of int
        Species of every molecule.
    index : ndarray (N,) of int
        Atoms in the order of a cluster.
    positions : ndarray (N, 3)
        Å, of whole molecules, in the order of `atoms`.
    """
    numbers, positions = atoms.numbers, atoms.get_positions()
    if not len(numbers) or not np.isfinite(positions).all():
        raise ClusterError("a cluster needs atoms with finite positions")
    if atoms.pbc.any() != atoms.pbc.all():
        raise ClusterError("the atoms are periodic in some directions only; set atoms.pbc to True or False")
    cell = _box(atoms)
    what = str(atoms.info.get("name", "cluster"))
    labels = [f"{symbol}{k + 1}" for k, symbol in enumerate(atoms.get_chemical_symbols())]
    bonds, shifts = _bonds(atoms, cell, labels)
    component, lattice = connected(len(numbers), bonds, shifts, labels, what)
    whole = positions if cell is None else positions + lattice @ cell
    isotopes = heavy_hydrogen(numbers, atoms.get_masses())
    table = SpeciesTable(molecules, what)
    order, sorted_atoms = [], []
    by_component = bonds[np.argsort(component[bonds[:, 0]], kind="stable")]
    ends = np.cumsum(np.bincount(component[bonds[:, 0]], minlength=component.max() + 1))
    for c in range(component.max() + 1):
        members = np.flatnonzero(component == c)
        local = np.searchsorted(members, by_component[ends[c - 1] if c else 0 : ends[c]])
        own = numbers[members], whole[members], local
        species: int | None = table.in_order(*own, isotopes[members])
        if species is None:
            species, new = table.identify(*own, [labels[a] for a in members], isotopes[members])
            members = members[new]
        order.append(species)
        sorted_atoms.append(members)
    return tuple(table.molecules), order, np.concatenate(sorted_atoms), whole


def _bonds(atoms: Atoms, cell: np.ndarray | None, labels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Bonds (nb, 2) and shifts (nb, 3); where ``arrays["molecule"]`` tells molecules apart, none between them.

    A generated cluster may have molecules upon each other, which the relaxation moves apart.
    """
    if not atoms.has("molecule"):
        return perceive_bonds(atoms.numbers, atoms.get_positions(), cell, labels)
    told = atoms.arrays["molecule"]
    found = []
    for name in np.unique(told):
        own = np.flatnonzero(told == name)
        bonds, shifts = perceive_bonds(atoms.numbers[own], atoms.positions[own], cell, [labels[k] for k in own])
        found.append((own[bonds].reshape(-1, 2), shifts))
    return np.concatenate([b for b, _ in found]), np.concatenate([s for _, s in found])


def from_atoms(atoms: Atoms, molecules: Sequence[Molecule] | None) -> dict[str, Any]:
    """What a `MolecularCluster` is made of, see `MolecularCluster.from_atoms`."""
    species, order, index, whole = recognise(atoms, molecules)
    info = {k: v for k, v in atoms.info.items() if isinstance(v, (str, int, float, bool))}
    return {
        "species": species, "order": np.array(order), "positions": whole[index], "cell": _box(atoms), "info": info,
    }  # fmt: skip


def _box(atoms: Atoms) -> np.ndarray | None:
    return np.array(atoms.cell.array) if atoms.pbc.all() else None


def from_csv(source: str | Path, molecules: Sequence[Molecule] | None) -> dict[str, Any]:
    """What a `MolecularCluster` is made of, see `MolecularCluster.from_csv`."""
    from ase import Atoms

    if isinstance(source, Path) or "\n" not in source:
        try:
            source = Path(source).read_text(encoding="utf-8-sig", errors="replace")
        except OSError as error:
            raise ClusterError(f"cannot read {str(source)[:200]}: {error.strerror}") from error
    header, *rows = [row for row in csv.reader(io.StringIO(source)) if row] or [[]]
    try:
        if [name.strip() for name in header[:5]] != CSV_HEADER.split(","):
            raise ValueError(f"the first line is {','.join(header)[:60]!r}")
        atoms = Atoms([row[1].strip() for row in rows], positions=[[float(x) for x in row[2:5]] for row in rows])
        atoms.set_array("molecule", np.array([row[0].strip() for row in rows]))
    except (ValueError, IndexError, KeyError) as error:
        raise ClusterError(f"not a cluster (a header, then lines '{CSV_HEADER}'): {error}") from error
    return from_atoms(atoms, molecules)
