"""What a step of dynamics costs: OpenMM's custom forces against the compiled loops, in turns.

    python -m benchmarks dynamics [--atoms 1008 4536] [--rounds 5] [--threads 1] [--no-y6]

A packing of aspirin is pressed and repeated; both Systems step from the same start at the settings of `molflow
simulate` (10 Å or what the supercell holds, 1 fs, NPT), a few steps of one after a few of the other, so that both see
the same load of the machine. CPU time of the process counts, the fastest round of each; on a machine with nothing else
to do it is the time of the clock with `--threads 1`. The compiled loops also at 2 fs with bonds to hydrogen constrained
and at 3 fs with hydrogens of 3 amu (4 fs blows up, with custom forces too); five Y6 (935 atoms) at 3 fs.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import openmm
import torch
from molflow_openmm import crystalSystem
from molflow_openmm.cluster.system import clusterSystem
from molflow_openmm.run import BAROSTAT_INTERVAL
from openmm import app
from rdkit import Chem

from benchmarks.tables import keep
from molflow_sim import Molecule, __version__, parametrize
from molflow_sim.packing import press, random_packings
from molflow_sim.systems.cluster import MolecularCluster

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
Y6 = Path(__file__).parents[1] / "data" / "clusters" / "y6_x5" / "box_000.npz"
SUPERCELLS = {1008: ((2, 3, 2), 9.0), 2016: ((4, 3, 2), 9.0), 4536: ((3, 6, 3), 10.0)}
OPTIONS = {
    1.0: {},
    2.0: {"constraints": app.HBonds},
    3.0: {"constraints": app.HBonds, "hydrogenMass": 3.0},
}


class Side:
    """A System on the CPU platform that can be stepped and timed."""

    def __init__(
        self, built, timestep: float, threads: int, temperature: float = 300.0, isotropic: bool = False
    ) -> None:
        _, system, positions = built
        kind = openmm.MonteCarloBarostat if isotropic else openmm.MonteCarloFlexibleBarostat
        system.addForce(kind(1.0, temperature, BAROSTAT_INTERVAL))
        self.timestep, self.times = timestep, []
        self.integrator = openmm.LangevinMiddleIntegrator(temperature, 1.0, 1e-3 * timestep)
        platform = openmm.Platform.getPlatformByName("CPU")
        self.context = openmm.Context(system, self.integrator, platform, {"Threads": str(threads)})
        self.context.setPositions(positions)
        openmm.LocalEnergyMinimizer.minimize(self.context, maxIterations=30)
        self.context.setVelocitiesToTemperature(2.0 * temperature, 1)
        self.integrator.step(20)

    def run(self, steps: int) -> None:
        cpu = time.process_time()
        self.integrator.step(steps)
        self.times.append(1e3 * (time.process_time() - cpu) / steps)

    @property
    def milliseconds(self) -> float:
        return min(self.times)

    @property
    def ns_per_day(self) -> float:
        return 86.4 * self.timestep / self.milliseconds


def in_turns(sides: dict[str, Side], rounds: int, steps: int) -> None:
    """Step every side, one after another, again and again."""
    for _ in range(rounds):
        for side in sides.values():
            side.run(steps)


def last_frame(shard: Path) -> MolecularCluster:
    """The last box of a shard of `molflow dataset clusters --md`."""
    with np.load(shard) as data:
        positions, cell = data["positions"][-1].astype(float), data["cell"][-1].astype(float)
        rdmol, copies = Chem.AddHs(Chem.MolFromSmiles(str(data["smiles"]))), int(data["copies"])
    conformer = Chem.Conformer(rdmol.GetNumAtoms())
    conformer.SetPositions(positions[: rdmol.GetNumAtoms()])
    rdmol.AddConformer(conformer)
    return MolecularCluster((Molecule.from_rdkit(rdmol),), np.zeros(copies, dtype=int), positions, cell)


def row(system: str, name: str, side: Side, old: Side | None) -> dict[str, str]:
    """A line of the table."""
    return {
        "system": system,
        "forces, time step": name,
        "ms CPU a step": f"{side.milliseconds:.2f}",
        "ns/day": f"{side.ns_per_day:.1f}",
        "times as far a day as custom forces at 1 fs": f"{side.ns_per_day / old.ns_per_day:.1f}" if old else "",
    }


def main() -> None:
    """Print both sides."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--atoms", type=int, nargs="+", default=[1008, 4536], choices=sorted(SUPERCELLS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--y6", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--keep", action="store_true", help="keep the figures for the README")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.threads} threads, molflow-sim {__version__}, "
        f"OpenMM {openmm.__version__}"
    )
    lines, speed = [], []
    molecule = Molecule.from_smiles(ASPIRIN, n_conformers=1)
    packings = press(random_packings(molecule, 300, seed=0, space_groups=[14]), parametrize(molecule))
    crystal = packings.crystal(int(np.argmin(np.where(packings.ok, packings.energy, np.inf))))
    for atoms in options.atoms:
        supercell, cutoff = SUPERCELLS[atoms]

        def built(compiled: bool, timestep: float, supercell=supercell, cutoff=cutoff):
            return crystalSystem(
                crystal, supercell, nonbondedCutoff=0.1 * cutoff, dispersionCorrection=True, compiled=compiled,
                **OPTIONS[timestep],
            )  # fmt: skip

        sides = {"custom forces, 1 fs": Side(built(False, 1.0), 1.0, options.threads)}
        for timestep in (1.0, 2.0, 3.0):
            sides[f"compiled, {timestep:g} fs"] = Side(built(True, timestep), timestep, options.threads)
        in_turns(sides, options.rounds, options.steps)
        old = sides["custom forces, 1 fs"]
        print(f"aspirin, {atoms} atoms, cutoff {cutoff:g} Å, NPT")
        for name, side in sides.items():
            speed.append(row(f"aspirin, {atoms} atoms, {cutoff:g} Å", name, side, old))
            print(
                f"  {name:20} {side.milliseconds:7.2f} ms CPU a step (median {np.median(side.times):.2f}), "
                f"{side.ns_per_day:6.2f} ns/day, {side.ns_per_day / old.ns_per_day:5.1f} times as far a day, "
                f"a step {old.milliseconds / side.milliseconds:.1f} times as fast"
            )
        figures = [sides[f"compiled, {t} fs"] for t in (1, 2, 3)]
        lines.append(
            (
                f"`molflow simulate` of aspirin, {atoms} atoms: compiled loops over OpenMM's custom forces",
                f"a step {old.milliseconds / figures[0].milliseconds:.1f} times as fast (1 fs); "
                + " / ".join(f"{s.ns_per_day / old.ns_per_day:.1f}" for s in figures)
                + " times as far a day at 1 / 2 / 3 fs",
            )
        )
    if options.y6:
        box = last_frame(Y6)
        side = Side(
            clusterSystem(box, dispersionCorrection=True, compiled=True, **OPTIONS[3.0]),
            3.0,
            options.threads,
            isotropic=True,
        )
        in_turns({"y6": side}, options.rounds, 4 * options.steps)
        figure = f"{side.milliseconds:.2f} ms CPU a step, {side.ns_per_day:.0f} ns/day at 3 fs"
        print(f"Y6 × 5, {len(box.numbers)} atoms, at the density of the liquid: {figure}")
        speed.append(row(f"Y6 × 5, {len(box.numbers)} atoms, 10 Å", "compiled, 3 fs", side, None))
        lines.append(("Y6 × 5 (935 atoms), NPT, compiled loops", figure))
    if options.keep:
        keep("dynamics", lines, {"speed": speed})


if __name__ == "__main__":
    main()
