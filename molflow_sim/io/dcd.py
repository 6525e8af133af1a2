"""The DCD files that OpenMM writes (CHARMM flavour, little endian, all atoms in every frame), and logs, cut or read."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from molflow_sim.errors import StoreError
from molflow_sim.runs.files import write_bytes_atomically
from molflow_sim.symmetry.spacegroup import cell_matrix


@dataclass(frozen=True)
class DCDLayout:
    """Where things are in a DCD file: atoms, offset of the first frame, bytes per frame, whole frames, box or none."""

    n_atoms: int
    start: int
    frame: int
    n_frames: int
    box: bool = True


def dcd_layout(path: Path) -> DCDLayout:
    """Look at a DCD file, with a periodic box or without.

    Raises
    ------
    StoreError
        The file is missing or is not a DCD file of OpenMM's.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(92)
            if len(head) < 92 or head[4:8] != b"CORD":
                raise StoreError(f"{path} is not a DCD file of OpenMM's")
            box = struct.unpack("<i", head[48:52])[0] == 1
            (comments,) = struct.unpack("<i", file.read(4))
            file.seek(comments + 8, 1)
            (n_atoms,) = struct.unpack("<i", file.read(4))
            start = file.tell() + 4
            size = file.seek(0, 2)
    except (OSError, struct.error) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    frame = 56 * box + 3 * (4 * n_atoms + 8)
    return DCDLayout(n_atoms, start, frame, (size - start) // frame, box)


def frame_type(layout: DCDLayout) -> np.dtype:
    """One frame of the file as a NumPy record: ``box`` (where there is one), ``x``, ``y`` and ``z``."""
    box = [("_0", "<i4"), ("box", "<f8", 6), ("_1", "<i4")] if layout.box else []
    axes = [item for k in "xyz" for item in ((f"_{k}0", "<i4"), (k, "<f4", layout.n_atoms), (f"_{k}1", "<i4"))]
    return np.dtype([*box, *axes])


def truncate_dcd(path: Path, frames: int) -> None:
    """Keep the first `frames` frames and say so in the header.

    Raises
    ------
    StoreError
        The file is not such a DCD file, or holds fewer whole frames.
    """
    layout = dcd_layout(path)
    if layout.n_frames < frames:
        raise StoreError(f"{path} holds {layout.n_frames} frames, the checkpoint says {frames}; use --overwrite")
    with open(path, "r+b") as file:
        first, interval = struct.unpack("<2i", file.read(20)[12:])
        file.truncate(layout.start + frames * layout.frame)
        file.seek(8)
        file.write(struct.pack("<i", frames))
        file.seek(20)
        file.write(struct.pack("<i", first + (frames - 1) * interval))


def read_dcd(path: Path, first: int = 0, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Frames `first`, `first` + `stride`, ... of a DCD file with a periodic box.

    Returns
    -------
    cells : ndarray, shape (T, 3, 3)
        Box rows in the standard frame, Å.
    positions : ndarray, shape (T, n, 3)
        Å, in double precision (the file holds single).

    Raises
    ------
    StoreError
        Not such a file.
    """
    data = _frames(path)[first::stride]
    if "box" not in (data.dtype.names or ()):
        raise StoreError(f"{path} is not a DCD file of a periodic simulation")
    a, sin_c, b, sin_b, sin_a, c = np.asarray(data["box"]).T  # OpenMM writes sin(π/2 - angle)
    angles = [np.degrees(np.arccos(np.clip(s, -1.0, 1.0))) for s in (sin_a, sin_b, sin_c)]
    return cell_matrix(np.stack([a, b, c, *angles], axis=1)), np.stack([data[k] for k in "xyz"], axis=-1).astype(float)


def start_dcd(path: Path, n_beads: int, timestep_fs: float, interval: int) -> None:
    """Write the head of a DCD file without a box and without frames (CHARMM flavour, as OpenMM's).

    Parameters
    ----------
    interval : int
        Steps between frames.
    """
    # The header counts time in AKMA units, 0.0488882 ps.
    head = struct.pack("<i4s9if", 84, b"CORD", 0, interval, interval, 0, 0, 0, 0, 0, 0, 1e-3 * timestep_fs / 0.04888821)
    head += struct.pack("<13i", 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 84, 164, 2)
    comments = (b"molflow-sim: coarse-grained frames, all copies of one time after another", b"positions in Angstrom")
    head += b"".join(text.ljust(80) for text in comments)
    path.write_bytes(head + struct.pack("<4i", 164, 4, n_beads, 4))


def append_dcd(path: Path, positions: np.ndarray) -> None:
    """Append frames to such a file.

    Parameters
    ----------
    positions : ndarray, shape (F, B, 3)
        Å.
    """
    layout = dcd_layout(path)
    frames = np.zeros(len(positions), dtype=frame_type(layout))
    for axis, name in enumerate("xyz"):
        frames[name] = positions[:, :, axis]
        frames[f"_{name}0"] = frames[f"_{name}1"] = 4 * layout.n_atoms
    with open(path, "r+b") as file:
        file.seek(layout.start + layout.n_frames * layout.frame)
        file.write(frames.tobytes())
        file.seek(8)
        file.write(struct.pack("<i", layout.n_frames + len(positions)))


def read_positions(path: Path) -> np.ndarray:
    """All frames of such a file, shape (F, B, 3), Å, float32.

    Raises
    ------
    StoreError
        No such file, or another kind.
    """
    data = _frames(path)
    return np.stack([data[k] for k in "xyz"], axis=-1)


def _frames(path: Path) -> np.ndarray:
    layout = dcd_layout(path)
    return np.memmap(path, dtype=frame_type(layout), mode="r", offset=layout.start, shape=(layout.n_frames,))


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
