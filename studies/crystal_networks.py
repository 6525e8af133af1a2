"""Which network and which start serve a crystal flow best? All trained on the same crystals for the same time.

    python -m studies.crystal_networks -o networks/ --data packings/ experimental/ --minutes 30 --targets 10

`p1` is MolCrystalFlow's published kind of network (centroids of all molecules of a cell, in P 1), in a size for a CPU;
`contact` the network of atoms in contact, with space groups, from starts as dense as crystals; `contact-loose` the same
from the loose random packings that the press is given; `contact-basin` the same again from dense starts, each of which
goes to the minimum that the press takes it to, not to a crystal assigned by optimal transport (half as many pairs,
since all have to be pressed). Each is trained on one core for --minutes (the number of steps follows from timing a few,
and is kept, so that a killed run goes on), then draws samples of held-out molecules, RDKit's conformers, with 1 to 16
steps. P 1 is told the number of molecules in the experimental cell; the contact network draws space groups by their
frequency. Judged as generated: share without clash (no overlap of 0.7 Å between van der Waals spheres of heavy atoms),
deviation of the volume from experiment, seconds a sample. What the press makes of them: crystal_yield.py with --weights
networks/contact networks/contact-basin.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.generation import CLASSES, choose, class_of
from benchmarks.targets import DATA, Target
from molflow_sim import Molecule
from molflow_sim.dataset import CrystalDataset
from molflow_sim.errors import MolflowError
from molflow_sim.evaluate import CLASH_OVERLAP, heavy_atom_overlap
from molflow_sim.generators.protocol import CrystalRequest
from molflow_sim.models.crystal_flow import CrystalFlow, CrystalFlowConfig, PairSet, train_on_pairs
from molflow_sim.models.crystal_flow.generator import FlowGenerator
from molflow_sim.models.crystal_flow.model import flow_matching_loss
from molflow_sim.models.crystal_flow.pairs import DENSE, PairBatches
from molflow_sim.models.crystal_flow.train import pairs_of
from molflow_sim.models.mol_crystal_flow import MolCrystalFlow, P1Batches, P1Data, P1Settings
from molflow_sim.packing.random_packing import PACKING_COEFFICIENT
from molflow_sim.runs.files import write_json
from molflow_sim.training import TrainSettings, train
from molflow_sim.training.model import load_model, save_model
from studies.basin_pairs import make_basin_pairs

NETWORKS = ("p1", "contact", "contact-loose", "contact-basin")
STEPS = (1, 2, 4, 8, 16)


def trained_p1(folder: Path, data: CrystalDataset, minutes: float, batch_size: int) -> MolCrystalFlow:
    """P 1 network, trained or taken from the folder."""
    if (folder / "mol_crystal_flow.json").exists():
        return load_model(folder)
    crystals = P1Data.from_records(data, data.weights(4.0))
    lengths = dict(zip(("length_mean", "length_std"), crystals.length_statistics()))
    settings = replace(P1Settings.small(), **lengths)
    torch.manual_seed(0)
    model = MolCrystalFlow(settings)
    model.remember_range(crystals)
    batches = P1Batches(crystals, settings, batch_size)
    optimiser = _settings(folder, minutes, batch_size, lambda k: model.loss(batches.batch(k))["loss"], model)
    train(model, lambda net, batch: net.loss(batch), batches, optimiser, folder)
    model.card["steps"] = optimiser.max_steps
    save_model(folder, model)
    return model.eval()


def trained_contact(
    folder: Path, data: CrystalDataset, minutes: float, batch_size: int, config: CrystalFlowConfig, basins: bool
) -> CrystalFlow:
    """Contact network, trained or taken from the folder."""
    if (folder / "crystal_flow.json").exists():
        found: CrystalFlow = load_model(folder, CrystalFlow.kind)
        return found
    path = folder / "pairs.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        options = {"seed": config.seed, "scale": config.energy_scale}
        (make_basin_pairs(data, config.starts, **options) if basins else pairs_of(data, config)).save(path)
    pairs = PairSet.load(path)
    batches = PairBatches(pairs, batch_size)
    torch.manual_seed(0)
    from molflow_sim.models.crystal_flow.network import ContactNetwork

    network = ContactNetwork(config.network)
    optimiser = _settings(
        folder, minutes, batch_size, lambda k: flow_matching_loss(network, batches.batch(k))["loss"], network
    )
    return train_on_pairs(pairs, replace(config, training=optimiser), folder)


def _settings(folder: Path, minutes: float, batch_size: int, loss: Any, module: torch.nn.Module) -> TrainSettings:
    """As many steps as fit in the time, found once."""
    path = folder / "steps.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        loss(0).backward()
        start = time.perf_counter()
        for k in range(1, 6):
            loss(k).backward()
        each = (time.perf_counter() - start) / 5
        module.zero_grad()
        write_json(path, {"steps": max(20, int(60.0 * minutes / (1.05 * each))), "seconds_a_step": each})
    steps = json.loads(path.read_text())["steps"]
    return TrainSettings(
        max_steps=steps, batch_size=batch_size, learning_rate=1.5e-3, weight_decay=1e-3, ema_decay=0.999, device="cpu",
        warmup_steps=min(200, steps // 10), checkpoint_minutes=3.0,
    )  # fmt: skip


def judged(model: Any, target: Target, molecule: Molecule, n: int, steps: int) -> dict[str, float]:
    """Samples of one molecule: clash-free share, mean absolute volume deviation, seconds a sample."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # molecules beyond the trained sizes are judged all the same
        if isinstance(model, MolCrystalFlow):
            samples = model.sample(molecule, z=target.crystal.z, n=n, seed=0, steps=steps)
            crystals = [samples.crystal(k) for k in range(n)]
        else:
            generator = FlowGenerator(draws=1, steps=steps, relief=0)
            packings = generator.draw(model, CrystalRequest(molecule), n, seed=0)
            crystals = [packings.crystal(k) for k in range(n)]
    seconds = (time.perf_counter() - start) / n
    volume = target.crystal.volume / target.crystal.z
    return {
        "clash_free": float(np.mean([heavy_atom_overlap(c) < CLASH_OVERLAP for c in crystals])),
        "volume": float(np.mean([abs(c.volume / c.z / volume - 1.0) for c in crystals])),
        "seconds": seconds,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, sample, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the trainings and results")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of `molflow dataset crystals`")
    parser.add_argument("--cifs", type=Path, default=DATA, help="folder that holds cif/, for the targets")
    parser.add_argument("--exclude", type=Path, help=".smi file of molecules that are held out besides")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--minutes", type=float, default=30.0, help="of training each")
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--targets", type=int, default=10, help="of each class, rigid and flexible")
    parser.add_argument("--samples", type=int, default=40, help="of each target")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    data = CrystalDataset(options.data, split="train")
    print(f"{len(data)} crystals of {len(data.keys)} molecules, {options.minutes:g} min of training each")
    wanted = {
        "data": options.cifs, "exclude": options.exclude, "split": "test", "targets": options.targets, "names": [],
        "classes": CLASSES,
    }  # fmt: skip
    chosen, _ = choose(argparse.Namespace(**wanted))
    rows: list[dict[str, Any]] = []
    for name in options.networks:
        folder = options.output / name
        if name == "p1":
            model: Any = trained_p1(folder, data, options.minutes, options.batch_size)
        else:
            config = CrystalFlowConfig(
                packing_coefficient=PACKING_COEFFICIENT if name == "contact-loose" else DENSE,
                starts=2 if name == "contact-basin" else 4,
            )
            basins = name == "contact-basin"
            model = trained_contact(folder, data, options.minutes, options.batch_size, config, basins)
        for target in chosen:
            try:
                molecule = target.generated()
                for steps in STEPS:
                    found = judged(model, target, molecule, options.samples, steps)
                    rows.append(
                        {"network": name, "target": target.name, "class": class_of(target), "steps": steps} | found
                    )
            except MolflowError as error:
                print(f"{name}, {target.name}: {error}", file=sys.stderr)
    write_json(options.output / "networks.json", {"rows": rows, "crystals": len(data), "minutes": options.minutes})
    print(
        f"{'network':14s} {'class':9s} {'steps':>5s} {'targets':>7s} {'clash-free %':>12s} {'volume %':>8s} "
        f"{'ms a sample':>11s}"
    )
    for name in options.networks:
        for klass in CLASSES:
            for steps in STEPS:
                mine = [r for r in rows if (r["network"], r["class"], r["steps"]) == (name, klass, steps)]
                if mine:
                    clash, volume, seconds = (
                        np.mean([r[k] for r in mine]) for k in ("clash_free", "volume", "seconds")
                    )
                    print(
                        f"{name:14s} {klass:9s} {steps:5d} {len(mine):7d} {100 * clash:12.1f} {100 * volume:8.1f} "
                        f"{1000 * seconds:11.1f}"
                    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
