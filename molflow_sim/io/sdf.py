"""SDF files record by record: a MOL block, properties after it, a line of ``$$$$``."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rdkit import Chem, rdBase

from molflow_sim.chemistry.checks import canonical_smiles
from molflow_sim.errors import InputError

_END = re.compile(r"^\$\$\$\$[^\n]*(?:\n|\Z)", re.MULTILINE)


def split_records(text: str) -> list[str]:
    """The records of an SDF's text, without the lines that end them; a MOL block alone is one."""
    return [record for record in _END.split(text.replace("\r\n", "\n")) if record.strip()]


def read_records(path: Path) -> list[str]:
    """The records of a file, gzipped where its name ends in ``.gz``.

    Raises
    ------
    InputError
        It cannot be read or holds no record.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", errors="replace")
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    records = split_records(text)
    if not any("M  END" in record for record in records):
        raise InputError(f"{path} holds no record of an SDF")
    return records


def record_property(record: str, name: str) -> str:
    """Value of a property; empty if the record has none of this name."""
    lines = record.split("\n")
    for k, line in enumerate(lines[:-1]):
        if line.startswith(">") and f"<{name}>" in line:
            return lines[k + 1].strip()
    return ""


def record_title(record: str) -> str:
    """The first line."""
    return record.partition("\n")[0].strip()


def graph_smiles(record: str) -> str:
    """Canonical SMILES of the bond graph; empty where RDKit cannot read it."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromMolBlock(record)
    return "" if mol is None else canonical_smiles(mol)


def smiles_of_sdf(path: Path) -> list[str]:
    """SMILES of a file's records: the property ``smiles``, or that of the bond graph; what has neither is left out.

    Raises
    ------
    InputError
        As `read_records`.
    """
    return [s for record in read_records(path) if (s := record_property(record, "smiles") or graph_smiles(record))]


def record_text(mol: Chem.Mol, title: str, properties: Mapping[str, Any]) -> str:
    """A record of the first conformer of a molecule, with its end; white space in title and values is folded."""
    named = Chem.Mol(mol)
    named.SetProp("_Name", " ".join(title.split()))
    told = "".join(f">  <{key}>\n{' '.join(str(value).split())}\n\n" for key, value in properties.items())
    return f"{Chem.MolToMolBlock(named)}{told}$$$$\n"
