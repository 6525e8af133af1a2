"""Molecules from files: MOL, SDF (first record) and XYZ."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from rdkit import Chem, rdBase

from molflow_sim.chemistry.bond_orders import molecule_from_graph
from molflow_sim.chemistry.bonds import perceive_bonds, skeleton
from molflow_sim.chemistry.checks import canonical_smiles
from molflow_sim.errors import MoleculeError, MoleculeTooLargeError, UnsupportedElementError
from molflow_sim.io.sdf import split_records

MAX_BYTES = 2_000_000
"""Largest molecule file read."""
_MAX_XYZ_ATOMS = 1000


def read_file(path: Path) -> tuple[Chem.Mol, str]:
    """The molecule of a file and its title; without conformer where the file is flat.

    Raises
    ------
    MoleculeError
        If the file cannot be read or its suffix is not .mol, .sdf or .xyz.
    """
    suffix = path.suffix.lower()
    if suffix not in (".mol", ".sdf", ".xyz"):
        raise MoleculeError(f"{path}: molecules are read from .mol, .sdf and .xyz files, not {suffix or 'this'}")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise MoleculeError(f"{path}: {size} bytes; the limit for a molecule file is {MAX_BYTES}")
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise MoleculeError(f"cannot read {path}: {error}") from error
    if suffix == ".xyz":
        return read_xyz(text, str(path))
    first, *others = split_records(text) or [""]
    count = 1 + sum("M  END" in other for other in others)
    if count > 1:
        warnings.warn(f"{path} holds {count} molecules; the first is taken", stacklevel=2)
    return read_mol_block(first, str(path))


def read_conformers(path: Path, rdmol: Chem.Mol) -> np.ndarray:
    """Conformers (K, N, 3) in Å of a molecule from all records of an SDF, in the molecule's atom order.

    Raises
    ------
    MoleculeError
        A file that cannot be read, or a record without hydrogens, without coordinates, or of another molecule.
    """
    try:
        records = split_records(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise MoleculeError(f"cannot read {path}: {error}") from error
    goal, found = skeleton(rdmol), []
    for number, record in enumerate(records, 1):
        if "M  END" not in record:
            continue
        what = f"{path}, record {number}"
        with rdBase.BlockLogs():
            mol = Chem.MolFromMolBlock(record, removeHs=False)
        if mol is None or not mol.GetNumConformers() or not mol.GetConformer().Is3D():
            raise MoleculeError(f"{what} cannot be read, or has no coordinates in space")
        if any(a.GetTotalNumHs() for a in mol.GetAtoms()):
            raise MoleculeError(f"{what} lacks hydrogens; add them with coordinates")
        own = skeleton(mol)
        match = own.GetSubstructMatch(goal) if own.GetNumAtoms() == goal.GetNumAtoms() else ()
        if not match or own.GetNumBonds() != goal.GetNumBonds():
            raise MoleculeError(f"{what} is {canonical_smiles(mol)}, not {canonical_smiles(rdmol)}")
        found.append(mol.GetConformer().GetPositions()[list(match)])
    if not found or not np.isfinite(found).all():
        raise MoleculeError(f"{path} holds no conformers, or coordinates that are not finite")
    return np.array(found)


def read_mol_block(text: str, what: str) -> tuple[Chem.Mol, str]:
    """The molecule of a MOL block, hydrogens added where they are missing, and its title.

    Raises
    ------
    MoleculeError
        If RDKit cannot read it.
    """
    with rdBase.BlockLogs():
        try:
            mol = Chem.MolFromMolBlock(text, removeHs=False)
        except (ValueError, RuntimeError) as error:
            raise MoleculeError(f"{what}: not a readable MOL block: {error}") from error
        if mol is None:
            raise MoleculeError(f"{what}: not a readable MOL block, or its valences are impossible")
        title = mol.GetProp("_Name").strip() if mol.HasProp("_Name") else ""
        flat = not mol.GetNumConformers() or not mol.GetConformer().Is3D()
        # a file without z coordinates may still claim to be three-dimensional
        if not flat and mol.GetNumAtoms() > 4 and np.ptp(mol.GetConformer().GetPositions()[:, 2]) == 0:
            flat = any(a.GetHybridization() == Chem.HybridizationType.SP3 for a in mol.GetAtoms())
        if flat:
            mol = Chem.AddHs(mol)
            mol.RemoveAllConformers()
            return mol, title
        return Chem.AddHs(mol, addCoords=True), title


def read_xyz(text: str, what: str) -> tuple[Chem.Mol, str]:
    """The molecule of the first frame of an XYZ file, bonds perceived, and its comment line.

    Raises
    ------
    MoleculeError, UnsupportedElementError, MoleculeTooLargeError, OverlappingAtomsError
        Malformed lines, unknown elements, atoms that do not bond to one closed-shell molecule.
    """
    lines = text.splitlines()
    try:
        n = int(lines[0].split()[0])
        rows = [line.split() for line in lines[2 : 2 + n]]
        symbols = [row[0] for row in rows]
        positions = np.array([[float(x) for x in row[1:4]] for row in rows], dtype=float)
    except (ValueError, IndexError) as error:
        raise MoleculeError(
            f"{what}: not a readable XYZ file (a count, a comment, then 'symbol x y z' lines): {error}"
        ) from error
    if n < 1 or positions.shape != (n, 3):
        raise MoleculeError(f"{what}: the first line promises {n} atoms, {len(rows)} complete lines follow")
    if n > _MAX_XYZ_ATOMS:
        raise MoleculeTooLargeError(f"{what}: {n} atoms")
    if not np.isfinite(positions).all() or np.abs(positions).max() > 1e4:
        raise MoleculeError(f"{what}: NaN, infinite or absurdly large coordinates")
    unknown = sorted({s for s in symbols if s.capitalize() not in atomic_numbers or s.upper() == "X"})
    if unknown:
        raise UnsupportedElementError(f"{what}: unknown element {', '.join(unknown)[:80]}")
    numbers = np.array([atomic_numbers[s.capitalize()] for s in symbols])
    bonds, _ = perceive_bonds(numbers, positions)
    return molecule_from_graph(numbers, positions, bonds, what), lines[1].strip()[:80]
