"""Clusters out: ASE, MDTraj, OpenMM topologies, COD-Cluster17's CSV."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mdtraj
    from ase import Atoms
    from openmm import app

    from molflow_sim.systems.cluster import MolecularCluster

CSV_HEADER = "mol_idx,atom_type,x,y,z"
"""First line of a file of COD-Cluster17."""


def to_ase(cluster: MolecularCluster) -> Atoms:
    """ASE atoms; ``arrays["molecule"]`` numbers the molecules, ``info`` holds ``smiles`` and the plain notes."""
    from ase import Atoms

    atoms = Atoms(cluster.numbers, positions=cluster.positions, cell=cluster.cell, pbc=cluster.cell is not None)
    if any({"D", "T"} & set(m.site_symbols) for m in cluster.species):
        atoms.set_masses(cluster.masses)
    atoms.set_array("molecule", cluster.molecule_index)
    atoms.info.update({k: v for k, v in cluster.info.items() if isinstance(v, (str, int, float, bool))})
    atoms.info["smiles"] = ".".join(m.smiles for m in cluster.species)
    return atoms


def to_openmm_topology(cluster: MolecularCluster) -> app.Topology:
    """One chain, a residue for each molecule (``MOA``, ``MOB``, ... by species), bonds with their orders, the box."""
    from openmm import unit

    from molflow_sim.systems.openmm_topology import openmm_topology

    topology = openmm_topology(cluster.species, cluster.order.tolist())
    if cluster.cell is not None:
        topology.setPeriodicBoxVectors(0.1 * cluster.cell * unit.nanometer)
    return topology


def to_mdtraj(cluster: MolecularCluster) -> mdtraj.Trajectory:
    """One frame, in nm."""
    import mdtraj

    frame = mdtraj.Trajectory(0.1 * cluster.positions[None], mdtraj.Topology.from_openmm(to_openmm_topology(cluster)))
    if cluster.cell is not None:
        frame.unitcell_vectors = 0.1 * cluster.cell[None]
    return frame


def to_csv(cluster: MolecularCluster) -> str:
    """A header and a line for every atom: molecule, element, x, y, z in Å."""
    symbols = np.concatenate([cluster.species[s].symbols for s in cluster.order])
    return csv_text(cluster.molecule_index, symbols, cluster.positions)


def csv_text(molecule: Iterable[int], symbols: Iterable[str], positions: np.ndarray) -> str:
    """Text in the format of COD-Cluster17 from the molecule, the element and the place in Å of every atom."""
    rows = (f"{m},{s},{x:.6f},{y:.6f},{z:.6f}" for m, s, (x, y, z) in zip(molecule, symbols, positions))
    return "\n".join([CSV_HEADER, *rows]) + "\n"
