"""Conformers that a search for crystals begins with: by a generator's name, of several families, or from a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from molflow_sim.chemistry import conformers as conf
from molflow_sim.errors import ConformerError, InputError, MoleculeError
from molflow_sim.generators.generate import generate
from molflow_sim.io.molecule_read import read_conformers
from molflow_sim.registry import GENERATORS
from molflow_sim.systems.molecule import Molecule

NUMBER = 40
"""Conformers of a generator, about as many as `Molecule.from_smiles` has."""
SOURCES = ("rdkit", "mixed")
"""Besides the generators of conformers: what the molecule has, and that beside those of `MIXED` in equal shares."""
MIXED = "torsions"


def with_conformers_of(molecule: Molecule, source: str, *, seed: int = 0) -> Molecule:
    """The molecule with the conformers of a source; strains are energies of MMFF94 in vacuum.

    Parameters
    ----------
    molecule : Molecule
    source : str
        ``rdkit`` (what the molecule has), a generator of conformers, ``mixed`` (both in equal shares), or an SDF with
        conformers of the molecule.
    seed : int

    Raises
    ------
    InputError
        No such source.
    MoleculeError
        A file of another molecule or stereoisomer, or one that cannot be read.
    """
    if source == "rdkit":
        return molecule
    if Path(source).suffix.lower() == ".sdf":
        positions = read_conformers(Path(source), molecule.rdmol)
        if not conf.keeps_stereo(molecule.rdmol, positions).all():
            raise MoleculeError(f"{source} holds another stereoisomer than {molecule.smiles}")
        return molecule.with_conformers(positions).with_info(conformers=source)
    if source not in (*SOURCES, *GENERATORS.names("conformers")):
        known = ", ".join((*SOURCES, *GENERATORS.names("conformers")))
        raise InputError(f"no conformers {source!r}; choose from {known}, or give an .sdf file")
    found = generate("conformers", molecule, NUMBER, method=MIXED if source == "mixed" else source, seed=seed)
    shares = conf.strain_shares(found.energies)
    made = replace(molecule.with_conformers(found.conformers), shares=shares)
    if source == "mixed":
        made = _joined(molecule, made)
    return made.with_info(conformers=source)


def _joined(first: Molecule, second: Molecule) -> Molecule:
    """Both sets of conformers, each with half of the candidates."""
    if not np.isfinite(first.energies).all():
        raise ConformerError(f"{first.smiles}: MMFF94 does not know it, so that conformers cannot be mixed")
    energies = np.concatenate([first.energies, second.energies])
    order = np.argsort(energies, kind="stable")
    return replace(
        first,
        conformers=np.concatenate([first.conformers, second.conformers])[order],
        energies=energies[order],
        shares=np.concatenate([first.shares, second.shares])[order],
    )
