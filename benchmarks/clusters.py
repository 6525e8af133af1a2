"""Clusters of 17 from loose starts: cluster flow, PACKMOL, random starts and the relabelled truth, in one run.

    molflow dataset clusters --from-cif cifs/ --exclude holdout.smi -o clusters/
    python -m benchmarks clusters clusters/ -o clusters.json --targets 20 --flow rigid=mine/ --flow lerp=lerp/ [--keep]

Targets are measured crystals on the test side, rigid as they are in the crystal, evenly spread over the sizes up to
--max-atoms. "truth, relabelled" is the crystal's cluster with its molecules in another order: the floor of the labels'
metrics. "data's starts" are the noised molecules from which the published variants begin, "random starts" those of the
rigid flow; PACKMOL packs at --density. "crystal flow" are pieces of pressed packings, of which the lowest in lattice
energy of so many is taken; they are drawn `TOGETHER` at a time and take their part of the seconds. PM is of labels as
they are, RMSD of all and of 8 molecules are of heavy atoms with molecules assigned. Energies are per molecule after the
same relaxation on the potential (1,500 evaluations at most), against PACKMOL's on the same target. Seconds are CPU
time, PACKMOL's own process included, without loading. Each target has a file of its own beside the output; the same
command goes on from there.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from benchmarks.parts import Parts, add_options
from benchmarks.tables import keep
from molflow_sim import CrystalPotential, MolecularCluster, load_model, parametrize
from molflow_sim.chemistry.bonds import automorphisms
from molflow_sim.errors import MolflowError, PackingError
from molflow_sim.evaluate.clusters import CORE, CORE_RMSD, contacts, matched_rmsd, packing_matching
from molflow_sim.generators.clusters import CrystalFlowClusters
from molflow_sim.generators.protocol import ClusterRequest
from molflow_sim.models.cluster_flow import ClusterFlow, ClusterFlowSettings
from molflow_sim.models.cluster_flow.data import ClusterRecord, read_clusters
from molflow_sim.models.cluster_flow.paths import loose_start
from molflow_sim.packing.clusters import packmol_cluster
from molflow_sim.relax.clusters import relax_cluster
from molflow_sim.runs.files import write_json
from molflow_sim.runs.identity import digest
from molflow_sim.units import KJ_PER_MOL

PACKMOL, TRUTH, RANDOM, NOISED = "PACKMOL", "truth, relabelled", "random starts", "data's starts"
MOST_RENAMINGS = 24
POOLS = (4, 40)
"""Packings pressed for each of the crystal flow's clusters."""
TOGETHER = 8
"""Clusters of the crystal flow that are drawn at once, the first of which is taken."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run all sides on all targets and print the table."""
    args = _arguments(argv)
    flows = dict(text.split("=", 1) for text in args.flow)
    models: dict[str, ClusterFlow] = {name: load_model(Path(path)) for name, path in flows.items()}
    chosen = targets(read_clusters(args.data).of("test").records, args.targets, args.max_atoms)
    sides = {**_sides(args.density), **{name: _flow(model) for name, model in models.items()}}
    if not args.print_only:
        _target(chosen[0], sides, np.random.default_rng(0), False)  # loads and compiles
    weights = {name: model.card.get("sha256", "") for name, model in models.items()}
    run = digest(weights, args.density, args.relax, args.targets, args.max_atoms, list(sides))
    parts = Parts(args.output, args.max_minutes, args.print_only)
    rows = []
    for k in [*range(0, len(chosen), 2), *range(1, len(chosen), 2)]:  # all sizes in what is done before the end
        make = partial(_target, chosen[k], sides, np.random.default_rng([args.seed, k]), args.relax)
        rows += parts.result(f"{chosen[k].name}-{args.seed}-{run}", list, make) or []
    done = list(dict.fromkeys(row["target"] for row in rows))
    table = summary(rows)
    write_json(args.output, {"targets": done, "table": table, "rows": rows})
    for row in table:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if args.keep:
        lines = [_line(row, len(done)) for row in table if row["side"] not in (TRUTH, NOISED, RANDOM)]
        keep("clusters", lines, {"clusters": table})
    return 0


def targets(records: Sequence[ClusterRecord], n: int, max_atoms: int) -> list[ClusterRecord]:
    """n measured crystals of molecules of at most `max_atoms` atoms, evenly spread over the sizes."""
    fit = [r for r in records if r.experimental and len(r.numbers) <= max_atoms]
    fit.sort(key=lambda r: (len(r.numbers), r.name))
    places = np.unique(np.linspace(0, len(fit) - 1, min(n, len(fit))).round().astype(int)) if fit else []
    return [fit[k] for k in places]


Side = Callable[[ClusterRecord, Any, np.random.Generator], np.ndarray | None]


def _sides(density: float) -> dict[str, Side]:
    def packed(record: ClusterRecord, molecule: Any, rng: np.random.Generator) -> np.ndarray | None:
        try:
            made = packmol_cluster([molecule], [len(record.end.hand)], density=density, seed=int(rng.integers(2**31)))
        except PackingError:
            return None
        return made.positions.reshape(-1, len(record.numbers), 3)

    def piece(record: ClusterRecord, molecule: Any, rng: np.random.Generator, pool: int) -> np.ndarray | None:
        request = ClusterRequest(
            (replace(molecule, racemic=len(np.unique(record.end.hand)) > 1),), len(record.end.hand)
        )
        seed = int(rng.integers(2**31))
        made = CrystalFlowClusters(pool=pool).sample(request, TOGETHER, seed=seed).systems()[0]
        return None if made is None else made.positions.reshape(-1, len(record.numbers), 3)

    return {
        TRUTH: _relabelled,
        NOISED: lambda r, m, g: r.start.positions(r.body),
        RANDOM: _random,
        PACKMOL: packed,
        **{f"crystal flow, lowest of {pool}": partial(piece, pool=pool) for pool in POOLS},
    }


def _relabelled(record: ClusterRecord, molecule: Any, rng: np.random.Generator) -> np.ndarray:
    return record.end.positions(record.body)[rng.permutation(len(record.end.hand))]


def _random(record: ClusterRecord, molecule: Any, rng: np.random.Generator) -> np.ndarray | None:
    start = loose_start(record.body, rng.permutation(record.end.hand), record.mass, ClusterFlowSettings(), rng)
    return None if start is None else start.positions(record.body)


def _flow(model: ClusterFlow) -> Side:
    def moved(record: ClusterRecord, molecule: Any, rng: np.random.Generator) -> np.ndarray | None:
        if model.settings.variant != "rigid":
            return model.move(record.numbers, record.start.positions(record.body), seed=int(rng.integers(2**31)))
        hand = rng.permutation(record.end.hand)
        start = loose_start(record.body, hand, record.mass, model.settings, rng)
        return None if start is None else model.move(record.numbers, start.positions(record.body))

    return moved


def _target(
    record: ClusterRecord, sides: dict[str, Side], rng: np.random.Generator, relax: bool
) -> list[dict[str, Any]]:
    molecule = MolecularCluster.from_atoms(Atoms(record.numbers, record.body)).species[0]
    potential = CrystalPotential([parametrize(molecule)])
    heavy = record.numbers > 1 if (record.numbers > 1).sum() > 2 else np.ones(len(record.numbers), bool)
    names = automorphisms(molecule.rdmol, np.flatnonzero(heavy), MOST_RENAMINGS)
    true = record.end.positions(record.body)
    rows = []
    for name, side in sides.items():
        begin = _cpu_seconds()
        x = side(record, molecule, rng)
        seconds = (_cpu_seconds() - begin) / (TOGETHER if name.startswith("crystal flow") else 1)
        row: dict[str, Any] = {"target": record.name, "side": name, "seconds": seconds}
        rows.append(row)
        if x is None:
            continue
        row["pm_atom"], row["pm_centre"] = packing_matching(true, x)
        row["rmsd"] = matched_rmsd(true[:, heavy], x[:, heavy], names)
        row["core"] = matched_rmsd(true[:, heavy], x[:, heavy], names, CORE)
        row |= vars(contacts(record.numbers, x))
        if relax:
            cluster = MolecularCluster((molecule,), np.zeros(len(x), dtype=int), x.reshape(-1, 3))
            begin = _cpu_seconds()
            try:
                done = relax_cluster(cluster, potential)
            except MolflowError:  # atoms of the published variants may be torn
                continue
            row["relax_seconds"], row["converged"] = _cpu_seconds() - begin, done.converged
            row["energy"] = done.energy / KJ_PER_MOL
            y = done.cluster.positions.reshape(x.shape)
            row["relaxed_core"] = matched_rmsd(true[:, heavy], y[:, heavy], names, CORE)
    return rows


def _cpu_seconds() -> float:
    """CPU time of this process and of those it has waited for."""
    return sum(os.times()[:4])


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """One line for each side: medians, and shares of the targets in which it lies below others."""
    energy = {(r["target"], r["side"]): r.get("energy", np.nan) for r in rows}
    table = []
    for side in dict.fromkeys(r["side"] for r in rows):
        own = [r for r in rows if r["side"] == side]
        here = [r for r in own if "pm_atom" in r]

        def median(name: str, among: Sequence[dict[str, Any]] = here, digits: int = 2) -> str:
            values = [r[name] for r in among if np.isfinite(r.get(name, np.nan))]
            return f"{np.median(values):.{digits}f}" if values else "-"

        def mean(name: str, among: Sequence[dict[str, Any]] = here) -> str:
            return f"{100.0 * np.mean([r[name] for r in among]):.2f} %" if among else "-"

        def below(other: str, side: str = side) -> str:
            pairs = [(e, energy.get((t, other), np.nan)) for (t, s), e in energy.items() if s == side]
            pairs = [(a, b) for a, b in pairs if np.isfinite(b)]
            return "-" if side == other or not pairs else f"{sum(a < b for a, b in pairs)} of {len(pairs)}"

        gaps = [e - energy.get((t, PACKMOL), np.nan) for (t, s), e in energy.items() if s == side]
        finite = [g for g in gaps if np.isfinite(g)]
        cores = [sum(r.get(name, np.inf) < CORE_RMSD for r in own) for name in ("core", "relaxed_core")]
        table.append(
            {
                "side": side,
                "PM atom, Å": median("pm_atom"),
                "PM centre, Å": median("pm_centre"),
                "RMSD17, Å": median("rmsd"),
                "RMSD8, Å": median("core"),
                "cores found": f"{cores[0]} of {len(own)}",
                "cores found, relaxed": f"{cores[1]} of {len(own)}",
                "separation, published": mean("separation_published"),
                "collision, published": mean("collision_published"),
                "pairs that collide": mean("collision"),
                "energy - PACKMOL's, kJ/mol": f"{np.median(finite):.1f}" if finite else "-",
                "below PACKMOL's": below(PACKMOL),
                "below random starts'": below(RANDOM),
                "seconds": median("seconds", own, 3),
                "relaxation, s": median("relax_seconds", own, 1),
            }
        )
    return table


def _line(row: dict[str, str], n: int) -> tuple[str, str]:
    what = f"17-clusters of {n} test molecules, {row['side']}: relaxed energy below PACKMOL's / random starts'"
    packmol, random = row["below PACKMOL's"], row["below random starts'"]
    pm = f"PM atom / centre {row['PM atom, Å']} / {row['PM centre, Å']} Å"
    return what, f"{packmol} / {random}; {pm}; {row['seconds']} s"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help="folder of molflow dataset clusters")
    parser.add_argument("-o", "--output", type=Path, default=Path("clusters.json"))
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--max-atoms", type=int, default=25)
    parser.add_argument("--density", type=float, default=0.8, help="g/cm³ at which PACKMOL packs")
    parser.add_argument("--flow", action="append", default=[], metavar="NAME=FOLDER", help="weights of a cluster flow")
    add_options(parser)
    parser.add_argument("--relax", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--keep", action="store_true", help="keep the figures for README and docs")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
