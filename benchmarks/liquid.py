"""Dynamics from generated clusters against dynamics from packed ones: how soon density and structure are the liquid's.

    python -m benchmarks liquid data/clusters/y6_x5 -o liquid.json [--runs 3] [--ps 40] [--keep]

Reference: the frames, each independent box by itself and all together. Every side makes `runs` clusters of the
molecules of the frames, which are pressed to nine tenths of the reference's density and run at 300 K and 1 bar for
`ps`, all with the same settings; the last half is looked at. The RDF is of heavy atoms of different molecules, out
to half of the shortest edge; its difference from the reference's is the mean of |g - g_ref| over the range where g_ref
is not zero. The time is that of all dynamics, pressing included, in ps and CPU seconds of one thread.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import mdtraj
import numpy as np
from molflow_openmm import ClusterSettings, simulate_cluster

from benchmarks.parts import Parts
from benchmarks.tables import keep
from molflow_sim import Molecule, __version__, generate
from molflow_sim.runs.files import write_json
from molflow_sim.systems.cluster import MolecularCluster

BIN = 0.02
"""nm, of the RDF."""
PRESSED = 0.9
"""Density at the start of NPT, over the reference's."""
SETTINGS = {"timestep": 3.0, "hydrogen_mass": 3.0, "report_every": 0.5}
"""3 fs with bonds to hydrogen fixed and hydrogens of 3 amu, as the reference was made."""


@dataclass
class Run:
    """What a run showed."""

    density: float
    change_percent: float
    drifting: bool
    rdf: list[float]
    pressed_ps: float
    cpu_seconds: float


@dataclass(frozen=True)
class Reference:
    """Frames of dynamics: density in g/cm³ and RDF of all, and of every box."""

    density: float
    rdf: np.ndarray
    longest: float
    boxes: list[tuple[float, np.ndarray]]
    cluster: MolecularCluster
    topology: mdtraj.Topology

    def difference(self, rdf: np.ndarray) -> float:
        """Mean of |g - g_ref| where g_ref is not zero."""
        there = self.rdf > 0
        return float(np.abs(np.asarray(rdf) - self.rdf)[there].mean())


def main() -> None:
    """Print the table, and keep it if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "frames", type=Path, help="folder of frames in periodic boxes, as molflow dataset clusters --md"
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--sides", nargs="+", default=["dual-scale", "packmol", "random"])
    parser.add_argument("--weights", help="of the dual-scale flow; default: those of the package for Y6")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ps", type=float, default=40.0, help="of NPT dynamics")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    reference = read_reference(options.frames)
    print(f"molflow-sim {__version__}; reference: {len(reference.boxes)} boxes of {reference.cluster.n_molecules} "
          f"molecules, {reference.density:.3f} g/cm³; " + "; ".join(
              f"box {k}: {density:.3f} g/cm³, RDF differs by {reference.difference(rdf):.3f}"
              for k, (density, rdf) in enumerate(reference.boxes)))  # fmt: skip
    parts, rows = Parts(options.output), []
    for side in options.sides:
        runs = [
            parts.result(
                f"{side}-{k}-{options.ps:g}",
                lambda data: Run(**data),
                lambda side=side, k=k: _run(side, k, reference, options, parts.folder),
                lambda run: f"{run.density:.3f} g/cm³",
            )
            for k in range(options.runs)
        ]
        found = [r for r in runs if r is not None]
        if not found:
            continue
        density = np.array([r.density for r in found])
        mean = np.mean([r.rdf for r in found], 0)
        single = np.mean([reference.difference(np.array(r.rdf)) for r in found])
        rows.append(
            {
                "start": side,
                "runs": f"{len(found)} of {options.runs}",
                "density, g/cm³": f"{density.mean():.3f} ± {density.std():.3f}",
                "against the reference": f"{100 * (density.mean() / reference.density - 1):+.1f} %",
                "difference of the RDF": f"{reference.difference(mean):.3f}",
                "of single runs": f"{single:.3f}",
                "still drifting": f"{sum(r.drifting for r in found)}",
                "pressing, ps": f"{np.mean([r.pressed_ps for r in found]):.1f}",
                "CPU s": f"{np.mean([r.cpu_seconds for r in found]):.0f}",
            }
        )
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    write_json(options.output, {"reference": reference.density, "rows": rows})
    if options.keep:
        name = options.frames.name
        lines = [(f"{name}, {options.ps:g} ps of NPT from {r['start']}: density; difference of the RDF",
                  f"{r['against the reference']}; {r['difference of the RDF']}") for r in rows]  # fmt: skip
        keep("liquid", lines, rows={name: rows})


def read_reference(folder: Path) -> Reference:
    """The frames of a folder of boxes."""
    boxes = []
    shards = [dict(np.load(f, allow_pickle=False)) for f in sorted(folder.glob("box_*.npz"))]
    smiles, copies = str(shards[0]["smiles"]), int(shards[0]["copies"])
    molecule = Molecule.from_smiles(smiles, n_conformers=1)
    cluster = MolecularCluster((molecule,), np.zeros(copies, int), shards[0]["positions"][0], shards[0]["cell"][0])
    topology = mdtraj.Topology.from_openmm(cluster.to_openmm_topology())
    longest = BIN * int(0.05 * min(float(np.linalg.norm(s["cell"], axis=-1).min()) for s in shards) / BIN)
    for s in shards:
        frames = mdtraj.Trajectory(0.1 * s["positions"], topology)
        frames.unitcell_vectors = 0.1 * s["cell"]
        boxes.append((float(np.mean(s["density"])), rdf_of(cluster, frames, longest)))
    weights = [len(s["positions"]) for s in shards]
    density, rdf = (np.average([b[k] for b in boxes], axis=0, weights=weights) for k in range(2))
    return Reference(float(density), rdf, longest, boxes, cluster, topology)


def rdf_of(cluster: MolecularCluster, frames: mdtraj.Trajectory, longest: float) -> np.ndarray:
    """g(r) of heavy atoms of different molecules, out to `longest` nm."""
    owner = np.repeat(np.arange(cluster.n_molecules), cluster.sizes)
    heavy = np.flatnonzero(cluster.numbers > 1)
    pairs = heavy[np.stack(np.triu_indices(len(heavy), 1), 1)]
    other = pairs[owner[pairs[:, 0]] != owner[pairs[:, 1]]]
    return mdtraj.compute_rdf(frames, other, r_range=(0.0, longest), bin_width=BIN)[1]


def _run(side: str, k: int, reference: Reference, options: argparse.Namespace, folder: Path) -> Run:
    """Make a cluster, press it, run it."""
    start = reference.cluster
    option = {"weights": options.weights} if side == "dual-scale" and options.weights else {}
    loose = {} if side == "dual-scale" else {"density": 0.1, "periodic": True}
    (cluster,) = generate(
        "clusters", [start.species[0]], 1, method=side, copies=start.n_molecules, seed=k, **loose, **option
    )
    settings = ClusterSettings(
        density=PRESSED * reference.density, picoseconds=options.ps, seed=k, press_ps=2000.0, **SETTINGS
    )
    out, told, began = folder / f"{side}-{k}-{options.ps:g}", [], time.process_time()
    summary = simulate_cluster(cluster, out, settings, progress=told.append)
    seconds = time.process_time() - began
    frames = mdtraj.load_dcd(str(out / "trajectory.dcd"), top=reference.topology)
    rdf = rdf_of(start, frames[len(frames) // 2 :], reference.longest)
    pressing = sum(t.get("step") == 0 and "density" in t for t in told)
    return Run(
        summary["density_mean_g_cm3"], summary["drift_percent"], summary["drifting"], rdf.tolist(),
        pressing * 500 * settings.timestep * 1e-3, seconds,
    )  # fmt: skip


if __name__ == "__main__":
    main()
