"""Building a data set: one shard for each molecule and each experimental crystal, in several processes, resumable."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from molflow_sim.dataset.packings import CODE, Item, lost, make_shard
from molflow_sim.dataset.processes import ProcessExecutor
from molflow_sim.dataset.settings import DatasetSettings
from molflow_sim.dataset.shards import FORMAT, unpack_shard
from molflow_sim.errors import InputError
from molflow_sim.runs.files import sha256, write_bytes_atomically
from molflow_sim.runs.identity import code_version, digest
from molflow_sim.runs.progress import Progress
from molflow_sim.runs.scheduler import Executor, LocalExecutor
from molflow_sim.runs.store import Store
from molflow_sim.screening.stages import Stages

FOLDER_OF = {"molecule": "molecules", "crystal": "crystals"}
REPORT_EVERY = 30.0
"""Seconds between lines of progress where there is no terminal."""


@dataclass(frozen=True)
class BuildSummary:
    """What a build left in its folder.

    Attributes
    ----------
    folder : Path
    molecules, packings : int
        Molecules with generated packings, and how many packings.
    experimental : int
        Experimental crystals.
    dropped : int
        Rows of dropped.csv.
    computed : int
        Items computed by this call; the others were there.
    seconds : float
        Computing time of all items over all calls, summed over processes.
    """

    folder: Path
    molecules: int
    packings: int
    experimental: int
    dropped: int
    computed: int
    seconds: float


def build_crystal_dataset(
    molecules: str | Path | Sequence[str] | None = None,
    output: str | Path = "dataset",
    *,
    cifs: str | Path | None = None,
    exclude: str | Path | Sequence[str] | None = None,
    settings: DatasetSettings | None = None,
    processes: int = 2,
    overwrite: bool = False,
    progress: bool = True,
    stages: Stages | None = None,
) -> BuildSummary:
    """Search the low-energy packings of many molecules and keep them with their energies.

    For each molecule: conformers, packings (random ones unless `settings` say otherwise), the rigid press,
    de-duplication, energies of the full potential.
    Calling again with the same arguments carries on where a former call was stopped, even by force, and repeats
    nothing that is done; molecules and CIFs may be added between calls.

    Parameters
    ----------
    molecules : path or sequence of str, optional
        A .smi file (SMILES and optionally a name on each line), or such lines.
    output : path
        Folder of the data set.
    cifs : path, optional
        Folder of experimental crystals (``*.cif``, searched with its subfolders).
    exclude : path or sequence of str, optional
        As `molecules`; these, in any tautomer or stereoisomer, are not searched, and their experimental crystals
        belong to the test side of the split.
    settings : DatasetSettings, optional
    processes : int
        Processes of one thread each. They are spawned, so a script that calls this needs the usual
        ``if __name__ == "__main__":``. With 1 the work is done in the calling process, on torch's threads.
    overwrite : bool
        Replace another data set found in `output`.
    progress : bool
        Show progress and the time left on standard error.
    stages : Stages, optional
        Other implementations of the steps (picklable), e.g. a trained generator for ``generate``.

    Returns
    -------
    BuildSummary

    Raises
    ------
    InputError
        A file or folder that cannot be read, or nothing to do.
    WeightsError
        The generator's weights are missing or damaged.
    StoreError
        `output` belongs to another data set (other settings, exclusions or code), or is in use.
    """
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise InputError(f"processes must be a whole number of at least 1, not {processes!r}")
    settings, stages = settings or DatasetSettings(), stages or Stages()
    lines, origin = read_lines(molecules)
    items, doubles = molecule_items(lines, origin)
    items += _crystal_items(cifs)
    if not items and not doubles:
        raise InputError("no molecules and no CIFs given; there is nothing to build")
    excluded = excluded_skeletons(exclude)
    identity = {
        "what": f"crystal data set, format {FORMAT}",
        "code": code_version(*CODE),
        "exclude": digest(sorted(excluded)),
        **settings.identity(),
        **_other_stages(stages),
    }
    executor: Executor = LocalExecutor() if processes == 1 else ProcessExecutor(processes, lost)
    with Store(output, identity, ("dropped.csv",), overwrite=overwrite) as store:
        try:
            return _Build(store, items, doubles, Progress(progress)).run(executor, (stages, settings, excluded))
        finally:
            executor.close()


class _Build:
    """One call of `build_crystal_dataset`."""

    def __init__(self, store: Store, items: list[Item], doubles: list[dict[str, str]], bars: Progress) -> None:
        self.store, self.items, self.doubles, self.bars = store, items, doubles, bars
        self.key = digest(store.identity)
        self.rows: list[dict[str, str]] = []
        self.counts: Counter[str] = Counter()
        self.packings = 0

    def run(self, executor: Executor, shared: tuple[Any, ...]) -> BuildSummary:
        open_items = [item for item in self.items if not self._take_stored(item)]
        before = len(self.items) - len(open_items)
        self.store.write_run(status="running")
        computed = 0
        try:
            with self._watch(len(self.items), before) as advance:
                for position, data, seconds in executor.run(make_shard, shared, open_items):
                    self._store(open_items[position], data, seconds)
                    computed += 1
                    advance()
        finally:
            # Also after an interruption: what was dropped so far and why.
            self.rows.sort(key=lambda row: row["source"])
            write_bytes_atomically(self.store.folder / "dropped.csv", reasons_table([*self.doubles, *self.rows]))
        summary = BuildSummary(
            folder=self.store.folder,
            molecules=self.counts["molecule"],
            packings=self.packings,
            experimental=self.counts["crystal"],
            dropped=len(self.doubles) + len(self.rows),
            computed=computed,
            seconds=sum(self.store.seconds(stage) for stage in (*FOLDER_OF.values(), "dropped")),
        )
        counts = {name: getattr(summary, name) for name in ("molecules", "packings", "experimental", "dropped")}
        self.store.write_run(status="done", counts=counts, compute_seconds=round(summary.seconds, 1))
        return summary

    def _take_stored(self, item: Item) -> bool:
        """Count an item that a former call finished; False if it is still to be done."""
        for folder in (FOLDER_OF[item.kind], "dropped"):
            data = self.store.read(_file(folder, item), digest(self.key, item.id))
            if data is not None:
                self._count(item, data)
                return True
        return False

    def _store(self, item: Item, data: bytes, seconds: float) -> None:
        if data != lost(item):  # a lost process may be the machine's fault: the next call tries again
            folder = "dropped" if _is_row(data) else FOLDER_OF[item.kind]
            self.store.write(_file(folder, item), digest(self.key, item.id), data, seconds)
        self._count(item, data)

    def _count(self, item: Item, data: bytes) -> None:
        if _is_row(data):
            # The name and place of this call's input; the row may stem from a call with another file.
            self.rows.append({**json.loads(data), "source": item.source, "name": item.name})
            return
        self.counts[item.kind] += 1
        if item.kind == "molecule":
            self.packings += len(unpack_shard(data, item.id)["cell"])

    @contextmanager
    def _watch(self, total: int, before: int) -> Iterator[Any]:
        """A bar with the time left on a terminal; elsewhere a line now and then."""
        start = last = perf_counter()
        done = 0

        with self.bars.stage("molecules and crystals", total, before) as bar:

            def advance() -> None:
                nonlocal done, last
                done += 1
                bar(1)
                now = perf_counter()
                if now - last >= REPORT_EVERY and not sys.stderr.isatty():
                    last = now
                    left = (now - start) / done * (total - before - done)
                    self.bars.say(
                        f"{before + done} of {total}, {self.packings} packings, {len(self.rows)} dropped, "
                        f"about {_clock(left)} left"
                    )

            yield advance


def molecule_items(lines: Sequence[str], origin: str) -> tuple[list[Item], list[dict[str, str]]]:
    """Items of the lines of a .smi file, and rows for molecules that occur again (by canonical SMILES).

    Parameters
    ----------
    lines : sequence of str
        SMILES and optionally a name; blank lines and lines that begin with # are skipped.
    origin : str
        What to call the file in `Item.source`.
    """
    from rdkit import Chem, rdBase

    items: dict[str, Item] = {}
    doubles = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        smiles, _, name = text.replace("\t", " ").partition(" ")
        with rdBase.BlockLogs():
            rdmol = Chem.MolFromSmiles(smiles)
        canonical = smiles if rdmol is None else Chem.MolToSmiles(rdmol)
        item = Item("molecule", digest(canonical), canonical, name.strip(), f"{origin}:{number}")
        if item.id in items:
            reason = f"duplicate: the same molecule as {items[item.id].source}"
            doubles.append({"source": item.source, "name": item.name, "smiles": smiles, "reason": reason})
        else:
            items[item.id] = item
    return list(items.values()), doubles


def _crystal_items(folder: str | Path | None) -> list[Item]:
    if folder is None:
        return []
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of CIFs")
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() == ".cif" and path.is_file())
    if not paths:
        raise InputError(f"{root} holds no .cif file")
    items: dict[str, Item] = {}
    for path in paths:
        try:
            id = sha256(path.read_bytes())[:12]
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        # Copies of a file are one crystal.
        items.setdefault(id, Item("crystal", id, str(path), path.stem, str(path.relative_to(root))))
    return list(items.values())


def read_lines(source: str | Path | Sequence[str] | None) -> tuple[list[str], str]:
    """The lines of a file of SMILES (or those given), and what to call it.

    Raises
    ------
    InputError
        A file that cannot be read.
    """
    if source is None:
        return [], ""
    if not isinstance(source, (str, Path)):
        return list(source), "molecule"
    path = Path(source)
    try:
        return path.read_text(encoding="utf-8").splitlines(), path.name
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InputError(f"{path} cannot be read: {what}; give a file with one SMILES a line") from error


def excluded_skeletons(source: str | Path | Sequence[str] | None) -> dict[str, str]:
    """Skeletons of the molecules of a .smi file (or lines) that are kept out.

    Raises
    ------
    InputError
        A file that cannot be read, or without a SMILES.
    """
    from molflow_sim.dataset.skeletons import skeletons_of_smiles

    lines, origin = read_lines(source)
    smiles = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    found = skeletons_of_smiles(smiles)
    if smiles and not found:
        raise InputError(f"{origin}: none of its lines is a SMILES, so nothing would be excluded")
    return found


def _other_stages(stages: Stages) -> dict[str, str]:
    """Names of steps that are not the default ones: they make another data set."""
    default = Stages()
    return {
        f"stage {name}": f"{function.__module__}.{function.__qualname__}"
        for name, function in vars(stages).items()
        if function is not getattr(default, name)
    }


def _file(folder: str, item: Item) -> str:
    return f"{folder}/{item.id}.{'json' if folder == 'dropped' else 'npz'}"


def _is_row(data: bytes) -> bool:
    return data.startswith(b"{")


def reasons_table(rows: Sequence[dict[str, str]]) -> bytes:
    """CSV of what was left out, each with its reason."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["source", "name", "smiles", "reason"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
