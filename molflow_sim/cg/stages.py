"""The stages of a model folder: what each was asked for, whether it is done, and that one process writes at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.errors import StoreError
from molflow_sim.runs.files import sha256, write_bytes_atomically

if TYPE_CHECKING:
    from molflow_sim.cg.frames import BeadFrames

TRAINING = "training"
"""Sub-folder with the checkpoints and metrics of the trainings."""
_OWNED = {"fit": ("teacher", "student"), "distill": ("student",)}


class Stage:
    """One stage of a model folder: its record, and whether it was finished before."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self._path, self._record = path, record

    @property
    def finished(self) -> bool:
        """Whether the stage had ended before it was opened now."""
        return bool(self._record["finished"])

    def finish(self, **more: Any) -> None:
        """Write down that the stage is done."""
        self._record |= {"finished": True, **more}
        self.write()

    def note(self, **more: Any) -> None:
        """Add to the record of a stage that goes on."""
        self._record |= more
        self.write()

    def write(self) -> None:
        """Write the record as it is."""
        write_bytes_atomically(self._path, (json.dumps(self._record, indent=1) + "\n").encode())


@contextmanager
def open_stage(folder: Path, name: str, identity: Mapping[str, Any], overwrite: bool) -> Iterator[Stage]:
    """Claim a stage of a model folder for one process; nothing is touched before the folder is found fit for it.

    Parameters
    ----------
    folder : Path
        Model folder, made if absent.
    name : str
        "fit" or "distill".
    identity : mapping
        What decides the stage's result, as JSON values.
    overwrite : bool
        Remove what this stage and later ones have left there.

    Raises
    ------
    StoreError
        The folder is a file, holds something else or another model, or another process writes there.
    """
    from molflow_sim import __version__
    from molflow_sim.runs.store import _acquire

    identity = json.loads(json.dumps(identity))
    path = folder / f"{name}.json"
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; give a folder for the model")
    found = read_record(path)
    if found is None and name == "fit" and not overwrite and folder.exists():
        if any(child.name != "lock" for child in folder.iterdir()):
            raise StoreError(f"{folder} is not empty and holds no model; give another folder, or --overwrite")
    if found is not None and not overwrite and found["identity"] != identity:
        parts = ", ".join(k for k in identity if found["identity"].get(k) != identity[k])
        raise StoreError(
            f"{path} is of a {name} that differs in its {parts}; give another folder, or --overwrite to replace it"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquire(folder / "lock")
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror}") from error
    except StoreError as error:
        raise StoreError(f"{folder} is being written by another process; wait for it") from error
    try:
        if overwrite:
            for owned in _OWNED[name]:
                shutil.rmtree(folder / TRAINING / owned, ignore_errors=True)
                for file in folder.glob(f"{owned}.*"):
                    file.unlink(missing_ok=True)
            for later in ("fit", "distill") if name == "fit" else ("distill",):
                (folder / f"{later}.json").unlink(missing_ok=True)
            found = None
        record = found or {"identity": identity, "version": __version__, "finished": False}
        stage = Stage(path, record)
        if found is None:
            stage.write()
        yield stage
    finally:
        if lock is not None:
            lock.close()


def read_record(path: Path) -> dict[str, Any] | None:
    """The record of a stage, None where there is none.

    Raises
    ------
    StoreError
        A record that cannot be read.
    """
    try:
        record = json.loads(path.read_text())
        if not isinstance(record["identity"], dict):
            raise ValueError("no identity in it")
        return {"finished": False, **record}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StoreError(f"{path} cannot be read ({error}); give another folder, or --overwrite") from error


def fingerprint(frames: BeadFrames) -> str:
    """SHA-256 over positions, forces, temperature and topology of some frames."""
    parts = [np.ascontiguousarray(frames.positions).tobytes(), frames.topology.to_json().encode()]
    parts += [repr(frames.temperature).encode()]
    parts += [np.ascontiguousarray(frames.forces).tobytes()] if frames.forces is not None else []
    return sha256(b"\0".join(parts))
