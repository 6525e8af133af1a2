"""From cluster to crystal: is a crystal found in its own 17 molecules, and do the cluster flow's clusters hold any?

    python -m benchmarks implied -o implied.json --targets 60 --searched 6 --candidates 100 [--weights mine/] [--keep]

First the lattice finder alone: 17 molecules of each rigid measured crystal, in any order and frame, as they are, turned
and moved by normal deviates (root mean squares of 10° and 0.3 Å, 20° and 0.6 Å), and the same molecules put at random
at the same density. "Recovered": 15 of 15 molecules superpose within `found_rmsd`; after the press it is counted of the
crystals that the press leaves where they are. Then the flow: candidates for held-out rigid targets, with the conformers
that a SMILES gets, at random and by clusters, through the same press; hits are those that reach the measured form.
Each result has a file of its own beside the output; the same command goes on from there.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.generation import HOLDOUT, class_of, held_out
from benchmarks.generation_tables import compare
from benchmarks.parts import Parts, add_options
from benchmarks.recovery import spread
from benchmarks.search import matches, molecule_of
from benchmarks.tables import keep
from benchmarks.targets import DATA, Target, read_targets
from molflow_sim import MolecularCluster, parametrize
from molflow_sim.evaluate import packing_similarity
from molflow_sim.flow.placing import scattered
from molflow_sim.generators.protocol import CrystalRequest, make_generator
from molflow_sim.packing import RigidPackings, press
from molflow_sim.packing.implied import implied_crystal
from molflow_sim.packing.random_packing import body_conformers, placements_for
from molflow_sim.packing.relief import CRYSTAL_PACKING_COEFFICIENT
from molflow_sim.runs.files import write_json
from molflow_sim.symmetry.placements import general_placement

DISTURBED = {"as they are": (0.0, 0.0), "10°, 0.3 Å": (10.0, 0.3), "20°, 0.6 Å": (20.0, 0.6)}
AT_RANDOM = "at random"
SIDES = ("random", "cluster-flow")
COPIES = 17


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("implied.json"))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--targets", type=int, default=60, help="crystals to be found in their own molecules")
    parser.add_argument("--searched", type=int, default=6, help="held-out targets for the flow")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--weights", help="folder of weights of the cluster flow, instead of the package's")
    parser.add_argument("--keep", action="store_true", help="keep the figures for README and docs")
    add_options(parser)
    args = parser.parse_args(argv)
    parts = Parts(args.output, args.max_minutes, args.print_only)
    own: list[dict[str, Any]] = []
    searched: list[dict[str, Any]] = []
    for target in spread(read_targets(args.data)[0], args.targets) if args.targets else []:
        own += parts.result(f"{target.name}-own-{args.seed}", list, partial(of_own_molecules, target, args.seed)) or []
    targets = [t for t in held_out(args.data, HOLDOUT if HOLDOUT.exists() else None)[0] if class_of(t) == "rigid"]
    for target in spread(targets, args.searched) if args.searched else []:
        for side in SIDES:
            options = {"weights": args.weights} if side == "cluster-flow" and args.weights else {}
            generator = make_generator("crystals", side, **options)
            digest = str(generator.identity().get("weights", ""))[:8]
            name = "-".join(filter(None, [target.name, side, str(args.candidates), str(args.seed), digest]))
            make = partial(hits, target, generator, side, args.candidates, args.seed)
            if (made := parts.result(name, dict, make, lambda row: f"{row['hits']} hits")) is not None:
                searched.append(made)
    tables = {"own": own_table(own), "searched": searched_table(searched)}
    write_json(args.output, {"tables": tables, "own": own, "searched": searched})
    for table in tables.values():
        for row in table:
            print("  ".join(f"{name} {value}" for name, value in row.items()))
    if args.keep:
        lines = [(f"crystals found in their own 17 molecules, {r['molecules']}", r["pressed"]) for r in tables["own"]]
        lines += [(f"hits per 1,000 candidates, {r['side']}", r["hits per 1,000"]) for r in tables["searched"]]
        keep("implied", lines, tables)
    return 0


def of_own_molecules(target: Target, seed: int) -> list[dict[str, Any]]:
    """What is found in the crystal's own molecules, by how they are disturbed."""
    molecule = replace(target.experimental, racemic=target.racemic)
    body, parameters = body_conformers(molecule)[0], parametrize(molecule)
    stays = _same(target, press(RigidPackings.from_crystals([target.crystal]), parameters))
    size = molecule.volume / CRYSTAL_PACKING_COEFFICIENT
    rows = []
    for k, name in enumerate([*DISTURBED, AT_RANDOM]):
        rng = np.random.default_rng([seed, k, int(target.name)])
        x = MolecularCluster.from_crystal(target.crystal, COPIES).positions.reshape(COPIES, -1, 3)
        x = rng.permutation(x) @ Rotation.random(random_state=rng).as_matrix()
        middle = x.mean(1, keepdims=True)
        if name == AT_RANDOM:
            x = x - middle
            places, turns = scattered(list(x), 0.9 * COPIES * size, rng, tolerance=1.0) or (middle[:, 0], np.eye(3))
            x = x @ np.swapaxes(turns, -1, -2) + places[:, None]
        else:
            angle, shift = (d / 3**0.5 for d in DISTURBED[name])
            turns = Rotation.from_rotvec(np.radians(angle) * rng.normal(size=(COPIES, 3))).as_matrix()
            x = (x - middle) @ turns + middle + shift * rng.normal(size=(COPIES, 1, 3))
        begin = time.process_time()
        found = implied_crystal(
            body, x, molecule.point_group_operations()[0], molecule.volume, *placements_for(molecule)
        )
        row: dict[str, Any] = {"target": target.name, "molecules": name, "seconds": time.process_time() - begin}
        rows.append(row | {"stays": stays, "misfit": None, "raw": False, "pressed": False})
        if found is not None:
            made = RigidPackings.proposed(
                molecule, body[None], [general_placement(found.space_group)], [0], [0], found.cell[None],
                found.centroid[None, None], found.rotation[None, None],
            )  # fmt: skip
            pressed = press(made, parameters)
            rows[-1] |= {"misfit": found.misfit / size ** (1 / 3), "raw": _same(target, made)}
            rows[-1] |= {"pressed": _same(target, pressed)}
    return rows


def _same(target: Target, packings: RigidPackings) -> bool:
    if packings.reasons[0]:
        return False
    match = packing_similarity(target.crystal, packings.crystal(0))
    return bool(match.n_matched == 15 and match.rmsd < target.found_rmsd)


def hits(target: Target, generator: Any, side: str, n: int, seed: int) -> dict[str, Any]:
    """How many of n candidates press into the measured form."""
    molecule = molecule_of(target, "rdkit", seed)
    parameters = parametrize(molecule)
    begin = time.process_time()
    loose = generator.sample(CrystalRequest(molecule), n, seed=seed)
    seconds = time.process_time() - begin
    pressed = press(loose, parameters)
    good = pressed.select(pressed.ok)
    found = matches(target, good, np.arange(len(good))) if len(good) else {}
    return {
        "target": target.name, "side": side, "candidates": n, "made": int(sum(not r for r in loose.reasons)),
        "converged": len(good), "hits": len(found), "seconds": seconds, "pressed_seconds": time.process_time() - begin,
    }  # fmt: skip


def own_table(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """A line for each way to disturb the molecules."""
    table = []
    for name in dict.fromkeys(r["molecules"] for r in rows):
        here = [r for r in rows if r["molecules"] == name]
        kept = [r for r in here if r["stays"]]
        misfits = [r["misfit"] for r in here if r["misfit"] is not None]
        table.append(
            {
                "molecules": name,
                "misfit, cube roots of the volume": f"{np.median(misfits):.2f}" if misfits else "-",
                "recovered": f"{sum(r['raw'] for r in here)} of {len(here)}",
                "pressed": f"{sum(r['pressed'] for r in kept)} of {len(kept)}",
                "seconds": f"{np.median([r['seconds'] for r in here]):.2f}",
            }
        )
    return table


def searched_table(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """A line for each side, of the targets that both have done."""
    by = {(r["target"], r["side"]): r for r in rows}
    common = [t for t in dict.fromkeys(r["target"] for r in rows) if all((t, s) in by for s in SIDES)]
    table = []
    for side in SIDES if common else ():
        here, base = ([by[t, s] for t in common] for s in (side, "random"))
        rate = compare(*([(r["hits"], r["candidates"]) for r in rows] for rows in (here, base)))
        table.append(
            {
                "side": side,
                "targets": str(len(here)),
                "candidates": str(sum(r["candidates"] for r in here)),
                "with a lattice": str(sum(r["made"] for r in here)),
                "converged": str(sum(r["converged"] for r in here)),
                "hits": str(sum(r["hits"] for r in here)),
                "hits per 1,000": str(rate["hits per 1000"]),
                "over random's, pooled": str(rate["enrichment"]),
                "typical": str(rate["typical"]),
                "s a candidate": f"{sum(r['seconds'] for r in here) / sum(r['candidates'] for r in here):.3f}",
            }
        )
    return table


if __name__ == "__main__":
    raise SystemExit(main())
