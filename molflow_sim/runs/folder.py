"""The folder of a long job: whose it is, that one process writes there at a time, and what may be removed from it.

A file such as ``run.json`` holds the job's identity and what else is to be told of it. The same job carries on with
what the folder holds; another one is refused before anything is touched.
"""

from __future__ import annotations

import json
import os
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

import molflow_sim
from molflow_sim.errors import StoreError
from molflow_sim.runs.files import write_json
from molflow_sim.runs.identity import code_identity


class JobFolder:
    """A folder, open for the writing of one job by one process at a time.

    Parameters
    ----------
    folder : path
        Created if absent.
    identity : mapping
        What makes the job this job (JSON values); compared with the folder's before anything is touched. Where kinds
        of jobs share a `name`, its first entry says which this is.
    outputs : sequence of str
        What such a job writes, with wildcards; these files and folders may be removed, and nothing else.
    overwrite : bool
        Remove the outputs of another job of this name found here.
    name : str
        Of the file with the identity, without ``.json``.
    among : bool
        This job is a further stage of what the folder holds, which need not be empty.
    code : sequence of str
        What decides the numbers, as `runs.identity.code_identity` takes it; kept beside the identity, see `check_code`.

    Raises
    ------
    StoreError
        The folder belongs to another job, holds other files, is damaged, was written in another format, or is being
        written by another process.
    """

    format = 1
    """Of what such a job leaves; a folder of another one is refused."""
    lock = "lock"
    replace = "--overwrite to replace it"
    starts_anew = True
    """Whether `overwrite` removes the outputs of the same job too."""

    def __init__(
        self,
        folder: str | Path,
        identity: Mapping[str, Any],
        outputs: Sequence[str],
        *,
        overwrite: bool = False,
        name: str = "run",
        among: bool = False,
        code: Sequence[str] = (),
    ) -> None:
        self.folder = Path(folder).expanduser().resolve()
        self.identity = json.loads(json.dumps(identity))
        self.name, self.outputs = name, outputs
        self.code = code_identity(*code) if code else None
        self.file = self.folder / f"{name}.json"
        if self.folder.exists() and not self.folder.is_dir():
            raise StoreError(f"{self.folder} is a file; give a folder for the results")
        if not (among or overwrite or self.file.exists() or any(self._written())) and self.folder.exists():
            if any(child.name not in (Path(self.lock).parts[0], self._owner.name) for child in self.folder.iterdir()):
                raise StoreError(
                    f"{self.folder} is not empty and holds no {name} of ours; give another folder "
                    "(or --overwrite to write into it; files of yours stay)"
                )
        self._lock = FileLock(self.folder / self.lock)
        self._acquire()
        try:
            self._claim(overwrite)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock."""
        if self._lock.is_locked:
            self._owner.unlink(missing_ok=True)
            self._lock.release()

    @property
    def done(self) -> bool:
        """Whether the job has come to its end, as `write_run` was told."""
        return read_run(self.folder, self.name).get("status") == "done"

    def write_run(self, **fields: Any) -> dict[str, Any]:
        """Write the identity and whatever else is to be told of the job, its `status` ("running", "done") for one."""
        run = {"format": self.format, "version": molflow_sim.__version__, "identity": self.identity, **fields}
        run |= {"code": self.code} if self.code else {}
        write_json(self.file, run)
        return run

    def check_code(self, finished: bool) -> None:
        """Compare the code that left what is here with this one.

        A finished job is read as it is, with a warning if it is known to be of other code. To go on with an unfinished
        one would mix the results of both.

        Raises
        ------
        StoreError
            Other code, or a version that did not say which, left the job unfinished.
        """
        run = read_run(self.folder, self.name)
        found = run.get("code")
        if found == self.code:
            if self.done and not finished:  # more is asked for
                self.write_run(status="running")
            return
        there = f"{self.name} of other code (version {run.get('version')}, code {found or 'unknown'}; here {self.code})"
        if finished:
            self.code = found  # whatever is still written of it
            if found:
                warnings.warn(f"{self.folder} holds a {there}, read as it is; {self.replace}", stacklevel=3)
        elif any(self._written()):
            raise StoreError(
                f"{self.folder} holds an unfinished {there}, which this one must not go on with; give another folder, "
                f"or {self.replace}"
            )
        else:
            self.write_run(status="running")

    def _claim(self, overwrite: bool) -> None:
        """Refuse what belongs to another job; a job refused in its first step leaves nothing to lose."""
        written = any(self._written())
        try:
            run = read_run(self.folder, self.name) if self.file.exists() else {"identity": None}
            found, format = run["identity"], run.get("format", self.format)
        except (StoreError, KeyError):
            found, format = {self.file.name: "unreadable"}, self.format
        if format != self.format and written and not overwrite:
            raise StoreError(
                f"{self.folder} holds a {self.name} of format {format}, molflow-sim {molflow_sim.__version__} writes "
                f"format {self.format}; give another folder, or {self.replace}"
            )
        if found is None and written:
            found = {self.file.name: "missing"}
        if found != self.identity and written and not overwrite:
            raise StoreError(
                f"{self.folder} belongs to another {self.name} ({_differences(found, self.identity)}); "
                f"give another folder, the same settings to carry on, or {self.replace}"
            )
        if (found, format) != (self.identity, self.format) or (overwrite and self.starts_anew):
            for path in list(self._written()):
                rmtree(path) if path.is_dir() else path.unlink()
            self.write_run(status="running")
        folders = {"", "store/**/", *(f"{pattern.rpartition('/')[0]}/" for pattern in self.outputs if "/" in pattern)}
        for folder in folders:  # of a killed process: nobody else writes here now
            for path in self.folder.glob(f"{folder}.*.part*"):
                path.unlink(missing_ok=True)

    @property
    def _owner(self) -> Path:
        return self.folder / f"{self.lock}.owner"

    def _acquire(self) -> None:
        """Take the folder's lock, which the system frees when its process dies, however it dies; a note says whose."""
        try:
            self._owner.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
            self._owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        except Timeout as error:
            owner = self._owner.read_text(encoding="utf-8") if self._owner.exists() else "another process"
            raise StoreError(
                f"{self.folder} is being written by {owner}; wait for it or give another folder"
            ) from error
        except OSError as error:
            raise StoreError(f"cannot write to {self.folder}: {error.strerror}") from error

    def _written(self) -> Iterator[Path]:
        own = (self.file, self.folder / self.lock, self._owner)
        for pattern in self.outputs:
            yield from (path for path in self.folder.glob(pattern) if path not in own)


def read_run(folder: str | Path, name: str = "run") -> dict[str, Any]:
    """What `JobFolder.write_run` wrote.

    Raises
    ------
    StoreError
        It is missing or damaged.
    """
    path = Path(folder) / f"{name}.json"
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{folder} holds no {name} (no {name}.json)") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    if not isinstance(run, dict):
        raise StoreError(f"{path} is not a {name}'s description")
    return run


def _differences(found: Any, asked: Any, name: str = "") -> str:
    """Which settings differ, those inside of settings by their own names."""
    if isinstance(found, dict) and isinstance(asked, dict):
        keys = [key for key in {**found, **asked} if found.get(key) != asked.get(key)]
        return "; ".join(_differences(found.get(k), asked.get(k), f"{name}.{k}" if name else k) for k in keys[:4])
    texts = (json.dumps(value, ensure_ascii=False) for value in (found, asked))
    there, here = (text if len(text) <= 60 else text[:57] + "..." for text in texts)
    return f"{name or 'identity'}: there {there}, here {here}"
