"""What one evaluation of the crystal potential and one flexible relaxation cost.

    python -m benchmarks potential [SMILES] [--crystals 64] [--batch 32]

Random packings are pressed; the lowest ones are evaluated (energy, forces, stress; 15 Å, float64) in batches by the
compiled and by the torch path, and relaxed with flexible molecules and free cell.
"""

import argparse
import os
import time

import numpy as np
import torch
import torch_sim

from benchmarks.tables import keep
from molflow_sim import CrystalPotential, Molecule, __version__, parametrize
from molflow_sim.packing import press, random_packings
from molflow_sim.relax.flexible import relax_flexible


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("smiles", nargs="?", default="CC(=O)Oc1ccccc1C(=O)O")
    parser.add_argument("--crystals", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--keep", action="store_true", help="keep the figures for the README")
    options = parser.parse_args()
    threads = torch.get_num_threads()
    print(f"{os.cpu_count()} cores, {threads} threads, molflow-sim {__version__}, torch {torch.__version__}")
    molecule = Molecule.from_smiles(options.smiles)
    parameters = parametrize(molecule)
    packings = press(random_packings(molecule, 8 * options.crystals, seed=0), parameters)
    order = np.argsort(np.where(packings.ok, packings.energy, np.inf))[: options.crystals]
    crystals = [packings.crystal(int(i)) for i in order]
    atoms = sum(c.z for c in crystals) * molecule.n_atoms
    print(f"{molecule.formula}: {len(crystals)} pressed crystals, {atoms / len(crystals):.0f} atoms a cell on average")

    state = torch_sim.initialize_state(
        [c.to_ase() for c in crystals[: options.batch]], torch.device("cpu"), torch.float64
    )
    cost = {}
    for backend in ("compiled", "torch"):
        potential = CrystalPotential([parameters], backend=backend)
        potential(state)  # compiles, and builds the neighbour lists
        repeats = 10 if backend == "compiled" else 2
        start = time.perf_counter()
        for _ in range(repeats):
            potential(state)
        each = (time.perf_counter() - start) / repeats / min(options.batch, len(crystals))
        cost[backend] = f"{1e3 * each:.2f}"
        print(f"energy, forces, stress, {backend}: {1e3 * each:.2f} ms a crystal in a batch of {options.batch}")

    start = time.perf_counter()
    results = relax_flexible(crystals, CrystalPotential([parameters]))
    seconds = time.perf_counter() - start
    steps = np.array([r.n_steps for r in results])
    relaxed = (
        f"{sum(r.converged for r in results)} of {len(results)} converged, steps {np.median(steps):.0f} (median) "
        f"{steps.max()} (most), {1e3 * seconds / len(results):.0f} ms a crystal"
    )
    print("relaxation:", relaxed)
    if options.keep:
        size = f"{atoms / len(crystals):.0f} atoms a cell, 15 Å"
        what = f"energy, forces and stress of {molecule.formula} crystals ({size})"
        figure = f"{cost['compiled']} ms a crystal in a batch of {options.batch} (torch {cost['torch']})"
        keep("potential", [(what, figure), ("their flexible relaxation, free cell", relaxed)])


if __name__ == "__main__":
    main()
