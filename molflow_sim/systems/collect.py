"""Structures of anybody: of a file or a Python object, each a crystal or a cluster, or the reason why it is none."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gemmi

from molflow_sim.chemistry.bonds import isotopes_of
from molflow_sim.errors import CrystalError, InputError, MolflowError
from molflow_sim.io.cif_parse import read_text
from molflow_sim.systems.cluster import MolecularCluster
from molflow_sim.systems.crystal import MolecularCrystal
from molflow_sim.systems.molecule import Molecule
from molflow_sim.systems.species import SpeciesTable

Read = Callable[[], MolecularCrystal | MolecularCluster]
SYMPREC = 0.01
"""Å; atoms that agree this well are symmetric, in a structure that declares no symmetry."""


@dataclass(frozen=True, eq=False)
class Found:
    """One structure of a source.

    Attributes
    ----------
    source : str
        Where it came from: ``a.cif``, ``b.cif:block``, ``c.extxyz:0`` (frame), ``d.db:1`` (row), ``structures[2]``.
    crystal : MolecularCrystal or None
    reason : str
        Why there is no crystal.
    cluster : MolecularCluster or None
        What atoms without periodicity are; then there is no crystal, and no reason.
    """

    source: str
    crystal: MolecularCrystal | None
    reason: str = ""
    cluster: MolecularCluster | None = None


def find_crystals(structures: Any) -> Iterator[Found]:
    """Read structures, in order.

    Parameters
    ----------
    structures : path, ase.Atoms, pymatgen Structure, MolecularCrystal, MolecularCluster, or an iterable of them
        Files: CIF (all blocks), JSON of pymatgen structures, and what ASE reads (all frames of an extxyz, all rows of a
        database, POSCAR ...). Atoms with neither periodicity nor cell are clusters. Where no symmetry is declared, it
        is looked for within `SYMPREC`.

    Raises
    ------
    InputError
        There is no structure at all, a file is not there, or something is no structure.
    """
    single = isinstance(structures, (str, Path)) or not isinstance(structures, Iterable) or _is_structure(structures)
    items = [structures] if single else list(structures)
    if not items:
        raise InputError("no structures were given; name files (CIF, extxyz, .db, POSCAR ...) or objects")
    for item in items:
        if isinstance(item, (str, Path)):
            if not Path(item).is_file():
                raise InputError(f"there is no file {item}")
        elif not _is_structure(item):
            raise InputError(
                f"{type(item).__name__} is no structure; give paths, atoms of ASE, structures of pymatgen or "
                "MolecularCrystals"
            )
    for k, item in enumerate(items):
        if isinstance(item, (str, Path)):
            yield from _of_file(Path(item))
        else:
            yield _tried(f"structures[{k}]", partial(_of_object, item))


def holds_clusters(structures: Any) -> bool:
    """Whether the first structure that can be read is a cluster."""
    for found in find_crystals(structures):
        if found.crystal is not None or found.cluster is not None:
            return found.cluster is not None
    return False


def _is_structure(item: Any) -> bool:
    return (
        isinstance(item, (MolecularCrystal, MolecularCluster))
        or hasattr(item, "get_scaled_positions")
        or hasattr(item, "lattice")
    )


def _tried(source: str, read: Read) -> Found:
    try:
        found = read()
        if isinstance(found, MolecularCluster):
            return Found(source, None, cluster=found)
        return Found(source, _with_symmetry(found))
    except MolflowError as error:
        return Found(source, None, error.reason.replace("CIF text, ", "", 1))
    except Exception as error:  # readers of foreign formats raise anything
        return Found(source, None, f"cannot be read: {type(error).__name__}: {' '.join(str(error).split())}")


def _of_object(item: Any) -> MolecularCrystal | MolecularCluster:
    if isinstance(item, (MolecularCrystal, MolecularCluster)):
        return item
    return MolecularCrystal.from_pymatgen(item) if hasattr(item, "lattice") else _of_atoms(item)


def _of_atoms(atoms: Any) -> MolecularCrystal | MolecularCluster:
    # with a cell, periodicity was forgotten rather than a cluster meant; the crystal's error says so
    lattice = atoms.pbc.any() or atoms.cell.rank == 3
    return MolecularCrystal.from_ase(atoms) if lattice else MolecularCluster.from_atoms(atoms)


def _of_file(path: Path) -> Iterator[Found]:
    found: list[tuple[str, Read]] = []
    failure = None
    try:
        for name, read in _CONTENTS.get(path.suffix.lower(), _frames)(path):
            found.append((name, read))
        if not found:
            raise CrystalError("holds no structure")
    except Exception as error:  # as above; what came before the damage is kept
        reason = error.reason if isinstance(error, MolflowError) else f"{type(error).__name__}: {error}"
        failure = Found(str(path), None, f"cannot be read: {' '.join(reason.split())}")
    for name, read in found:
        yield _tried(str(path) if len(found) == 1 and failure is None else f"{path}:{name}", read)
    if failure is not None:
        yield failure


def _blocks(path: Path) -> Iterator[tuple[str, Read]]:
    document = gemmi.cif.Document()
    document.parse_string(read_text(path)[0])  # unlike read_string it takes two blocks of one name
    blocks = [block for block in document if len(block.find_values("_atom_site_fract_x"))]
    names = [block.name for block in blocks]
    for k, block in enumerate(blocks or document):
        alone = gemmi.cif.Document()
        alone.add_copied_block(block)
        repeated = names[:k].count(block.name)
        label = f"{block.name} ({repeated + 1})" if repeated else block.name
        yield label, partial(MolecularCrystal.from_cif, alone.as_string())


def _rows(path: Path) -> Iterator[tuple[str, Read]]:
    import ase.db

    with ase.db.connect(path) as database:
        for row in database.select():
            yield str(row.id), partial(lambda found: _of_atoms(found.toatoms()), row)


def _json(path: Path) -> Iterator[tuple[str, Read]]:
    data = json.loads(path.read_text())
    items = data if isinstance(data, list) else [data]
    if not all(isinstance(item, dict) and item.get("@class") == "Structure" for item in items):
        yield from _rows(path) if isinstance(data, dict) and "ids" in data else _frames(path)
        return
    from pymatgen.core import Structure

    for k, item in enumerate(items):
        yield str(k), partial(lambda found: MolecularCrystal.from_pymatgen(Structure.from_dict(found)), item)


def _frames(path: Path) -> Iterator[tuple[str, Read]]:
    import ase.io

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k, atoms in enumerate(ase.io.iread(path, index=":")):
            yield str(k), partial(_of_atoms, atoms)


_CONTENTS = {".cif": _blocks, ".db": _rows, ".json": _json}


def _with_symmetry(crystal: MolecularCrystal) -> MolecularCrystal:
    """The crystal in the space group that its atoms have, where it has none."""
    if crystal.space_group.order > 1:
        return crystal
    try:
        found = MolecularCrystal.from_ase(crystal.to_ase(), symprec=SYMPREC, molecules=crystal.molecules)
    except MolflowError:  # unconventional axes, say: it stays in P 1
        return crystal
    same = abs(found.density / crystal.density - 1.0) < 1e-3
    return replace(found, info=crystal.info) if found.space_group.order > 1 and same else crystal


def in_order_of(crystal: MolecularCrystal, molecule: Molecule) -> MolecularCrystal:
    """A crystal of one species with the atoms of each molecule in the order of `molecule`, which becomes its species.

    Raises
    ------
    CrystalError
        It is made of another molecule (tautomers and diastereomers are others, mirror images are not).
    """
    table = SpeciesTable([molecule], crystal.info.get("name", "crystal"))
    units = []
    for rigid in crystal.asymmetric_unit:
        own = crystal.molecules[rigid.species]
        labels = [f"{symbol}{k + 1}" for k, symbol in enumerate(own.symbols)]
        _, order = table.identify(own.numbers, rigid.conformer, own.bonds, labels, isotopes_of(own.rdmol))
        units.append(replace(rigid, species=0, conformer=rigid.conformer[order]))
    return replace(crystal, molecules=(molecule,), asymmetric_unit=tuple(units))
