"""Conformers of many molecules: an SDF for each, a table with the reasons of those that fail, resumable."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
import warnings
from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np

from molflow_sim.errors import MolflowError, StoreError
from molflow_sim.generators.generate import checked, generate
from molflow_sim.generators.writers import conformers_of, sdf_text
from molflow_sim.runs.files import write_bytes_atomically, write_json
from molflow_sim.runs.folder import JobFolder
from molflow_sim.runs.progress import Progress
from molflow_sim.systems.molecule import Molecule
from molflow_sim.units import KJ_PER_MOL

COLUMNS = (
    "file", "name", "smiles", "source", "conformers", "lowest_ev", "range_kj_per_mol", "energy", "lost", "seconds",
    "warnings", "reason",
)  # fmt: skip
CODE = ("molflow_sim.generators.ensembles:ensemble",)
"""What decides the numbers besides the generator, which says so itself."""
REPORT_EVERY = 30.0
"""Seconds between lines of progress where there is no terminal."""


def conformers_of_list(
    items: Sequence[tuple[str, str, str, str]],
    output: str | Path,
    n: int,
    *,
    overwrite: bool = False,
    progress: bool = True,
    **options: Any,
) -> list[dict[str, Any]]:
    """Conformers of each molecule in a file of its own.

    ``NAME.sdf`` appears when it is whole, and ``rows/NAME.json`` after it: what has both is done, so that the same call
    goes on where another was stopped, also by force. ``summary.csv`` has a line for each molecule.

    Parameters
    ----------
    items : sequence of (source, SMILES, name, file name without suffix)
        The file names must differ.
    output : path
    n : int
        Conformers of each molecule, at most.
    overwrite : bool
        Replace conformers of other settings.
    progress : bool
    **options
        See `molflow_sim.generators.generate.generate`.

    Returns
    -------
    list of dict
        The lines of the table.

    Raises
    ------
    InputError, WeightsError
        Settings that no molecule could be used with.
    StoreError
        The folder belongs to another job, holds an unfinished one of other code, or cannot be written.
    """
    options = {"seed": 0, "weights": None, **options}
    identity = checked("conformers", n, press=False, charges="mmff94", **options)[1]
    asked = {k: v for k, v in options.items() if k not in ("method", "weights")}
    job = {"conformers": n, "generator": identity, "settings": asked}
    # Those of this list and of the one that was here before: other files in the folder are not ours to remove.
    ours = {name for *_, name in items} | {path.stem for path in Path(output).glob("rows/*.json")}
    names = (*(f"{escape(name)}.sdf" for name in sorted(ours)), "rows", "summary.csv")
    start = time.monotonic()
    try:
        with JobFolder(output, job, names, overwrite=overwrite, code=CODE) as folder:
            done = [_stored(folder.folder, item) for item in items]
            folder.check_code(all(row is not None for row in done))
            rows_at = folder.folder / "rows"
            rows_at.mkdir(exist_ok=True)
            before = sum(row is not None for row in done)
            told = start
            with Progress(progress).stage("Conformers", len(items), before) as advance:
                for k, item in enumerate(items):
                    if done[k] is None:
                        done[k] = _one(folder.folder, item, n, options)
                        advance(1)
                    if progress and not sys.stderr.isatty() and time.monotonic() - told > REPORT_EVERY:
                        told = time.monotonic()
                        made = max(sum(row is not None for row in done) - before, 1)
                        left = (told - start) / made * sum(row is None for row in done)
                        print(f"{k + 1} of {len(items)} molecules, {left / 60:.0f} min left", file=sys.stderr)
            rows = [row for row in done if row is not None]
            write_bytes_atomically(folder.folder / "summary.csv", _table(rows))
            folder.write_run(status="done")
            return rows
    except OSError as error:
        raise StoreError(f"cannot write to {output}: {error.strerror or error}") from error


def _stored(folder: Path, item: tuple[str, str, str, str]) -> dict[str, Any] | None:
    """The row of a molecule that is done."""
    source, smiles, _, name = item
    try:
        row: dict[str, Any] = json.loads((folder / "rows" / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    there = row.get("reason") or (folder / f"{name}.sdf").is_file()
    return {**row, "source": source} if there and row.get("smiles") == smiles else None


def _one(folder: Path, item: tuple[str, str, str, str], n: int, options: dict[str, Any]) -> dict[str, Any]:
    source, smiles, label, name = item
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"name": label, "smiles": smiles, "source": source}
    start = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            molecule = Molecule.from_smiles(smiles, name=label, search=False)
            found = generate("conformers", molecule, n, **options)
            text = "".join(sdf_text(conformer) for conformer in conformers_of(found))
            write_bytes_atomically(folder / f"{name}.sdf", text.encode())
            low = float(np.nanmin(found.energies)) if np.isfinite(found.energies).any() else None
            row |= {
                "file": f"{name}.sdf",
                "conformers": len(found.conformers),
                "lowest_ev": "" if low is None else round(low, 6),
                "range_kj_per_mol": "" if low is None else round((np.nanmax(found.energies) - low) / KJ_PER_MOL, 2),
                "energy": found.info["energy_model"],
                "lost": found.info["lost"],
            }
        except MolflowError as error:
            row["reason"] = error.reason
            (folder / f"{name}.sdf").unlink(missing_ok=True)
    row["warnings"] = "; ".join(dict.fromkeys(" ".join(str(w.message).split()) for w in caught))
    row["seconds"] = round(time.process_time() - start, 2)
    write_json(folder / "rows" / f"{name}.json", row)
    return row


def _table(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
