"""Does a force field's gradient between the flow's steps help? Random packing, the flow and guided flows in one run.

    python -m studies.crystal_guidance -o guidance.json --targets 6 --candidates 400

Targets are experimental crystals that the flow was trained on (--split train, so that nothing is tuned on the test
side), RDKit's conformers, space group not given. "potential 4x3" takes four Euler steps with three evaluations of the
potential between each two, "overlap 4x10" ten of the soft overlap; "plain 4" is the flow without selection. All go
through the same press. Hits press into the experimental minimum; others are counted within 2 and 5 kJ/mol of the
lowest that any side finds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.generation import add_target_options, choose
from benchmarks.parts import Parts
from benchmarks.search import molecule_of
from benchmarks.targets import Target
from molflow_sim.forcefield import parametrize
from molflow_sim.models.crystal_flow import CrystalFlow
from molflow_sim.packing import RigidPackings, press, random_packings
from molflow_sim.packing.press import PressSettings
from molflow_sim.packing.relief import relieve
from molflow_sim.runs.files import write_json
from molflow_sim.training.model import shared_model
from molflow_sim.units import KJ_PER_MOL
from studies.limits import hits_among

SIDES: dict[str, tuple[int, str, int] | None] = {
    "random": None,
    "plain 4": (4, "", 0),
    "overlap 4x10": (4, "overlap", 10),
    "potential 4x3": (4, "potential", 3),
    "potential 8x3": (8, "potential", 3),
}
"""Euler steps, what guides between them, and its evaluations."""
WITHIN = (2.0, 5.0)


def guided(
    flow: CrystalFlow, start: RigidPackings, parameters: Any, steps: int, guide: str, evaluations: int
) -> RigidPackings:
    """The flow's packings, with steps down a gradient between its own."""
    settings = PressSettings(
        soft_evaluations=0, squeeze_evaluations=0, max_evaluations=max(evaluations, 1), polish_evaluations=0,
        accept=np.inf, reduce_cells=False,
    )  # fmt: skip
    packings = start
    for k in range(steps):
        packings = flow.integrate(packings, steps=1, begin=k / steps, end=(k + 1) / steps)
        if k == steps - 1 or not guide:
            continue
        if guide == "overlap":
            packings = relieve(packings, evaluations)
            continue
        moved = press(packings, parameters, settings)
        ratio = moved.volume / packings.volume
        good = moved.ok & (ratio > 0.7) & (ratio < 1.5)  # no pressure holds an overlapping cell together
        packings = replace(
            packings,
            cell=np.where(good[:, None, None], moved.cell, packings.cell),
            centroid=np.where(good[:, None, None], moved.centroid, packings.centroid),
            rotation=np.where(good[:, None, None, None], moved.rotation, packings.rotation),
        )
    return relieve(packings)


def measured(target: Target, flow: CrystalFlow, candidates: int, seed: int) -> dict[str, list[float]]:
    """Hits, then packings within `WITHIN` of the lowest of all, of every side."""
    molecule = molecule_of(target, "rdkit", seed)
    parameters = parametrize(molecule)
    hits, energies = {}, {}
    for side, how in SIDES.items():
        if how is None:
            made = random_packings(molecule, candidates, seed=seed)
        else:
            start = random_packings(molecule, candidates, seed=seed, packing_coefficient=flow.packing_coefficient)
            made = guided(flow, start, parameters, *how)
        pressed = press(made, parameters)
        pressed = pressed.select(pressed.ok)
        group, forms = hits_among(target, pressed)
        hits[side], energies[side] = int(np.isin(group, forms).sum()), pressed.energy / KJ_PER_MOL
    lowest = min(e.min() for e in energies.values())
    return {side: [hits[side], *(int((e < lowest + w).sum()) for w in WITHIN)] for side, e in energies.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the sums and the typical ratios to random packing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("guidance.json"))
    add_target_options(parser)
    parser.set_defaults(split="train")
    parser.add_argument("--candidates", type=int, default=400)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    chosen, _ = choose(args)
    flow = shared_model(CrystalFlow.kind)
    parts = Parts(args.output, args.max_minutes, args.print_only)
    results = []
    for target in chosen:
        found = parts.result(
            f"{target.name}-{args.candidates}-{args.seed}",
            dict,
            partial(measured, target, flow, args.candidates, args.seed),
            str,
        )
        if found is not None:
            results.append(found)
    if not results:
        return 0
    base = np.array([r["random"] for r in results], float)
    rows = []
    print(
        f"{len(results)} targets, {args.candidates} candidates each: hits, within 2 and within 5 kJ/mol; typical ratios"
    )
    for side in SIDES:
        counts = np.array([r[side] for r in results], float)
        typical = np.exp(np.log(np.maximum(counts, 0.5) / np.maximum(base, 0.5)).mean(0)).round(2)
        rows.append({"side": side, "counts": counts.sum(0).tolist(), "typical": typical.tolist()})
        print(f"{side:14s} {counts.sum(0).astype(int).tolist()}  {typical.tolist()}")
    write_json(args.output, {"candidates": args.candidates, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
