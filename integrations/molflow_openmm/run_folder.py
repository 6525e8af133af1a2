"""The folder of one molecular-dynamics run: whose it is, and how to carry on in it after an interruption.

``run.json`` says what the run is; ``state.xml`` is the last checkpoint, written whole or not at all. Whatever the
reporters wrote after that checkpoint is cut off before the run goes on, so no frame or row is lost or repeated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from molflow_sim.errors import StoreError
from molflow_sim.runs.files import write_bytes_atomically
from molflow_sim.runs.store import _acquire

OUTPUTS = (
    "run.json", "system.xml", "initial.pdb", "trajectory.dcd", "log.csv", "state.xml",
    "average.cif", "final.cif", "final.pdb", "summary.json",
)  # fmt: skip
"""Every file a run writes, beside ``lock``."""


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all."""
    write_bytes_atomically(path, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())


@contextmanager
def open_run(
    folder: Path,
    identity: Mapping[str, Any],
    *,
    resume: bool,
    overwrite: bool,
    outputs: Sequence[str] = OUTPUTS,
    checkpoint: str = "state.xml",
) -> Iterator[bool]:
    """Claim a folder for a run; no other process can while the block lasts.

    Parameters
    ----------
    folder : Path
        Made if absent.
    identity : mapping
        What makes the run this run (JSON values).
    resume : bool
        Carry on if the folder holds the same run.
    overwrite : bool
        Remove the files of any run found there, and start anew. Other files stay.
    outputs : sequence of str
        Every file that such a run writes; wildcards allowed.
    checkpoint : str
        The file among them that a run is carried on from.

    Yields
    ------
    bool
        Whether there is a checkpoint to carry on from.

    Raises
    ------
    StoreError
        The folder holds another run, other files, or the same run with `resume` false; or another process writes there.
    """
    identity = json.loads(json.dumps(identity))
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; give a folder for the results")
    if not overwrite:
        _check(folder, identity, resume)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        lock = _acquire(folder / "lock")
    except StoreError as error:
        raise StoreError(
            f"{folder} is being written by another process; wait for it, or give another folder"
        ) from error
    try:
        if overwrite:
            for name in outputs:
                for path in folder.glob(name):
                    path.unlink()
        if not (folder / "run.json").exists():
            write_json(folder / "run.json", {"identity": identity})
        yield (folder / checkpoint).exists()
    finally:
        if lock is not None:
            lock.close()


def _check(folder: Path, identity: Mapping[str, Any], resume: bool) -> None:
    """Refuse a folder that holds anything but this run, before anything is touched."""
    record = folder / "run.json"
    if record.exists():
        try:
            found = json.loads(record.read_text())["identity"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise StoreError(f"{record} cannot be read ({error}); give another folder, or --overwrite") from error
        different = sorted(k for k in {*found, *identity} if found.get(k) != identity.get(k))
        if different:
            what = "; ".join(f"{k}: {found.get(k)} there, {identity.get(k)} here" for k in different)
            raise StoreError(f"{folder} holds another run ({what}); give another folder, or --overwrite to replace it")
        if not resume:
            raise StoreError(f"{folder} already holds this run; carry on with it, or --overwrite to replace it")
    elif folder.exists() and any(child.name != "lock" for child in folder.iterdir()):
        raise StoreError(f"{folder} is not empty and holds no simulation; give another folder, or --overwrite")


def truncate_log(path: Path, last_step: int) -> None:
    """Keep the header and the rows up to `last_step` of a StateDataReporter CSV file with a ``Step`` column."""
    lines = path.read_text().splitlines()
    column = [name.strip('#"') for name in lines[0].split(",")].index("Step") if lines else 0
    kept = lines[:1]
    for line in lines[1:]:
        fields = line.split(",")
        if len(fields) == lines[0].count(",") + 1 and fields[column].isdigit() and int(fields[column]) <= last_step:
            kept.append(line)
    write_bytes_atomically(path, "".join(line + "\n" for line in kept).encode())
