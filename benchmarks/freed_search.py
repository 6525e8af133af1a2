"""Where the known form comes in a search that frees packings before it chooses, and in one that does not, in one run.

    python -m benchmarks freed_search -o FOLDER --split train --targets 24 --candidates 6000

Flexible experimental crystals (see crystal_generation.py) are screened from their SMILES with random packings and the
force field alone; both sides share the pressed packings, and all cuts are in the proportion to --candidates that they
have by default. Time is that of the stored batches, which another program on the machine lengthens. The same command
goes on from where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from benchmarks.generation import add_target_options, choose
from benchmarks.parts import Parts
from benchmarks.tables import keep
from benchmarks.targets import Target
from molflow_sim import screen
from molflow_sim.screening import ScreenSettings

SIDES = ("pressed", "freed")


@dataclass
class Both:
    """One target; by side the rank of the known form (None: not found), its ΔE in kJ/mol, and seconds by step."""

    target: str
    smiles: str
    rank: dict[str, int | None] = field(default_factory=dict)
    above: dict[str, float | None] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)


def search(target: Target, data: Path, folder: Path, candidates: int, seed: int) -> Both:
    """Screen one target both ways.

    Raises
    ------
    MolflowError
        Where the molecule cannot be screened.
    """
    usual = ScreenSettings()
    cuts = {name: getattr(usual, name) * candidates // usual.candidates for name in ("compare_top", "relax_top")}
    free = usual.free_top * candidates // usual.candidates
    settings = replace(
        usual, candidates=candidates, seed=seed, generator="random", energy="potential", top=0, free_top=0, **cuts
    )
    molecule = replace(target.generated(seed), racemic=target.racemic)
    out = Both(target.name, target.smiles)
    for side, top in zip(SIDES, (0, free)):
        found = screen(
            molecule, output=folder, settings=replace(settings, free_top=top),
            reference=data / "cif" / f"{target.name}.cif", progress=False,
        )  # fmt: skip
        form = found.reference
        out.rank[side] = form.rank if form else None
        out.above[side] = form.relative_energy if form else None
        out.seconds[side] = dict(found.run["timings_s"])
    return out


def lines(runs: Sequence[Both]) -> list[tuple[str, str]]:
    """What each side found, and what the freed one takes besides."""
    out = []
    for side in SIDES:
        ranks = [r.rank[side] for r in runs]
        counts = [f"{sum(rank is not None and rank <= k for rank in ranks)} ≤ {k}" for k in (1, 5, 10, 20)]
        found = sum(rank is not None for rank in ranks)
        out.append((f"known forms, {side}", f"{found} of {len(runs)} found; rank {', '.join(counts)}"))
    press = sum(r.seconds["freed"].get("press", 0.0) for r in runs)
    free = sum(r.seconds["freed"].get("compare (atoms free)", 0.0) for r in runs)
    out.append(("time of freeing over that of generating and pressing", f"{free / press:.2f}" if press else "-"))
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Screen what is missing, then print a line for each target and the summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the runs")
    add_target_options(parser)
    parser.set_defaults(classes=["flexible"])
    parser.add_argument("--candidates", type=int, default=6000)
    parser.add_argument("--keep", action="store_true", help="write the result to benchmarks/results")
    args = parser.parse_args(argv)
    chosen, _ = choose(args)
    parts = Parts(args.output / "both.json", args.max_minutes, args.print_only)
    runs = []
    for target in chosen:
        found = parts.result(
            f"{target.name}-{args.candidates}-{args.seed}",
            lambda stored: Both(**stored),
            partial(search, target, args.data, args.output / target.name, args.candidates, args.seed),
            lambda made: str(made.rank),
        )
        if found is not None:
            runs.append(found)
            print(f"{found.target}: {found.rank} {found.above} {found.smiles}")
    for what, figure in lines(runs):
        print(f"{what}: {figure}")
    if args.keep:
        keep("freed_search", lines(runs), [asdict(r) for r in runs])
    return 0


if __name__ == "__main__":
    sys.exit(main())
