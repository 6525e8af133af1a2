"""Is the experimental form among the first 300, 1,000 and 4,000 random candidates after the press?

    python -m benchmarks recovery -o recovery.json --targets 30 --candidates 4000
    python -m benchmarks recovery -o recovery.json --generators random pyxtal --candidates 1000

Every rigid experimental crystal of the data set (see targets.py; --targets takes that many, evenly spread over the
sizes) is searched for with RDKit's conformers and with its own, by random packing over the common space groups and
the press; PyXtal's random molecular crystals go through the same press. "Found" means that 15 of 15 molecules
superpose within `found_rmsd`. For a miss, the experimental structure itself is pressed: if it stays, the search is at
fault, if it leaves, the potential (or, with RDKit's conformers, the conformer).

Each search is written to a file of its own next to the output when it ends; the same command goes on from there.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.parts import Parts, add_options
from benchmarks.search import Search, search
from benchmarks.targets import DATA, Target, read_targets
from molflow_sim import __version__
from molflow_sim.runs.files import write_json

MILESTONES = (300, 1000, 4000)
SOURCES = ("rdkit", "experimental")
ALL_SOURCES = (*SOURCES, "minima")
"""Whose conformers: all families that `Molecule.from_smiles` makes, the measured one, the ten lowest vacuum minima."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the table and the summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("recovery.json"), help="JSON with all results")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--targets", type=int, default=30, help="how many, 0 for all")
    parser.add_argument("--names", nargs="*", default=[], help="COD numbers instead of a selection")
    parser.add_argument("--candidates", type=int, default=4000)
    parser.add_argument("--sources", nargs="+", choices=ALL_SOURCES, default=list(SOURCES))
    parser.add_argument("--generators", nargs="+", choices=("random", "pyxtal"), default=["random"])
    parser.add_argument("--stop-when-found", action="store_true", help="no more candidates once the form is found")
    add_options(parser)
    args = parser.parse_args(argv)
    try:
        targets = read_targets(args.data)[0]
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    if args.names:
        targets = [t for t in targets if t.name in args.names]
    elif args.targets:
        targets = spread(targets, args.targets)
    parts = Parts(args.output, args.max_minutes, args.print_only)
    short = "-short" if args.stop_when_found else ""
    results = []
    for target, source, generator in product(targets, args.sources, args.generators):
        result = parts.result(
            f"{target.name}-{source}-{generator}-{args.candidates}{short}-{args.seed}",
            lambda stored: Search(**stored),
            partial(
                search, target, source, generator, args.candidates, MILESTONES, seed=args.seed,
                stop_when_found=args.stop_when_found, out_of_time=parts.out_of_time,
            ),
            _line,
        )  # fmt: skip
        if result is not None:
            results.append(result)
    write_json(args.output, {"version": __version__, "results": [{**asdict(r), "fault": r.fault} for r in results]})
    print_table(results)
    summarise(results, len(targets))
    return 0


def spread(targets: list[Target], n: int) -> list[Target]:
    """n targets evenly spread over the list, which is sorted by size."""
    if n >= len(targets):
        return targets
    return [targets[k] for k in np.unique(np.linspace(0, len(targets) - 1, n).round().astype(int))]


def _line(result: Search) -> str:
    if result.first:
        return f"found, candidate {result.first}, relaxed {result.relaxed_first}"
    return f"missed ({result.fault}) {result.error}"


def print_table(results: list[Search]) -> None:
    """One line per search."""
    print(
        f"{'COD':>8} {'source':>12} {'generator':>9} {'cands':>6} {'conv %':>6} {'unique':>6} {'hits':>5} {'first':>6} "
        f"{'RMSD15':>6} {'rank':>5} {'dE':>6} | {'relaxed':>7} {'RMSD15':>6} {'rank':>5} | {'min RMSD':>8} {'sec':>6}  "
        f"{'fault':<10} SMILES"
    )
    for r in results:
        minimum = r.minimum or {}
        gap = None if r.hit_energy is None or r.lowest_energy is None else r.hit_energy - r.lowest_energy
        stay = f"{minimum['rmsd']:.2f}" if minimum.get("n_matched") == 15 else "away"
        print(
            f"{r.target:>8} {r.source:>12} {r.generator:>9} {r.candidates:>6} {100 * r.converged / r.candidates:>6.1f} "
            f"{r.unique:>6} {r.hits:>5} {_or_dash(r.first):>6} {_or_dash(r.rmsd, '.2f'):>6} "
            f"{_or_dash(r.rank.get(str(MILESTONES[-1]))):>5} {_or_dash(gap, '.1f'):>6} | "
            f"{_or_dash(r.relaxed_first):>7} {_or_dash(r.relaxed_rmsd, '.2f'):>6} {_or_dash(r.relaxed_rank):>5} | "
            f"{stay if minimum else '-':>8} {sum(r.seconds.values()):>6.0f}  {r.fault:<10} {r.smiles}"
        )
    print("first, relaxed: number of the first candidate that is the form, as pressed and after flexible relaxation;")
    print("rank: by energy, as pressed among all packings, relaxed among those relaxed; dE: kJ/mol over the lowest;")
    print("min RMSD: RMSD15 between the experimental structure and where the press takes it")


def summarise(results: list[Search], n_targets: int) -> None:
    """Shares found at each number of candidates, ranks, and the causes of misses, for equal targets on both sides."""
    kinds = sorted({(r.source, r.generator) for r in results})
    done = {k: {r.target for r in results if (r.source, r.generator) == k} for k in kinds}
    print(f"\n{n_targets} targets; searches done: {len(results)}")
    for source in dict.fromkeys(k[0] for k in kinds):
        sides = [k for k in kinds if k[0] == source]
        common = set.intersection(*(done[k] for k in sides))
        for kind in sides:
            rows = [r for r in results if (r.source, r.generator) == kind and r.target in common]
            if not rows:
                continue
            most = max(r.candidates for r in results)
            counts = sorted({*(m for m in MILESTONES if m <= most), most})
            pressed = ", ".join(f"{sum(r.found(m) for r in rows)} at {m}" for m in counts)
            shares = ", ".join(f"{sum(r.found_relaxed(m) for r in rows)} at {m}" for m in counts)
            ranks = [r.rank[str(MILESTONES[-1])] or 0 for r in rows if r.first]
            full = [r.relaxed_rank for r in rows if r.relaxed_rank]
            misses = Counter(r.fault for r in rows if r.fault)
            seconds = float(np.sum([s for r in rows for s in r.seconds.values()]))
            print(f"{kind[0]} conformers, {kind[1]} packings: of {len(rows)} found {shares} (as pressed {pressed})")
            if full:
                print(
                    f"   relaxed, rank 1: {sum(k == 1 for k in full)}, up to 5: {sum(k <= 5 for k in full)}, up to 20: "
                    f"{sum(k <= 20 for k in full)} of {len(full)}; as pressed {sum(k == 1 for k in ranks)}, "
                    f"{sum(k <= 5 for k in ranks)}, {sum(k <= 20 for k in ranks)} of {len(ranks)}"
                )
            why = ", ".join(f"{name} {count}" for name, count in misses.most_common()) or "none"
            print(f"   misses: {why}; {seconds / len(rows):.0f} s a target")


def _or_dash(value: float | None, form: str = "") -> str:
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    raise SystemExit(main())
