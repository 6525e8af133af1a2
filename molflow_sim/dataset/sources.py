"""Whatever a user trains on, as a `CrystalDataset`: a data set, a folder of CIFs, or a screening's own landscape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.dataset.reader import CrystalDataset
from molflow_sim.errors import InputError, TrainingError

if TYPE_CHECKING:
    from molflow_sim.screening.landscape import Landscape, LandscapeEntry
    from molflow_sim.systems.molecule import Molecule


@dataclass(frozen=True)
class TrainingSource:
    """What was found in a folder.

    Attributes
    ----------
    dataset : CrystalDataset
        Only the side to train on.
    kind : str
        ``data set``, ``CIFs`` or ``landscape``.
    folder : Path
        The (first) folder of the data that is read (CIFs and landscapes are converted).
    dropped : int
        Rows of dropped.csv there: what could not be used, each with its reason.
    """

    dataset: CrystalDataset
    kind: str
    folder: Path
    dropped: int


def kind_of(folder: str | Path) -> str:
    """``data set``, ``landscape`` or ``CIFs``: what a folder holds.

    Raises
    ------
    InputError
        If it holds none of these.
    """
    from molflow_sim.runs.folder import read_run

    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if (folder / "run.json").exists():
        identity = read_run(folder).get("identity")
        if isinstance(identity, dict) and str(identity.get("what", "")).startswith("crystal data set"):
            return "data set"
        return "landscape"
    if any(path.suffix.lower() == ".cif" for path in folder.rglob("*")):
        return "CIFs"
    raise InputError(
        f"{folder} holds neither a data set (molflow dataset crystals), nor a finished screening, nor .cif files"
    )


def training_source(
    folder: str | Path | Sequence[str | Path],
    converted: str | Path,
    *,
    split: str | None = None,
    exclude: str | Path | None = None,
    processes: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> TrainingSource:
    """Read a folder to train on, after converting it where needed.

    Parameters
    ----------
    folder : path or sequence of paths
        A data set, CIFs (searched with subfolders), or a screening's output; of several, all must be data sets.
    converted : path
        Where CIFs or a landscape are put as a data set; the same call again converts only what is new.
    split : {"train", "all"}, optional
        ``train`` leaves out the molecules of the test side; the default is ``train`` for data sets and CIFs, and
        ``all`` for a landscape, which has one molecule.
    exclude : path, optional
        A .smi file; CIFs of its molecules, in any tautomer or stereoisomer, count to the test side.
    processes : int
        Used to read CIFs.
    overwrite : bool
        Replace what another conversion left in `converted`.
    progress : bool

    Raises
    ------
    InputError
        Nothing to train on in the folder, an unknown split, or something to exclude from what is no folder of CIFs.
    StoreError
        A data set or screening that is damaged.
    TrainingError
        Nothing is left on the side to train on; the message says why and what to do.
    """
    if split not in (None, "train", "all"):
        raise InputError(f"split must be 'train' or 'all', not {split!r}")
    folders = [Path(folder)] if isinstance(folder, (str, Path)) else [Path(f) for f in folder]
    if not folders:
        raise InputError("no folder is given to train on")
    kinds = [kind_of(f) for f in folders]
    folder, kind = folders[0], kinds[0]
    if exclude is not None and kind != "CIFs":
        raise InputError(f"exclude is for CIFs, {folder} is a {kind}: leave molecules out where it is made")
    if len(folders) > 1 and set(kinds) != {"data set"}:
        other = next(f for f, k in zip(folders, kinds) if k != "data set")
        raise InputError(
            f"{other} is no data set; several folders can be trained on together once each is one "
            "(molflow dataset crystals, with --cifs for CIFs)"
        )
    data = Path(folder) if kind == "data set" else Path(converted)
    if kind == "CIFs":
        from molflow_sim.dataset.build import build_crystal_dataset

        build_crystal_dataset(
            cifs=folder, output=data, exclude=exclude, processes=processes, overwrite=overwrite, progress=progress
        )
    elif kind == "landscape":
        from molflow_sim.screening.landscape import Landscape

        landscape_dataset(Landscape.load(folder), data, overwrite=overwrite)
    side = split or ("all" if kind == "landscape" else "train")
    read = [data, *folders[1:]]
    dataset = CrystalDataset(read, split=None if side == "all" else side)
    dropped = _rows(data / "dropped.csv")
    if not len(dataset):
        whole = len(CrystalDataset(read, verify=False))
        why = (
            f"all {whole} crystals are of molecules on the test side of the split; give --split all to train on them"
            if whole
            else f"no crystal could be used; {data / 'dropped.csv'} says why ({dropped} rows)"
        )
        raise TrainingError(f"{folder}: nothing to train on: {why}")
    return TrainingSource(dataset, kind, data, dropped)


def landscape_dataset(landscape: Landscape, output: str | Path, *, overwrite: bool = False) -> Path:
    """Write the ranked structures of a screening as a data set.

    Energies are those of the model that ranks, or the potential's if only a part was ranked by another model.
    Structures are flexible minima, so each brings its own conformers. Those of another number of molecules in the
    asymmetric unit go to shards of their own.

    Parameters
    ----------
    landscape : Landscape
    output : path
        Written anew if it holds the same landscape.
    overwrite : bool
        Replace another one.

    Raises
    ------
    StoreError
        `output` holds something else.
    TrainingError
        The landscape is empty.
    """
    from molflow_sim.dataset.shards import FORMAT
    from molflow_sim.runs.identity import code_version, digest
    from molflow_sim.runs.store import Store

    if not landscape.entries:
        raise TrainingError("the landscape is empty; there is nothing to train on")
    identity = {
        "what": f"crystal data set, format {FORMAT}",
        "source": "landscape",
        "molecule": landscape.molecule.smiles,
        "entries": digest([(entry.id, entry.energy) for entry in landscape.entries]),
        "code": code_version("molflow_sim.dataset.sources:_landscape_shard"),
    }
    key = digest(identity)
    groups: dict[int, list[tuple[LandscapeEntry, float]]] = {}
    energies = _energies(landscape)
    for entry, energy in zip(landscape.entries, energies):
        if np.isfinite(energy):
            groups.setdefault(len(entry.crystal.asymmetric_unit), []).append((entry, float(energy)))
    dropped = int(np.sum(~np.isfinite(energies)))
    with Store(output, identity, overwrite=overwrite) as store:
        for size, entries in sorted(groups.items()):
            name = f"molecules/{landscape.molecule.key}-{size}.npz"
            store.once(name, digest(key, size), lambda e=entries: _landscape_shard(landscape.molecule, e))  # type: ignore[misc]
        counts = {"molecules": 1, "packings": len(landscape) - dropped, "experimental": 0, "dropped": dropped}
        store.write_run(status="done", counts=counts)
        return store.folder


def _energies(landscape: Landscape) -> np.ndarray:
    """Energies (n,) in eV per molecule of one and the same model."""
    one_model = len({entry.energy_model for entry in landscape.entries}) == 1
    return np.array([entry.energy if one_model else entry.potential_energy for entry in landscape.entries])


def _landscape_shard(molecule: Molecule, rows: list[tuple[LandscapeEntry, float]]) -> bytes:
    from molflow_sim.dataset.packings import described
    from molflow_sim.dataset.shards import pack_shard
    from molflow_sim.dataset.skeletons import skeletons
    from molflow_sim.runs.identity import code_version

    entries = [entry for entry, _ in rows]
    crystals = [entry.crystal for entry in entries]
    conformers = np.concatenate([np.stack([unit.conformer for unit in c.asymmetric_unit]) for c in crystals])
    m = len(crystals[0].asymmetric_unit)
    columns: dict[str, np.ndarray] = {
        "energy": np.array([energy for _, energy in rows]),
        "press_energy": np.array([entry.press_energy for entry in entries]),
        "relaxed": np.ones(len(entries), bool),
        "copies": np.array([entry.copies for entry in entries], int),
    }
    meta: dict[str, Any] = {
        **described(molecule, skeletons(molecule.rdmol), {}),
        "experimental": False,
        "conformer_energies": [None] * len(conformers),
        "input": molecule.smiles,
        "source": "landscape",
        "notes": [],
        "code": code_version("molflow_sim.dataset.sources:_landscape_shard"),
        "settings": {},
    }
    index = np.arange(len(conformers)).reshape(len(entries), m)
    return pack_shard(molecule, conformers, crystals, index, columns, meta)


def _rows(path: Path) -> int:
    import csv

    try:
        with open(path, newline="", encoding="utf-8") as file:
            return sum(1 for _ in csv.DictReader(file))
    except OSError:
        return 0
