"""The beads of a coarse-grained molecule as an OpenMM topology, one copy or many."""

from __future__ import annotations

import numpy as np
from openmm import app

from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.errors import InputError


def bead_topology(topology: BeadTopology, replicas: int = 1) -> app.Topology:
    """An `openmm.app.Topology` of the beads.

    Parameters
    ----------
    topology : BeadTopology
        B beads.
    replicas : int
        Copies of the molecule, one after another; each has its own chains.

    Returns
    -------
    openmm.app.Topology
        ``replicas`` × B atoms. Beads that are no single atom have no element (OpenMM allows that).

    Raises
    ------
    InputError
        `replicas` is not a positive integer.
    """
    check_replicas(replicas)
    out = app.Topology()
    elements = [app.Element.getBySymbol(symbol) if symbol else None for symbol in topology.elements]
    for _ in range(replicas):
        chains: dict[int, app.topology.Chain] = {}
        residues: dict[tuple[int, int], app.topology.Residue] = {}
        atoms = []
        for i, name in enumerate(topology.names):
            chain, number = int(topology.chain_index[i]), int(topology.residue_index[i])
            if chain not in chains:
                chains[chain] = out.addChain()
            if (chain, number) not in residues:
                residues[chain, number] = out.addResidue(topology.residue_names[i], chains[chain], str(number + 1))
            atoms.append(out.addAtom(name, elements[i], residues[chain, number]))
        for i, j in topology.bonds.tolist():
            out.addBond(atoms[i], atoms[j])
    return out


def count_replicas(given: app.Topology, beads: BeadTopology, replicas: int) -> int:
    """How many copies of the molecule an OpenMM topology stands for.

    A topology of one molecule stands for `replicas` copies; one of several molecules for itself.

    Raises
    ------
    InputError
        Its atoms are not whole copies of `beads` (number, names and bonds are compared), or not as many as asked for.
    """
    check_replicas(replicas)
    n, size = given.getNumAtoms(), beads.n_beads
    copies = n // size
    if n == 0 or n % size:
        raise InputError(f"the topology has {n} atoms; the force field is for molecules of {size} beads")
    if copies > 1 and replicas not in (1, copies):
        raise InputError(f"the topology holds {copies} copies of the molecule, and replicas={replicas} asks for others")
    for atom in given.atoms():
        expected = atom.index % size
        if atom.name != beads.names[expected]:
            raise InputError(f"atom {atom.index} is called {atom.name}, and should be {beads.label(expected)}")
    found = sorted(sorted((a.index, b.index)) for a, b in given.bonds())
    bonds = (beads.bonds[None] + size * np.arange(copies)[:, None, None]).reshape(-1, 2).tolist()
    if found and found != sorted(bonds):
        raise InputError("the bonds of the topology are not those of the force field's beads")
    return max(copies, replicas)


def check_replicas(replicas: int) -> None:
    """Raise an InputError unless `replicas` is a positive integer."""
    if isinstance(replicas, bool) or not isinstance(replicas, (int, np.integer)) or replicas < 1:
        raise InputError(f"replicas must be a positive integer, not {replicas!r}")
