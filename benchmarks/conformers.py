"""How often does a candidate get a conformer that the measured crystal can be built from? Both sides in one run.

    python -m benchmarks conformers -o train.json --split train
    python -m benchmarks conformers -o held_out.json --keep

For every experimental crystal (see crystal_generation.py) each conformer that the molecule gets from its SMILES is laid
over the measured one and the packing is pressed: a conformer *keeps* the form when all 15 molecules then still
superpose within 1 Å, and *builds* it when they are the form (0.5 Å, see `found_rmsd`) once all atoms are freed, as a
search does before it chooses. "share": the shares of these conformers, which is how often a search that draws
conformers by them has a chance; "reached": targets that have any; "near": the smallest RMSD of heavy atoms to the
measured conformer.
Sides: the ten lowest vacuum minima, weighted by strain (the usual practice), and all families. Molecules that have one
conformer on both sides are left out. Each target has a JSON file of its own; the same command goes on from there.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.generation import CLASSES, add_target_options, choose, class_of
from benchmarks.generation_tables import Table, print_tables
from benchmarks.parts import Parts
from benchmarks.search import _mappings, matches, molecule_of, pressed_experiment
from benchmarks.tables import keep
from benchmarks.targets import Target
from molflow_sim import Molecule, __version__, parametrize
from molflow_sim.chemistry.conformers import best_rmsd
from molflow_sim.evaluate import packing_similarity, prepare
from molflow_sim.evaluate.packing_similarity import FOUND_RMSD
from molflow_sim.runs.files import write_json
from molflow_sim.screening import stages

SIDES = ("minima", "rdkit")
KEEPS = 1.0
"""Å: RMSD15 within which a pressed packing keeps the form; less for tiny molecules, see `found_rmsd`."""
FLOOR = 0.01
"""What a share of zero counts as in geometric means."""


@dataclass
class Kept:
    """One target with one side's conformers: which keep the form as pressed, which build it with atoms freed."""

    target: str
    klass: str
    smiles: str
    side: str
    conformers: int
    share: float
    keepers: list[int]
    built: float
    builders: list[int]
    nearest: float
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("conformers.json"), help="JSON with all results")
    parser.add_argument("--sides", default=",".join(SIDES), help="also torsions, mixed ...: sources of `screen`")
    parser.add_argument("--keep", action="store_true", help="write the result to benchmarks/results")
    add_target_options(parser)
    args = parser.parse_args(argv)
    chosen, counts = choose(args)
    sides = args.sides.split(",")
    other = "" if sides == list(SIDES) else f"-{'-'.join(sides)}"
    parts = Parts(args.output, args.max_minutes, args.print_only)
    runs: list[list[Kept]] = []
    for target in chosen:
        found = parts.result(
            f"{target.name}-{args.seed}{other}",
            lambda rows: [Kept(**row) for row in rows],
            partial(_all_sides, target, sides, args.seed),
            lambda kept: ", ".join(f"{k.side} {k.share:.2f} of {k.conformers}" for k in kept),
        )
        if found is not None and max(k.conformers for k in found) > 1:
            runs.append(found)
    table = kept_table(runs)
    write_json(
        args.output,
        {
            "version": __version__,
            "split": args.split,
            "targets": counts,
            "seed": args.seed,
            "table": table.rows,
            "runs": [asdict(k) for found in runs for k in found],
        },
    )
    print_tables([table])
    if args.keep:
        keep("conformers", lines(table), {"table": table.rows})
    return 0


def lines(table: Table) -> list[tuple[str, str]]:
    """What a flexible molecule gets, by side."""
    return [
        (
            f"flexible crystals that a conformer from the SMILES keeps, share of candidates: {row['conformers']}",
            f"{row['reached']} of {row['targets']}, {row['share, mean']} (typically {row['typical']})",
        )
        for row in table.rows
        if row["class"] == "flexible"
    ]


def _all_sides(target: Target, sides: Sequence[str], seed: int) -> list[Kept]:
    return [measure(target, side, seed) for side in sides]


def measure(target: Target, side: str, seed: int) -> Kept:
    """Press the measured packing with each conformer of one side.

    Raises
    ------
    MolflowError
        Where RDKit or the potential cannot handle the molecule.
    """
    start = time.perf_counter()
    molecule = molecule_of(target, side, seed)
    seconds = time.perf_counter() - start
    parameters = parametrize(molecule)
    pressed = pressed_experiment(target, molecule, parameters)
    rows = np.flatnonzero(pressed.ok)
    limit = KEEPS * target.found_rmsd / FOUND_RMSD
    keepers = sorted(matches(target, pressed, rows, prefilter=False, limit=limit))
    reference = prepare(target.crystal)
    freed = stages.free([pressed.crystal(k) for k in rows], parameters)
    builders = [
        k for k, r in zip(rows, freed) if np.isfinite(r.energy) and packing_similarity(reference, r.crystal).found
    ]
    return Kept(
        target.name,
        class_of(target),
        target.smiles,
        side,
        len(molecule.conformers),
        round(float(molecule.shares[keepers].sum()), 4),
        keepers,
        round(float(molecule.shares[builders].sum()), 4),
        builders,
        round(nearest(target, molecule), 3),
        round(seconds, 2),
    )


def nearest(target: Target, molecule: Molecule) -> float:
    """Smallest RMSD in Å over heavy atoms between a conformer and the measured one."""
    heavy = np.flatnonzero(molecule.numbers > 1)
    measured = np.asarray(target.crystal.asymmetric_unit[0].conformer)
    orders = np.unique(np.array(_mappings(molecule.rdmol, target.experimental.rdmol))[:, heavy], axis=0)
    goal = np.unique(orders)
    mirror = target.racemic or not molecule.is_chiral
    return min(
        best_rmsd(x[heavy], measured[goal], np.searchsorted(goal, orders), mirror=mirror) for x in molecule.conformers
    )


def kept_table(runs: Sequence[Sequence[Kept]]) -> Table:
    """Means over the targets of each class."""
    rows = []
    for klass in CLASSES:
        group = [found for found in runs if found[0].klass == klass]
        for k, side in enumerate([kept.side for kept in group[0]] if group else ()):
            mine = [found[k] for found in group]
            share, built = np.array([m.share for m in mine]), np.array([m.built for m in mine])
            rows.append(
                {
                    "class": klass,
                    "conformers": side,
                    "targets": len(mine),
                    "share, mean": round(float(share.mean()), 3),
                    "typical": round(float(np.exp(np.log(np.maximum(share, FLOOR)).mean())), 3),
                    "reached": int(np.sum(share >= FLOOR)),
                    "freed: share, mean": round(float(built.mean()), 3),
                    "freed: reached": int(np.sum(built >= FLOOR)),
                    "near, median Å": round(float(np.median([m.nearest for m in mine])), 2),
                    "conformers, mean": round(float(np.mean([m.conformers for m in mine])), 1),
                    "s": round(float(np.mean([m.seconds for m in mine])), 2),
                }
            )
    return Table(
        "Conformers that keep the measured form",
        rows,
        f"typical: geometric mean, {FLOOR:g} for less; reached: targets with a share of {FLOOR:g} and more; "
        "freed: the form itself, with atoms free.",
    )


if __name__ == "__main__":
    raise SystemExit(main())
