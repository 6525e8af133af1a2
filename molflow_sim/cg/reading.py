"""Trajectories read by MDTraj, checked, made whole and mapped to beads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse.csgraph import connected_components

from molflow_sim.cg.mapping import BeadMapping, one_line, parse_beads
from molflow_sim.cg.peptides import bonded_pairs, with_bonds
from molflow_sim.cg.whole import LONGEST_ATOM_BOND, LONGEST_LINK, bond_lengths, check_bonds, make_whole
from molflow_sim.coarse.topology import bond_graph
from molflow_sim.errors import MappingError, TrajectoryError

if TYPE_CHECKING:
    import mdtraj

_ATOMS_AT_ONCE = 5_000_000


def mapped_trajectory(
    paths: list[Path], topology: str | Path | mdtraj.Topology | None, beads: str | BeadMapping, stride: int = 1
) -> tuple[list[np.ndarray], BeadMapping]:
    """Bead positions of each trajectory; see `frames.read_frames` for the arguments and errors.

    Returns
    -------
    positions : list of ndarray, shape (F, B, 3)
        Å, float32, one array per trajectory.
    mapping : BeadMapping
        The map that was used.
    """
    if stride < 1:
        raise TrajectoryError(f"a stride of {stride}: it must be 1 or more")
    if not paths:
        raise TrajectoryError("no trajectory is given")
    for path in paths:
        if not path.is_file():
            raise TrajectoryError(f"{path}: no such file")
    atoms = load_topology(paths[0] if topology is None else topology)
    if isinstance(beads, BeadMapping) and beads.n_atoms != atoms.n_atoms:
        raise MappingError(f"a map of {beads.n_atoms} atoms for a topology of {atoms.n_atoms}")
    for _, xyz, cell in _chunks(paths[0], atoms, np.arange(atoms.n_atoms), stride, 1):
        whole, atoms = atoms, without_loose_links(atoms, xyz, cell)
        if isinstance(beads, BeadMapping) and atoms is not whole:  # may have been made with the bonds that are none
            BeadMapping.groups(atoms, [np.flatnonzero(row) for row in beads.weights])
        break
    mapping = beads if isinstance(beads, BeadMapping) else parse_beads(atoms, beads)
    members, bonds, real = _molecule(atoms, mapping)
    narrow = BeadMapping(mapping.topology, mapping.weights[:, members])
    # A multiple of the stride: MDTraj starts each chunk of an HDF5 file anew.
    chunk = max(_ATOMS_AT_ONCE // max(atoms.n_atoms, 1) // stride, 1) * stride
    positions = []
    for path in paths:
        parts = [
            _mapped(path, first, stride, xyz, cell, bonds, real, narrow)
            for first, xyz, cell in _chunks(path, atoms, members, stride, chunk)
        ]
        if not parts:
            raise TrajectoryError(f"{path}: no frames")
        beads_of_path = np.concatenate(parts)
        try:
            check_bonds(beads_of_path, mapping.topology)
        except TrajectoryError as error:
            raise TrajectoryError(f"{path} (every {stride}. frame): {error}") from None
        positions.append(beads_of_path)
    return positions, mapping


def load_topology(source: str | Path | mdtraj.Topology) -> mdtraj.Topology:
    """Read the atoms and bonds of a file that MDTraj knows, with bonds by the residues' names where it holds none.

    Raises
    ------
    TrajectoryError
        No such file, or one that holds no topology.
    """
    import mdtraj

    if isinstance(source, mdtraj.Topology):
        topology = source
    else:
        path = Path(source)
        if not path.is_file():
            raise TrajectoryError(f"{path}: no such file")
        try:
            topology = mdtraj.load_topology(str(path))
        except Exception as error:  # each format raises its own kinds
            raise TrajectoryError(
                f"{path}: no topology can be read from it ({one_line(error)}); give a file with the atoms (PDB)"
            ) from error
    return with_bonds(topology)


def without_loose_links(topology: Any, xyz: np.ndarray, cell: np.ndarray | None) -> Any:
    """The topology, or a copy without the bonds between successive residues that a frame shows to be none.

    Programs bond the residues of a chain in the order of the file, across residues that are missing and from one
    molecule to the next where no chain break is written. Where the residues themselves are distorted as well, as those
    of a molecule cut by its box or of atoms in another order, nothing is taken away.

    Parameters
    ----------
    topology : mdtraj.Topology
        N atoms.
    xyz : ndarray, shape (1, N, 3)
        Å.
    cell : ndarray, shape (1, 3, 3), or None
        Box vectors in rows, Å.
    """
    pairs = bonded_pairs(topology)
    residue = np.array([a.residue.index for a in topology.atoms])[pairs]
    chain = np.array([a.residue.chain.index for a in topology.atoms])[pairs]
    step = xyz[0, pairs[:, 1]] - xyz[0, pairs[:, 0]]
    if cell is not None:
        step -= np.rint(step @ np.linalg.inv(cell[0])) @ cell[0]
    length = np.linalg.norm(step, axis=-1)
    link = (chain[:, 0] == chain[:, 1]) & (np.abs(residue[:, 1] - residue[:, 0]) == 1)
    distorted = residue[~link & (length > LONGEST_ATOM_BOND)]
    loose = link & (length > LONGEST_LINK) & ~np.isin(residue, distorted).any(axis=1)
    if not loose.any():
        return topology
    kept = topology.copy()
    kept._bonds = [bond for bond, gone in zip(kept._bonds, loose.tolist()) if not gone]  # MDTraj has no other way
    return kept


def _molecule(topology: Any, mapping: BeadMapping) -> tuple[np.ndarray, np.ndarray, bool]:
    """Atoms of the molecule that the beads belong to, bonds that hold it together, and whether these are real ones."""
    pairs = bonded_pairs(topology)
    part = connected_components(bond_graph(topology.n_atoms, pairs), directed=False)[1]
    if len(np.unique(part[mapping.atoms])) == 1:
        members = np.flatnonzero(part == part[mapping.atoms[0]])
        return members, np.searchsorted(members, pairs[np.isin(pairs[:, 0], members)]), True
    # The topology does not bond these atoms: hold each bead together, and the beads by their own bonds.
    members = mapping.atoms
    groups = [np.flatnonzero(row) for row in mapping.weights[:, members]]
    held = [(g[0], i) for g in groups for i in g[1:]]
    held += [(groups[a][0], groups[b][0]) for a, b in mapping.topology.bonds]
    return members, np.array(held, dtype=np.int64).reshape(-1, 2), False


def _chunks(
    path: Path, topology: Any, members: np.ndarray, stride: int, chunk: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """First frame (counted after striding), positions (F, n, 3) and box (F, 3, 3) or None in Å, a part at a time."""
    import mdtraj

    first = 0
    try:
        for part in mdtraj.iterload(str(path), top=topology, chunk=chunk, stride=stride):
            if part.n_atoms != topology.n_atoms:
                raise ValueError(f"{part.n_atoms} atoms")
            if not part.n_frames:
                continue
            cell = part.unitcell_vectors
            if cell is not None:
                cell = 10.0 * cell.astype(np.float64)
                if not (np.isfinite(cell).all() and (np.abs(np.linalg.det(cell)) > 1e-3).all()):
                    cell = None
            yield first, 10.0 * part.xyz[:, members].astype(np.float64), cell
            first += part.n_frames
    except TrajectoryError:
        raise
    except Exception as error:  # each format raises its own kinds
        raise TrajectoryError(
            f"{path}: cannot be read with this topology of {topology.n_atoms} atoms: {one_line(error)}"
        ) from error


def _mapped(
    path: Path,
    first: int,
    stride: int,
    xyz: np.ndarray,
    cell: np.ndarray | None,
    bonds: np.ndarray,
    real: bool,
    mapping: BeadMapping,
) -> np.ndarray:
    def number(frame: int) -> int:
        return (first + frame) * stride

    bad = ~np.isfinite(xyz).all(axis=(1, 2))
    if bad.any():
        raise TrajectoryError(f"{path}: frame {number(int(np.argmax(bad)))} holds positions that are not finite")
    if cell is not None:
        xyz = make_whole(xyz, cell, bonds)
    if real and len(bonds):
        longest = bond_lengths(xyz, bonds).max(axis=1)
        if (longest > LONGEST_ATOM_BOND).any():
            frame = int(np.argmax(longest > LONGEST_ATOM_BOND))
            boxed = "even when made whole through its bonds" if cell is not None else "and the file has no box"
            raise TrajectoryError(
                f"{path}: frame {number(frame)}: a bond of the molecule is {longest[frame]:.1f} Å long, {boxed}: "
                "either the molecule is broken across a periodic box (make it whole with the program that wrote it) "
                "or the topology lists the atoms in another order than the trajectory"
            )
    return mapping.apply(xyz).astype(np.float32)
