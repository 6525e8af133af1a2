"""Held-out ensembles: coverage and average minimum RMSD of generated conformers, recall and precision, in one run.

    python -m benchmarks ensembles DATA -o ensembles.json
    python -m benchmarks ensembles DATA -o ensembles.json --weights mine/ --sides "CoarsenConf;torsions (default)"

DATA holds ensembles as `molflow dataset conformers` makes them; its test molecules are taken. For L known conformers
2 L are asked for. Failures, duplicates that were merged and conformers of another stereoisomer count in coverage and in
the means, see `benchmarks.conformer_metrics`; so sides that give fewer than 2 L conformers, because the molecule has
no more, are told apart by "gave", and `--drawn` counts against what was given instead. The thresholds are those of the
field for small and for drug-like molecules. Each result has a JSON file of its own; the same command goes on from
there.
"""

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem

from benchmarks.conformer_metrics import compare_ensembles
from benchmarks.generation_tables import Table, print_tables
from benchmarks.ligands import OURS, ours, parsed, slug
from benchmarks.parts import Parts
from benchmarks.tables import keep
from molflow_sim import __version__
from molflow_sim.dataset.conformers import ConformerEnsemble, read_ensembles
from molflow_sim.errors import MolflowError
from molflow_sim.runs.files import write_json
from molflow_sim.runs.identity import digest

THRESHOLDS = (0.5, 0.75)
METRICS = ("coverage_recall", "amr_recall", "coverage_precision", "amr_precision")
DEFAULT = tuple(list(OURS)[:5])


@dataclass
class Scored:
    """One molecule by one side; ``scores`` by threshold."""

    molecule: str
    smiles: str
    side: str
    known: int
    asked: int
    gave: int
    seconds: float
    scores: dict[str, dict[str, float]]
    reason: str = ""


def measure(ensemble: ConformerEnsemble, side: str, seed: int, weights: str | None, drawn: bool) -> Scored:
    """Ask a side for twice as many conformers as are known and compare."""
    rdmol = Chem.AddHs(Chem.MolFromSmiles(ensemble.smiles))
    known = ensemble.positions
    options: dict[str, Any] = dict(OURS[side])
    if options["method"] == "coarsenconf" and weights:
        options["weights"] = weights
    asked, reason, seconds = 2 * len(known), "", 0.0
    generated, positions = rdmol, np.empty((0, rdmol.GetNumAtoms(), 3))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            generated, positions, seconds = ours(options, ensemble.smiles, asked, seed)
    except MolflowError as error:
        reason = error.reason
    counted = max(len(positions), 1) if drawn else asked
    scores = {
        f"{t:g}": asdict(compare_ensembles(rdmol, known, generated, positions, asked=counted, threshold=t))
        for t in THRESHOLDS
    }
    return Scored(ensemble.name or ensemble.smiles, ensemble.smiles, side, len(known), asked, len(positions),
                  round(seconds, 3), scores, reason)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of a data set of ensembles")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--weights", help="folder of weights for CoarsenConf")
    parser.add_argument("--drawn", action="store_true", help="count against the conformers given, not 2 L")
    args, sides = parsed(parser, argv, "ensembles", tuple(OURS), DEFAULT)
    try:
        ensembles = [e for e in read_ensembles(args.data) if e.split == args.split]
    except (OSError, MolflowError) as error:
        raise SystemExit(str(error)) from None
    parts = Parts(args.output, args.max_minutes, args.print_only)
    rows: list[Scored] = []
    for ensemble in ensembles[: args.targets or None]:
        mine = [
            parts.result(
                f"{digest(ensemble.smiles)}-{slug(side)}{'-drawn' * args.drawn}-{args.seed}",
                lambda row: Scored(**row),
                partial(measure, ensemble, side, args.seed, args.weights, args.drawn),
                lambda s: f"{s.gave} of {s.asked}, AMR {s.scores['0.75']['amr_recall']:.2f} {s.reason}",
            )
            for side in sides
        ]
        done = [row for row in mine if row is not None]
        rows += done if len(done) == len(sides) else []
    if not rows:
        raise SystemExit("no molecule has results of all sides")
    tables = [table(rows, f"{t:g}") for t in THRESHOLDS]
    write_json(args.output, {"version": __version__, "seed": args.seed, "tables": [t.rows for t in tables],
                             "results": [asdict(r) for r in rows]})  # fmt: skip
    print_tables(tables)
    if args.keep:
        best = tables[-1].rows
        keep("ensembles", [(f"{r['side']}: AMR recall, precision (means)", f"{r['AMR-R mean']}, {r['AMR-P mean']} Å")
                           for r in best], {"small": tables[0].rows, "drugs": tables[1].rows})  # fmt: skip
    return 0


def table(rows: Sequence[Scored], threshold: str) -> Table:
    """Means and medians over the molecules."""
    out = []
    for side in dict.fromkeys(r.side for r in rows):
        mine = [r for r in rows if r.side == side]
        row: dict[str, Any] = {"side": side, "molecules": len(mine)}
        for metric, short in zip(METRICS, ("COV-R", "AMR-R", "COV-P", "AMR-P")):
            values = np.array([r.scores[threshold][metric] for r in mine])
            scale, digits = (100.0, 1) if short.startswith("COV") else (1.0, 3)
            row[f"{short} mean"] = round(float(scale * values.mean()), digits)
            row[f"{short} median"] = round(float(scale * np.median(values)), digits)
        row["gave, %"] = round(100.0 * sum(r.gave for r in mine) / sum(r.asked for r in mine), 1)
        row["failed"] = sum(bool(r.reason) for r in mine)
        row["s"] = round(float(np.mean([r.seconds for r in mine])), 2)
        out.append(row)
    return Table(f"Coverage (%) at {threshold} Å and AMR (Å)", out, "gave: conformers of the 2 L asked for.")


if __name__ == "__main__":
    raise SystemExit(main())
