"""Clusters of anybody, ranked: evaluated or relaxed, merged, and written as tables, structures and a report."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.chemistry.bonds import automorphisms
from molflow_sim.energies.foreign import energy_identity
from molflow_sim.errors import InputError, NoCandidatesError
from molflow_sim.evaluate.clusters import matched_rmsd
from molflow_sim.evaluate.spearing import speared_rings
from molflow_sim.generators.protocol import whole_number
from molflow_sim.runs.files import atomic_path, write_bytes_atomically
from molflow_sim.runs.identity import code_version, digest
from molflow_sim.runs.pages import render
from molflow_sim.runs.progress import Progress
from molflow_sim.runs.store import Store
from molflow_sim.screening.failures import FAILURES, reason_of
from molflow_sim.screening.landscape import Dropped, dropped_dataframe
from molflow_sim.screening.serialise import from_bytes, to_bytes
from molflow_sim.screening.settings import DEFAULT_ENERGY
from molflow_sim.systems.cluster import MolecularCluster
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    import pandas as pd

    from molflow_sim.energies.foreign import EnergyModel
    from molflow_sim.systems.collect import Found

ENERGIES = ("best", "potential", "so3lr")
"""What relaxes and ranks clusters: the mean of force field and SO3LR, the force field, SO3LR. Energies of other
packages rank them where these leave them."""
SAME_ENERGY = 0.2
"""kJ/mol per molecule up to which two clusters may be one."""
SAME_RMSD = 0.3
"""Å, RMSD of heavy atoms, molecules assigned, up to which they are."""
MOST_RENAMINGS = 24
"""Namings of symmetric atoms tried at most."""
MODEL_STEPS = 400
"""Evaluations of a relaxation on the model that ranks, which begins at a minimum of the force field."""
OUTPUTS = (
    "report.html", "ranking.csv", "dropped.csv", "clusters.db", "clusters.db.lock", "structures/rank_*.extxyz",
)  # fmt: skip
_CODE = ("molflow_sim.screening.clusters:evaluated", "molflow_sim.relax.clusters:relax_cluster")


@dataclass(frozen=True, eq=False)
class ClusterEntry:
    """One ranked cluster.

    Attributes
    ----------
    rank : int
        1 is the lowest.
    id : str
        Hash of the atoms as they were given, and of the settings.
    cluster : MolecularCluster
    energy : float
        eV per molecule, of the model that ranks.
    relative_energy : float
        kJ/mol per molecule above rank 1.
    potential_energy : float
        eV per molecule, of the force field.
    converged : bool
        Whether the relaxation did; False for clusters as given.
    max_force : float
        eV/Å; of the model that ranks, with an energy of another package of the force field.
    n_steps : int
        Evaluations.
    copies : int
        Clusters that ended here.
    speared : int
        Rings with another molecule's bond through them.
    source : str
    """

    rank: int
    id: str
    cluster: MolecularCluster
    energy: float
    relative_energy: float
    potential_energy: float
    converged: bool
    max_force: float
    n_steps: int
    copies: int
    speared: int
    source: str

    def row(self) -> dict[str, Any]:
        """A line of the table."""
        centres = self.cluster.centres
        return {
            "rank": self.rank,
            "id": self.id,
            "relative_energy_kj_per_mol": self.relative_energy,
            "energy_ev_per_molecule": self.energy,
            "potential_ev_per_molecule": self.potential_energy,
            "gyration_a": float(np.sqrt(((centres - centres.mean(0)) ** 2).sum(1).mean())),
            "speared_rings": self.speared,
            "converged": self.converged,
            "max_force_ev_per_a": self.max_force,
            "steps": self.n_steps,
            "copies": self.copies,
            "source": self.source,
        }


@dataclass(frozen=True, eq=False)
class ClusterRanking:
    """What `rank_clusters` made of clusters: ``entries`` from the lowest on, ``dropped`` with reasons, ``folder``."""

    entries: tuple[ClusterEntry, ...]
    dropped: tuple[Dropped, ...]
    folder: Path

    def to_dataframe(self) -> pd.DataFrame:
        """The table."""
        import pandas as pd

        return pd.DataFrame([entry.row() for entry in self.entries])


def rank_clusters(
    found: Sequence[Found],
    energy: str = DEFAULT_ENERGY,
    relax: bool = False,
    *,
    charges: str = "mmff94",
    output: str | Path | None = None,
    top: int = 100,
    overwrite: bool = False,
    progress: bool = True,
) -> ClusterRanking:
    """Rank clusters of one composition.

    Parameters
    ----------
    found : sequence of Found
        As `molflow_sim.systems.collect.find_crystals` reads them; crystals among them are left out, with the reason.
    energy : str
        ``best``, ``potential``, ``so3lr``, or an energy of another package (`molflow_sim.energies.foreign`), which is
        evaluated on the geometry of the force field.
    relax : bool
        Relax first: on the force field, and then on the model that ranks, if it is one of this package.
    charges : str
        Of the force field.
    output : path, optional
        Results folder; a temporary one if not given. The same call again carries on where it was stopped.
    top : int
        Structures written.
    overwrite, progress : bool

    Raises
    ------
    InputError
        Nothing to rank, another energy, or clusters of different compositions.
    NoCandidatesError
        No cluster could be read or evaluated.
    StoreError
        `output` belongs to another run.
    """
    if not found:
        raise InputError("no clusters are given")
    whole_number("top", top, 0)
    model = _foreign(energy)
    dropped = [
        Dropped("", "read", item.reason or "a crystal among clusters; rank it by a call of its own", source=item.source)
        for item in found
        if item.cluster is None
    ]
    given = _alike([item for item in found if item.cluster is not None])
    if not given:
        raise NoCandidatesError(f"none of {len(found)} structures is a cluster; the first: {dropped[0].reason}")
    species = given[0][1].species
    identity = {
        "what": "ranking of clusters", "molecules": [m.smiles for m in species], "energy": energy, "relax": relax,
        "charges": charges, "code": code_version(*_CODE), **({"model": energy_identity(energy)} if model else {}),
    }  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="molflow-")) if output is None else Path(output)
    bars = Progress(progress)
    with Store(folder, identity, OUTPUTS, overwrite=overwrite) as store:
        store.write_run(status="running")
        force_field, own = potentials_of(species, "potential" if model else energy, charges)
        potentials = (force_field, model or own)
        rows = []
        with bars.stage("Relaxing clusters" if relax else "Evaluating clusters", len(given)) as advance:
            for source, cluster in given:
                id = digest(cluster.positions.tobytes().hex(), cluster.order.tolist(), length=10)
                key, own = f"clusters/{id}.json", digest(identity, id)
                data = store.read(key, own)
                row = evaluated(cluster, potentials, relax) if data is None else from_bytes(data)
                if data is None and not row["reason"]:  # a failure is no result: the next call tries again
                    store.write(key, own, to_bytes(row))
                rows.append({**row, "id": id, "source": source, "cluster": cluster})
                advance(1)
        entries = _ranked(rows, dropped)
        ranking = ClusterRanking(tuple(entries), tuple(dropped), folder)
        if not entries:
            write_bytes_atomically(folder / "dropped.csv", dropped_dataframe(dropped).to_csv(index=False).encode())
            raise NoCandidatesError(f"no cluster has an energy; the first: {dropped[0].reason}")
        _write(ranking, energy, relax, top)
        store.write_run(status="done", energy=energy, relax=relax, clusters=len(entries), dropped=len(dropped))
    return ranking


def evaluated(cluster: MolecularCluster, potentials: tuple[Any, Any], relax: bool) -> dict[str, Any]:
    """Positions, energies (eV per molecule) and how the relaxation went; a failure is a reason."""
    from molflow_sim.energies.foreign import EnergyModel
    from molflow_sim.relax.clusters import relax_cluster, single_point

    force_field, model = potentials
    steps, converged = 0, False
    try:
        if relax:
            done = relax_cluster(cluster, force_field)
            steps = done.n_steps
            if np.isfinite(done.energy) and model is not force_field and not isinstance(model, EnergyModel):
                done = relax_cluster(done.cluster, model, max_steps=MODEL_STEPS, rigid=False)
                steps += done.n_steps
            if not np.isfinite(done.energy):
                return {"reason": done.reason}
            cluster, converged = done.cluster, done.converged
        potential, force = single_point(cluster, force_field)
        if isinstance(model, EnergyModel):
            energy = model.cluster_energy(cluster)
        elif model is force_field:
            energy = potential
        else:
            energy, force = single_point(cluster, model)
    except FAILURES as error:
        return {"reason": reason_of(error)}
    if not np.isfinite(energy):
        return {"reason": "the energy is not finite: atoms overlap, or molecules are torn"}
    return {
        "reason": "", "positions": cluster.positions.tolist(), "energy": energy, "potential": potential,
        "converged": converged, "force": force, "steps": steps,
    }  # fmt: skip


def potentials_of(species: Sequence[Any], energy: str, charges: str) -> tuple[Any, Any]:
    """The force field, and the model that ranks (one of `ENERGIES`), of clusters of these molecules."""
    from molflow_sim.energies import best_potential
    from molflow_sim.energies.ensemble import best_parameters
    from molflow_sim.forcefield import CrystalPotential, parametrize
    from molflow_sim.so3lr.potential import SO3LR

    table = [parametrize(molecule, charges) for molecule in species]
    force_field = CrystalPotential(table, compute_stress=False)
    if energy == "potential":
        return force_field, force_field
    return force_field, best_potential(best_parameters(table, species)) if energy == "best" else SO3LR()


def _foreign(energy: str) -> EnergyModel | None:
    """The energy of another package that is asked for; None where it is one of `ENERGIES`.

    Raises
    ------
    InputError
        It is neither, or cannot be had (MissingDependencyError).
    """
    from molflow_sim.energies.foreign import energy_model

    if energy in ENERGIES:
        return None
    if energy in ("fit", "") or energy.startswith("mean("):
        raise InputError(
            f"clusters are ranked by {', '.join(ENERGIES)} or an energy of another package (gfn2-xtb, mace:FILE, "
            f"ase:package.module:factory, torchsim:package.module:factory), not by {energy!r}"
        )
    return energy_model(energy)


def _alike(found: Sequence[Found]) -> list[tuple[str, MolecularCluster]]:
    """Sources and clusters, species in the order of the first.

    Raises
    ------
    InputError
        They are of different compositions.
    """
    out: list[tuple[str, MolecularCluster]] = []
    for item in found:
        cluster: Any = item.cluster
        if out:
            first = out[0][1]
            same = sorted(cluster.species[s].smiles for s in cluster.order)
            if same != sorted(first.species[s].smiles for s in first.order):
                raise InputError(
                    f"{item.source} is {cluster.formula} and {out[0][0]} is {first.formula}: energies are compared "
                    "between clusters of the same molecules; rank them by calls of their own"
                )
            cluster = MolecularCluster.from_atoms(cluster.to_ase(), molecules=first.species)
        out.append((item.source, cluster))
    return out


def _ranked(rows: Sequence[dict[str, Any]], dropped: list[Dropped]) -> list[ClusterEntry]:
    """Entries by energy, duplicates merged into the lowest; what has no energy goes to `dropped`."""
    dropped += [Dropped(r["id"], "energy", r["reason"], source=r["source"]) for r in rows if r["reason"]]
    good = [r for r in rows if not r["reason"]]
    good.sort(key=lambda r: (r["energy"], r["id"]))
    kept: list[dict[str, Any]] = []
    for row in good:
        cluster = row["cluster"].with_positions(np.array(row["positions"]))
        near = [o for o in kept if (row["energy"] - o["energy"]) / KJ_PER_MOL <= SAME_ENERGY]
        twin = next((o for o in reversed(near) if same_cluster(cluster, o["cluster"])), None)
        if twin is None:
            kept.append({**row, "cluster": cluster, "copies": 1})
        else:
            twin["copies"] += 1
            dropped.append(Dropped(row["id"], "duplicate", f"the same as {twin['source']}", source=row["source"]))
    return [
        ClusterEntry(
            rank, r["id"], r["cluster"], r["energy"], (r["energy"] - kept[0]["energy"]) / KJ_PER_MOL, r["potential"],
            r["converged"], r["force"], r["steps"], r["copies"], len(speared_rings(r["cluster"])), r["source"],
        )
        for rank, r in enumerate(kept, 1)
    ]  # fmt: skip


def same_cluster(a: MolecularCluster, b: MolecularCluster) -> bool:
    """Whether two clusters of the same molecules are one but for names, place and hand.

    Molecules of one species are assigned (Hungarian), symmetric atoms renamed; of mixtures the distances between heavy
    atoms of each two elements are compared, sorted.
    """
    heavy = [m.numbers > 1 if (m.numbers > 1).sum() > 2 else np.ones(m.n_atoms, bool) for m in a.species]
    if len(a.species) == 1:
        names = automorphisms(a.species[0].rdmol, np.flatnonzero(heavy[0]), MOST_RENAMINGS)
        x, y = (c.positions.reshape(c.n_molecules, -1, 3)[:, heavy[0]] for c in (a, b))
        return matched_rmsd(x, y, names) < SAME_RMSD
    difference = _distances(a, heavy) - _distances(b, heavy)
    return float(np.sqrt((difference**2).mean())) < SAME_RMSD


def _distances(cluster: MolecularCluster, heavy: Sequence[np.ndarray]) -> np.ndarray:
    """Distances between heavy atoms, sorted for each pair of elements."""
    chosen = np.concatenate([heavy[s] for s in cluster.order])
    x, z = cluster.positions[chosen], cluster.numbers[chosen]
    i, j = np.triu_indices(len(x), 1)
    d = np.linalg.norm(x[i] - x[j], axis=1)
    return np.asarray(d[np.lexsort((d, np.maximum(z[i], z[j]), np.minimum(z[i], z[j])))])


def _write(ranking: ClusterRanking, energy: str, relax: bool, top: int) -> None:
    """Tables, structures, an ASE database and the report; each file appears whole."""
    import ase.db
    from ase.io import write

    folder, entries = ranking.folder, ranking.entries
    write_bytes_atomically(folder / "ranking.csv", ranking.to_dataframe().to_csv(index=False).encode())
    write_bytes_atomically(folder / "dropped.csv", dropped_dataframe(ranking.dropped).to_csv(index=False).encode())
    names = set()
    (folder / "structures").mkdir(exist_ok=True)
    for entry in entries[:top]:
        path = folder / "structures" / f"rank_{entry.rank:03d}.extxyz"
        noted = entry.cluster.with_info(rank=entry.rank, relative_energy=entry.relative_energy, source=entry.source)
        with atomic_path(path) as temporary:
            write(temporary, noted.to_ase(), format="extxyz")
        names.add(path.name)
    for old in (folder / "structures").glob("rank_*.extxyz"):
        if old.name not in names:
            old.unlink()
    with atomic_path(folder / "clusters.db") as temporary, ase.db.connect(temporary, use_lock_file=False) as database:
        for entry in entries:
            atoms = entry.cluster.to_ase()
            atoms.info.clear()
            keys = {"rank": entry.rank, "relative_energy": entry.relative_energy, "copies": entry.copies}
            database.write(atoms, **keys, converged=entry.converged, cluster_id=f"c{entry.id}")
    data = {
        "gyration": [e.row()["gyration_a"] for e in entries],
        "energy": [e.relative_energy for e in entries],
        "label": [f"rank {e.rank}, {Path(e.source).name}" for e in entries],
    }
    page = render(
        "molflow_sim.screening", "clusters.html.template", data, title=f"{entries[0].cluster.formula}: clusters",
        rows=[e.row() for e in entries], energy=energy, relax=relax, dropped=len(ranking.dropped),
    )  # fmt: skip
    write_bytes_atomically(folder / "report.html", page.encode())
