"""CoarsenConf's raw conformers: what the latent, the decoder, the matching of pairs and more data give.

    python -m benchmarks coarsenconf DATA -o coarsenconf.json [--weights mine/] [--train one-pass autoregressive ...]

Measured on the molecules that are set aside for validation, heavy atoms, before any refinement. AMR is the mean over
conformers of the smallest RMSD: over those made to the true ones (precision), over the true ones to those made
(recall); the mean over molecules. ``start`` is what RDKit made; ``mean`` and ``sample`` decode the prior's mean and
samples of it from the same starts, as many as there are; ``one start`` draws as many samples from the first one.
"torsions" puts the torsions on the bonds and angles of the start. Each variant that is trained takes the same steps.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from molflow_sim.models.coarsenconf import CoarsenConfConfig, read_pairs, train_coarsenconf
from molflow_sim.models.coarsenconf.completion import keeps_shape
from molflow_sim.models.coarsenconf.data import ConformerPairs
from molflow_sim.models.coarsenconf.matching import closest
from molflow_sim.models.coarsenconf.model import CoarsenConf
from molflow_sim.models.coarsenconf.torsions import with_torsions_of
from molflow_sim.runs.files import write_json
from molflow_sim.training.model import load_model

VARIANTS: dict[str, dict[str, Any]] = {
    "one-pass": {},
    "autoregressive": {"decoder": "autoregressive"},
    "transport": {"group": 4},
    "unmatched": {"matching": "random", "torsion_share": 0.0},
    "assigned": {"matching": "assigned", "torsion_share": 0.0},
    "soft": {"torsion_share": 0.0},
    "torsions": {"torsion_share": 1.0},
    "published posterior": {"displacements": False},
    "posterior alone": {"mean_weight": 0.0},
}
"""Settings that differ from those of the configuration, by variant."""
COVERED = 0.75
"""Å, of the coverage."""


def main() -> None:
    """Train what is asked for, measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--weights", type=Path, nargs="*", default=[], help="folders of trained weights to measure")
    parser.add_argument("--train", nargs="*", default=[], choices=list(VARIANTS))
    parser.add_argument("--shares", type=float, nargs="*", default=[], help="train on these shares of the molecules")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--config", type=Path, help="YAML of the training that variants differ from")
    parser.add_argument("--molecules", type=int, default=100, help="of the validation side, at most")
    options = parser.parse_args()
    data = read_pairs(options.data)
    records = data.of("validation").records[: options.molecules]
    config = CoarsenConfConfig.from_yaml(options.config) if options.config else CoarsenConfConfig()
    config = replace(config, training=replace(config.training, max_steps=options.steps))
    runs = {name: replace(config, conf=replace(config.conf, **VARIANTS[name])) for name in options.train}
    runs |= {f"{share:g} of the molecules": replace(config, share=share) for share in options.shares}
    found: dict[str, Any] = {}
    for name in (*map(str, options.weights), *runs):
        if name in runs:
            folder = options.output.with_suffix("") / name.replace(" ", "_")
            model = train_coarsenconf(data, runs[name], folder)
        else:
            model = load_model(name)
        found[name] = measured(model, records)
        print(f"\n{name}\n{'':28}{'AMR-P':>7}{'AMR-R':>7}{'COV-P':>7}{'COV-R':>7}{'shape':>7}{'bonds':>7}")
        for side, values in found[name].items():
            print(f"{side:28}" + "".join(f"{v:7.3f}" for v in values.values()), flush=True)
        write_json(options.output, found)


def measured(model: CoarsenConf, records: list[ConformerPairs]) -> dict[str, dict[str, float]]:
    """Means over molecules, by kind of start and by what was done to it."""
    sides: dict[str, list[list[float]]] = {}
    for record in records:
        for kind, chosen in (("etkdg", ~record.minimised), ("mmff", record.minimised)):
            if not chosen.any():
                continue
            starts = record.starts[chosen].astype(float)
            for side, (before, after) in made(model, record, starts, kind == "mmff").items():
                sides.setdefault(f"{kind}, {side}", []).append(scores(record, before, after))
    names = ("AMR-P", "AMR-R", "COV-P", "COV-R", "shape", "bonds")
    return {side: dict(zip(names, np.mean(rows, 0).tolist())) for side, rows in sides.items()}


def made(
    model: CoarsenConf, record: ConformerPairs, starts: np.ndarray, minimised: bool
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Starts and what is made of them, both (S, n, 3), by side."""
    g = record.graph
    noise = np.random.default_rng(0).normal(size=(len(starts), g.n_beads, 3, model.settings.channels))
    mean, sample = model.distorted(g, starts, minimised), model.distorted(g, starts, minimised, noise)
    same = np.repeat(starts[:1], len(starts), 0)
    one = model.distorted(g, same, minimised, noise)
    turned = np.array([with_torsions_of(g, x, y) for x, y in zip(starts, sample)])
    return {
        "start": (starts, starts), "mean": (starts, mean), "sample": (starts, sample),
        "sample, torsions": (starts, turned), "one start": (same, same), "one start, sample": (same, one),
    }  # fmt: skip


def scores(record: ConformerPairs, before: np.ndarray, after: np.ndarray) -> list[float]:
    """AMR and coverage, share that keeps its shape, and mean error of distances over one and two bonds in Å."""
    g = record.graph
    true = record.true.astype(float)
    mirror = bool((record.match.hand < 0).any())
    rmsd = closest(true, after, g.symmetries, mirror)[0]
    near = np.nonzero(np.triu((g.apart > 0) & (g.apart <= 2)))
    lengths = [np.linalg.norm(x[:, near[0]] - x[:, near[1]], axis=-1) for x in (true, after)]
    off = np.abs(lengths[1] - lengths[0].mean(0)).mean()
    return [
        rmsd.min(0).mean(), rmsd.min(1).mean(), (rmsd.min(0) < COVERED).mean(), (rmsd.min(1) < COVERED).mean(),
        keeps_shape(g, before, after).mean(), off,
    ]  # fmt: skip


if __name__ == "__main__":
    main()
