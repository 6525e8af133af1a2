"""Reading a data set of crystal packings; needs NumPy only, so that machines that train can do it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from molflow_sim.dataset.shards import Shard, unpack_shard
from molflow_sim.errors import InputError, StoreError
from molflow_sim.runs.files import sha256
from molflow_sim.runs.store import Record, read_manifest
from molflow_sim.units import KJ_PER_MOL

SHARDS = ("molecules", "crystals")
"""Folders of the store that hold shards: generated packings, experimental crystals."""

SAME_ENERGY = 0.05 * KJ_PER_MOL
SAME_VOLUME = 3e-3
"""eV per molecule, and relative: packings of one molecule and space group that agree so far are one, found twice."""


@dataclass(frozen=True, eq=False)
class CrystalRecord:
    """One crystal: M rigid molecules in the asymmetric unit, N atoms each, G operations.

    Attributes
    ----------
    numbers : ndarray of int, shape (N,)
    bonds : ndarray of int, shape (nb, 2)
    conformers : ndarray, shape (M, N, 3)
        Å, each molecule's body-frame positions, centred on its centre of mass.
    space_group : str
        Hermann-Mauguin symbol of the setting.
    rotations : ndarray of int, shape (G, 3, 3); translations : ndarray, shape (G, 3)
        All operations of the group, on fractional columns, the identity first.
    cartesian_rotations : ndarray, shape (G, 3, 3)
    images : tuple of tuples of int, M of them
        Operations that make the distinct copies of each molecule (fewer than G on a special position).
    cell : ndarray, shape (3, 3)
        Rows a, b, c in Å; a along x, b in the xy plane.
    centroid : ndarray, shape (M, 3)
        Fractional centres of mass.
    orientation : ndarray, shape (M, 3, 3)
        Rotations from the body frame to the Cartesian frame.
    energy : float
        eV per molecule: lattice energy plus the conformer's strain (0 for an experimental conformer).
    relative_energy : float
        eV per molecule above the lowest of the same molecule in the data set.
    smiles, name, key, split, source : str
        `key` is the same for all records of a molecule; `split` is ``train`` or ``test``.
    experimental : bool
        From a CIF, not from the search.
    relaxed : bool
        Geometry relaxed by the rigid press; False for experimental crystals kept as they were read.
    racemic : bool
        Whether mirror images may occur in the crystal, see `molflow_sim.Molecule`.
    """

    numbers: np.ndarray
    bonds: np.ndarray
    conformers: np.ndarray
    space_group: str
    rotations: np.ndarray
    translations: np.ndarray
    cartesian_rotations: np.ndarray
    images: tuple[tuple[int, ...], ...]
    cell: np.ndarray
    centroid: np.ndarray
    orientation: np.ndarray
    energy: float
    relative_energy: float
    smiles: str
    name: str
    key: str
    split: str
    source: str
    experimental: bool
    relaxed: bool
    racemic: bool

    @property
    def z(self) -> int:
        """Molecules in the cell."""
        return sum(len(images) for images in self.images)

    def positions(self) -> np.ndarray:
        """Cartesian positions (z, N, 3) in Å of all molecules of the cell, whole."""
        parts = []
        for m, images in enumerate(self.images):
            chosen = list(images)
            centres = self.rotations[chosen] @ self.centroid[m] + self.translations[chosen]
            body = self.conformers[m] @ self.orientation[m].T
            parts.append(
                (centres @ self.cell)[:, None] + np.einsum("gij,nj->gni", self.cartesian_rotations[chosen], body)
            )
        return np.concatenate(parts)


class CrystalDataset(Sequence[CrystalRecord]):
    """The crystals of one or more data-set folders, in an order that depends on nothing but the data.

    Parameters
    ----------
    folder : path or sequence of paths
        Written by `build_crystal_dataset`, finished or not; what is whole is read. A packing that a later folder has
        found again (the rounds of a closed loop do) is read once.
    split : {"train", "test"}, optional
        Only this side of the split.
    verify : bool
        Compare each shard with the SHA-256 in the manifest.

    Raises
    ------
    StoreError
        If a folder is no data set, or a shard is missing or differs from its hash; the message names it.
    InputError
        If `split` is unknown.

    Notes
    -----
    All shards are held in memory (about 0.2 GB for 100,000 packings).
    """

    def __init__(
        self, folder: str | Path | Sequence[str | Path], *, split: str | None = None, verify: bool = True
    ) -> None:
        if split not in (None, "train", "test"):
            raise InputError(f"split must be 'train' or 'test', not {split!r}")
        folders = [folder] if isinstance(folder, (str, Path)) else list(folder)
        self._shards: list[Shard] = []
        for one in folders:
            for key, record in sorted(_manifest(Path(one)).items()):
                shard = unpack_shard(_read(Path(one), record, verify), key)
                if split is None or shard["meta"]["split"] == split:
                    self._shards.append(shard)
        sizes = [len(shard["cell"]) for shard in self._shards]
        keys = [shard["meta"]["key"] for shard in self._shards]
        new = _found_first(self._shards)
        self._shard = np.repeat(np.arange(len(sizes)), sizes)[new]
        self._row = np.concatenate([np.arange(n) for n in sizes])[new] if sizes else np.zeros(0, int)
        self.energy = np.concatenate([shard["energy"] for shard in self._shards])[new] if sizes else np.zeros(0)
        self.keys: tuple[str, ...] = tuple(dict.fromkeys(keys))
        number = {key: k for k, key in enumerate(self.keys)}
        self.molecule = np.repeat(np.array([number[key] for key in keys], int), sizes)[new]
        flags = np.array([shard["meta"]["experimental"] for shard in self._shards], bool)
        self.experimental = flags[self._shard]
        lowest = np.full(len(self.keys), np.inf)
        np.minimum.at(lowest, self.molecule, self.energy)
        self.relative_energy = self.energy - lowest[self.molecule]

    def __len__(self) -> int:
        return len(self._shard)

    def __getitem__(self, i: int) -> CrystalRecord:  # type: ignore[override]
        """Crystal `i`; slices are not offered, take a list of indices."""
        n = len(self)
        if not -n <= i < n:
            raise IndexError(f"crystal {i} of {n}")
        shard, k = self._shards[self._shard[i]], int(self._row[i])
        meta = shard["meta"]
        sites = shard["site"][k]
        first, last = shard["operations"][sites[0]]
        images = tuple(tuple(shard["images"][a:b].tolist()) for a, b in shard["image_range"][sites])
        return CrystalRecord(
            numbers=shard["numbers"].astype(int),
            bonds=shard["bonds"].astype(int),
            conformers=shard["conformers"][shard["conformer"][k]],
            space_group=str(shard["group"][sites[0]]),
            rotations=shard["rotations"][first:last].astype(int),
            translations=shard["translations"][first:last],
            cartesian_rotations=shard["cartesian_rotations"][first:last],
            images=images,
            cell=shard["cell"][k],
            centroid=shard["centroid"][k],
            orientation=shard["rotation"][k],
            energy=float(shard["energy"][k]),
            relative_energy=float(self.relative_energy[i]),
            smiles=meta["smiles"],
            name=meta["name"],
            key=meta["key"],
            split=meta["split"],
            source=meta["source"],
            experimental=bool(meta["experimental"]),
            relaxed=bool(shard["relaxed"][k]),
            racemic=bool(meta["racemic"]),
        )

    def molecules(self) -> Iterator[tuple[str, np.ndarray]]:
        """Each molecule's key with the indices of its crystals (experimental ones among them)."""
        order = np.argsort(self.molecule, kind="stable")
        cuts = np.searchsorted(self.molecule[order], np.arange(1, len(self.keys)))
        yield from zip(self.keys, np.split(order, cuts))

    def weights(self, scale: float = 5.0) -> np.ndarray:
        """Sampling weights (n,), proportional to exp(-ΔE/scale), ΔE above the molecule's lowest.

        Those of every molecule sum to 1, so that none counts more for having more packings.

        Parameters
        ----------
        scale : float
            kJ/mol per molecule.

        Raises
        ------
        InputError
            If `scale` is not positive.
        """
        if not scale > 0:
            raise InputError(f"the energy scale must be positive (kJ/mol), got {scale}")
        weights = np.exp(-self.relative_energy / (scale * KJ_PER_MOL))
        return weights / np.bincount(self.molecule, weights, minlength=len(self.keys))[self.molecule]


def _found_first(shards: list[Shard]) -> np.ndarray:
    """Boolean over all rows of all shards: not a packing that an earlier shard of the same molecule holds."""
    new = [np.ones(len(shard["cell"]), bool) for shard in shards]
    # An experimental crystal and a searched one stay two: their energies have different zeros.
    keys = [(shard["meta"]["key"], shard["meta"]["experimental"]) for shard in shards]
    repeated = {key for key, count in Counter(keys).items() if count > 1}
    known: dict[tuple[str, bool], list[tuple[np.ndarray, ...]]] = {key: [] for key in repeated}
    for mine, shard, key in zip(new, shards, keys):
        if key not in repeated:
            continue
        group, volume = shard["group"][shard["site"][:, 0]], abs(np.linalg.det(shard["cell"]))
        for energies, groups, volumes in known[key]:
            same = abs(shard["energy"][:, None] - energies) < SAME_ENERGY
            same &= (group[:, None] == groups) & (abs(volume[:, None] / volumes - 1.0) < SAME_VOLUME)
            mine &= ~same.any(1)
        known[key].append((shard["energy"], group, volume))
    return np.concatenate(new) if new else np.zeros(0, bool)


def _manifest(folder: Path) -> dict[str, Record]:
    try:
        found = read_manifest(folder)
    except OSError as error:
        raise StoreError(f"{folder} holds no crystal data set (manifest.jsonl: {error.strerror})") from error
    return {key: record for key, record in found.items() if key.split("/")[0] in SHARDS}


def _read(folder: Path, record: Record, verify: bool) -> bytes:
    path = folder / "store" / record.key
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); run the build again to restore it") from error
    if verify and sha256(data) != record.sha256:
        raise StoreError(f"{path} differs from its SHA-256 in the manifest; run the build again to restore it")
    return data
