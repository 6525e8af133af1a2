"""Where the known form ranks in the default screening: by the force field, by SO3LR and by their mean, in one run.

    python -m benchmarks ranking -o FOLDER --targets 24 --candidates 4000
    python -m benchmarks ranking -o FOLDER --flexible --targets 16

Every target (experimental crystals with rigid molecules, see targets.py, or with flexible ones) is screened from its
SMILES, and its known form is looked for among the ranked structures; ranks by the members are those of the same
structures. The force field's own ranking is that of its energies on its own geometries. For a form that is not there,
the line says whether the force field keeps the measured structure at all. Runs go on where they were stopped.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.parts import Parts
from benchmarks.recovery import spread
from benchmarks.tables import keep
from benchmarks.targets import DATA, Target, read_targets, reason_left_out
from molflow_sim import screen
from molflow_sim.screening import ScreenSettings

T = TypeVar("T")
FIRSTS = (1, 5, 10, 20)


@dataclass
class Place:
    """Where the known form of one target came; ranks are None where it was not found."""

    target: str
    smiles: str
    atoms: int
    structures: int
    rank: int | None
    relative: float | None
    uncertainty: float | None
    rmsd: float | None
    by_potential: int | None
    potential_relative: float | None
    by_fit: int | None
    by_so3lr: int | None
    drift: float | None
    seconds: float
    note: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the table and the summary."""

    def rows(places: Sequence[Place]) -> Any:
        return {
            "ranks": [row(p) for p in places],
            "calibration": calibration(places),
            "places": [asdict(p) for p in places],
        }

    return over_targets(argv, __doc__, "ranking", "places.json", Place, run, line, summarise, rows)


def over_targets(
    argv: Sequence[str] | None,
    about: str | None,
    name: str,
    parts: str,
    result: Callable[..., T],
    make: Callable[[Target, Path, Path, int], T],
    line: Callable[[T], str],
    summarise: Callable[[Sequence[T]], list[tuple[str, str]]],
    rows: Callable[[Sequence[T]], Any],
) -> int:
    """A benchmark over targets, each with a folder of its run: makes what is missing, then prints and keeps lines.

    Parameters
    ----------
    argv : sequence of str, optional
    about : str
        Its first line describes the command.
    name : str
        Of the kept results; those of flexible molecules have ``_flexible`` behind.
    parts : str
        File beside whose name results are stored one by one.
    result, make, line
        A result from what is stored, from (target, data, folder, candidates), and in words.
    summarise, rows
        Lines and figures of all results.
    """
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--targets", type=int, default=24)
    parser.add_argument("--flexible", action="store_true", help="molecules with rotatable bonds instead of rigid ones")
    parser.add_argument("--candidates", type=int, help="default: 4000, with --flexible what `molflow screen` takes")
    parser.add_argument("--max-minutes", type=float, default=float("inf"))
    parser.add_argument("--print-only", action="store_true")
    parser.add_argument("--keep", action="store_true", help="write the result to benchmarks/results")
    args = parser.parse_args(argv)
    try:
        targets, candidates = chosen_targets(args)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    stored = Parts(args.output / parts, args.max_minutes, args.print_only)
    results = []
    for target in targets:
        found = stored.result(
            f"{target.name}-{candidates}", lambda data: result(**data),
            partial(make, target, args.data, args.output / target.name, candidates), line,
        )  # fmt: skip
        if found is not None:
            results.append(found)
    lines = summarise(results)
    print("\n".join(f"{what}: {figure}" for what, figure in lines))
    if args.keep:
        keep(f"{name}_flexible" if args.flexible else name, lines, rows(results))
    return 0


def chosen_targets(args: argparse.Namespace) -> tuple[list[Target], int]:
    """The targets that the options name, spread over the sizes, and candidates for each."""
    rule = partial(reason_left_out, max_rotatable=None) if args.flexible else reason_left_out
    targets = read_targets(args.data, rule)[0]
    if args.flexible:
        targets = [t for t in targets if reason_left_out(t.crystal)]
    candidates = args.candidates or (ScreenSettings().candidates if args.flexible else 4000)
    return spread(targets, args.targets), candidates


def run(target: Target, data: Path, folder: Path, candidates: int) -> Place:
    """Screen one target."""
    reference = data / "cif" / f"{target.name}.cif"
    settings = ScreenSettings(candidates=candidates, top=0)
    landscape = screen(target.generated(), settings=settings, reference=reference, output=folder, progress=False)
    match, entries = landscape.reference, list(landscape)
    hit = None if match is None or match.rank is None else entries[match.rank - 1]

    def place(value):
        values = [value(e) for e in entries]
        return None if hit is None or not np.isfinite(value(hit)) else 1 + sum(v < value(hit) - 1e-9 for v in values)

    return Place(
        target=target.name, smiles=target.smiles, atoms=len(target.experimental.numbers), structures=len(entries),
        rank=hit.rank if hit else None, relative=hit.relative_energy if hit else None,
        uncertainty=hit.uncertainty if hit else None, rmsd=match.rmsd15 if match else None,
        by_potential=place(lambda e: e.potential_relative), potential_relative=hit.potential_relative if hit else None,
        by_fit=place(lambda e: e.parts.get("fit-hf", np.nan)), by_so3lr=place(lambda e: e.parts.get("so3lr", np.nan)),
        drift=match.relaxed_drift if match else None, seconds=sum(landscape.run["timings_s"].values()),
        note=match.note if match else "",
    )  # fmt: skip


def line(place: Place) -> str:
    """One target in words."""
    if place.rank is None:
        return f"{place.smiles}: not found ({place.note})"
    return (
        f"{place.smiles}: rank {place.rank} ({place.relative:+.1f} ± {place.uncertainty or 0:.1f} kJ/mol) of "
        f"{place.structures}, potential {place.by_potential}, fit {place.by_fit}, SO3LR {place.by_so3lr}"
    )


def row(place: Place) -> dict[str, str]:
    """One target in the table of docs."""

    def or_dash(value: float | None, form: str = "") -> str:
        return "-" if value is None or not np.isfinite(value) else format(value, form)

    return {
        "molecule": f"`{place.smiles}`",
        "structures": str(place.structures),
        "rank by best": or_dash(place.rank),
        "ΔE ± spread, kJ/mol": f"{or_dash(place.relative, '.1f')} ± {or_dash(place.uncertainty, '.1f')}",
        "by the force field": or_dash(place.by_potential),
        "by FIT with HF charges": or_dash(place.by_fit),
        "by SO3LR": or_dash(place.by_so3lr),
    }


def calibration(places: Sequence[Place]) -> list[dict[str, str]]:
    """How often the known form lies within so many spreads of the lowest structure."""
    bars = [
        (p.relative, p.uncertainty)
        for p in places
        if p.rank is not None and p.relative is not None and p.uncertainty is not None
    ]
    return [
        {
            "within": f"{k:g} ±",
            "known forms": f"{(inside := sum(relative <= k * bar for relative, bar in bars))} of {len(bars)}",
            "share, %": f"{100 * inside / len(bars):.0f}",
            "if ± were a standard deviation, %": f"{100 * math.erf(k / 2**0.5):.0f}",
        }
        for k in (0.5, 1.0, 2.0, 3.0)
        if bars
    ]


def summarise(places: Sequence[Place]) -> list[tuple[str, str]]:
    """How many forms are found, and among the first of each ranking."""
    found = [p for p in places if p.rank is not None]
    lines = [("known forms found", f"{len(found)} of {len(places)}")]
    fields = {"best": "rank", "the force field": "by_potential", "FIT with HF charges": "by_fit", "SO3LR": "by_so3lr"}
    for name, field in fields.items():
        ranks = [r for p in found if (r := getattr(p, field)) is not None]
        if ranks:
            counts = ", ".join(f"{sum(r <= n for r in ranks)} ≤ {n}" for n in FIRSTS)
            lines.append((f"rank by {name}", f"{counts}; median {statistics.median(ranks):g} of {len(ranks)}"))
    inside = [p.relative <= p.uncertainty for p in found if p.relative is not None and p.uncertainty is not None]
    lines.append(("known form within its uncertainty of the lowest", f"{sum(inside)} of {len(inside)}"))
    return lines


if __name__ == "__main__":
    sys.exit(main())
