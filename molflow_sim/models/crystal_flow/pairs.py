"""Training pairs: a random packing of a molecule, and a low-energy one of the same symmetry, described near it.

Made once from a data set, stored as plain arrays, and read with torch and NumPy alone on a machine that trains.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from molflow_sim.errors import TrainingError
from molflow_sim.models.crystal_flow.equivalents import (
    equivalents,
    molecule_turns,
    nearest,
    polar_directions,
    stabiliser,
)
from molflow_sim.models.crystal_flow.state import CrystalBatch
from molflow_sim.runs.files import sha256, write_bytes_atomically
from molflow_sim.runs.store import pack_arrays, unpack_arrays
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.dataset import CrystalDataset, CrystalRecord

EXCESS_UNIT = 10.0 * KJ_PER_MOL
"""eV per molecule: the unit in which the network is given how far above the lowest packing a crystal lies."""
LARGEST_EXCESS = 3.0
DENSE = (0.66, 0.76)
"""Packing coefficients of crystals: starts of this density need no change of volume on the way."""


_OPERATIONS = ("frac_rot", "frac_tran", "cart_rot")


@dataclass(frozen=True, eq=False)
class PairSet:
    """n pairs of R crystals.

    Attributes
    ----------
    numbers : ndarray of int, shape (R, N); conformer : ndarray, shape (R, N, 3)
        Padded with zeros.
    symmetry : ndarray of int, shape (R,)
        Rows of the operations: frac_rot (S, I, 3, 3), frac_tran (S, I, 3), cart_rot (S, I, 3, 3), n_images (S,),
        site_translation (S, 3, 3) and site_rotation (S, 3, 3).
    excess : ndarray, shape (R,)
        Energy above the molecule's lowest in `EXCESS_UNIT`.
    weight : ndarray, shape (R,)
        Sampling weights; they sum to 1.
    record : ndarray of int, shape (n,)
        The crystal of each pair; the pairs of one follow each other.
    start_cell, start_centroid, start_rotation : ndarray, shape (n, 3, 3), (n, 3), (n, 3, 3)
    end_cell, end_centroid, end_rotation : ndarray
        The crystal, described near the start.
    """

    numbers: np.ndarray
    conformer: np.ndarray
    symmetry: np.ndarray
    excess: np.ndarray
    weight: np.ndarray
    frac_rot: np.ndarray
    frac_tran: np.ndarray
    cart_rot: np.ndarray
    n_images: np.ndarray
    site_translation: np.ndarray
    site_rotation: np.ndarray
    record: np.ndarray
    start_cell: np.ndarray
    start_centroid: np.ndarray
    start_rotation: np.ndarray
    end_cell: np.ndarray
    end_centroid: np.ndarray
    end_rotation: np.ndarray

    def __len__(self) -> int:
        return len(self.record)

    def batch(self, rows: np.ndarray) -> tuple[CrystalBatch, CrystalBatch, torch.Tensor]:
        """Starts, ends and qualities of pairs, in float32; atoms and operations padded to what these rows need."""
        r = self.record[rows]
        s = self.symmetry[r]
        n = int((self.numbers[r] > 0).sum(1).max())
        k = int(self.n_images[s].max())

        def f(x: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))

        start = CrystalBatch(
            torch.from_numpy(self.numbers[r, :n].astype(np.int64)), f(self.conformer[r, :n]),
            f(self.start_cell[rows]), f(self.start_centroid[rows, None]), f(self.start_rotation[rows, None]),
            f(self.frac_rot[s, :k]), f(self.frac_tran[s, :k]), f(self.cart_rot[s, :k]),
            torch.from_numpy(self.n_images[s].astype(np.int64)), f(self.site_translation[s]), f(self.site_rotation[s]),
        )  # fmt: skip
        end = start.moved(f(self.end_cell[rows]), f(self.end_centroid[rows, None]), f(self.end_rotation[rows, None]))
        return start, end, f(self.excess[r])

    def save(self, path: str | Path, card: dict[str, Any] | None = None) -> str:
        """Write one npz without pickles, atomically; returns its SHA-256."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        small = {k: v.astype(np.float32) if v.dtype == float else v for k, v in arrays.items()}
        data = pack_arrays(small | {"card": np.array(json.dumps(card or {}))})
        write_bytes_atomically(Path(path), data)
        return sha256(data)

    @classmethod
    def load(cls, path: str | Path) -> PairSet:
        """Read what `save` wrote.

        Raises
        ------
        TrainingError
            If the file is missing or not such a set.
        """
        return cls.with_card(path)[0]

    @classmethod
    def with_card(cls, path: str | Path) -> tuple[PairSet, dict[str, Any]]:
        """As `load`, and what was written beside the arrays."""
        try:
            arrays = unpack_arrays(Path(path))
            return cls(**{f.name: arrays[f.name] for f in fields(cls)}), json.loads(str(arrays["card"]))
        except (OSError, ValueError, KeyError) as error:
            raise TrainingError(f"{path} is not a set of training pairs: {error}") from None

    @classmethod
    def join(cls, parts: list[PairSet], shares: list[float] | None = None) -> PairSet:
        """Several sets as one; `shares` of the sampling weight go to each."""
        atoms, images = max(p.numbers.shape[1] for p in parts), max(p.frac_tran.shape[1] for p in parts)
        shares = shares or [len(p.weight) for p in parts]
        joined: dict[str, list[np.ndarray]] = {f.name: [] for f in fields(cls)}
        size = {**dict.fromkeys(("numbers", "conformer"), atoms), **dict.fromkeys(_OPERATIONS, images)}
        crystals = symmetries = 0
        for p, share in zip(parts, shares):
            moved = {"symmetry": symmetries, "record": crystals}
            for f in fields(cls):
                x = getattr(p, f.name) + moved.get(f.name, 0)
                if f.name == "weight":
                    x = x * (share / sum(shares))
                joined[f.name].append(_padded(x, size[f.name]) if f.name in size else x)
            crystals, symmetries = crystals + len(p.weight), symmetries + len(p.n_images)
        return cls(**{name: np.concatenate(xs) for name, xs in joined.items()})


def make_pairs(
    dataset: CrystalDataset,
    starts: int = 4,
    *,
    seed: int = 0,
    scale: float = 8.0,
    rows: np.ndarray | None = None,
    packing_coefficient: tuple[float, float] = DENSE,
    progress: Callable[[int], None] | None = None,
) -> PairSet:
    """Pair every usable crystal of a data set with random packings of the same molecule, group and site.

    Crystals with one molecule in the asymmetric unit, in a setting that has a symbol of its own, are used. Starts are
    drawn as `random_packings` draws them; those of all crystals that share molecule, conformer and symmetry are
    assigned to these by optimal transport, with the nearest description of each end.

    Parameters
    ----------
    dataset : CrystalDataset
    starts : int
        Starts for each crystal.
    seed : int
    scale : float
        kJ/mol per molecule: crystals are drawn with weights exp(-ΔE/scale), every molecule counting the same.
    rows : ndarray of bool, shape (len(dataset),), optional
        Which crystals to use.
    packing_coefficient : (float, float)
        Of the starts, as in `random_packings`.
    progress : callable, optional
        Called with the numbers of crystals just done.

    Raises
    ------
    TrainingError
        If no crystal is usable.
    """
    from molflow_sim.models.crystal_flow.starts import known_setting, random_starts

    rng = np.random.default_rng(seed)
    chosen = np.arange(len(dataset)) if rows is None else np.flatnonzero(rows)
    records = {int(i): dataset[int(i)] for i in chosen}
    used = [i for i, r in records.items() if len(r.images) == 1 and known_setting(r)]
    if not used:
        raise TrainingError("the data set holds no crystal with one molecule in the asymmetric unit")
    if progress and len(used) < len(records):
        progress(len(records) - len(used))
    weight = dataset.weights(scale)[used]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for k, i in enumerate(used):
        r = records[i]
        same = (r.key, r.conformers[0].tobytes(), r.space_group, r.images[0], _site(r))
        groups.setdefault(same, []).append(k)
    atoms = max(len(records[i].numbers) for i in used)
    symmetry = _Symmetries()
    numbers, conformer = np.zeros((len(used), atoms), np.int16), np.zeros((len(used), atoms, 3))
    which = np.zeros(len(used), np.int32)
    made: dict[int, list[tuple[np.ndarray, ...]]] = {}
    turns_of: dict[bytes, np.ndarray] = {}  # the same conformer comes in many groups
    for members in groups.values():
        first = records[used[members[0]]]
        shape = first.numbers.tobytes() + first.conformers[0].tobytes()
        if shape not in turns_of:
            turns_of[shape] = molecule_turns(first.numbers, first.conformers[0])
        turns = turns_of[shape]
        free_t, free_r = stabiliser(first)
        index = symmetry.add(first, free_t, free_r)
        polar = polar_directions(first.cartesian_rotations)
        gyration = float(np.sqrt((first.conformers[0] ** 2).sum(1).mean()))
        ends = [(records[used[k]].cell, equivalents(records[used[k]], turns)) for k in members]
        for k in members:
            record = records[used[k]]
            numbers[k, : len(record.numbers)] = record.numbers
            conformer[k, : len(record.numbers)] = record.conformers[0]
            which[k] = index
            made[k] = []
        cells, centroids, rotations = random_starts(
            [records[used[k]] for k in members for _ in range(starts)], free_t, free_r, rng, packing_coefficient
        )
        length = (abs(np.linalg.det(cells)) / len(first.images[0])) ** (1.0 / 3.0)
        answers = []
        for cell, choices in ends:
            centre, rotation, cost = nearest(centroids, rotations, cells, choices, polar, gyration)
            strain = np.linalg.solve(cells, np.broadcast_to(cell, cells.shape)) - np.eye(3)
            answers.append((centre, rotation, cost + length**2 * (strain**2).sum((1, 2)) / 2))
        cost = np.repeat(np.stack([a[2] for a in answers]), starts, axis=0)
        # On a special position the starts belong to their own crystal: its site is where they were drawn.
        special = free_t.trace() < 2.99
        order = np.arange(len(cost)) if special else linear_sum_assignment(cost)[1]
        for slot, s in enumerate(order):
            e = slot // starts
            centre, rotation, _ = answers[e]
            made[members[e]].append((cells[s], centroids[s], rotations[s], ends[e][0], centre[s], rotation[s]))
        if progress:
            progress(len(members))
    columns = [np.stack(x) for x in zip(*(row for k in range(len(used)) for row in made[k]))]
    excess = np.clip(dataset.relative_energy[used] / EXCESS_UNIT, 0.0, LARGEST_EXCESS)
    record = np.repeat(np.arange(len(used)), starts)
    arrays = (numbers, conformer, which, excess, weight / weight.sum(), *symmetry.arrays(), record, *columns)
    return PairSet(**{f.name: x for f, x in zip(fields(PairSet), arrays, strict=True)})


class PairBatches:
    """Batches of pairs, crystals drawn by weight; see `molflow_sim.training.Batches`.

    Parameters
    ----------
    pairs : PairSet
    batch_size : int
    seed : int
    """

    def __init__(self, pairs: PairSet, batch_size: int, seed: int = 0) -> None:
        self.pairs, self.size, self.seed = pairs, batch_size, seed
        self._cumulative = np.cumsum(pairs.weight / pairs.weight.sum())
        self._first = np.searchsorted(pairs.record, np.arange(len(pairs.weight)))
        self._count = np.bincount(pairs.record, minlength=len(pairs.weight))

    def batch(self, step: int) -> tuple[Any, ...]:
        """(starts, ends, excess, time) of a step."""
        rng = np.random.default_rng((self.seed, step))
        chosen = np.searchsorted(self._cumulative, rng.random(self.size)).clip(max=len(self._count) - 1)
        rows = self._first[chosen] + (rng.random(self.size) * self._count[chosen]).astype(int)
        start, end, excess = self.pairs.batch(rows)
        # Equal steps through (0, 1) with one random offset: the same distribution with less noise. The square root
        # gives late times, where there is more to learn from what a crystal looks like, the larger share.
        time = np.sqrt((rng.permutation(self.size) + rng.random()) / self.size)
        return start, end, excess, torch.from_numpy(time.astype(np.float32))


class _Symmetries:
    """Operations and sites that occur, each once."""

    def __init__(self) -> None:
        self.known: dict[tuple[Any, ...], int] = {}
        self.rows: list[tuple[np.ndarray, ...]] = []

    def add(self, record: CrystalRecord, free_t: np.ndarray, free_r: np.ndarray) -> int:
        images = list(record.images[0])
        key = (record.space_group, tuple(images), *np.round(free_t, 4).ravel(), *np.round(free_r, 4).ravel())
        if key not in self.known:
            self.known[key] = len(self.rows)
            ops = (record.rotations[images], record.translations[images], record.cartesian_rotations[images])
            self.rows.append((*ops, free_t, free_r))
        return self.known[key]

    def arrays(self) -> tuple[np.ndarray, ...]:
        most = max(len(r[1]) for r in self.rows)
        ops = [np.stack([_padded(np.asarray(r[k], float)[None], most)[0] for r in self.rows]) for k in range(3)]
        count = np.array([len(r[1]) for r in self.rows], np.int32)
        return *ops, count, np.stack([r[3] for r in self.rows]), np.stack([r[4] for r in self.rows])


def _site(record: CrystalRecord) -> tuple[float, ...]:
    """What tells special positions apart; nothing at the general one."""
    if len(record.images[0]) == len(record.rotations):
        return ()
    return tuple(np.round(record.centroid[0], 3))


def _padded(x: np.ndarray, size: int) -> np.ndarray:
    missing = size - x.shape[1]
    return x if missing == 0 else np.concatenate([x, np.zeros((len(x), missing, *x.shape[2:]), x.dtype)], 1)
