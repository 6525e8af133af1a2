"""Building a data set: one shard for each molecule and each experimental crystal, in several processes, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from molflow_sim.dataset.building import Building, Kinds, executor_of
from molflow_sim.dataset.items import Item, Row, crystal_items, excluded_skeletons, molecule_items, read_lines
from molflow_sim.dataset.packings import CODE, make_shard
from molflow_sim.dataset.settings import DatasetSettings
from molflow_sim.dataset.shards import FORMAT, unpack_shard
from molflow_sim.errors import InputError
from molflow_sim.runs.identity import code_version, digest
from molflow_sim.runs.progress import Progress
from molflow_sim.runs.store import Store
from molflow_sim.screening.stages import Stages


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
    executor = executor_of(processes)
    settings, stages = settings or DatasetSettings(), stages or Stages()
    lines, origin = read_lines(molecules)
    items, doubles = molecule_items(lines, origin)
    items += crystal_items(cifs)
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
    folders = {"molecule": "molecules", "crystal": "crystals"}
    kinds = Kinds(make_shard, folders, _packings, "molecules and crystals", "packings")
    with Store(output, identity, ("dropped.csv",), overwrite=overwrite) as store:
        tally = Building(store, items, doubles, kinds, Progress(progress)).run(executor, (stages, settings, excluded))
        counts = {
            "molecules": tally.items["molecule"], "packings": tally.contents, "experimental": tally.items["crystal"],
            "dropped": len(tally.rows),
        }  # fmt: skip
        store.write_run(status="done", counts=counts, compute_seconds=round(tally.seconds, 1))
        return BuildSummary(store.folder, **counts, computed=tally.computed, seconds=tally.seconds)


def _packings(data: bytes, item: Item) -> tuple[int, list[Row]]:
    """How many generated packings a shard holds."""
    return (len(unpack_shard(data, item.id)["cell"]) if item.kind == "molecule" else 0), []


def _other_stages(stages: Stages) -> dict[str, str]:
    """Names of steps that are not the default ones: they make another data set."""
    default = Stages()
    return {
        f"stage {name}": f"{function.__module__}.{function.__qualname__}"
        for name, function in vars(stages).items()
        if function is not getattr(default, name)
    }
