"""Conformers that a search for crystals begins with: by a generator's name, or from a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from molflow_sim.chemistry import conformers as conf
from molflow_sim.errors import InputError, MoleculeError
from molflow_sim.generators.generate import generate
from molflow_sim.io.molecule_read import read_conformers
from molflow_sim.registry import GENERATORS
from molflow_sim.systems.molecule import Molecule

NUMBER = 40
"""Conformers of a generator, about as many as `Molecule.from_smiles` has."""


def with_conformers_of(molecule: Molecule, source: str, *, seed: int = 0) -> Molecule:
    """The molecule with the conformers of a source; strains are energies of MMFF94 in vacuum.

    Parameters
    ----------
    molecule : Molecule
    source : str
        ``rdkit`` (what the molecule has), a generator of conformers, or an SDF with conformers of the molecule.
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
    known = GENERATORS.names("conformers")
    if source not in known:
        raise InputError(f"no conformers {source!r}; choose from rdkit, {', '.join(known)}, or give an .sdf file")
    found = generate("conformers", molecule, NUMBER, method=source, seed=seed)
    made = molecule.with_conformers(found.conformers)
    return replace(made, shares=conf.strain_shares(found.energies)).with_info(conformers=source)
