"""What limits the share of candidates that press into the experimental minimum? Oracles, one at a time.

    python -m studies.generation_limits -o limits.json --targets 8 --candidates 1000

On the targets of crystal_generation.py, each figure is set beside plain random packing (RDKit's conformers, space group
not given) on the same targets in the same run:

1. the conformer known: the measured one in place of RDKit's;
2. the group known: candidates drawn in the experimental crystal's own space group and site;
3. the energies known: a sampler that draws distinct minima with weights exp(-ΔE/s), the experimental one among them;
4. closeness: how far the measured structure may be disturbed for the press to bring it back.

Each target has a JSON file of its own beside the output; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.generation import CLASSES, add_target_options, choose
from benchmarks.generation_tables import Table, compare, print_tables
from benchmarks.parts import Parts
from benchmarks.recovery import SOURCES
from benchmarks.search import Minimum
from benchmarks.targets import Target
from molflow_sim import __version__
from molflow_sim.runs.files import write_json
from studies.limits import DISTURBANCES, Landscape, Limits, measure

SCALES = (1.0, 2.0, 4.0, 8.0)
"""kJ/mol: scales of the sampler's weights."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the tables."""
    args = _arguments(argv)
    chosen, counts = choose(args)
    runs = _runs(args, chosen)
    tables = [conformer_table(runs), group_table(runs), sampler_table(runs), closeness_table(runs)]
    write_json(
        args.output,
        {
            "version": __version__,
            "held_out": counts,
            "candidates": args.candidates,
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
    parser.add_argument("-o", "--output", type=Path, default=Path("limits.json"), help="JSON with all results")
    add_target_options(parser)
    parser.add_argument("--candidates", type=int, default=1000, help="pressed for each source of conformers and group")
    parser.add_argument("--disturbed", type=int, default=20, help="disturbed copies of the measured crystal a setting")
    return parser.parse_args(argv)


def _runs(args: argparse.Namespace, targets: Sequence[Target]) -> list[Limits]:
    parts = Parts(args.output, args.max_minutes, args.print_only)
    done = []
    for target in targets:
        result = parts.result(
            f"{target.name}-{args.candidates}-{args.disturbed}-{args.seed}",
            lambda stored: Limits(**stored),
            partial(measure, target, args.candidates, args.disturbed, seed=args.seed, out_of_time=parts.out_of_time),
            lambda made: f"{made.group}: {_line(made)}",
        )
        if result is not None:
            done.append(result)
    return done


def _line(result: Limits) -> str:
    parts = []
    for source in SOURCES:
        found = result.landscape(source)
        if found is None:
            parts.append(f"{source} {result.errors.get(source, 'not done')}")
            continue
        lowest = min(found.experimental, default=None)
        parts.append(
            f"{source} {found.hits} hits of {found.candidates} ({found.drawn_hits} of {found.drawn} in the group), "
            f"{found.known_hits} of {found.known} in the group, dE {'none' if lowest is None else f'{lowest:.1f}'} "
            f"of {len(found.experimental) + len(found.others)} minima"
        )
    return "; ".join(parts)


def conformer_table(runs: Sequence[Limits]) -> Table:
    """Random packing with each source of conformers."""
    rows = []
    for klass in CLASSES:
        pairs = _pairs(runs, klass)
        base = [(a.hits, a.candidates) for a, _ in pairs]
        for k, source in enumerate(SOURCES):
            mine = [pair[k] for pair in pairs]
            if mine:
                rows.append(
                    {
                        "class": klass,
                        "conformers": source,
                        "group": "open",
                        "targets": len(mine),
                        **compare([(m.hits, m.candidates) for m in mine], base),
                        "hit": sum(m.hits > 0 for m in mine),
                        "kept": sum(Minimum(**m.minimum).kept for m in mine),
                    }
                )
    return Table(
        "1. The conformer known",
        rows,
        "hits: random packings, space group not given, that press into the experimental minimum; enrichment (ratio of\n"
        "means over targets) and typical (geometric mean of the targets' own ratios, half a hit for none) are over\n"
        "RDKit's; hit: targets with a hit; kept: targets whose measured packing, pressed with these conformers, stays.",
    )


def group_table(runs: Sequence[Limits]) -> Table:
    """Candidates in the experimental group and site, over the same with the group open."""
    rows = []
    for klass in CLASSES:
        pairs = _pairs(runs, klass)
        for k, source in enumerate(SOURCES):
            able = [pair for pair in pairs if pair[k].known]
            mine = [pair[k] for pair in able]
            if not mine:
                continue
            known = [(m.known_hits, m.known) for m in mine]
            over = compare(known, [(a.hits, a.candidates) for a, _ in able])
            share = [m.drawn / m.candidates for m in mine]
            rates = [m.drawn_hits / m.drawn for m in mine if m.drawn]
            elsewhere = [1.0 - m.drawn_hits / m.hits for m in mine if m.hits]
            rows.append(
                {
                    "class": klass,
                    "conformers": source,
                    "group": "known",
                    "targets": len(mine),
                    "no site": len(pairs) - len(mine),
                    "drawn %": _mean(share, 100.0, 1),
                    "drawn hits per 1000": _mean(rates, 1000.0, 2),
                    **compare(known, [(m.hits, m.candidates) for m in mine]),
                    "over RDKit's, open": over["enrichment"],
                    "typical over that": over["typical"],
                    "hits elsewhere %": _mean(elsewhere, 100.0, 1),
                }
            )
    return Table(
        "2. The space group and site known",
        rows,
        "drawn: share of table 1's candidates that happen to have the experiment's group and site (settings of one\n"
        "group count as one, so do mirror images), and the hits among these; hits per 1000: as many candidates\n"
        "as in table 1, all in that group and site; enrichment and typical are over the open group with the same\n"
        "conformers, and at last over RDKit's with the open group; hits elsewhere: share of table 1's hits reached\n"
        "from another group or site. Means over targets, of those that have any such candidates or hits. no site:\n"
        "targets left out since these conformers lack the symmetry of the site.",
    )


def sampler_table(runs: Sequence[Limits]) -> Table:
    """A sampler of low minima, over random packing with the same conformers."""
    rows = []
    for klass in CLASSES:
        pairs = _pairs(runs, klass)
        for k, source in enumerate(SOURCES):
            both = [pair for pair in pairs if pair[k].experimental]
            mine = [pair[k] for pair in both]
            for scale in SCALES if mine else ():
                expected = [(m.candidates * m.share(scale), m.candidates) for m in mine]
                ranks = [1 + sum(e < min(m.experimental) - 1e-9 for e in m.others) for m in mine]
                rows.append(
                    {
                        "class": klass,
                        "conformers": source,
                        "s, kJ/mol": f"{scale:g}",
                        "targets": len(mine),
                        "no minimum": len(pairs) - len(mine),
                        "random": _mean([m.hits / m.candidates for m in mine], 1000.0, 2),
                        **compare(expected, [(m.hits, m.candidates) for m in mine]),
                        "worse": sum(h < m.hits for (h, _), m in zip(expected, mine)),
                        "median dE": round(float(np.median([min(m.experimental) for m in mine])), 1),
                        "median rank": float(np.median(ranks)),
                        "minima": float(np.median([len(m.experimental) + len(m.others) for m in mine])),
                    }
                )
    return Table(
        "3. A perfect sampler of the force field's low end",
        rows,
        "hits per 1000: 1,000 times the probability of the experimental form when the distinct minima of the pressed\n"
        "candidates (and the form, where only the measured structure or table 2 gives it) are drawn with weights\n"
        "exp(-dE/s); dE: rigid-press lattice energy per molecule over the lowest, with the conformer's strain. It is\n"
        "an upper bound: minima not found yet can only lower it. random: hits per 1000 of random packing with the\n"
        "same conformers on the same targets, which enrichment and typical are over; worse: targets that random\n"
        "packing hits more often; no minimum: targets left out, the form being met in no way; rank: among the minima.",
    )


def closeness_table(runs: Sequence[Limits]) -> Table:
    """Share of disturbed copies of the measured crystal that the press brings back."""
    rows = []
    for klass in CLASSES:
        group = [r for r in runs if r.klass == klass and r.disturbed and len(r.returned) == len(DISTURBANCES)]
        for k, (angle, shift, strain) in enumerate(DISTURBANCES):
            shares = [100.0 * back / r.disturbed for r in group if (back := r.returned[k]) is not None]
            if shares:
                rows.append(
                    {
                        "class": klass,
                        "turn, °": f"{angle:g}",
                        "shift, Å": f"{shift:g}",
                        "strain, %": f"{100.0 * strain:g}",
                        "targets": len(shares),
                        "back %": round(float(np.mean(shares)), 1),
                        "median": round(float(np.median(shares)), 1),
                        "lowest": round(min(shares), 1),
                    }
                )
    return Table(
        "4. How close is close enough",
        rows,
        "back: the measured crystal, its own conformer, group and site kept, is turned, shifted and strained (largest\n"
        "principal strain) in random directions and pressed as any candidate; share that is then the experimental\n"
        "form: mean, median and lowest over targets. Targets that the potential does not keep are left out, and those\n"
        "whose site leaves nothing to disturb.",
    )


def _pairs(runs: Sequence[Limits], klass: str) -> list[tuple[Landscape, Landscape]]:
    """Landscapes with RDKit's and with the measured conformer, of the class's targets that have both."""
    found = []
    for r in runs:
        a, b = (r.landscape(source) for source in SOURCES)
        if r.klass == klass and a is not None and b is not None:
            found.append((a, b))
    return found


def _mean(values: Sequence[float], unit: float, digits: int) -> float | None:
    return round(unit * float(np.mean(values)), digits) if values else None


if __name__ == "__main__":
    raise SystemExit(main())
