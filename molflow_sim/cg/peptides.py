"""Backbone atoms of peptides, found by their names in the Protein Data Bank."""

from __future__ import annotations

from typing import Any

import numpy as np


def backbone_atoms(topology: Any) -> list[int]:
    """N, CA and C of each residue that has all three, with the C before and the N after from caps, chain by chain."""
    atoms: list[int] = []
    for chain in topology.chains:
        named = [{a.name: a.index for a in residue.atoms} for residue in chain.residues]
        full = [{"N", "CA", "C"} <= names.keys() for names in named]
        for n, names in enumerate(named):
            if full[n]:
                atoms += [names["N"], names["CA"], names["C"]]
            elif "C" in names and full[n + 1 : n + 2] == [True]:
                atoms.append(names["C"])
            elif "N" in names and n > 0 and full[n - 1]:
                atoms.append(names["N"])
    return atoms


def calpha_atoms(topology: Any) -> list[int]:
    """CA of each residue that also has N and C (so that calcium ions are left out)."""
    named = [{a.name: a.index for a in residue.atoms} for residue in topology.residues]
    return [names["CA"] for names in named if {"N", "CA", "C"} <= names.keys()]


def bonded_pairs(topology: Any) -> np.ndarray:
    """Bonded atoms of an `mdtraj.Topology`, shape (nb, 2)."""
    return np.array([(a.index, b.index) for a, b in topology.bonds], dtype=np.int64).reshape(-1, 2)


def with_bonds(topology: Any) -> Any:
    """The topology, or a copy with the bonds that the names of its residues tell where it has none.

    MDTraj's table knows the standard residues; any other gets its backbone N-CA-C and is bonded from C to N along the
    chain. Such bonds follow from names and order, not from distances: see `reading.without_loose_links`.

    Parameters
    ----------
    topology : mdtraj.Topology
        The atoms.
    """
    made = topology
    if not made.n_bonds:
        made = topology.copy()
        made.create_standard_bonds()
    known = {a.residue.index for a, b in made.bonds if a.residue.index == b.residue.index}
    missing, before = set(), None
    for residue in made.residues:
        atoms = {a.name: a.index for a in residue.atoms}
        if {"N", "CA", "C"} <= atoms.keys() and residue.index not in known:
            missing |= {(atoms["N"], atoms["CA"]), (atoms["CA"], atoms["C"])}
        if before and before[0].chain.index == residue.chain.index and "C" in before[1] and "N" in atoms:
            if not {before[0].index, residue.index} <= known:
                missing.add((before[1]["C"], atoms["N"]))
        before = residue, atoms
    there = bonded_pairs(made)
    missing -= set(map(tuple, np.concatenate([there, there[:, ::-1]]).tolist()))
    if missing and made is topology:
        made = topology.copy()
    for i, j in sorted(missing):
        made.add_bond(made.atom(i), made.atom(j))
    return made
