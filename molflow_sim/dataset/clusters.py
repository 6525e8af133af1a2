"""Clusters cut out of crystals, with loose starts of the same molecules: the data of the cluster flow."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from molflow_sim.chemistry.bonds import graph_mol
from molflow_sim.chemistry.pointgroup import point_group
from molflow_sim.dataset.items import Item, crystal_items, excluded_skeletons, reasons_table, shard_or_row
from molflow_sim.dataset.reader import CrystalDataset
from molflow_sim.dataset.skeletons import skeletons, three_way_split
from molflow_sim.errors import CrystalError, InputError
from molflow_sim.generators.protocol import whole_number
from molflow_sim.geometry.superposition import kabsch
from molflow_sim.models.cluster_flow.data import FILE, ClusterData, ClusterRecord, Poses, unpacked
from molflow_sim.runs.files import sha256, write_bytes_atomically
from molflow_sim.runs.identity import code_version, digest
from molflow_sim.runs.progress import Progress
from molflow_sim.runs.store import Store
from molflow_sim.systems.cluster_export import csv_text
from molflow_sim.systems.cluster_read import nearest_molecules
from molflow_sim.systems.crystal import MolecularCrystal
from molflow_sim.units import KJ_PER_MOL

CONGRUENT = 0.05
"""Å, RMSD up to which the molecules of a crystal are copies of one rigid shape."""
SYMMETRIC = 0.1
"""Å up to which a rotation maps a molecule on itself."""


@dataclass(frozen=True)
class ClusterSettings:
    """How clusters and their loose starts are made.

    Attributes
    ----------
    size : int
        Molecules: one and those nearest to it by the distance of their centres of mass.
    translation : float
        Å, standard deviation of the normal noise on each coordinate of a molecule's centre in the start.
    rotation : float
        Degrees: a molecule of the start is turned about a random axis by an angle even in [0, rotation].
    inversion : float
        Share of the molecules of the start that are inverted; 0.5 in COD-Cluster17's second version.
    seed : int
        Of the starts.
    """

    size: int = 17
    translation: float = 3.0
    rotation: float = 180.0
    inversion: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        whole_number("the size of a cluster", self.size, 2)
        whole_number("seed", self.seed, 0)
        if not (0.0 <= self.translation < np.inf and 0.0 <= self.rotation <= 180.0 and 0.0 <= self.inversion <= 1.0):
            raise InputError("translation must not be negative, rotation in [0, 180]° and inversion in [0, 1]")


@dataclass(frozen=True)
class ClusterSummary:
    """What a build left: clusters, their molecules, and rows of dropped.csv."""

    folder: Path
    clusters: int
    molecules: int
    dropped: int


def build_cluster_dataset(
    output: str | Path,
    *,
    cifs: str | Path | None = None,
    packings: str | Path | None = None,
    exclude: str | Path | None = None,
    settings: ClusterSettings | None = None,
    csv: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> ClusterSummary:
    """Cut a cluster out of every crystal of a folder; a killed build goes on where it was.

    Parameters
    ----------
    output : path
        Gets ``clusters.npz``, ``dropped.csv``, ``run.json``, and with `csv` the folders ``InitialPositions`` and
        ``FinalPositions`` with a file for each cluster, as in COD-Cluster17.
    cifs : path, optional
        Folder of CIFs, searched with its subfolders.
    packings : path, optional
        Data set of `molflow dataset crystals`.
    exclude : path, optional
        A .smi file; its molecules, in any tautomer or stereoisomer, are on the test side.
    settings : ClusterSettings, optional
    csv : bool
    overwrite : bool
        Replace another data set in `output`.
    progress : bool

    Raises
    ------
    InputError
        Nothing to read, or nothing that qualifies: the message counts the reasons.
    StoreError
        `output` belongs to another job.
    """
    settings = settings or ClusterSettings()
    if cifs is None and packings is None:
        raise InputError("no crystals are given: name a folder of CIFs or a data set of packings")
    excluded = excluded_skeletons(exclude)
    identity = {
        "what": "cluster data set, format 1",
        "code": code_version("molflow_sim.dataset.clusters:record_of"),
        "exclude": digest(sorted(excluded)),
        **asdict(settings),
    }
    jobs = [(item, partial(_read_cif, Path(item.content))) for item in crystal_items(cifs)]
    jobs += _of_packings(packings) if packings is not None else []
    rows: list[dict[str, str]] = []
    records: list[ClusterRecord] = []
    outputs = (FILE, "dropped.csv", "InitialPositions", "FinalPositions")
    with (
        Store(output, identity, outputs, overwrite=overwrite) as store,
        Progress(progress).stage("clusters", len(jobs)) as bar,
    ):
        store.write_run(status="running")
        for item, read in jobs:
            name = f"clusters/{sha256(item.source.encode())[:16]}.bin"
            data = store.once(name, digest(store.identity, item.id), partial(_shard, item, read, settings, excluded))
            if data.startswith(b"{"):
                rows.append(json.loads(data))
            else:
                records += unpacked(data)
            bar(1)
        write_bytes_atomically(store.folder / "dropped.csv", reasons_table(rows))
        if not records:
            reasons = sorted({row["reason"].split(":")[0] for row in rows})
            raise InputError(f"none of {len(jobs)} crystals qualifies ({', '.join(reasons)}); dropped.csv says why")
        data_set = ClusterData(records)
        data_set.save(store.folder / FILE)
        if csv:
            _write_csv(store.folder, records)
        molecules = len({r.key for r in records})
        counts = {"clusters": len(records), "molecules": molecules, "dropped": len(rows)}
        store.write_run(status="done", counts=counts)
        return ClusterSummary(store.folder, len(records), molecules, len(rows))


def _shard(
    item: Item, read: Callable[[], dict[str, Any]], settings: ClusterSettings, excluded: dict[str, str]
) -> bytes:
    """A shard of one cluster, or a row that says why there is none."""

    def make() -> bytes:
        given = read()
        split = three_way_split(given.pop("skeletons"), excluded)
        return ClusterData([record_of(settings, split=split, source=item.source, **given)]).packed()

    return shard_or_row(item, make)


def record_of(
    settings: ClusterSettings,
    *,
    numbers: np.ndarray,
    bonds: np.ndarray,
    masses: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    **told: Any,
) -> ClusterRecord:
    """The cluster around the first molecule of a cell, with a loose start.

    Parameters
    ----------
    settings : ClusterSettings
    numbers, masses : ndarray (N,)
        Of a molecule.
    bonds : ndarray (nb, 2)
    positions : ndarray (z, N, 3)
        Å, whole molecules of the cell.
    cell : ndarray (3, 3)
        Rows in Å.
    **told
        Further fields of the record.

    Raises
    ------
    CrystalError
        The molecules are not copies of one shape.
    """
    weights = masses / masses.sum()
    centres = np.einsum("n,znd->zd", weights, positions)
    which, shifts = nearest_molecules(centres, cell, 0, settings.size)
    body = positions[0] - centres[0]
    rotation, hand = [], []
    for k in which:
        x = positions[k] - centres[k]
        fits = {h: kabsch(h * body, x, False) for h in (1.0, -1.0)}
        errors = {h: float(np.sqrt(((h * body @ turn.T - x) ** 2).sum(1).mean())) for h, turn in fits.items()}
        best = 1.0 if errors[1.0] <= errors[-1.0] + 1e-4 else -1.0  # of flat molecules both fit
        if errors[best] > CONGRUENT:
            raise CrystalError(f"molecules of different shapes (RMSD {errors[best]:.2f} Å): more than one independent")
        rotation.append(fits[best])
        hand.append(best)
    end = Poses(centres[which] + shifts @ cell - centres[0], np.array(rotation), np.array(hand))
    matrices, _, _ = point_group(graph_mol(numbers.tolist(), bonds.tolist()), body, SYMMETRIC)
    proper = matrices[np.linalg.det(matrices) > 0.0]
    rng = np.random.default_rng([settings.seed, zlib.crc32(told["name"].encode())])
    return ClusterRecord(
        numbers=numbers, mass=float(masses.sum()), body=body, symmetry=proper, end=end,
        start=loosened(end, settings, rng), **told,
    )  # fmt: skip


def loosened(end: Poses, settings: ClusterSettings, rng: np.random.Generator) -> Poses:
    """The molecules moved, turned and perhaps inverted at random."""
    n = len(end.centre)
    axis = rng.normal(size=(n, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    angle = np.radians(settings.rotation) * rng.random((n, 1))
    turned = Rotation.from_rotvec(axis * angle).as_matrix() @ end.rotation
    flip = np.where(rng.random(n) < settings.inversion, -1.0, 1.0)
    return Poses(end.centre + settings.translation * rng.normal(size=(n, 3)), turned, flip * end.hand)


def _read_cif(path: Path) -> dict[str, Any]:
    crystal = MolecularCrystal.from_cif(path)
    if len(crystal.molecules) > 1:
        raise CrystalError(f"{len(crystal.molecules)} species; only crystals of one molecule qualify")
    if len(crystal.asymmetric_unit) > 1:
        found = f"{len(crystal.asymmetric_unit)} independent molecules (Z' = {crystal.z_prime:g})"
        raise CrystalError(f"{found}; only crystals with one qualify")
    molecule = crystal.molecules[0]
    return {
        "numbers": molecule.numbers, "bonds": molecule.bonds, "masses": molecule.masses, "positions": crystal.copies(0),
        "cell": crystal.cell, "name": path.stem, "smiles": molecule.smiles, "key": molecule.key, "experimental": True,
        "skeletons": skeletons(molecule.rdmol),
    }  # fmt: skip


def _of_packings(folder: str | Path) -> Iterator[tuple[Item, partial[dict[str, Any]]]]:
    """Every packing with one molecule in the asymmetric unit, and what reads it."""
    dataset = CrystalDataset(folder)
    lowest: dict[str, int] = {}
    for k in range(len(dataset)):
        record = dataset[k]
        if len(record.images) > 1 or record.experimental:
            continue
        number = lowest.setdefault(record.key, 0)
        lowest[record.key] += 1
        source = f"{record.key}:{number}"
        yield Item("packing", f"{record.energy:.9f}", source, source, source), partial(_read_packing, record, source)


def _read_packing(record: Any, source: str) -> dict[str, Any]:
    from ase.data import atomic_masses
    from rdkit import Chem

    return {
        "numbers": record.numbers, "bonds": record.bonds, "masses": atomic_masses[record.numbers],
        "positions": record.positions(), "cell": record.cell, "name": source, "smiles": record.smiles,
        "key": record.key, "relative_energy": record.relative_energy / KJ_PER_MOL,
        "skeletons": skeletons(Chem.AddHs(Chem.MolFromSmiles(record.smiles))),
    }  # fmt: skip


def _write_csv(folder: Path, records: list[ClusterRecord]) -> None:
    """Files as in COD-Cluster17: starts in InitialPositions, clusters in FinalPositions."""
    from ase.data import chemical_symbols

    for record in records:
        name = "".join(c if c.isalnum() or c in "_-" else "_" for c in record.name)
        near = len(record.end.centre) - 1
        for place, poses, end in (("InitialPositions", record.start, "_noised"), ("FinalPositions", record.end, "")):
            n, size = poses.centre.shape[0], len(record.numbers)
            symbols = [chemical_symbols[z] for z in record.numbers] * n
            x = poses.positions(record.body).reshape(-1, 3)
            text = csv_text(np.repeat(np.arange(n), size), symbols, x)
            path = folder / place / f"{name}_cluster{near}{end}.csv"
            write_bytes_atomically(path, text.encode())
