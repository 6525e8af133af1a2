"""Files that generated crystals are written to, each with what is needed to make it again."""

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
    from molflow_sim.systems.crystal import MolecularCrystal

SUFFIXES = (".extxyz", ".xyz", ".db", ".cif")
"""Files that crystals are written to; a path without a suffix is a folder of CIFs."""


@dataclass(frozen=True)
class CrystalWriter:
    """An open output; crystals are appended molecule by molecule."""

    append: Callable[[MolecularCrystal, str], object]

    def write(self, crystals: Iterable[MolecularCrystal], molecule: str = "") -> None:
        """Append crystals; `molecule` names a subfolder where the output is a folder of several molecules."""
        for crystal in crystals:
            self.append(crystal, molecule)


@contextmanager
def crystal_writer(path: str | Path, *, overwrite: bool = False) -> Iterator[CrystalWriter]:
    """Open an output of crystals; a file appears when the block ends without an error, or not at all.

    Parameters
    ----------
    path : path
        ``.extxyz`` (or ``.xyz``, the same format), ``.db`` (an ASE database), ``.cif`` (all in one file), or a folder
        (no suffix) that gets one CIF for each crystal.
    overwrite : bool
        Replace a file, or the crystals in a folder; other files there stay.

    Raises
    ------
    InputError
        An unknown suffix.
    StoreError
        Something is there already, or the place cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix and suffix not in SUFFIXES:
        raise InputError(
            f"crystals are written to {', '.join(SUFFIXES)} files or to a folder of CIFs, not to {suffix!r}"
        )
    if not overwrite and path.exists() and (path.is_file() or any(path.iterdir())):
        raise StoreError(f"{path} exists; give another output or --overwrite")
    try:
        with ExitStack() as stack:
            append: Callable[[MolecularCrystal, str], object]
            if not suffix:
                path.mkdir(parents=True, exist_ok=True)
                for old in path.rglob("crystal_*.cif"):
                    old.unlink()
                append = partial(_to_folder, path)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = stack.enter_context(atomic_path(path))
                if suffix == ".db":
                    append = partial(_to_database, stack.enter_context(_database(temporary)))
                else:
                    file = stack.enter_context(open(temporary, "w", encoding="utf-8"))
                    append = partial(_to_cif if suffix == ".cif" else _to_extxyz, file)
            yield CrystalWriter(append)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def cif_text(crystal: MolecularCrystal, block: str) -> str:
    """CIF of a crystal with its provenance as ``_molflow_`` items, in a data block of the given name."""
    lines = crystal.to_cif().split("\n")
    items = [f"_molflow_{key:<26} {_cif_value(value)}" for key, value in crystal.info.items() if key != "name"]
    return "\n".join([f"data_{block}", *items, *lines[1:]])


def _to_folder(path: Path, crystal: MolecularCrystal, molecule: str) -> None:
    name = f"crystal_{crystal.info['candidate']:05d}"
    write_bytes_atomically(path / molecule / f"{name}.cif", cif_text(crystal, name).encode())


def _to_cif(file: Any, crystal: MolecularCrystal, molecule: str) -> None:
    head = f"{molecule}_" if molecule else ""
    file.write(cif_text(crystal, f"{head}crystal_{crystal.info['candidate']:05d}") + "\n")


def _to_extxyz(file: Any, crystal: MolecularCrystal, molecule: str) -> None:
    from ase.io import write

    write(file, crystal.to_ase(), format="extxyz")


def _to_database(database: Any, crystal: MolecularCrystal, molecule: str) -> None:
    atoms = crystal.to_ase()
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
