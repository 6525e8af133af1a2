"""Conformer ensembles: what `molflow dataset conformers` leaves, read with NumPy alone.

A block is an npz archive of one or many molecules, their arrays one after another:

===============  ==========  =======================================================================================
array            shape       meaning
===============  ==========  =======================================================================================
``meta``         ()          JSON: format, and of each of the M molecules SMILES, name, source, split, provenance
``atoms``        (M + 1,)    first atom of each molecule in ``numbers``
``conformers``   (M + 1,)    first conformer of each molecule in ``energies`` and ``shares``
``numbers``      (ΣN,)       uint8, atomic numbers
``positions``    (ΣKN, 3)    int16 (int32 where it must be), thousandths of an Å, each conformer about its mean
``energies``     (ΣK,)       float32, eV above the molecule's lowest; NaN where unknown
``shares``       (ΣK,)       float32, adding up to 1 in each molecule
===============  ==========  =======================================================================================

A folder holds such blocks itself, as packed ones do, or in ``store/molecules`` one for each molecule, as a build leaves
them, also while it runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molflow_sim.errors import InputError, NonFiniteError, StoreError
from molflow_sim.runs.files import sha256, write_bytes_atomically, write_json
from molflow_sim.runs.store import pack_arrays, read_manifest, unpack_arrays
from molflow_sim.units import thermal_energy

FORMAT = 1
"""Version of the layout; readers refuse others."""
RESOLUTION = 1e-3
"""Å; what positions are rounded to."""
TEMPERATURE = 298.15
"""K, of the shares."""
SOURCES = ("gfn2", "dft", "measured")
SPLITS = ("train", "validation", "test")
ROWS_OF_A_BLOCK = 1_500_000
"""Positions in a packed block at most: below 9 MB."""


@dataclass(frozen=True)
class ConformerEnsemble:
    """Conformers of one molecule.

    Attributes
    ----------
    smiles : str
        Isomeric; atoms are in the order of ``Chem.AddHs(Chem.MolFromSmiles(smiles))``.
    name : str
    numbers : ndarray of int, shape (N,)
        Atomic numbers.
    positions : ndarray, shape (K, N, 3)
        Å, to a thousandth; each conformer about its mean.
    energies : ndarray, shape (K,)
        eV above the lowest; NaN where unknown.
    shares : ndarray, shape (K,)
        Of a Boltzmann distribution at `TEMPERATURE`, see `boltzmann_shares`. A conformer that stands for
        its mirror image, too, weighs twice.
    source : str
        ``gfn2`` (searched, GFN2-xTB), ``dft`` or ``measured``.
    split : str
        ``train``, ``validation`` or ``test``: the same for a molecule in every data set.
    """

    smiles: str
    name: str
    numbers: np.ndarray
    positions: np.ndarray
    energies: np.ndarray
    shares: np.ndarray
    source: str
    split: str

    def __post_init__(self) -> None:
        k, n = len(self.energies), len(self.numbers)
        if k == 0 or np.shape(self.positions) != (k, n, 3) or np.shape(self.shares) != (k,):
            raise InputError(
                f"{self.name or self.smiles}: {n} atoms, {k} energies, {len(self.shares)} shares and positions of shape"
                f" {np.shape(self.positions)} make no ensemble; positions have the shape (conformers, atoms, 3)"
            )
        if not np.isfinite(self.positions).all():
            raise NonFiniteError(f"{self.name or self.smiles}: positions that are NaN or infinite")
        if self.source not in SOURCES or self.split not in SPLITS:
            raise InputError(
                f"{self.name or self.smiles}: source {self.source!r} and split {self.split!r} must be among "
                f"{', '.join(SOURCES)} and {', '.join(SPLITS)}"
            )

    def __len__(self) -> int:
        return len(self.energies)

    @property
    def n_atoms(self) -> int:
        """Atoms, hydrogens included."""
        return len(self.numbers)


def boltzmann_shares(energies: np.ndarray, degeneracy: np.ndarray | None = None) -> np.ndarray:
    """Shares (K,) of energies (K,) in eV at `TEMPERATURE`, each counted as often as its `degeneracy` says.

    One of unknown energy weighs as the others do on average.
    """
    energies = np.asarray(energies, float)
    weights = np.ones(len(energies)) if degeneracy is None else np.array(degeneracy, float)
    known = np.isfinite(energies)
    if known.any():
        weights[known] *= np.exp(-(energies[known] - energies[known].min()) / thermal_energy(TEMPERATURE))
        weights[~known] = weights[known].mean()
    return np.asarray(weights / weights.sum())


def pack_ensembles(ensembles: Sequence[ConformerEnsemble], provenance: Sequence[dict[str, Any]] = ()) -> bytes:
    """Bytes of a block; `provenance` adds to what it says of each molecule."""
    told = provenance or [{}] * len(ensembles)
    molecules = [
        {**extra, "smiles": e.smiles, "name": e.name, "source": e.source, "split": e.split}
        for e, extra in zip(ensembles, told, strict=True)
    ]
    centred = [(e.positions - e.positions.mean(axis=1, keepdims=True)).reshape(-1, 3) for e in ensembles]
    positions = np.rint(np.concatenate(centred) / RESOLUTION)
    small = np.abs(positions).max() <= np.iinfo(np.int16).max
    return pack_arrays(
        {
            "meta": json.dumps({"format": FORMAT, "what": _WHAT, "molecules": molecules}, ensure_ascii=False),
            "atoms": np.cumsum([0, *(e.n_atoms for e in ensembles)]),
            "conformers": np.cumsum([0, *(len(e) for e in ensembles)]),
            "numbers": np.concatenate([e.numbers for e in ensembles]).astype(np.uint8),
            "positions": positions.astype(np.int16 if small else np.int32),
            "energies": np.concatenate([e.energies for e in ensembles]).astype(np.float32),
            "shares": np.concatenate([e.shares for e in ensembles]).astype(np.float32),
        }
    )


def unpack_described(data: bytes, what: str) -> list[tuple[ConformerEnsemble, dict[str, Any]]]:
    """The molecules of a block, each with what the block says of it; `what` names the file in the message of an error.

    Raises
    ------
    StoreError
        If the bytes are no block of this format.
    """
    try:
        block = unpack_arrays(data)
        meta = json.loads(str(block["meta"]))
        found = meta["format"] if meta.get("what") == _WHAT else meta.get("what", "another kind")
    except Exception as error:  # zip, zlib and NumPy each raise their own kinds
        raise StoreError(f"{what} is damaged or no block of conformer ensembles: {error}") from error
    if found != FORMAT:
        raise StoreError(f"{what} has format {found}; this version reads conformer ensembles of format {FORMAT}")
    try:
        return list(_molecules(block, meta["molecules"]))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise StoreError(f"{what} is damaged: {type(error).__name__}: {error}") from error


def _molecules(
    block: dict[str, np.ndarray], told: Sequence[dict[str, Any]]
) -> Iterable[tuple[ConformerEnsemble, dict[str, Any]]]:
    row = 0
    for m, molecule in enumerate(told):
        numbers = block["numbers"][block["atoms"][m] : block["atoms"][m + 1]].astype(int)
        of = slice(block["conformers"][m], block["conformers"][m + 1])
        energies, shares = block["energies"][of].astype(float), block["shares"][of].astype(float)
        n, k = len(numbers), len(energies)
        positions = block["positions"][row : row + k * n].astype(float).reshape(k, n, 3) * RESOLUTION
        row += k * n
        fields = {name: str(molecule[name]) for name in ("smiles", "name", "source", "split")}
        ensemble = ConformerEnsemble(
            numbers=numbers, positions=positions, energies=energies, shares=shares / shares.sum(), **fields
        )
        yield ensemble, molecule


def read_ensembles(folder: str | Path | Sequence[str | Path], split: str | None = None) -> list[ConformerEnsemble]:
    """The ensembles of a data set, also of one that is still being built.

    Parameters
    ----------
    folder : path or sequence of paths
        What `molflow dataset conformers` wrote; of several, one after another.
    split : str, optional
        Only this side: ``train``, ``validation`` or ``test``.

    Raises
    ------
    InputError
        No such folder, or a side that does not exist.
    StoreError
        It holds no conformers, or damaged ones.
    """
    if split is not None and split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    found = [ensemble for ensemble, _ in read_described(folder)]
    return [e for e in found if split in (None, e.split)]


def read_described(folder: str | Path | Sequence[str | Path]) -> list[tuple[ConformerEnsemble, dict[str, Any]]]:
    """As `read_ensembles`, each with what the data set says of its molecule."""
    if not isinstance(folder, (str, Path)):
        return [pair for one in folder for pair in read_described(one)]
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of conformers; molflow dataset conformers makes one")
    blocks = [(path, path.read_bytes()) for path in sorted(root.glob("*.npz"))]
    if (root / "store" / "manifest.jsonl").exists():
        for key, record in sorted(read_manifest(root).items()):
            path = root / "store" / key
            if key.startswith("molecules/") and path.exists():
                data = path.read_bytes()
                if sha256(data) != record.sha256:
                    raise StoreError(f"{path} is damaged (its hash is not the manifest's); build the data set again")
                blocks.append((path, data))
    if not blocks:
        raise StoreError(f"{root} holds no conformers yet; molflow dataset conformers makes them")
    return [pair for path, data in blocks for pair in unpack_described(data, str(path))]


def write_packed(folders: str | Path | Sequence[str | Path], output: str | Path) -> list[Path]:
    """Put the molecules of data sets into few files, ``conformers_NNN.npz``, with ``contents.json``, which counts them.

    The same molecules give the same bytes, in whatever order they were computed. Of a molecule that several data sets
    have from one source under one name, the ensemble of the first of them is taken.

    Parameters
    ----------
    folders : path or sequence of paths
    output : path
        Created if absent; files that are not of this kind stay.

    Raises
    ------
    InputError, StoreError
        As `read_ensembles`.
    """
    taken: dict[tuple[str, str, str], tuple[ConformerEnsemble, dict[str, Any]]] = {}
    for pair in read_described(folders):
        taken.setdefault((pair[0].source, pair[0].smiles, pair[0].name), pair)
    pairs = sorted(taken.values(), key=lambda p: (p[0].source, p[0].n_atoms, p[0].smiles, p[0].name))
    root, files = Path(output), []
    for number, block in enumerate(_by_size(pairs)):
        path = root / f"conformers_{number:03d}.npz"
        write_bytes_atomically(path, pack_ensembles([e for e, _ in block], [told for _, told in block]))
        files.append(path)
    for path in root.glob("conformers_[0-9][0-9][0-9].npz"):
        if path not in files:  # of a former, larger set
            path.unlink()
    counts = {
        split: {"molecules": len(side), "conformers": sum(map(len, side))}
        for split in SPLITS
        if (side := [e for e, _ in pairs if e.split == split])
    }
    write_json(root / "contents.json", {"format": FORMAT, "what": _WHAT, "files": [p.name for p in files], **counts})
    return files


def _by_size(pairs: Sequence[tuple[ConformerEnsemble, Any]]) -> Iterable[list[tuple[ConformerEnsemble, Any]]]:
    block: list[tuple[ConformerEnsemble, Any]] = []
    rows = 0
    for pair in pairs:
        size = len(pair[0]) * pair[0].n_atoms
        if block and rows + size > ROWS_OF_A_BLOCK:
            yield block
            block, rows = [], 0
        block.append(pair)
        rows += size
    if block:
        yield block


_WHAT = "conformer ensembles"
