"""What goes into a data set, an item each: molecules of a list, crystals of a folder; and rows for what stays out."""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from molflow_sim.errors import InputError, MolflowError
from molflow_sim.runs.files import sha256
from molflow_sim.runs.identity import digest

Row = dict[str, str]
"""Of dropped.csv: source, name, smiles, reason."""


@dataclass(frozen=True)
class Item:
    """One molecule of a list, one CIF, or whatever else a shard is made of.

    Attributes
    ----------
    kind : str
        ``molecule``, ``crystal`` ...
    id : str
        Identity of the input: what the shard's file is named after.
    content : str
        SMILES, or the path of the CIF.
    name, source : str
        The molecule's name; where it stands (file and line).
    """

    kind: str
    id: str
    content: str
    name: str
    source: str


class Excluded(Exception):
    """A molecule that the data set must not hold; its message is the row's reason."""


def failed(item: Item, reason: str) -> bytes:
    """The row of an item that has no shard, as JSON."""
    smiles = item.content if item.kind == "molecule" else ""
    row = {"source": item.source, "name": item.name, "smiles": smiles, "reason": reason}
    return json.dumps(row, ensure_ascii=False).encode()


def shard_or_row(item: Item, make: Callable[[], bytes]) -> bytes:
    """What `make` gives, or the row that says why it gives nothing: one item must not end a run of hours."""
    try:
        return make()
    except Excluded as error:
        return failed(item, str(error))
    except MolflowError as error:
        return failed(item, error.reason)
    except Exception as error:
        return failed(item, f"{type(error).__name__}: {' '.join(str(error).split())}")


def lost(item: Item) -> bytes:
    """The row of an item whose process died, twice."""
    return failed(item, "WorkerLost: the process died on this item (memory, or a crash in a library)")


def molecule_items(lines: Sequence[str], origin: str) -> tuple[list[Item], list[Row]]:
    """Items of the lines of a .smi file, and rows for molecules that occur again (by canonical SMILES).

    Parameters
    ----------
    lines : sequence of str
        SMILES and optionally a name; blank lines and lines that begin with # are skipped.
    origin : str
        What to call the file in `Item.source`.
    """
    from rdkit import Chem, rdBase

    items: dict[str, Item] = {}
    doubles = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        smiles, _, name = text.replace("\t", " ").partition(" ")
        with rdBase.BlockLogs():
            rdmol = Chem.MolFromSmiles(smiles)
        canonical = smiles if rdmol is None else Chem.MolToSmiles(rdmol)
        item = Item("molecule", digest(canonical), canonical, name.strip(), f"{origin}:{number}")
        if item.id in items:
            reason = f"duplicate: the same molecule as {items[item.id].source}"
            doubles.append({"source": item.source, "name": item.name, "smiles": smiles, "reason": reason})
        else:
            items[item.id] = item
    return list(items.values()), doubles


def crystal_items(folder: str | Path | None) -> list[Item]:
    """Items of the CIFs in a folder and those within; none without a folder.

    Raises
    ------
    InputError
        No such folder, one without a CIF, or a file that cannot be read.
    """
    if folder is None:
        return []
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of CIFs")
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() == ".cif" and path.is_file())
    if not paths:
        raise InputError(f"{root} holds no .cif file")
    items: dict[str, Item] = {}
    for path in paths:
        try:
            id = sha256(path.read_bytes())[:12]
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        # Copies of a file are one crystal.
        items.setdefault(id, Item("crystal", id, str(path), path.stem, str(path.relative_to(root))))
    return list(items.values())


def read_lines(source: str | Path | Sequence[str] | None) -> tuple[list[str], str]:
    """The lines of a file of SMILES (or those given), and what to call it.

    Raises
    ------
    InputError
        A file that cannot be read.
    """
    if source is None:
        return [], ""
    if not isinstance(source, (str, Path)):
        return list(source), "molecule"
    path = Path(source)
    try:
        return path.read_text(encoding="utf-8-sig").splitlines(), path.name
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InputError(f"{path} cannot be read: {what}; give a file with one SMILES a line") from error


def excluded_skeletons(source: str | Path | Sequence[str | Path] | None) -> dict[str, str]:
    """Skeletons of the molecules of files (.smi, .sdf, .sdf.gz) or lines that are kept out.

    Parameters
    ----------
    source : path, or sequence of paths and SMILES, optional
        Of a sequence, a `Path` is a file and a text is a line.

    Raises
    ------
    InputError
        A file that cannot be read, or without a molecule.
    """
    from rdkit import Chem, rdBase

    from molflow_sim.dataset.skeletons import skeletons_of_smiles

    parts = [Path(source)] if isinstance(source, (str, Path)) else list(source or ())
    lines = [part for part in parts if not isinstance(part, Path)]
    given = [("the list", _smiles(lines))] if lines else []
    given += [(part.name, _smiles_of_file(part)) for part in parts if isinstance(part, Path)]
    found: dict[str, str] = {}
    for name, smiles in given:
        with rdBase.BlockLogs():
            unread = [text for text in smiles if Chem.MolFromSmiles(text) is None]
        if len(unread) == len(smiles):
            raise InputError(f"{name}: none of its lines is a SMILES, so nothing would be excluded")
        if unread:
            warnings.warn(f"{name}: {len(unread)} lines exclude nothing, they are no SMILES: {unread[0]}", stacklevel=2)
        found = {**skeletons_of_smiles(smiles), **found}
    return found


def _smiles_of_file(file: Path) -> list[str]:
    if file.name.lower().endswith((".sdf", ".sdf.gz")):
        from molflow_sim.io.sdf import smiles_of_sdf

        return smiles_of_sdf(file)
    return _smiles(read_lines(file)[0])


def _smiles(lines: Sequence[str]) -> list[str]:
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def reasons_table(rows: Sequence[Row]) -> bytes:
    """CSV of what was left out, each with its reason."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["source", "name", "smiles", "reason"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
