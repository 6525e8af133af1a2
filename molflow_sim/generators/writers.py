"""Files that generated structures are written to, each with what is needed to make it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molflow_sim.errors import InputError, StoreError
from molflow_sim.runs.files import atomic_path, write_bytes_atomically

if TYPE_CHECKING:
    from molflow_sim.systems.cluster import MolecularCluster
    from molflow_sim.systems.crystal import MolecularCrystal

    Structure = MolecularCrystal | MolecularCluster

SUFFIXES = {"crystals": (".extxyz", ".xyz", ".db", ".cif"), "clusters": (".extxyz", ".xyz", ".db")}
"""Files by the kind of structure; a path without a suffix is a folder: of CIFs for crystals, of extxyz for clusters."""


@dataclass(frozen=True)
class StructureWriter:
    """An open output; structures are appended molecule by molecule."""

    append: Callable[[Any, str], object]

    def write(self, structures: Iterable[Structure], molecule: str = "") -> None:
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
        folder (no suffix) that gets a file for each structure: CIF for crystals, extxyz for clusters.
    kind : {"crystals", "clusters"}
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
    if suffix and suffix not in SUFFIXES[kind]:
        raise InputError(f"{kind} are written to {', '.join(SUFFIXES[kind])} files or to a folder, not to {suffix!r}")
    if not overwrite and path.exists() and (path.is_file() or any(path.iterdir())):
        raise StoreError(f"{path} exists; give another output or --overwrite")
    try:
        with ExitStack() as stack:
            append: Callable[[Any, str], object]
            if not suffix:
                path.mkdir(parents=True, exist_ok=True)
                for old in path.rglob(_OWN_FILES[kind]):
                    old.unlink()
                append = partial(_crystal_to_folder if kind == "crystals" else _cluster_to_folder, path)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = stack.enter_context(atomic_path(path))
                if suffix == ".db":
                    append = partial(_to_database, stack.enter_context(_database(temporary)))
                else:
                    file = stack.enter_context(open(temporary, "w", encoding="utf-8"))
                    append = partial(_to_cif if suffix == ".cif" else _to_extxyz, file)
            yield StructureWriter(append)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def cif_text(crystal: MolecularCrystal, block: str) -> str:
    """CIF of a crystal with its provenance as ``_molflow_`` items, in a data block of the given name."""
    lines = crystal.to_cif().split("\n")
    items = [f"_molflow_{key:<26} {_cif_value(value)}" for key, value in crystal.info.items() if key != "name"]
    return "\n".join([f"data_{block}", *items, *lines[1:]])


_OWN_FILES = {"crystals": "crystal_*.cif", "clusters": "cluster_*.extxyz"}


def _crystal_to_folder(path: Path, crystal: MolecularCrystal, molecule: str) -> None:
    name = f"crystal_{crystal.info['candidate']:05d}"
    write_bytes_atomically(path / molecule / f"{name}.cif", cif_text(crystal, name).encode())


def _cluster_to_folder(path: Path, cluster: MolecularCluster, molecule: str) -> None:
    place = path / molecule / f"cluster_{cluster.info['candidate']:05d}.extxyz"
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(place) as temporary, open(temporary, "w", encoding="utf-8") as file:
        _to_extxyz(file, cluster, "")


def _to_cif(file: Any, crystal: MolecularCrystal, molecule: str) -> None:
    head = f"{molecule}_" if molecule else ""
    file.write(cif_text(crystal, f"{head}crystal_{crystal.info['candidate']:05d}") + "\n")


def _to_extxyz(file: Any, structure: Structure, molecule: str) -> None:
    from ase.io import write

    write(file, structure.to_ase(), format="extxyz")


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
    return text if text and text.replace("+", "").replace(".", "").replace("-", "").isalnum() else f"'{text}'"
