"""Clusters as the flow reads them: one rigid shape each, and where its copies stand. Needs NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from molflow_sim.errors import StoreError, TrainingError
from molflow_sim.runs.files import sha256, write_bytes_atomically
from molflow_sim.runs.store import pack_arrays, unpack_format

SPLITS = ("train", "validation", "test")
FILE = "clusters.npz"
"""Name of the archive in a folder of `molflow dataset clusters`."""
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Poses:
    """Where n copies of a shape stand: atom k of copy i at ``centre[i] + rotation[i] @ (hand[i] * body[k])``.

    centre : (n, 3) Å; rotation : (n, 3, 3), proper; hand : (n,) ±1, -1 for an inverted copy.
    """

    centre: np.ndarray
    rotation: np.ndarray
    hand: np.ndarray

    def positions(self, body: np.ndarray) -> np.ndarray:
        """Atoms (n, N, 3) of the copies of a body (N, 3)."""
        turned = np.einsum("nij,kj->nki", self.rotation, body) * self.hand[:, None, None]
        return np.asarray(turned + self.centre[:, None])


@dataclass(frozen=True, eq=False)
class ClusterRecord:
    """A molecule of a crystal and its nearest ones, and a loose start of the same molecules.

    Attributes
    ----------
    name, smiles, source : str
    key : str
        The same for all clusters of a molecule.
    split : str
        One of `SPLITS`, decided by the molecule.
    numbers : ndarray of int (N,)
    mass : float
        Of a molecule, amu.
    body : ndarray (N, 3)
        The shape in Å, about its centre of mass.
    symmetry : ndarray (K, 3, 3)
        Proper rotations that map the body on itself, the identity first.
    end, start : Poses
        The crystal's cluster, and the noised one.
    relative_energy : float
        kJ/mol per molecule above the lowest packing of the molecule; 0 for measured crystals.
    experimental : bool
    """

    name: str
    smiles: str
    source: str
    key: str
    split: str
    numbers: np.ndarray
    mass: float
    body: np.ndarray
    symmetry: np.ndarray
    end: Poses
    start: Poses
    relative_energy: float = 0.0
    experimental: bool = False


@dataclass(frozen=True, eq=False)
class ClusterData:
    """Clusters of one size.

    Attributes
    ----------
    records : list of ClusterRecord
    identity : str
        Hash of the archives they were read from.
    """

    records: list[ClusterRecord]
    identity: str = ""
    size: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        sizes = {len(r.end.centre) for r in self.records}
        if len(sizes) > 1:
            raise TrainingError(f"clusters of {', '.join(map(str, sorted(sizes)))} molecules; choose one size")
        object.__setattr__(self, "size", sizes.pop() if sizes else 0)

    def __len__(self) -> int:
        return len(self.records)

    def of(self, split: str) -> ClusterData:
        """One side of the split."""
        return ClusterData([r for r in self.records if r.split == split], self.identity)

    def weights(self, energy_scale: float, experimental_share: float) -> np.ndarray:
        """How often each cluster is drawn: exp(-ΔE/energy_scale) within a molecule, whose sum is 1.

        Parameters
        ----------
        energy_scale : float
            kJ/mol per molecule.
        experimental_share : float
            Of the draws that come from experiment, where there are both.
        """
        from molflow_sim.training.batches import with_measured_share

        weights = np.exp(-np.array([r.relative_energy for r in self.records]) / energy_scale)
        _, molecule = np.unique([r.key for r in self.records], return_inverse=True)
        weights /= np.bincount(molecule, weights)[molecule]
        measured = np.array([r.experimental for r in self.records])
        weights = with_measured_share(weights, measured, experimental_share)
        return weights / weights.sum()

    def packed(self) -> bytes:
        """The bytes of an archive, see `unpacked`."""
        arrays: dict[str, Any] = {"format": FORMAT}
        arrays |= {name: [getattr(r, name) for r in self.records] for name in (*_TEXTS, *_PLAIN)}
        for name in _RAGGED:
            parts = [getattr(r, name) for r in self.records]
            arrays |= {name: np.concatenate(parts), f"{name}_count": [len(p) for p in parts]}
        for which, part in product(_POSES, _PARTS):
            arrays[f"{which}_{part}"] = np.stack([getattr(getattr(r, which), part) for r in self.records])
        return pack_arrays(arrays)

    def save(self, path: Path) -> None:
        """Write an archive."""
        write_bytes_atomically(path, self.packed())


_TEXTS = ("name", "smiles", "source", "key", "split")
_PLAIN = ("mass", "relative_energy", "experimental")
_RAGGED = ("numbers", "body", "symmetry")
_POSES, _PARTS = ("end", "start"), ("centre", "rotation", "hand")


def read_clusters(paths: str | Path | Sequence[str | Path]) -> ClusterData:
    """Read archives of `molflow dataset clusters`, or the folders that hold them.

    Raises
    ------
    StoreError
        There is none, or it is damaged.
    TrainingError
        Clusters of different sizes.
    """
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    files = [f / FILE if f.is_dir() else f for f in map(Path, given)]
    records: list[ClusterRecord] = []
    hashes = []
    for file in files:
        try:
            raw = file.read_bytes()
            records += unpacked(raw)
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(
                f"{file} is no archive of clusters; make one with molflow dataset clusters ({error})"
            ) from error
        hashes.append(sha256(raw))
    return ClusterData(records, sha256("".join(hashes).encode()))


def unpacked(data: bytes) -> list[ClusterRecord]:
    """The clusters of an archive.

    Raises
    ------
    ValueError, KeyError
        It is none.
    """
    arrays = unpack_format(data, FORMAT)
    parts = {name: np.split(arrays[name], np.cumsum(arrays[f"{name}_count"])[:-1]) for name in _RAGGED}
    records = []
    for k in range(len(arrays["name"])):
        fields: dict[str, Any] = {name: str(arrays[name][k]) for name in _TEXTS}
        fields |= {name: arrays[name][k].item() for name in _PLAIN}
        fields |= {name: parts[name][k] for name in _RAGGED}
        fields |= {which: Poses(*(arrays[f"{which}_{part}"][k] for part in _PARTS)) for which in _POSES}
        records.append(ClusterRecord(**fields))
    return records
