"""What serves measured poses best in drawing and choosing conformers? Measured crystals of the training side decide.

    molflow dataset conformers --from-cif cifs/ --exclude holdout.smi --exclude ligands.sdf.gz -o measured/
    python -m studies.conformer_choice measured/ -o choice.json

Molecules: 2 to 10 rotatable bonds, 8 to 45 heavy atoms, not of the test side. Best of n against the molecule as
measured, heavy atoms; a molecule for which a side fails counts with `FAILED`. "pool": all that the default draws, none
relaxed, none chosen, so what a perfect choice could reach. "against the first": mean difference over molecules, the
mean of the seeds taken first, and its standard error. A side is NAME=OPTION:VALUE,OPTION:VALUE. Each result has a
JSON file of its own; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import ast
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdMolDescriptors

from benchmarks.conformer_metrics import heavy_atom_rmsds
from benchmarks.generation_tables import Table, print_tables
from benchmarks.ligands import ROTORS, ours
from benchmarks.parts import Parts
from molflow_sim.dataset import ConformerEnsemble, read_ensembles
from molflow_sim.errors import MolflowError
from molflow_sim.runs.files import write_json
from molflow_sim.runs.identity import digest

FAILED = 2.0
"""Å."""
POOL = "pool"
SIDES = ("default=", "focus 10=focus:10", "focus 40=focus:40", "jitter 8=jitter:8", "bases 90=bases:90",
         "pool 1400=pool:1400", POOL)  # fmt: skip


@dataclass
class Best:
    """One molecule by one side and seed: best RMSD in Å, how many conformers there were, CPU seconds."""

    molecule: str
    side: str
    seed: int
    rotors: int
    rmsd: float
    conformers: int
    seconds: float


def molecules(folder: Path) -> list[tuple[int, ConformerEnsemble]]:
    """Rotatable bonds and the measured conformers of the molecules that decide, by name."""
    found = []
    for ensemble in read_ensembles(folder):
        mol = Chem.MolFromSmiles(ensemble.smiles)
        rotors, heavy = rdMolDescriptors.CalcNumRotatableBonds(mol), mol.GetNumHeavyAtoms()
        if ensemble.split != "test" and 2 <= rotors <= 10 and 8 <= heavy <= 45:
            found.append((rotors, ensemble))
    return sorted(found, key=lambda pair: (pair[1].name, pair[1].smiles))


def options_of(side: str) -> dict[str, Any]:
    """Options of ``NAME=OPTION:VALUE,...``."""
    pairs = (part.partition(":") for part in side.partition("=")[2].split(",") if part)
    return {name: ast.literal_eval(value) for name, _, value in pairs}


def judged(rotors: int, ensemble: ConformerEnsemble, side: str, n: int, seed: int) -> Best:
    """The best of what a side gives."""
    options: dict[str, Any] = {"method": "torsions", **options_of(side)}
    wanted, best, positions, seconds = n, FAILED, np.empty(0), 0.0
    if side == POOL:
        wanted, options = 14 * n, {"method": "torsions", "energy": "none"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rdmol, positions, seconds = ours(options, ensemble.smiles, wanted, seed)
        reference = Chem.AddHs(Chem.MolFromSmiles(ensemble.smiles))
        best = float(heavy_atom_rmsds(reference, ensemble.positions, rdmol, positions).min())
    except MolflowError as error:
        print(f"{ensemble.name}: {error.reason}", file=sys.stderr)
    return Best(ensemble.name, side.partition("=")[0], seed, rotors, best, len(positions), round(seconds, 3))


def table(rows: Sequence[Best]) -> Table:
    """Each side over all molecules and seeds, by rotatable bonds, and against the first side."""
    names = sorted({r.molecule for r in rows})
    out: list[dict[str, Any]] = []
    first: np.ndarray | None = None
    for side in dict.fromkeys(r.side for r in rows):
        mine = [r for r in rows if r.side == side]
        best = np.array([r.rmsd for r in mine])
        means = np.array([np.mean([r.rmsd for r in mine if r.molecule == name]) for name in names])
        first = means if first is None else first
        row: dict[str, Any] = {"side": side, "molecules": len(names), "mean Å": round(float(best.mean()), 3)}
        row["< 0.5 Å, %"] = round(100 * float(np.mean(best < 0.5)), 1)
        row["< 1.0 Å, %"] = round(100 * float(np.mean(best < 1.0)), 1)
        for low, high in ROTORS:
            group = [r.rmsd for r in mine if low <= r.rotors <= high]
            row[f"{low}–{high}" if high < 99 else f"≥ {low}"] = round(float(np.mean(group)), 3) if group else None
        change = means - first
        error = float(change.std() / max(len(change) - 1, 1) ** 0.5)
        row["against the first"] = f"{change.mean():+.4f} ± {error:.4f}"
        row["conformers"] = round(float(np.mean([r.conformers for r in mine])), 1)
        row["s"] = round(float(np.mean([r.seconds for r in mine])), 2)
        out.append(row)
    return Table("Best of n against molecules as measured in crystals; means in Å by rotatable bonds", out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="data set of measured conformers")
    parser.add_argument("-o", "--output", type=Path, default=Path("choice.json"))
    parser.add_argument("-n", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--targets", type=int, default=0, help="molecules, 0 for all")
    parser.add_argument("--rotors", type=int, default=2, help="rotatable bonds at least")
    parser.add_argument("--sides", nargs="+", default=list(SIDES), help=f"NAME=OPTION:VALUE,..., or {POOL}")
    parser.add_argument("--print-only", action="store_true")
    args = parser.parse_args(arguments)
    rdBase.DisableLog("rdApp.*")
    try:
        chosen = [pair for pair in molecules(args.folder) if pair[0] >= args.rotors][: args.targets or None]
    except (OSError, MolflowError) as error:
        raise SystemExit(str(error)) from None
    parts = Parts(args.output, print_only=args.print_only)
    rows: list[Best] = []
    for side in args.sides:  # outermost: generators keep what they began with for a molecule, which would cost no time
        for seed in range(args.seeds):
            made = [
                parts.result(
                    f"{digest(ensemble.name, side)}-{args.n}-{seed}",
                    lambda row: Best(**row),
                    partial(judged, rotors, ensemble, side, args.n, seed),
                    lambda found: f"{found.molecule}, {found.side}: {found.rmsd:.2f} Å",
                )
                for rotors, ensemble in chosen
            ]
            rows += [found for found in made if found is not None]
    done = Counter(row.molecule for row in rows)
    rows = [row for row in rows if done[row.molecule] == args.seeds * len(args.sides)]  # all sides on the same ones
    if not rows:
        raise SystemExit("no molecule has results of all sides")
    found = table(rows)
    write_json(args.output, {"table": found.rows, "results": [asdict(r) for r in rows]})
    print_tables([found])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
