"""How good are generated crystals, before the press and after it? All sides in one run, on held-out molecules.

    python -m benchmarks crystal_generation -o generation.json --targets 20 --candidates 300
    python -m benchmarks crystal_generation -o generation.json --sides random flow --weights trained/ --candidates 4000

Targets are the experimental crystals on the test side of the split (the rule of molflow_sim.dataset: one molecule in
five by a hash of its tautomer- and stereo-free key; those of --exclude besides), with at most one molecule in the
asymmetric unit. Rigid ones (at most one rotatable bond) and flexible ones (the rest) are reported apart, and --targets
takes that many of each class, evenly spread over the sizes. The space group is not given. Every target is done with the
conformers that a molecule gets from its SMILES ("rdkit"), with the ten lowest vacuum minima alone ("minima", the usual
practice) and with the measured one.

Table 1 judges crystals as generated, table 2 what the same press and relaxation make of them, table 3 how many of
1,000 candidates press into the experimental minimum, over random packing's. Each target and side has a JSON file of
its own beside the output; the same command goes on from there.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path

from benchmarks.generation import SIDES, Run, add_target_options, choose, run, warm_up
from benchmarks.generation_tables import enrichment_table, press_table, print_tables, raw_table
from benchmarks.parts import Parts
from benchmarks.recovery import ALL_SOURCES
from benchmarks.targets import Target
from molflow_sim import __version__
from molflow_sim.generators.protocol import make_generator
from molflow_sim.runs.files import write_json

MILESTONES = (30, 100, 300, 1000, 4000)
WEIGHTED = ("flow", "cluster-flow")
"""Methods that --weights is for, one of them in a run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the tables."""
    args = _arguments(argv)
    chosen, counts = choose(args)
    sides, digests = _usable(args.sides, chosen[0], args.weights)
    runs = _runs(args, chosen, sides, digests)
    tables = [raw_table(runs, sides), press_table(runs, sides, MILESTONES), enrichment_table(runs, sides)]
    write_json(
        args.output,
        {
            "version": __version__,
            "held_out": counts,
            "seed": args.seed,
            "threads": os.environ.get("OMP_NUM_THREADS", ""),
            "tables": {table.title: table.rows for table in tables},
            "runs": [asdict(r) for r in runs],
        },
    )
    print_tables(tables)
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("generation.json"), help="JSON with all results")
    add_target_options(parser)
    parser.add_argument(
        "--sides", nargs="+", choices=SIDES, default=list(SIDES), help="a number: drawn for each packing proposed"
    )
    parser.add_argument("--sources", nargs="+", choices=ALL_SOURCES, default=list(ALL_SOURCES), help="whose conformers")
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument("--relax", type=int, default=60, help="lowest packings relaxed with flexible molecules")
    parser.add_argument("--weights", help="folder of weights for the flow, instead of those of the package")
    return parser.parse_args(argv)


def _usable(sides: Sequence[str], target: Target, weights: str | None) -> tuple[list[str], dict[str, str]]:
    """The sides that can run here, the others named on stderr, and the SHA-256 of what --weights may replace."""
    usable, digests = [], {}
    for side in sides:
        reason = warm_up(side, target, weights if side.startswith(WEIGHTED) else None)
        if reason:
            print(f"{side} is left out: {reason}", file=sys.stderr)
            continue
        usable.append(side)
        if side.startswith(WEIGHTED):
            method = next(name for name in WEIGHTED if side.startswith(name))
            digests[side] = str(make_generator("crystals", method, weights=weights).identity()["weights"])
    return usable, digests


def _runs(
    args: argparse.Namespace, targets: Sequence[Target], sides: Sequence[str], digests: dict[str, str]
) -> list[Run]:
    parts = Parts(args.output, args.max_minutes, args.print_only)
    milestones = (*(m for m in MILESTONES if m < args.candidates), args.candidates)
    done = []
    for target, source, side in product(targets, args.sources, sides):
        own = digests.get(side, "")
        weights = args.weights if own else None
        name = "-".join(filter(None, [target.name, source, side, str(args.candidates), str(args.seed), own[:8]]))
        result = parts.result(
            name,
            lambda stored: Run(**stored),
            partial(
                run, target, source, side, args.candidates, milestones, seed=args.seed, weights=weights, digest=own,
                n_relaxed=args.relax, out_of_time=parts.out_of_time,
            ),
            _line,
        )  # fmt: skip
        if result is not None:
            done.append(result)
    return done


def _line(result: Run) -> str:
    found = result.result
    if found.error:
        return found.error
    outcome = f"candidate {found.relaxed_first}" if found.relaxed_first else f"missed ({found.fault})"
    return f"{result.raw['clash_free']} of {result.raw['n']} clash-free, {found.hits} hits, {outcome}"


if __name__ == "__main__":
    raise SystemExit(main())
