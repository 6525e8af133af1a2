"""Building a data set of conformers: one block for each molecule, in several processes, resumable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molflow_sim.dataset.building import Building, Kinds, executor_of
from molflow_sim.dataset.conformer_files import CRYSTAL, SDF, crystal_ensemble, sdf_ensemble, sdf_items
from molflow_sim.dataset.conformer_settings import ConformerSettings
from molflow_sim.dataset.items import (
    Excluded,
    Item,
    Row,
    crystal_items,
    excluded_skeletons,
    molecule_items,
    read_lines,
    shard_or_row,
)
from molflow_sim.dataset.skeletons import skeletons, three_way_split
from molflow_sim.errors import InputError, MoleculeTooLargeError
from molflow_sim.io.ensembles import (
    FORMAT,
    SOURCES,
    ConformerEnsemble,
    boltzmann_shares,
    pack_ensembles,
    unpack_described,
)
from molflow_sim.runs.identity import code_version, digest
from molflow_sim.runs.progress import Progress
from molflow_sim.runs.store import Store

CODE = "molflow_sim.dataset.conformer_build:make_ensemble"


@dataclass(frozen=True)
class ConformerSummary:
    """What a build left in its folder.

    Attributes
    ----------
    folder : Path
    molecules, conformers : int
    dropped : int
        Rows of dropped.csv: molecules, and of molecules that are there the conformers that are not, by reason.
    computed : int
        Molecules computed by this call; the others were there.
    seconds : float
        Computing time over all calls, summed over processes.
    """

    folder: Path
    molecules: int
    conformers: int
    dropped: int
    computed: int
    seconds: float


def build_conformer_dataset(
    molecules: str | Path | Sequence[str] | None = None,
    output: str | Path = "conformers",
    *,
    sdf: str | Path | None = None,
    cifs: str | Path | None = None,
    energy_property: str | None = None,
    source: str = "dft",
    exclude: str | Path | Sequence[str | Path] | None = None,
    settings: ConformerSettings | None = None,
    processes: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> ConformerSummary:
    """Search the conformers of many molecules by GFN2-xTB, or take those of files.

    Calling again with the same arguments carries on where a former call was stopped, even by force, and repeats
    nothing that is done; molecules and files may be added between calls.

    Parameters
    ----------
    molecules : path or sequence of str, optional
        A .smi file (SMILES and optionally a name on each line), or such lines; their conformers are searched.
    output : path
        Folder of the data set.
    sdf : path, optional
        An .sdf or .sdf.gz whose records are conformers, those of one molecule under one SMILES or one title.
    cifs : path, optional
        Folder of crystals (``*.cif``, searched with its subfolders) whose molecules are taken as measured.
    energy_property : str, optional
        Property of the SDF with energies in kcal/mol, those of a molecule on one scale.
    source : str
        What the conformers of the SDF come from: ``dft``, ``gfn2`` or ``measured``.
    exclude : path, or sequence of paths or SMILES, optional
        .smi, .sdf or .sdf.gz; these molecules, in any tautomer or stereoisomer, are not searched, and where a file has
        conformers of them they belong to the test side.
    settings : ConformerSettings, optional
    processes : int
        Processes of one thread each. They are spawned, so a script that calls this with more than 1 needs the usual
        ``if __name__ == "__main__":``.
    overwrite : bool
        Replace another data set found in `output`.
    progress : bool

    Raises
    ------
    InputError
        A file or folder that cannot be read, or nothing to do.
    MissingDependencyError
        tblite is not installed, and molecules are to be searched.
    StoreError
        `output` belongs to another data set (other settings, exclusions or code), or is in use.
    """
    executor = executor_of(processes)
    settings = settings or ConformerSettings()
    if source not in SOURCES:
        raise InputError(f"source must be one of {', '.join(SOURCES)}, not {source!r}")
    if energy_property is not None and sdf is None:
        raise InputError(f"{energy_property} is to be a property of an SDF, and none is given")
    lines, origin = read_lines(molecules)
    items, rows = molecule_items(lines, origin)
    if sdf is not None:
        found, more = sdf_items(Path(sdf))
        items, rows = items + found, rows + more
    items += crystal_items(cifs)
    if not items and not rows:
        raise InputError("no molecules, no SDF and no CIFs given; there is nothing to build")
    if any(item.kind == "molecule" for item in items):
        _check_tblite()
    excluded = excluded_skeletons(exclude)
    identity = {
        "what": f"conformer data set, format {FORMAT}",
        "code": code_version(CODE),
        "exclude": digest(sorted(excluded)),
        "energy property": energy_property,
        "source": source,
        **asdict(settings),
    }
    kinds = Kinds(
        make_ensemble, dict.fromkeys(("molecule", SDF, CRYSTAL), "molecules"), _conformers, "molecules", "conformers"
    )
    shared = (settings, excluded, {"energy_property": energy_property, "source": source})
    with Store(output, identity, ("dropped.csv",), overwrite=overwrite) as store:
        tally = Building(store, items, rows, kinds, Progress(progress)).run(executor, shared)
        counts = {
            "molecules": tally.items.total(), "conformers": tally.contents, "dropped": len(tally.rows),
        }  # fmt: skip
        store.write_run(status="done", counts=counts, compute_seconds=round(tally.seconds, 1))
        return ConformerSummary(store.folder, **counts, computed=tally.computed, seconds=tally.seconds)


def make_ensemble(
    settings: ConformerSettings, excluded: Mapping[str, str], of_sdf: Mapping[str, Any], item: Item
) -> bytes:
    """Block of an item, or the row that says why there is none; never raises for what the item holds.

    Parameters
    ----------
    settings : ConformerSettings
    excluded : mapping
        Skeletons that are not trained on, with a SMILES of each.
    of_sdf : mapping
        How an SDF is read.
    item : Item
    """

    def make() -> bytes:
        if item.kind == "molecule":
            ensemble, told = _searched(settings, excluded, item)
        elif item.kind == SDF:
            ensemble, told = sdf_ensemble(item, excluded, **of_sdf)
        else:
            ensemble, told = crystal_ensemble(item, excluded)
        return pack_ensembles([ensemble], [told])

    return shard_or_row(item, make)


def _searched(
    settings: ConformerSettings, excluded: Mapping[str, str], item: Item
) -> tuple[ConformerEnsemble, dict[str, Any]]:
    from rdkit import Chem

    from molflow_sim.chemistry.checks import check_molecule, parse_smiles
    from molflow_sim.dataset.conformer_search import search_conformers

    parsed = parse_smiles(item.content)
    rdmol = Chem.AddHs(parsed)
    if rdmol.GetNumAtoms() > settings.max_atoms:
        raise MoleculeTooLargeError(
            f"{rdmol.GetNumAtoms()} atoms with hydrogens; this data set takes up to {settings.max_atoms}"
        )
    check_molecule(rdmol, item.content, force_field=True)
    blocks = skeletons(parsed)
    for block in blocks:
        if block in excluded:
            raise Excluded(f"excluded: a tautomer or stereoisomer of {excluded[block]} in the list of exclusions")
    seed = int(digest(settings.seed, item.content, length=8), 16)
    found = search_conformers(rdmol, settings, seed)
    energies = found.energies - found.energies[0]
    ensemble = ConformerEnsemble(
        smiles=item.content, name=item.name, numbers=np.array([a.GetAtomicNum() for a in rdmol.GetAtoms()]),
        positions=found.positions, energies=energies, shares=boltzmann_shares(energies, found.degeneracy),
        source="gfn2", split=three_way_split(blocks, excluded),
    )  # fmt: skip
    left_out = [f"{number} conformers {reason}" for reason, number in sorted(found.left_out.items())]
    return ensemble, {"skeleton": blocks[0], "work": found.work, "left_out": left_out, "seed": seed}


def _conformers(data: bytes, item: Item) -> tuple[int, list[Row]]:
    """How many conformers a block holds, and rows for those that it does not."""
    ((ensemble, told),) = unpack_described(data, item.id)
    return len(ensemble), [{"smiles": ensemble.smiles, "reason": str(why)} for why in told.get("left_out", ())]


def _check_tblite() -> None:
    """Say at once, not in a row of each molecule, that GFN2-xTB is missing."""
    from molflow_sim.forcefield.gfn2_energy import GFN2Energy

    GFN2Energy(np.array([1, 1]))
