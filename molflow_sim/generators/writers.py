"""Files that generated structures are written to, each with what is needed to make it again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gemmi
import numpy as np

from molflow_sim.errors import InputError, StoreError
from molflow_sim.runs.files import atomic_path, write_bytes_atomically
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.systems.cluster import MolecularCluster
    from molflow_sim.systems.crystal import MolecularCrystal
    from molflow_sim.systems.molecule import Molecule

    Structure = MolecularCrystal | MolecularCluster | Molecule

SUFFIXES = {
    "crystals": (".extxyz", ".xyz", ".db", ".cif"),
    "clusters": (".extxyz", ".xyz", ".db"),
    "conformers": (".sdf", ".extxyz", ".xyz", ".db"),
}
"""Files by the kind of structure; a path without a suffix is a folder: of CIFs for crystals, of extxyz for clusters."""


@dataclass(frozen=True)
class StructureWriter:
    """An open output; structures are appended molecule by molecule."""

    append: Callable[[Any, str], object]

    def write(self, structures: Iterable[Any], molecule: str = "") -> None:
        """Append structures; `molecule` names a subfolder where the output is a folder of several molecules."""
        for structure in structures:
            self.append(structure, molecule)


@contextmanager
def structure_writer(path: str | Path, *, kind: str = "crystals", overwrite: bool = False) -> Iterator[StructureWriter]:
    """Open an output of structures; a file appears when the block ends without an error, or not at all.

    Parameters
    ----------
    path : path
        ``.extxyz`` (or ``.xyz``, the same format), ``.db`` (an ASE database), ``.cif`` (all crystals in one file), or a
        folder (no suffix) that gets a file for each structure: CIF for crystals, extxyz for clusters. Conformers go to
        an ``.sdf``, too, and to no folder; `conformers_of` makes structures of a molecule's.
    kind : {"crystals", "clusters", "conformers"}
    overwrite : bool
        Replace a file, or the structures in a folder; other files there stay.

    Raises
    ------
    InputError
        An unknown suffix.
    StoreError
        Something is there already, or the place cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES[kind] and (suffix or kind not in _OWN_FILES):
        folder = " or to a folder" if kind in _OWN_FILES else ""
        raise InputError(f"{kind} are written to {', '.join(SUFFIXES[kind])} files{folder}, not to {suffix or path!r}")
    if not overwrite and path.exists() and (path.is_file() or any(path.iterdir())):
        raise StoreError(f"{path} exists; give another output or --overwrite")
    try:
        with ExitStack() as stack:
            append: Callable[[Any, str], object]
            if not suffix:
                path.mkdir(parents=True, exist_ok=True)
                for old in (*path.glob("*"), *path.glob("*/*")):
                    if re.fullmatch(_OWN_FILES[kind], old.name):
                        old.unlink()
                append = partial(_crystal_to_folder if kind == "crystals" else _cluster_to_folder, path)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = stack.enter_context(atomic_path(path))
                if suffix == ".db":
                    append = partial(_to_database, stack.enter_context(_database(temporary)))
                else:
                    file = stack.enter_context(open(temporary, "w", encoding="utf-8"))
                    append = partial(_TO_FILE.get(suffix, _to_extxyz), file)
            yield StructureWriter(append)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def cif_text(crystal: MolecularCrystal, block: str) -> str:
    """CIF of a crystal with its provenance as ``_molflow_`` items, in a data block of the given name."""
    lines = crystal.to_cif().split("\n")
    items = [f"_molflow_{key:<26} {_cif_value(value)}" for key, value in crystal.info.items() if key != "name"]
    return "\n".join([f"data_{block}", *items, *lines[1:]])


_OWN_FILES = {"crystals": r"crystal_\d{5,}\.cif", "clusters": r"cluster_\d{5,}\.extxyz"}
"""Names of what is written to a folder, or to a folder in it for each of several molecules."""


def _crystal_to_folder(path: Path, crystal: MolecularCrystal, molecule: str) -> None:
    name = f"crystal_{crystal.info['candidate']:05d}"
    write_bytes_atomically(path / molecule / f"{name}.cif", cif_text(crystal, name).encode())


def _cluster_to_folder(path: Path, cluster: MolecularCluster, molecule: str) -> None:
    place = path / molecule / f"cluster_{cluster.info['candidate']:05d}.extxyz"
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(place) as temporary, open(temporary, "w", encoding="utf-8") as file:
        _to_extxyz(file, cluster, "")


def conformers_of(molecule: Molecule) -> list[Molecule]:
    """Each conformer as a molecule of its own, its notes with its number, energy above the lowest and share."""
    above = (molecule.energies - np.nanmin(molecule.energies, initial=np.inf)) / KJ_PER_MOL
    return [
        replace(
            molecule,
            conformers=molecule.conformers[[k]],
            energies=molecule.energies[[k]],
            shares=np.ones(1),
            info={
                **molecule.info,
                "conformer": k + 1,
                **({"energy_kj_per_mol": round(float(above[k]), 4)} if np.isfinite(above[k]) else {}),
                "share": round(float(molecule.shares[k]), 6),
            },
        )
        for k in range(len(molecule.conformers))
    ]


def sdf_text(conformer: Molecule) -> str:
    """A record of an SDF with the notes of a molecule's first conformer as properties."""
    from molflow_sim.chemistry.conformers import with_positions
    from molflow_sim.io.sdf import record_text

    notes = {"smiles": conformer.smiles, **{k: v for k, v in conformer.info.items() if k != "name" and str(v)}}
    mol = with_positions(conformer.rdmol, conformer.conformers[0])
    return record_text(mol, str(conformer.name or conformer.formula), notes)


def _to_sdf(file: Any, conformer: Molecule, molecule: str) -> None:
    file.write(sdf_text(conformer))


def _to_cif(file: Any, crystal: MolecularCrystal, molecule: str) -> None:
    head = f"{molecule}_" if molecule else ""
    file.write(cif_text(crystal, f"{head}crystal_{crystal.info['candidate']:05d}") + "\n")


def _to_extxyz(file: Any, structure: Structure, molecule: str) -> None:
    from ase.io import write

    write(file, structure.to_ase(), format="extxyz")


_TO_FILE: dict[str, Callable[[Any, Any, str], None]] = {".cif": _to_cif, ".sdf": _to_sdf}


def _to_database(database: Any, structure: Structure, molecule: str) -> None:
    atoms = structure.to_ase()
    keys = {k: v for k, v in atoms.info.items() if isinstance(v, (int, float, bool)) or not _like_a_number(v)}
    atoms.info.clear()
    database.write(atoms, **keys)


def _database(path: Path) -> Any:
    import ase.db

    return ase.db.connect(path, use_lock_file=False)


def _like_a_number(text: str) -> bool:
    """ase.db refuses text that reads as a number or truth value."""
    try:
        float(text)
    except ValueError:
        return text in ("True", "False") or not text
    return True


def _cif_value(value: Any) -> str:
    text = " ".join(str(value).split())
    return f"\n;{text}\n;" if "'" in text and '"' in text else gemmi.cif.quote(text)
