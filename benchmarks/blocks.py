"""Clusters joined from blocks of the dual-scale flow: cost of a molecule, faults and JSD by number of copies.

    python -m benchmarks blocks data/clusters/y6_x5 -o blocks.json [--copies 5 20 50 200] [--density 0.5] [--keep]

One cluster of each number, smallest first in one process, after one that loads and compiles: so the peak of memory is
of all until then. Seconds are CPU time of a molecule; draws are of blocks, and their least number is one for each.
JSDs are of the molecules of the finished clusters against those of the test frames. Clusters are minimised, so that
bonds spread less than at 300 K; the last row, test frames minimised the same way, says how much of the JSD is that.
"""

import argparse
import resource
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.divergence import DEFINITION, InternalClasses, angle_divergence, bond_divergence
from benchmarks.parts import Parts, add_options
from benchmarks.tables import keep
from molflow_sim import Molecule, __version__, generate
from molflow_sim.evaluate.overlap import heavy_atom_overlap
from molflow_sim.evaluate.spearing import speared_rings
from molflow_sim.models.dual_scale import read_frames
from molflow_sim.models.dual_scale.completion import relaxed
from molflow_sim.models.dual_scale.data import TEST, ClusterFrames
from molflow_sim.models.dual_scale.model import DualScale
from molflow_sim.runs.files import write_json
from molflow_sim.systems.cluster import MolecularCluster
from molflow_sim.units import AMU_PER_A3

MINIMISED = 4
"""Test frames."""


@dataclass
class Made:
    """A cluster and what it took."""

    copies: int
    seconds: float
    draws: int
    peak_mb: float
    density: float
    overlap: float
    speared: int
    divergence: list[float]


def main() -> None:
    """Print the table, and keep it if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("frames", type=Path, help="frames of the molecule that the weights were trained on")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--copies", type=int, nargs="+", default=[5, 20, 50, 200])
    parser.add_argument("--density", type=float, default=0.5, help="g/cm³ of the sphere")
    parser.add_argument("--weights", help="of the dual-scale flow; default: those of the package for Y6")
    parser.add_argument("--keep", action="store_true")
    add_options(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    (frames,) = read_frames([options.frames])
    parts, rows = Parts(options.output, options.max_minutes, options.print_only), []
    print(f"molflow-sim {__version__}; {DEFINITION}")
    if not options.print_only:
        _made(frames, 1, options, options.seed + 1)
    for copies in sorted(options.copies):
        found = parts.result(
            f"{copies}-{options.density:g}-{options.seed}",
            lambda data: Made(**data),
            lambda copies=copies: _measured(frames, copies, options),
            lambda made: f"{made.seconds:.0f} s",
        )
        if found is not None:
            rows.append(_row(found))
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    cold = parts.result("minimised", list, lambda: _minimised(frames))
    if cold is not None:
        print(f"{MINIMISED} test frames minimised: {cold[0]:.3f} / {cold[1]:.3f}")
        rows.append(dict.fromkeys(rows[0], "") | {"copies": "test frames, minimised", "bond / angle JSD": _pair(cold)})
    write_json(options.output, {"rows": rows})
    if options.keep:
        name, what = options.frames.name, "CPU s a molecule; peak memory; speared rings"
        lines = [
            (
                f"{name}, cluster of {r['copies']} joined from blocks: {what}",
                f"{r['s a molecule']}; {r['peak, MB']} MB; {r['speared rings']}",
            )
            for r in rows
            if r["draws"]
        ]
        keep("blocks", lines, rows={"made": rows})


def _made(frames: ClusterFrames, copies: int, options: argparse.Namespace, seed: int) -> MolecularCluster:
    (smiles,) = frames.smiles
    given = {"weights": options.weights} if options.weights else {}
    (cluster,) = generate(
        "clusters", smiles, 1, copies=copies, method="dual-scale", density=options.density, seed=seed, **given
    )
    return cluster


def _measured(frames: ClusterFrames, copies: int, options: argparse.Namespace) -> Made:
    own, draws = DualScale.sample, []

    def counted(*args: Any, **kwargs: Any) -> Any:
        draws.append(1)
        return own(*args, **kwargs)

    with patch.object(DualScale, "sample", counted):
        start = time.process_time()
        cluster = _made(frames, copies, options, options.seed)
        seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    radius = np.linalg.norm(cluster.positions - cluster.positions.mean(0), axis=1).max()
    density = AMU_PER_A3 * float(cluster.masses.sum()) / (4.0 / 3.0 * np.pi * radius**3)
    return Made(
        copies, seconds, len(draws), peak, density, heavy_atom_overlap(cluster), len(speared_rings(cluster)),
        _divergences(frames, cluster),
    )  # fmt: skip


def _divergences(frames: ClusterFrames, *clusters: MolecularCluster) -> list[float]:
    """JSDs of bonds and angles of single molecules against those of the test frames."""
    (rdmol,) = frames.rdmols()
    classes = InternalClasses.of([rdmol], [0])
    heavy = np.concatenate([c.positions[c.numbers > 1] for c in clusters])
    size = sum(a.GetAtomicNum() > 1 for a in rdmol.GetAtoms())
    found, test = heavy.reshape(-1, size, 3), frames.heavy(TEST).reshape(-1, size, 3)
    return [bond_divergence(classes, found, test), angle_divergence(classes, found, test)]


def _minimised(frames: ClusterFrames) -> list[float]:
    molecule = Molecule.from_smiles(frames.smiles[0], n_conformers=1)
    chosen = frames.positions[np.flatnonzero(frames.split == TEST)[:MINIMISED]].astype(float)
    return _divergences(frames, *(relaxed(MolecularCluster((molecule,), frames.order, x)) for x in chosen))


def _row(made: Made) -> dict[str, str]:
    return {
        "copies": str(made.copies),
        "s a molecule": f"{made.seconds / made.copies:.2f}",
        "draws": str(made.draws),
        "peak, MB": f"{made.peak_mb:.0f}",
        "g/cm³, all atoms": f"{made.density:.2f}",
        "deepest overlap, Å": f"{made.overlap:.2f}",
        "speared rings": str(made.speared),
        "bond / angle JSD": _pair(made.divergence),
    }


def _pair(values: list[float]) -> str:
    return f"{values[0]:.3f} / {values[1]:.3f}"


if __name__ == "__main__":
    main()
