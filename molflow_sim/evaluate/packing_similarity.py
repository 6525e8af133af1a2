"""RMSD_n: how far two packings are the same, by superposing a molecule and its nearest neighbours.

The comparison is oxtalign's, an open implementation in the spirit of COMPACK (Chisholm and Motherwell,
J. Appl. Cryst. 38 (2005) 228-231): n molecules around a central one are matched one to one under a rigid motion, and
RMSD_n is taken over their non-hydrogen atoms. Mirror images count as the same packing unless told otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import oxtalign
from ase.data import chemical_symbols
from oxtalign.model import Molecule as OxMolecule
from oxtalign.model import Structure, UnitCell

from molflow_sim.errors import CrystalError, InputError, MolflowError, OverlappingAtomsError
from molflow_sim.evaluate._small_molecules import compare_small, is_small
from molflow_sim.evaluate.fingerprint import cell_arrays, compared_atoms, environments, reduce_lattice
from molflow_sim.symmetry.spacegroup import cell_parameters

TOLERANCES = (1.0, 2.0)
"""Å: a molecule counts as matched within this RMSD of its partner. 1 Å is oxtalign's default and misses molecules
at the rim of a shell whose overall RMSD is well below 1 Å, so what it leaves incomplete is tried again at 2 Å."""
FOUND_RMSD = 0.5
"""Å: below this RMSD15 with 15 of 15 molecules a form counts as found; less for tiny molecules, see `found_rmsd`."""
FOUND_ATOMS = 6
"""Compared atoms of a molecule from which `FOUND_RMSD` holds."""
DUPLICATE_RMSD = 0.3
"""Å: below this RMSD15 with 15 of 15 molecules two minima of the same potential count as one."""
SAME_SURROUNDINGS = 0.02
"""Å: molecules of one crystal whose sorted distances to their neighbours differ by less are equivalent."""
MAX_CENTRAL = 6
"""Independent molecules of a crystal around which shells are drawn, oxtalign's number."""


@dataclass(frozen=True)
class PackingMatch:
    """Result of a packing comparison.

    Attributes
    ----------
    rmsd : float
        RMSD (Å) over the matched molecules' atoms; NaN where nothing matched.
    n_matched, n : int
        Molecules matched, and asked for.
    inverted : bool
        Whether the best superposition is a mirror image.
    tolerance : float
        The per-molecule tolerance (Å) under which this result was found.
    message : str
        Why nothing or less was matched (other molecules), if known.
    n_atoms : int
        Compared atoms of a molecule of the largest species.
    """

    rmsd: float
    n_matched: int
    n: int
    inverted: bool = False
    tolerance: float = TOLERANCES[0]
    message: str = ""
    n_atoms: int = FOUND_ATOMS

    @property
    def full(self) -> bool:
        """Whether all n molecules matched."""
        return self.n_matched >= self.n

    @property
    def found(self) -> bool:
        """Whether all n molecules matched within `found_rmsd`: a predicted crystal is the experimental form."""
        return self.same(found_rmsd(self.n_atoms))

    def same(self, rmsd: float) -> bool:
        """Whether all n molecules matched with an RMSD below `rmsd` (Å)."""
        return self.full and self.rmsd < rmsd


def found_rmsd(n_atoms: int) -> float:
    """RMSD15 (Å) below which a form counts as found, by the number of compared atoms of its molecule.

    0.5 Å from six atoms on and in proportion below. Crystals of tiny molecules resemble each other: with this bound at
    most 1 % of pairs of different pressed packings pass (`studies/found_bound.py`, docs/methods/comparison.md).
    """
    return FOUND_RMSD * min(1.0, n_atoms / FOUND_ATOMS)


def packing_similarity(
    a: Any, b: Any, n: int = 15, *, tolerances: tuple[float, ...] = TOLERANCES, allow_inversion: bool = True
) -> PackingMatch:
    """Compare two crystals by the RMSD of n matched molecules.

    Parameters
    ----------
    a, b : MolecularCrystal, ase.Atoms, CIF path, or prepared structure
        The crystals; use `prepare` once for one that is compared often.
    n : int
        Number of molecules, the central one included. 15 is the field's usual shell.
    tolerances : tuple of float
        Per-molecule tolerances (Å), tried in turn until all n molecules match; the best result is kept.
    allow_inversion : bool
        Whether a mirror image counts as the same packing.

    Returns
    -------
    PackingMatch
        The same for (a, b) and (b, a): the shell is drawn around a molecule of the denser crystal.

    Raises
    ------
    CrystalError
        If a file or an object cannot be turned into whole molecules.
    """
    first, second = sorted((prepare(a), prepare(b)), key=_rank)
    centrals = _centrals(first), _centrals(second)
    n_atoms = max((m.n_atoms for m in first.molecules), default=0)
    best = PackingMatch(float("nan"), 0, n, message="no molecule could be superposed", n_atoms=n_atoms)
    small = is_small(first)
    for tolerance in tolerances:
        if small:
            result = compare_small(first, second, n, tolerance, allow_inversion, centrals)
        else:
            result = oxtalign.compare(first, second, n=n, allow_inversion=allow_inversion, mol_rmsd_tol=tolerance)
        match = PackingMatch(
            float(result.rmsd_n), int(result.n_matched), n, bool(result.inverted), tolerance, result.message, n_atoms
        )
        if (match.n_matched, -np.nan_to_num(match.rmsd)) > (best.n_matched, -np.nan_to_num(best.rmsd)):
            best = match
        elif best.n_matched == 0:
            best = match
        if best.full:
            break
    return best


def _rank(structure: Structure) -> tuple:
    """Denser crystals first, equally dense ones by their coordinates, so that the order of a pair does not matter."""
    x = np.concatenate([m.coords for m in structure.molecules])
    volume = structure.cell.volume if structure.cell else float(np.prod(np.ptp(x, axis=0) + 3.0))
    return volume / len(x), len(x), x.tobytes()


def _centrals(structure: Structure) -> list[int]:
    """Molecules of the largest species with different surroundings: those around which shells are drawn.

    oxtalign tells molecules apart by their conformer alone and so takes one of several independent ones of a rigid
    molecule; it finds these in the structure's cache.
    """
    if "distinct" not in structure.cache:
        size = {m.species_key: m.n_atoms for m in structure.molecules}
        species = min(size, key=lambda key: (-size[key], key))
        mine = [i for i, m in enumerate(structure.molecules) if m.species_key == species]
        if structure.cell is not None:
            index = np.repeat(np.arange(len(structure.molecules)), [m.n_atoms for m in structure.molecules])
            kinds = np.unique([e for m in structure.molecules for e in m.elements], return_inverse=True)[1]
            x = np.concatenate([m.coords for m in structure.molecules])
            around = environments(kinds, structure.cell.lattice_vectors, x, index)
            distinct: list[int] = []
            for i in mine:
                if all(np.abs(around[i] - around[j]).max() > SAME_SURROUNDINGS for j in distinct):
                    distinct.append(i)
            mine = distinct
        structure.cache["distinct"] = structure.cache["centrals", species, MAX_CENTRAL] = mine[:MAX_CENTRAL]
    return list(structure.cache["distinct"])


def prepare(crystal: Any) -> Structure:
    """Whole molecules of a crystal in the form that `packing_similarity` compares.

    Parameters
    ----------
    crystal : MolecularCrystal, tuple, ase.Atoms, path of a CIF, or prepared structure
        A tuple is ``(numbers, cell, positions (n, 3) Å, molecule_index)`` with whole molecules.

    Raises
    ------
    CrystalError
        If a file or an Atoms object cannot be read or assembled into whole molecules.
    """
    if isinstance(crystal, Structure):
        return crystal
    if isinstance(crystal, tuple) or hasattr(crystal, "unit_cell"):
        return _from_molecules(*cell_arrays(crystal))
    try:
        if isinstance(crystal, (str, PathLike)):
            return _from_file(Path(crystal))
        if hasattr(crystal, "get_chemical_symbols"):
            return _with_small_molecules(lambda h: oxtalign.from_ase(crystal, include_hydrogens=h))
    except (ValueError, RuntimeError, OSError, KeyError, IndexError) as error:
        label = Path(crystal).name if isinstance(crystal, (str, PathLike)) else "this Atoms object"
        raise CrystalError(f"cannot compare {label}: {error}") from error
    raise InputError(f"cannot compare an object of type {type(crystal).__name__}; give a crystal, Atoms or a CIF path")


def _from_file(path: Path) -> Structure:
    """Read a CIF strictly; salts, disorder and missing hydrogens, which a comparison can bear, are left to oxtalign."""
    from molflow_sim.systems.crystal import MolecularCrystal

    try:
        return prepare(MolecularCrystal.from_cif(path))
    except OverlappingAtomsError:
        raise
    except MolflowError:
        return _with_small_molecules(lambda h: oxtalign.load(str(path), include_hydrogens=h))


def _with_small_molecules(read: Any) -> Structure:
    """Read without hydrogens, or with them where a molecule is too small to be oriented without."""
    try:
        structure = read(False)
        if structure.molecules and all(m.n_atoms >= 3 for m in structure.molecules):
            return structure
    except ValueError:  # nothing but hydrogen
        pass
    structure = read(True)
    numbers = [np.array([1 if e in ("H", "D") else 6 for e in m.elements]) for m in structure.molecules]
    for molecule, z in zip(structure.molecules, numbers):
        _drop_hydrogens(molecule, compared_atoms(z, np.zeros(len(z), int)))
    return structure


def _drop_hydrogens(molecule: OxMolecule, keep: np.ndarray) -> None:
    if keep.all():
        return
    new = np.cumsum(keep) - 1
    molecule.elements = tuple(e for e, k in zip(molecule.elements, keep) if k)
    molecule.labels = tuple(e for e, k in zip(molecule.labels, keep) if k)
    molecule.coords = molecule.coords[keep]
    molecule.bonds = tuple((int(new[i]), int(new[j])) for i, j in molecule.bonds if keep[i] and keep[j])
    molecule.species_key = molecule.formula()


def _from_molecules(numbers: np.ndarray, cell: np.ndarray, positions: np.ndarray, index: np.ndarray) -> Structure:
    """An oxtalign Structure from molecules already known whole: no supercell, no bond search across images."""
    if not (np.all(np.isfinite(cell)) and np.all(np.isfinite(positions))) or abs(np.linalg.det(cell)) < 1e-6:
        raise CrystalError("cannot compare a crystal with a flat cell or coordinates that are not finite")
    # A skewed cell would need many images; any basis of the lattice describes the same crystal.
    lattice = reduce_lattice(cell)
    inverse = np.linalg.inv(lattice)
    keep = compared_atoms(numbers, index)
    molecules = []
    for m in np.unique(index):
        atoms = np.flatnonzero((index == m) & keep)
        x = positions[atoms]
        x = x - np.floor(x.mean(axis=0) @ inverse + 1e-9) @ lattice
        symbols = tuple(chemical_symbols[z] for z in numbers[atoms])
        bonds = tuple((int(i), int(j)) for i, j in oxtalign.connectivity.perceive_bonds(x, list(symbols)))
        molecule = OxMolecule(symbols, x, tuple(f"{s}{k + 1}" for k, s in enumerate(symbols)), bonds)
        molecule.species_key = molecule.formula()
        molecules.append(molecule)
    lengths = np.linalg.norm(lattice, axis=1)
    angles = cell_parameters(lattice)[3:].tolist()
    unit_cell = UnitCell(*lengths, *angles, ["x,y,z"], lattice.T.copy(), inverse.T.copy())
    return Structure(molecules, unit_cell, "crystal")
