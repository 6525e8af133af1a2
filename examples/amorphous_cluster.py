"""How do I get from a SMILES to an amorphous liquid in a periodic box, and see whether it is one?

Seventeen molecules of benzene from the dual-scale flow: a droplet with all its atoms, relaxed and checked. It is looked
at as it is, put into a periodic box, pressed to the density of the liquid and run at 300 K and 1 bar. Written: the
droplet (`droplet.extxyz`), the run's folder, and a picture of how the molecules lie about each other (`rdf.svg`).

    python amorphous_cluster.py             # 5 ps, under a minute
    python amorphous_cluster.py --ps 200 -o liquid/
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import ase.io
import mdtraj
import numpy as np
from molflow_ase import ClusterCalculator
from molflow_openmm import ClusterSettings, simulate_cluster

from molflow_sim import MolecularCluster, generate
from molflow_sim.evaluate import heavy_atom_overlap, speared_rings
from molflow_sim.runs.figures import new_figure, write_figure

LIQUID = 0.87
"""g/cm³, benzene at 300 K and 1 bar."""


def main() -> None:
    """Draw, look, run, look again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ps", type=float, default=5.0, help="length of the run")
    parser.add_argument("-o", "--output", type=Path, help="folder for the results; default: a new temporary one")
    options = parser.parse_args()
    folder = options.output or Path(tempfile.mkdtemp(prefix="amorphous-"))
    folder.mkdir(parents=True, exist_ok=True)

    (droplet,) = generate("clusters", "c1ccccc1", 1, copies=17, method="dual-scale", weights="benzene", seed=1)
    atoms = droplet.to_ase()
    ase.io.write(folder / "droplet.extxyz", atoms)
    atoms.calc = ClusterCalculator()
    print(f"droplet: {droplet.n_molecules} molecules, {len(atoms)} atoms, {atoms.get_potential_energy():.2f} eV")
    print(f"speared rings: {len(speared_rings(droplet))}, deepest overlap: {heavy_atom_overlap(droplet):.2f} Å")

    settings = ClusterSettings(density=0.9 * LIQUID, picoseconds=options.ps, report_every=0.1, cutoff=8.0)
    summary = simulate_cluster(droplet, folder / "liquid", settings)
    print(f"liquid: {summary['density_mean_g_cm3']:.3f} g/cm³ over the second half of {options.ps:g} ps "
          f"(measured: {LIQUID}); {'still drifting' if summary['drifting'] else 'no drift'}")  # fmt: skip

    picture(droplet, folder)
    print(f"results in {folder}")


def picture(droplet: MolecularCluster, folder: Path) -> None:
    """g(r) of the rings' centres over the second half of the run."""
    frames = mdtraj.load_dcd(str(folder / "liquid" / "trajectory.dcd"), top=str(folder / "liquid" / "initial.pdb"))
    frames = frames[len(frames) // 2 :]
    centres = frames.xyz.reshape(len(frames), droplet.n_molecules, -1, 3).mean(axis=2)
    topology = mdtraj.Topology()
    for _ in range(droplet.n_molecules):
        topology.add_atom("C", mdtraj.element.carbon, topology.add_residue("BNZ", topology.add_chain()))
    beads = mdtraj.Trajectory(centres, topology, unitcell_lengths=frames.unitcell_lengths,
                              unitcell_angles=frames.unitcell_angles)  # fmt: skip
    pairs = np.stack(np.triu_indices(droplet.n_molecules, 1), 1)
    r, g = mdtraj.compute_rdf(beads, pairs, r_range=(0.3, 0.5 * frames.unitcell_lengths.min()), bin_width=0.02)
    figure = new_figure(5.0, 3.0)
    axes = figure.subplots()
    axes.plot(10 * r, g)
    axes.axhline(1.0, color="0.7", lw=0.8)
    axes.set(xlabel="distance of centres, Å", ylabel="g(r)", title="benzene at 300 K and 1 bar")
    write_figure(figure, folder / "rdf.svg")


if __name__ == "__main__":
    main()
