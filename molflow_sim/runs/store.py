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
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import IO, Any

import numpy as np

from molflow_sim.errors import StoreError
from molflow_sim.runs.files import sha256, write_bytes_atomically

# Everything a run writes at the top of its folder; --overwrite removes these and nothing else.
OUTPUTS = (
    "run.json", "report.html", "landscape.svg", "ranking.csv", "dropped.csv", "landscape.db", "landscape.db.lock",
    "structures", "store",
)  # fmt: skip


def pack_arrays(arrays: Mapping[str, Any]) -> bytes:
    """Arrays as the bytes of an npz file; strings and JSON travel as unicode arrays, never as pickles."""
    buffer = io.BytesIO()
    plain = {name: np.asarray(value) for name, value in arrays.items()}
    for name, value in plain.items():
        if value.dtype.hasobject:
            raise StoreError(f"array {name!r} holds Python objects, which are not stored")
    np.savez_compressed(buffer, allow_pickle=False, **plain)
    return buffer.getvalue()


def unpack_arrays(data: bytes) -> dict[str, np.ndarray]:
    """The inverse of `pack_arrays`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@dataclass(frozen=True)
class Record:
    """One finished batch as the manifest lists it."""

    key: str
    id: str
    sha256: str
    seconds: float


class Store:
    """A run's folder, open for writing by one process at a time.

    Parameters
    ----------
    folder : path
        Created if absent.
    identity : dict
        What makes this run this run; compared with the folder's before anything is touched.
    overwrite : bool
        Remove the results of another run found here (only files that runs write).

    Raises
    ------
    StoreError
        If the folder belongs to another run, holds other files, is damaged, or is being written by another process.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.folder = Path(folder).expanduser().resolve()
        self.identity = json.loads(json.dumps(identity))
        if self.folder.exists() and not self.folder.is_dir():
            raise StoreError(f"{self.folder} is a file; give a folder for the results")
        fresh = not (self.folder / "run.json").exists() and not (self.folder / "store").exists()
        if fresh and self.folder.exists() and any(self.folder.iterdir()) and not overwrite:
            raise StoreError(
                f"{self.folder} is not empty and holds no screening run; give another folder "
                "(or --overwrite to write into it; files of yours stay)"
            )
        try:
            (self.folder / "store").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write to {self.folder}: {error.strerror}") from error
        self._lock = _acquire(self.folder / "store" / "lock")
        try:
            self._check_identity(overwrite)
            self._records = self._read_manifest()
            self._sweep()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # -- batches ------------------------------------------------------------------------------------------------

    def path(self, key: str) -> Path:
        """File of a batch, e.g. key ``press/0003.npz``."""
        return self.folder / "store" / key

    def has(self, key: str, id: str) -> bool:
        """Whether the batch is done under this identity (its file is checked by hash when read)."""
        record = self._records.get(key)
        return record is not None and record.id == id and self.path(key).exists()

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

    # -- run.json -----------------------------------------------------------------------------------------------

    def write_run(self, **fields: Any) -> dict[str, Any]:
        """Write run.json: the identity and whatever provenance is given."""
        run = {"format": 1, "identity": self.identity, **fields}
        text = json.dumps(run, indent=2, ensure_ascii=False)
        write_bytes_atomically(self.folder / "run.json", text.encode() + b"\n")
        return run

    # -- inside -------------------------------------------------------------------------------------------------

    @property
    def _manifest(self) -> Path:
        return self.folder / "store" / "manifest.jsonl"

    def _ends_with_newline(self) -> bool:
        with open(self._manifest, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _read_manifest(self) -> dict[str, Record]:
        records: dict[str, Record] = {}
        if not self._manifest.exists():
            return records
        for line in self._manifest.read_bytes().splitlines():
            try:
                record = Record(**json.loads(line))
            except (ValueError, TypeError):
                continue  # a line cut short by a kill: its batch is redone
            records[record.key] = record
        return records

    def _check_identity(self, overwrite: bool) -> None:
        try:
            found = read_run(self.folder)["identity"] if (self.folder / "run.json").exists() else None
        except (StoreError, KeyError):
            found = {"run.json": "unreadable"}
        if found is None and self._manifest.exists():
            found = {"run.json": "missing"}
        if found == self.identity:
            return
        if found is not None:
            if not overwrite and self._holds_results():
                raise StoreError(
                    f"{self.folder} belongs to another run ({_differences(found, self.identity)}); "
                    "give another folder, the same settings to carry on, or --overwrite to replace it"
                )
            self._clear()
        self.write_run(status="running")

    def _holds_results(self) -> bool:
        """Whether there is anything to lose: a run refused in its first step leaves only its description."""
        if self._manifest.exists() and self._manifest.stat().st_size:
            return True
        if any((self.folder / name).exists() for name in OUTPUTS if name not in ("run.json", "store")):
            return True
        return any(child.name != "lock" for child in (self.folder / "store").iterdir())

    def _sweep(self) -> None:
        """Remove temporary files that a killed process left; nobody else writes here while the lock is held."""
        for pattern in (".*.part*", "structures/.*.part*", "store/**/.*.part*"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Remove what runs write (the lock stays), and nothing else."""
        from shutil import rmtree

        for name in OUTPUTS:
            path = self.folder / name
            if name == "store":
                for child in path.iterdir():
                    if child.is_dir():
                        rmtree(child)
                    elif child.name != "lock":
                        child.unlink()
            elif name == "structures" and path.is_dir():
                for file in path.glob("rank_*.cif"):
                    file.unlink()
            else:
                path.unlink(missing_ok=True)


def read_run(folder: str | Path) -> dict[str, Any]:
    """Contents of a folder's run.json.

    Raises
    ------
    StoreError
        If it is missing or damaged.
    """
    path = Path(folder) / "run.json"
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{folder} holds no screening run (no run.json)") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    if not isinstance(run, dict):
        raise StoreError(f"{path} is not a run's description")
    return run


def _differences(found: Any, asked: Mapping[str, Any]) -> str:
    if not isinstance(found, dict):
        return "its run.json cannot be read"
    keys = [k for k in {**found, **asked} if found.get(k) != asked.get(k)]

    def show(value: Any) -> str:
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= 60 else text[:57] + "..."

    return "; ".join(f"{k}: there {show(found.get(k))}, here {show(asked.get(k))}" for k in keys[:4])


def _acquire(path: Path) -> IO[str] | None:
    """Take the folder's lock; the system frees it when its process dies, however it dies."""
    file = open(path, "a+", encoding="utf-8")  # open as long as the store is
    try:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError as error:
        file.seek(0)
        owner = file.read(200).strip() or "another process"
        file.close()
        raise StoreError(
            f"{path.parent.parent} is being written by {owner}; wait for it or give another folder"
        ) from error
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
