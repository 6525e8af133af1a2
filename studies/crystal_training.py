"""How fast is a training step of the crystal flow on a CPU? The torch network and the compiled loops, in one run.

    python -m studies.crystal_training
    python -m studies.crystal_training --pairs flow/pairs.npz --widths 64 128 --layers 3 --steps 20

Both do the same batches with the same weights, so their losses must agree, which is printed. Pairs are those of a
training's folder, or made here of a few molecules' packings.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from molflow_sim.dataset import CrystalDataset, DatasetSettings, build_crystal_dataset
from molflow_sim.models.crystal_flow import ContactNetwork, ContactSettings, PairSet, make_pairs
from molflow_sim.models.crystal_flow.pairs import PairBatches
from molflow_sim.models.crystal_flow.path import distance, interpolate
from molflow_sim.models.crystal_flow.velocity import fused_velocity

MOLECULES = [
    "CC(N)=O acetamide",
    "CC(=O)Oc1ccccc1C(=O)O aspirin",
    "Oc1ccc(O)cc1 hydroquinone",
    "NC(=O)c1ccccc1 benzamide",
]


def small_pairs() -> PairSet:
    """Pairs of a few hundred packings."""
    with tempfile.TemporaryDirectory() as folder:
        settings = DatasetSettings(candidates=150, keep=60)
        build_crystal_dataset(MOLECULES, folder, settings=settings, processes=1, progress=False)
        return make_pairs(CrystalDataset(folder), 2)


def timed(
    velocity: Callable[..., Any], network: ContactNetwork, batches: PairBatches, steps: int
) -> tuple[float, np.ndarray]:
    """Median seconds of a step, and the losses of all steps."""
    seconds, losses = [], []
    for k in range(steps + 1):
        start, end, excess, when = batches.batch(k)
        began = time.perf_counter()
        between, target = interpolate(start, end, when)
        loss = distance(between, velocity(network, between, when, excess), target).mean()
        network.zero_grad()
        loss.backward()
        seconds.append(time.perf_counter() - began)
        losses.append(float(loss.detach()))
    return float(np.median(seconds[1:])), np.array(losses)  # the first step compiles


def main(argv: Sequence[str] | None = None) -> int:
    """Time all sizes and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=Path, help="pairs.npz of a training's folder")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--layers", type=int, default=3, help="rounds of messages between molecules")
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    pairs = small_pairs() if args.pairs is None else PairSet.load(args.pairs)
    batches = PairBatches(pairs, args.batch_size)
    atoms = (pairs.numbers > 0).sum(1)
    print(f"{len(pairs)} pairs of molecules of {atoms.min()} to {atoms.max()} atoms, batches of {args.batch_size}, "
          f"{args.threads} thread, {args.steps} steps")  # fmt: skip
    print("width  weights  torch, ms  compiled, ms  times  losses differ by")
    for width in args.widths:
        torch.manual_seed(0)
        network = ContactNetwork(ContactSettings(width=width, outer_layers=args.layers, outer_cutoff=6.0))
        slow, expected = timed(ContactNetwork.__call__, network, batches, args.steps)
        fast, found = timed(fused_velocity, network, batches, args.steps)
        size = sum(p.numel() for p in network.parameters())
        off = float(np.abs(found / expected - 1.0).max())
        print(f"{width:5d} {size:8d} {1e3 * slow:10.0f} {1e3 * fast:13.0f} {slow / fast:6.1f} {off:17.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
