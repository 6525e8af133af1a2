"""The results folder: batches written whole or not at all, found again by identity.

Layout of a run's folder::

    run.json               what the run is and how far it came (also provenance for people)
    store/manifest.jsonl   one line per finished batch: key, identity, SHA-256, seconds
    store/<stage>/...       the batches (npz or JSON)
    store/lock             held while a process writes here

A batch counts as done when its manifest line is whole and the file's hash agrees. A kill at any moment thus
costs at most the batches that were in flight.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from molflow_sim.errors import StoreError
from molflow_sim.runs.files import sha256, write_bytes_atomically
from molflow_sim.runs.folder import JobFolder


def pack_arrays(arrays: Mapping[str, Any]) -> bytes:
    """Arrays as the bytes of an npz file; strings and JSON travel as unicode arrays, never as pickles."""
    buffer = io.BytesIO()
    plain = {name: np.asarray(value) for name, value in arrays.items()}
    for name, value in plain.items():
        if value.dtype.hasobject:
            raise StoreError(f"array {name!r} holds Python objects, which are not stored")
    np.savez_compressed(buffer, allow_pickle=False, **plain)
    return buffer.getvalue()


def unpack_arrays(source: bytes | Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file or of its bytes.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is no such file, or damaged.
    """
    try:
        with np.load(io.BytesIO(source) if isinstance(source, bytes) else source, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except OSError:
        raise
    except Exception as error:  # zip, zlib, header, another sort of file: NumPy raises many kinds
        raise ValueError(f"no archive of arrays, or a damaged one: {error}") from error


def unpack_format(data: bytes, version: int) -> dict[str, np.ndarray]:
    """As `unpack_arrays`, of an archive whose ``format`` is that version (ValueError or KeyError if it is not)."""
    arrays = unpack_arrays(data)
    if int(arrays["format"]) != version:
        raise ValueError(f"format {int(arrays['format'])}, not {version}")
    return arrays


@dataclass(frozen=True)
class Record:
    """One finished batch as the manifest lists it."""

    key: str
    id: str
    sha256: str
    seconds: float


class Store(JobFolder):
    """A run's folder with its batches, open for writing by one process at a time.

    Parameters
    ----------
    folder : path
        Created if absent.
    identity, outputs, overwrite
        See `JobFolder`; `outputs` are those beside the store.

    Raises
    ------
    StoreError
        As `JobFolder`.
    """

    format = 2
    lock = "store/lock"
    starts_anew = False

    def __init__(
        self, folder: str | Path, identity: Mapping[str, Any], outputs: Sequence[str] = (), *, overwrite: bool = False
    ) -> None:
        super().__init__(folder, identity, (*outputs, "store/*"), overwrite=overwrite)
        self._records = read_manifest(self.folder) if self._manifest.exists() else {}

    # -- batches ------------------------------------------------------------------------------------------------

    def path(self, key: str) -> Path:
        """File of a batch, e.g. key ``press/0003.npz``."""
        return self.folder / "store" / key

    def read(self, key: str, id: str) -> bytes | None:
        """The batch's bytes, or None if it is not there, is another's, or is damaged (then it is to be redone)."""
        record = self._records.get(key)
        if record is None or record.id != id:
            return None
        try:
            data = self.path(key).read_bytes()
        except OSError:
            return None
        return data if sha256(data) == record.sha256 else None

    def write(self, key: str, id: str, data: bytes, seconds: float = 0.0) -> None:
        """Store a finished batch: first the file, whole, then its line in the manifest."""
        write_bytes_atomically(self.path(key), data)
        record = Record(key, id, sha256(data), round(float(seconds), 4))
        with open(self._manifest, "ab") as file:
            # A kill may have left half a line: start on a new one.
            start = b"" if file.tell() == 0 or self._ends_with_newline() else b"\n"
            file.write(start + json.dumps(asdict(record)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._records[key] = record

    def once(self, key: str, id: str, compute: Callable[[], bytes]) -> bytes:
        """The stored batch, or the computed one after storing it."""
        data = self.read(key, id)
        if data is None:
            start = perf_counter()
            data = compute()
            self.write(key, id, data, perf_counter() - start)
        return data

    def seconds(self, stage: str) -> float:
        """Time that the stored batches of a stage took, over all sessions of the run."""
        prefix = f"{stage}/"
        return sum(r.seconds for r in self._records.values() if r.key == stage or r.key.startswith(prefix))

    # -- inside -------------------------------------------------------------------------------------------------

    @property
    def _manifest(self) -> Path:
        return self.folder / "store" / "manifest.jsonl"

    def _ends_with_newline(self) -> bool:
        with open(self._manifest, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def read_manifest(folder: str | Path) -> dict[str, Record]:
    """Finished batches of a results folder by key.

    Raises
    ------
    FileNotFoundError
        It has no store.
    """
    records: dict[str, Record] = {}
    for line in (Path(folder) / "store" / "manifest.jsonl").read_bytes().splitlines():
        try:
            record = Record(**json.loads(line))
        except (ValueError, TypeError):
            continue  # a line cut short by a kill: its batch is redone
        records[record.key] = record
    return records
