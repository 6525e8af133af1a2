"""How many candidates press into low-energy packings? Random packing and trained flows side by side, in one run.

    python -m studies.crystal_yield packings/ -o yield.json --molecules 30 --candidates 200
    python -m studies.crystal_yield packings/ -o yield.json --weights flow0/ flow1/ flow2/ --split train

Molecules are those of a data set of `molflow dataset crystals`, evenly spread over the sizes: of its test side, which
no flow was trained on, or with --split train of the side that was. Every generator proposes the same number of
candidates (RDKit's conformers, space group not given), all go through the same press, and the lowest energy that any
of them finds is the zero. The yield is the share of candidates that press to within 1, 2 and 5 kJ/mol of it; the
number of different packings among those within 5 kJ/mol says whether they are many or one found over and over.
Ratios are to random packing. Several --weights are the rounds of a closed loop, in order.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.parts import Parts
from benchmarks.recovery import spread
from molflow_sim import Molecule
from molflow_sim.dataset import CrystalDataset
from molflow_sim.evaluate.deduplicate import deduplicate_packings
from molflow_sim.forcefield import parametrize
from molflow_sim.generators.protocol import CrystalRequest, Generator, make_generator
from molflow_sim.packing import press
from molflow_sim.runs.files import write_json
from molflow_sim.runs.identity import digest
from molflow_sim.units import KJ_PER_MOL

WITHIN = (1.0, 2.0, 5.0)
"""kJ/mol per molecule above the lowest known packing."""


def pressed(generator: Generator, smiles: str, n: int, seed: int) -> dict[str, Any]:
    """Energies (kJ/mol per molecule) of pressed candidates, which of them are different packings, and times (s)."""
    molecule = Molecule.from_smiles(smiles)
    parameters = parametrize(molecule)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of sizes beyond the trained range
        packings: Any = generator.sample(CrystalRequest(molecule), n, seed=seed)
    made = time.perf_counter()
    packings = press(packings, parameters)
    done = time.perf_counter()
    packings = packings.select(np.flatnonzero(packings.ok))
    representative = deduplicate_packings(packings, packings.energy) if len(packings) else np.zeros(0, int)
    return {
        "energy": (packings.energy / KJ_PER_MOL).round(4).tolist(),
        "representative": representative.tolist(),
        "seconds": [made - start, done - made],
    }


def yields(runs: dict[str, dict[str, Any]], candidates: int) -> dict[str, dict[str, float]]:
    """For each generator of one molecule: shares within `WITHIN` of the lowest of all, and different ones within 5."""
    lowest = min(min(r["energy"], default=np.inf) for r in runs.values())
    found = {}
    for name, r in runs.items():
        above = np.array(r["energy"]) - lowest
        own = np.array(r["representative"], int)
        distinct = len(np.unique(own[above <= WITHIN[-1]])) if len(own) else 0
        found[name] = {f"{w:g}": float((above <= w).sum() / candidates) for w in WITHIN} | {"distinct": float(distinct)}
    return found


def table(results: Sequence[dict[str, Any]], names: Sequence[str], candidates: int) -> list[dict[str, Any]]:
    """One row for each generator: mean yields over molecules in %, ratios to random packing, times."""
    each = [yields({n: r["runs"][n] for n in names}, candidates) for r in results]
    rows = []
    for name in names:
        row: dict[str, Any] = {"generator": name}
        for w in [f"{w:g}" for w in WITHIN]:
            mine, base = (np.mean([e[n][w] for e in each]) for n in (name, "random"))
            row[f"within {w}, %"] = round(100.0 * float(mine), 2)
            row[f"ratio {w}"] = round(float(mine / base), 2) if base else None
        row["different within 5"] = round(float(np.mean([e[name]["distinct"] for e in each])), 1)
        for k, what in enumerate(("ms generated", "ms pressed")):
            row[what] = round(1e3 * float(np.mean([r["runs"][name]["seconds"][k] for r in results])) / candidates, 1)
        rows.append(row)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Press what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+", help="folders of molflow dataset crystals")
    parser.add_argument("-o", "--output", type=Path, default=Path("yield.json"))
    parser.add_argument(
        "--weights", nargs="*", default=["packaged"], help="folders of flows; 'packaged' for the wheel's"
    )
    parser.add_argument("--split", choices=("test", "train"), default="test")
    parser.add_argument("--molecules", type=int, default=30)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    sizes: dict[str, int] = {}
    data = CrystalDataset(args.data, split=args.split)
    for _, rows in data.molecules():
        record = data[int(rows[0])]
        if not record.experimental:
            sizes[record.smiles] = len(record.numbers)
    chosen = spread(sorted(sizes, key=lambda s: (sizes[s], s)), args.molecules)
    generators = {"random": make_generator("crystals", "random")}
    for folder in args.weights:
        generators[folder] = make_generator("crystals", "flow", weights=None if folder == "packaged" else folder)
    parts = Parts(args.output)
    results = []
    for k, smiles in enumerate(chosen):
        runs = {}
        for name, generator in generators.items():
            identity = str(generator.identity().get("weights", ""))[:8]
            found = parts.result(
                f"{digest(smiles)}-{'flow' if identity else name}{identity}-{args.candidates}-{args.seed}",
                lambda stored: stored,
                partial(pressed, generator, smiles, args.candidates, args.seed),
                lambda made: f"{len(made['energy'])} packings",
            )
            if found is not None:
                runs[name] = found
        if len(runs) == len(generators):
            results.append({"smiles": smiles, "runs": runs})
        print(f"{k + 1} of {len(chosen)}: {smiles}", file=sys.stderr)
    rows = table(results, list(generators), args.candidates)
    write_json(args.output, {"molecules": [r["smiles"] for r in results], "candidates": args.candidates, "rows": rows})
    print(f"{len(results)} molecules of the {args.split} side, {args.candidates} candidates each, one thread")
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
