"""Backbone atoms of peptides, found by their names in the Protein Data Bank."""

from __future__ import annotations

from typing import Any


def backbone_atoms(topology: Any) -> list[int]:
    """N, CA and C of each residue that has all three, with the C before and the N after from caps, chain by chain.

    Parameters
    ----------
    topology : mdtraj.Topology
        The atoms.

    Returns
    -------
    list of int
        Atom indices along the chain.
    """
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
    """CA of each residue that also has N and C (so that calcium ions are left out).

    Parameters
    ----------
    topology : mdtraj.Topology
        The atoms.

    Returns
    -------
    list of int
        Atom indices.
    """
    named = [{a.name: a.index for a in residue.atoms} for residue in topology.residues]
    return [names["CA"] for names in named if {"N", "CA", "C"} <= names.keys()]


def calpha_bonds(topology: Any, atoms: list[int]) -> list[tuple[int, int]] | None:
    """Bonds between successive Cα of a chain, or None where the atoms are not the Cα of ascending residues.

    Parameters
    ----------
    topology : mdtraj.Topology
        The atoms.
    atoms : list of int
        Atom indices, one bead each.

    Returns
    -------
    list of pairs of bead indices, or None
    """
    chosen = [topology.atom(i) for i in atoms]
    residues = [a.residue.index for a in chosen]
    if any(a.name != "CA" or a.residue.n_atoms < 2 for a in chosen) or residues != sorted(set(residues)):
        return None
    chains = [a.residue.chain.index for a in chosen]
    return [(n, n + 1) for n in range(len(atoms) - 1) if chains[n] == chains[n + 1]]
