"""Dual-scale flow matching against one scale, with both priors: bond and angle JSD, seconds a step, whole molecules.

    python -m benchmarks dual_scale FRAMES -o dual_scale.json [--steps 5000] [--samples 30] [--keep]

All are trained on the training frames in the same number of steps, with the same network for the atoms, one after
another, and sampled as often with the same number of integration steps. A killed run goes on where it was. JSDs are
against the test frames; their floor, of test frames against training frames and of halves of the training frames, is
printed with their definition. ``--variants`` adds what was changed against the publication, one by one.
"""

import argparse
import re
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.divergence import DEFINITION, InternalClasses, angle_divergence, bond_divergence, floor
from benchmarks.parts import Parts
from benchmarks.tables import keep
from molflow_sim import __version__
from molflow_sim.models.dual_scale import DualScaleConfig, DualScaleSettings, read_frames, train_dual_scale
from molflow_sim.models.dual_scale.data import TEST, TRAIN, ClusterFrames
from molflow_sim.models.dual_scale.graphs import ATOMS, BEADS
from molflow_sim.models.dual_scale.model import DualScale
from molflow_sim.runs.files import write_json
from molflow_sim.training.model import load_model

HARMONIC = {"atoms": {"prior": "harmonic"}}
TRAINED = {
    "dual": {},
    "single": {"scales": "single"},
    "single-harmonic": {"scales": "single", **HARMONIC},
    "dual-harmonic": HARMONIC,
    "dual-unaligned": {"align": False},
    "dual-true-beads": {"bead_noise": 0.0},
    "dual-unguided": {"self_conditioning": False},
    "dual-egnn": {"atoms": {"network": "egnn"}, "beads": {"network": "egnn"}},
}
"""Settings that differ from the first, by variant."""
SAMPLED = {
    "20:20": {"bead_steps": 20, "atom_steps": 20},
    "36:4": {"bead_steps": 36, "atom_steps": 4},
    "30:10, published velocity": {"velocity": "published"},
    "30:10, even times": {"time_power": 1.0},
}
"""Ways to sample the dual-scale flow, besides 30:10."""


@dataclass
class Figures:
    """What a model's samples were measured to be."""

    bond: float
    angle: float
    beads_known_bond: float
    beads_known_angle: float
    milliseconds: float
    train_seconds: float
    steps: int


def main() -> None:
    """Print the figures, and keep them if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("frames", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5000, help="optimiser steps of each model")
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--mapping", default="rings")
    parser.add_argument("--variants", nargs="+", default=["dual", "single", "single-harmonic"], choices=list(TRAINED))
    parser.add_argument("--weights", type=Path, help="folder of trained weights to measure as the dual-scale flow")
    parser.add_argument("--ways", action="store_true", help="sample the dual-scale flow in other ways as well")
    parser.add_argument("--whole", type=int, default=5, help="clusters completed, relaxed and checked")
    parser.add_argument("--keep", action="store_true", help="keep the figures for the documentation")
    options = parser.parse_args()
    (frames,) = read_frames(options.frames)
    classes = InternalClasses.of(frames.rdmols(), frames.order)
    test, known = frames.heavy(TEST), frames.heavy(TRAIN)
    low, moved = floor(classes, known), (bond_divergence(classes, known, test), angle_divergence(classes, known, test))
    print(f"molflow-sim {__version__}; {frames.name}: {len(known)} training frames, {len(test)} test frames")
    print(DEFINITION)
    print(f"floor, halves of the training frames: {low[0]:.4f} / {low[1]:.4f}; training against test frames: "
          f"{moved[0]:.4f} / {moved[1]:.4f}")  # fmt: skip
    parts = Parts(options.output)
    models, rows = {}, []
    for name in options.variants:
        given = options.weights if name == "dual" else None
        folder = given or parts.folder / f"{name}-{options.mapping}-{options.steps}"
        start = time.monotonic()
        model = load_model(given, DualScale.kind) if given else _trained(name, frames, folder, options)
        seconds = parts.result(f"{folder.name}-seconds", float, lambda start=start: time.monotonic() - start) or 0.0
        models[name] = model, folder.name, seconds
    for name, (model, stem, seconds) in models.items():
        ways = {
            "30:10" if model.beads is not None else "40": {},
            **(SAMPLED if name == "dual" and options.ways else {}),
        }
        for way, changes in ways.items():
            flow = DualScale(replace(model.settings, **changes), model.card)
            flow.load_state_dict(model.state_dict())
            found = parts.result(
                f"{stem}-{re.sub('[^a-z0-9]+', '-', way)}-{options.samples}",
                lambda data: Figures(**data),
                lambda flow=flow, seconds=seconds: _measured(flow, frames, classes, test, options, seconds),
            )
            if found is not None:
                rows.append({"model": name, "steps": way, **_printed(found)})
                print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if options.whole and "dual" in models:
        print(_whole(models["dual"][0], frames, options.whole), flush=True)
    write_json(options.output, {"floor": low, "training against test": moved, "rows": rows})
    if options.keep:
        keep("dual_scale", [(f"{r['model']} ({r['steps']}), bond / angle JSD", f"{r['bond JSD']} / {r['angle JSD']}")
                            for r in rows], rows={frames.name: rows})  # fmt: skip


def _trained(name: str, frames: ClusterFrames, folder: Path, options: argparse.Namespace) -> DualScale:
    base = DualScaleSettings(mapping=options.mapping)
    changes = {
        key: replace(getattr(base, key), **value) if isinstance(value, dict) else value
        for key, value in TRAINED[name].items()
    }
    training = replace(DualScaleConfig().training, max_steps=options.steps, checkpoint_minutes=1.0, device="cpu")
    config = DualScaleConfig(flow=replace(base, **changes), training=training)
    return train_dual_scale([frames], config, folder)


def _measured(
    flow: DualScale,
    frames: ClusterFrames,
    classes: InternalClasses,
    test: np.ndarray,
    options: argparse.Namespace,
    seconds: float,
) -> Figures:
    graph = flow.graph(frames.rdmols(), frames.order)
    made = [flow.sample(graph, 0, k) for k in range(options.samples)]
    atoms = np.array([m.atoms for m in made])
    s = flow.settings
    steps = (
        {BEADS: s.bead_steps, ATOMS: s.atom_steps} if flow.beads is not None else {ATOMS: s.bead_steps + s.atom_steps}
    )
    cost = [sum(steps[k] * m.seconds[k] for k in steps) / sum(steps.values()) for m in made]
    given = [float("nan")] * 2
    if flow.beads is not None:
        beads = [graph.bead_positions(test[k % len(test)].astype(float)) for k in range(options.samples)]
        known = np.array([flow.sample(graph, 0, k, beads=b).atoms for k, b in enumerate(beads)])
        given = [bond_divergence(classes, known, test), angle_divergence(classes, known, test)]
    return Figures(
        bond_divergence(classes, atoms, test), angle_divergence(classes, atoms, test), *given,
        1e3 * float(np.median(cost)), seconds, options.steps,
    )  # fmt: skip


def _printed(found: Figures) -> dict[str, str]:
    known = "" if np.isnan(found.beads_known_bond) else f"{found.beads_known_bond:.3f} / {found.beads_known_angle:.3f}"
    return {
        "bond JSD": f"{found.bond:.3f}",
        "angle JSD": f"{found.angle:.3f}",
        "from true beads": known,
        "ms a step": f"{found.milliseconds:.0f}",
        "training, min": f"{found.train_seconds / 60:.0f}",
    }


def _whole(model: DualScale, frames: ClusterFrames, n: int) -> str:
    """How many clusters are usable once hydrogens are placed and the cluster is relaxed, and why others are not."""
    from molflow_sim import Molecule
    from molflow_sim.models.dual_scale.completion import completed, failure, relaxed

    molecules = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        molecules = [Molecule.from_smiles(s, n_conformers=1) for s in frames.smiles]
    graph = model.graph([m.rdmol for m in molecules], frames.order)
    reasons, start = [], time.perf_counter()
    for k in range(n):
        whole = completed(molecules, frames.order, model.sample(graph, 0, k).atoms)
        reasons.append(failure(relaxed(whole)))
    each = (time.perf_counter() - start) / n
    bad = sorted({r for r in reasons if r})
    return f"whole and relaxed: {reasons.count('')} of {n} without a fault, {each:.1f} s each; {'; '.join(bad)}"


if __name__ == "__main__":
    main()
