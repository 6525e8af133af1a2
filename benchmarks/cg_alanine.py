"""Capped alanine from 1,000 to 10,000 frames: flow and student without forces against force matching with forces.

    python -m benchmarks cg_alanine -o FOLDER                       # hours on one core
    python -m benchmarks cg_alanine -o FOLDER --frames 1000 --quick # a smoke test, minutes
    python -m benchmarks cg_alanine -o FOLDER --print-only

Data: 10,000 frames of five beads with forces (Wang et al., ACS Cent. Sci. 5, 755 (2019); ff99SB-ILDN in explicit
water, 300 K). For each number of frames, taken evenly from the whole: the flow is fitted (no forces), and three
students of the same network are trained: on the flow's forces, on the frames' forces, and on the frames alone. Every
student is simulated with the same settings from the same frames. φ/ψ histograms (60 × 60) are compared with a
reference of 250,000 frames of the same system, which no fit has seen: KL(reference ‖ model), mean-square difference
of the free energies, and coverage (`molflow_sim.evaluate.free_energy`). `floor` is what the frames themselves score.
That KL is over the bins that both populate, as published, and falls (even below zero) where a model misses much; so a
second one, "KL all", counts half a sample in every bin that the model misses.

Every cell (number of frames, model, seed) is a folder and a JSON file; the same command carries on.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from molflow_openmm import simulate_cg

from molflow_sim import __version__
from molflow_sim.cg import BeadFrames, CGNetSettings, ModelFolder, fit_student
from molflow_sim.cg.student.training import student_train_settings
from molflow_sim.cg.teacher import TeacherSettings, fit_teacher, sample_with_forces, teacher_training
from molflow_sim.coarse import backbone_topology
from molflow_sim.errors import MolflowError
from molflow_sim.evaluate.free_energy import coverage, dihedral, free_energy_mse, kl_divergence, phi_psi_histogram
from molflow_sim.runs.files import write_bytes_atomically
from molflow_sim.training import TrainSettings

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "alanine_dipeptide"
SIZES = (1000, 2000, 5000, 10000)
NAMES = {
    "floor": "the frames themselves",
    "flow": "flow, own samples",
    "flow-forces": "student of the flow (no forces)",
    "force-matching": "force matching (with forces)",
    "density": "density only (no forces)",
}


def read_data(folder: Path) -> tuple[BeadFrames, np.ndarray]:
    """All frames with forces, and the reference histogram (evaluation only)."""
    frames = BeadFrames.from_arrays(
        np.load(folder / "ala2_coordinates.npy"),
        backbone_topology(),
        300.0,
        np.load(folder / "ala2_forces.npy"),
        "kcal/mol/A",
        source="alanine dipeptide, explicit water",
    )
    reference = np.load(folder / "reference_phi_psi.npy")
    return frames, reference / reference.sum()


def score(reference: np.ndarray, positions: np.ndarray) -> dict[str, float]:
    """KL(reference ‖ model), free-energy MSE in (kcal/mol)² and coverage of some frames (..., 5, 3)."""
    beads = backbone_topology().phi_psi_indices()
    assert beads is not None
    angles = dihedral(np.asarray(positions, dtype=float).reshape(-1, 5, 3), beads)
    model = phi_psi_histogram(angles[:, 0], angles[:, 1], bins=len(reference))
    return {
        "kl": kl_divergence(reference, model),
        "kl_all": kl_divergence(reference, np.maximum(model, 0.5 / len(angles))),
        "mse": free_energy_mse(reference, model, 300.0),
        "coverage": coverage(reference, model),
        "samples": len(angles),
        "phi_above_0": float(np.mean(angles[:, 0] > 0)),
    }


class Bench:
    """Cells that are computed once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.frames, self.reference = read_data(options.data)
        self.quick = options.quick

    def cell(self, n: int, what: str) -> dict[str, Any] | None:
        """Result of a cell, computed if it is not there yet."""
        path = self.options.output / f"{n}-{self.options.seed}" / f"{what}.json"
        if path.is_file():
            found: dict[str, Any] = json.loads(path.read_text())
            return found
        if self.options.print_only:
            return None
        start = time.perf_counter()
        print(f"{n} frames, {NAMES[what]} ...", file=sys.stderr, flush=True)
        try:
            result = self.compute(n, what, path.parent / what)
        except MolflowError as error:
            result = {"failed": error.reason}
        result |= {"frames": n, "what": what, "seed": self.options.seed, "version": __version__, "quick": self.quick}
        result["seconds"] = time.perf_counter() - start
        write_bytes_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
        print(f"    {line(result)}", file=sys.stderr, flush=True)
        return result

    def compute(self, n: int, what: str, folder: Path) -> dict[str, Any]:
        """Fit, simulate, score."""
        # Evenly from the whole, not its beginning: fewer frames of the same ensemble.
        frames = self.frames.take(n)
        if what == "floor":
            return score(self.reference, frames.positions)
        if what == "flow":
            settings, train = TeacherSettings(), self.shorter(teacher_training(n), 200)
            # The flow never sees the forces.
            flow = fit_teacher(replace(frames, forces=None), settings, train, folder / "training")
            ModelFolder(folder).save_teacher(flow)
            x, _ = flow.sample(20_000 if self.quick else 250_000, torch.Generator().manual_seed(self.options.seed))
            return score(self.reference, x.numpy()) | {"training": asdict(train)}
        extra: dict[str, Any] = {}
        if what == "flow-forces":
            flow = ModelFolder(folder.parent / "flow").load_teacher()
            data: Any = sample_with_forces(flow, 5000 if self.quick else self.options.samples, self.options.seed)
            extra = {"drawn": data.summary}
        else:
            data = frames if what == "force-matching" else replace(frames, forces=None)
        settings = CGNetSettings(width=self.options.width, depth=self.options.depth)
        train = self.shorter(student_train_settings(len(data), what), 300)
        frames.save(folder / "frames.npz")  # studies/cg_stability.py starts from them
        student = fit_student(data, what, settings, train, folder / "training")
        ModelFolder(folder).save_student(student)
        run = simulate_cg(
            folder,
            20 if self.quick else self.options.replicas,
            0.02 if self.quick else self.options.ns,
            self.options.temperatures,
            output=folder / "simulation",
            start=frames,
            seed=self.options.seed,
            timestep_fs=self.options.timestep,
        )
        discard = 0.2 * run.reports * run.report_every_ps
        extra |= {"training": asdict(train), "us_per_step": run.summary["microseconds_per_step"]}
        extra |= {"simulation": run.summary["settings"], "kinetic_temperatures": run.kinetic_temperatures()}
        return score(self.reference, run.positions(300.0, discard)) | extra

    def shorter(self, train: TrainSettings, steps: int) -> TrainSettings:
        """The settings with our seed, and few steps for a smoke test."""
        train = replace(train, seed=self.options.seed)
        return replace(train, max_steps=steps, warmup_steps=20) if self.quick else train


def line(row: dict[str, Any]) -> str:
    """One result for people."""
    if "failed" in row:
        return f"failed: {row['failed']}"
    hot = "".join(f", {t:.0f} K at {bath:.0f} K" for bath, t in row.get("kinetic_temperatures", []))
    values = f"KL {row['kl']:.3f}, KL all {row['kl_all']:.3f}, MSE {row['mse']:.3f}, coverage {row['coverage']:.4f}"
    return f"{values}{hot}, {row['seconds']:.0f} s"


def table(rows: list[dict[str, Any]], sizes: list[int]) -> str:
    """Markdown: a line per model, KL / MSE / coverage per number of frames, and the ratio of the two students' KL."""
    found = {(r["frames"], r["what"]): r for r in rows}
    lines = ["| KL / KL all / MSE, (kcal/mol)² / coverage | " + " | ".join(f"{n} frames" for n in sizes) + " |"]
    lines.append("|---" * (len(sizes) + 1) + "|")
    for what, name in NAMES.items():
        cells = []
        for n in sizes:
            r = found.get((n, what))
            if r is None:
                cells.append("–")
            else:
                values = [f"{r[k]:.3f}" for k in ("kl", "kl_all", "mse")] if "failed" not in r else []
                cells.append(" / ".join([*values, f"{r['coverage']:.4f}"]) if values else "failed")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for key, name in (("kl", "KL"), ("kl_all", "KL all")):
        ratios = []
        for n in sizes:
            both = [found.get((n, what), {}).get(key) for what in ("force-matching", "flow-forces")]
            ratios.append(f"{both[0] / both[1]:.1f}" if all(both) else "–")
        lines.append(f"| {name} of force matching over that of the student | " + " | ".join(ratios) + " |")
    return "\n".join(lines)


def main() -> int:
    """Compute what is missing and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the cells")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the frames and the reference histogram")
    parser.add_argument("--frames", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--models", nargs="+", choices=(*NAMES,), default=[*NAMES])
    parser.add_argument("--samples", type=int, default=200_000, help="configurations drawn from the flow")
    parser.add_argument("--width", type=int, default=CGNetSettings().width)
    parser.add_argument("--depth", type=int, default=CGNetSettings().depth)
    parser.add_argument("--replicas", type=int, default=100)
    parser.add_argument("--ns", type=float, default=1.0, help="length of each copy")
    parser.add_argument("--timestep", type=float, default=2.0, help="fs, of every simulation")
    parser.add_argument("--temperatures", default="300", help="300, or LOWEST:HIGHEST:NUMBER for replica exchange")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few steps and short runs: figures mean nothing")
    parser.add_argument("--print-only", action="store_true", help="print what is stored and run nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not (options.data / "ala2_coordinates.npy").is_file():
        print(f"no alanine dipeptide data in {options.data}; give --data", file=sys.stderr)
        return 2
    bench = Bench(options)
    sizes = sorted({min(n, bench.frames.n_frames) for n in options.frames})
    wanted = [what for what in NAMES if what in options.models or (what == "flow" and "flow-forces" in options.models)]
    rows = [row for n in sizes for what in wanted if (row := bench.cell(n, what))]
    if options.quick:
        print("a smoke test: the figures mean nothing")
    print(table(rows, sizes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
