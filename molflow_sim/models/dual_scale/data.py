"""Frames of a simulation of a cluster, as the flow reads them: heavy atoms, molecules near one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from molflow_sim.errors import TrajectoryError
from molflow_sim.runs.files import sha256
from molflow_sim.runs.store import unpack_arrays

TRAIN, VALIDATION, TEST = 0, 1, 2
LONGEST_BOND = 2.6
"""Å; longer ones say that atoms are in another order than the SMILES', or that a molecule is broken across the box."""
_KEYS = ("positions", "numbers", "smiles", "copies", "split")


@dataclass(frozen=True, eq=False)
class ClusterFrames:
    """Frames of one cluster.

    Attributes
    ----------
    smiles : tuple of str
        Of the species.
    order : ndarray of int, shape (m,)
        Species of every molecule.
    positions : ndarray of float32, shape (F, N, 3)
        Å, hydrogens included; whole molecules, near one another.
    split : ndarray of int, shape (F,)
        0 for training, 1 for validation, 2 for the test.
    name : str
    """

    smiles: tuple[str, ...]
    order: np.ndarray
    positions: np.ndarray
    split: np.ndarray
    name: str = ""

    def rdmols(self) -> list[Any]:
        """The species with explicit hydrogens, atoms in the order of the frames."""
        from molflow_sim.chemistry.checks import molecule_of

        return [molecule_of(s) for s in self.smiles]

    def heavy(self, side: int | None = None) -> np.ndarray:
        """Positions (f, n, 3) of the heavy atoms, of one side of the split or of all frames."""
        rdmols = self.rdmols()
        kept = np.concatenate([[a.GetAtomicNum() > 1 for a in rdmols[s].GetAtoms()] for s in self.order])
        rows = self.positions if side is None else self.positions[self.split == side]
        return rows[:, kept]

    @property
    def identity(self) -> str:
        """Hash of all that training depends on."""
        return sha256(repr((self.smiles, self.order.tolist(), self.split.tolist())).encode() + self.positions.tobytes())


def read_frames(paths: str | Path | Sequence[str | Path]) -> list[ClusterFrames]:
    """Read archives of frames, or folders of them.

    Parameters
    ----------
    paths : path or sequence of paths
        ``.npz`` with ``positions`` (frames, N, 3) in Å, ``numbers`` (N,), ``smiles`` and ``copies`` of each species
        (molecules one after another, atoms in the order of the SMILES, then hydrogens), ``split`` (frames,) of 0, 1, 2,
        and, for periodic boxes, ``cell`` (3, 3) or (frames, 3, 3). Molecules must be whole. Archives of the same
        molecules are one.

    Raises
    ------
    TrajectoryError
        Nothing to read, missing arrays, shapes or elements that do not fit, NaN, broken molecules.
    """
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    files = [f for p in map(Path, given) for f in (sorted(p.glob("*.npz")) if p.is_dir() else [p])]
    if not files:
        raise TrajectoryError(f"no .npz of frames in {', '.join(map(str, given))}")
    found: dict[tuple[tuple[str, ...], bytes], list[ClusterFrames]] = {}
    for f in files:
        one = _read(f)
        found.setdefault((one.smiles, one.order.tobytes()), []).append(one)
    return [_joined(alike) for alike in found.values()]


def _joined(alike: list[ClusterFrames]) -> ClusterFrames:
    """Frames of the same molecules, from several boxes, as one."""
    if len(alike) == 1:
        return alike[0]
    return replace(
        alike[0],
        positions=np.concatenate([a.positions for a in alike]),
        split=np.concatenate([a.split for a in alike]),
        name=" + ".join(a.name for a in alike),
    )


def _read(path: Path) -> ClusterFrames:
    from molflow_sim.chemistry.checks import molecule_of

    try:
        a = unpack_arrays(path)
    except (OSError, ValueError) as error:
        raise TrajectoryError(f"{path} cannot be read as an archive of frames: {error}") from None
    if missing := [key for key in _KEYS if key not in a]:
        raise TrajectoryError(f"{path} has no {', '.join(missing)}; frames need {', '.join(_KEYS)}")
    smiles = tuple(str(s) for s in np.atleast_1d(a["smiles"]))
    try:
        copies = np.atleast_1d(a["copies"]).astype(int)
        positions, split = np.asarray(a["positions"], np.float32), np.asarray(a["split"], int).reshape(-1)
        cell = np.asarray(a.get("cell", np.zeros(0)), float)
    except ValueError as error:
        raise TrajectoryError(f"{path}: copies, positions, split and cell must be numbers: {error}") from None
    if not len(smiles) or len(smiles) != len(copies) or copies.min() < 1:
        raise TrajectoryError(f"{path}: {len(smiles)} SMILES and copies {copies.tolist()}")
    order = np.repeat(np.arange(len(smiles)), copies)
    rdmols = [molecule_of(s) for s in smiles]
    numbers = [a.GetAtomicNum() for s in order for a in rdmols[s].GetAtoms()]
    if positions.ndim != 3 or positions.shape[1:] != (len(numbers), 3) or len(split) != len(positions):
        raise TrajectoryError(
            f"{path}: positions of shape {positions.shape} and {len(split)} entries of the split; the molecules have "
            f"{len(numbers)} atoms"
        )
    if a["numbers"].shape != (len(numbers),):
        raise TrajectoryError(f"{path}: numbers of shape {a['numbers'].shape}; the molecules have {len(numbers)} atoms")
    if len(wrong := np.flatnonzero(a["numbers"] != numbers)):
        raise TrajectoryError(
            f"{path}: atom {wrong[0]} is no element {numbers[wrong[0]]}: atoms must stand in the order of the SMILES"
        )
    if not np.isfinite(positions).all():
        raise TrajectoryError(f"{path}: the positions of frame {_first(positions)} are not finite")
    if not (split == TRAIN).any():
        raise TrajectoryError(f"{path}: the split has no frame for training (0)")
    if cell.any():
        if cell.shape not in ((3, 3), (len(positions), 3, 3)) or not (np.abs(np.linalg.det(cell)) > 1e-3).all():
            raise TrajectoryError(f"{path}: a cell of shape {cell.shape} that is no box in every frame")
        positions = _together(positions, np.broadcast_to(cell, (len(positions), 3, 3)), order, rdmols)
    _check_bonds(path, positions, order, rdmols)
    return ClusterFrames(smiles, order, positions - positions.mean(1, keepdims=True), split, path.stem)


def _first(positions: np.ndarray) -> int:
    return int(np.flatnonzero(~np.isfinite(positions).all((1, 2)))[0])


def _check_bonds(path: Path, positions: np.ndarray, order: np.ndarray, rdmols: list[Any]) -> None:
    first = 0
    for s in order:
        ends = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in rdmols[s].GetBonds()]).reshape(-1, 2) + first
        lengths = np.linalg.norm(positions[:, ends[:, 0]] - positions[:, ends[:, 1]], axis=-1)
        if lengths.size and lengths.max() > LONGEST_BOND:
            frame, bond = np.unravel_index(lengths.argmax(), lengths.shape)
            raise TrajectoryError(
                f"{path}: the bond {ends[bond].tolist()} of frame {frame} is {lengths.max():.2f} Å long: atoms are not "
                "in the order of the SMILES, or the molecule is broken across the box"
            )
        first += rdmols[s].GetNumAtoms()


def _together(positions: np.ndarray, cells: np.ndarray, order: np.ndarray, rdmols: list[Any]) -> np.ndarray:
    """Each molecule in the image that lies near the others; the same image from frame to frame where it moves on."""
    sizes = np.array([rdmols[s].GetNumAtoms() for s in order])
    firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    out, images, last = np.empty_like(positions), None, None
    for k, (x, cell) in enumerate(zip(positions, cells)):
        centres = np.add.reduceat(x, firsts) / sizes[:, None]
        width = np.abs(np.linalg.det(cell)) ** (1 / 3)
        jumped = last is not None and np.linalg.norm(np.diff(centres - last, axis=0), axis=1).max(initial=0) > width / 2
        if images is None or jumped:
            images = _near_images(centres, cell)
        last = centres
        out[k] = x + np.repeat(images @ cell, sizes, axis=0)
    return out


def _near_images(centres: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Lattice shifts (m, 3): molecules are added one by one, always the one that comes nearest to the middle of those
    already there."""
    images, placed = np.zeros((len(centres), 3)), [0]
    while len(placed) < len(centres):
        middle = (centres[placed] + images[placed] @ cell).mean(0)
        rest = [m for m in range(len(centres)) if m not in placed]
        shifts = -np.rint((centres[rest] - middle) @ np.linalg.inv(cell))
        m = int(np.linalg.norm(centres[rest] + shifts @ cell - middle, axis=1).argmin())
        images[rest[m]] = shifts[m]
        placed.append(rest[m])
    return images
