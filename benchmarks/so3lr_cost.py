"""What an evaluation of SO3LR costs: through this package's loops and through the wheel's own calculator.

    python -m benchmarks so3lr_cost [--repeats 5] [--keep]

Crystals of HMX (28 atoms) pressed from random packings in P -1, P 2₁/c and P b c a: 56, 112 and 224 atoms a cell.
Energy, forces and stress on one thread, CPU time (so that other work on the machine counts less), mean of the repeats,
atoms moved before each so that nothing is remembered. The wheel's calculator runs in a process of its own, since it
changes torch's global settings; its Coulomb sum stops at 12 Å, ours is an Ewald sum. Energies are compared in float64
on free molecules, where both sum over all pairs.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.tables import keep
from molflow_sim import MolecularCrystal, Molecule, parametrize
from molflow_sim.packing import press, random_packings
from molflow_sim.relax.symmetry import orbits as orbits_of
from molflow_sim.so3lr.potential import SO3LR, Orbits

HMX = "C1N(CN(CN(CN1[N+](=O)[O-])[N+](=O)[O-])[N+](=O)[O-])[N+](=O)[O-]"
GROUPS = ("P -1", "P 21/c", "P b c a")
MOLECULES = (HMX, "CC(=O)Oc1ccccc1C(=O)O", "NC(N)=O")
TRIALS = 40
MOVE = 1e-4
WHEEL = """
import json, sys, time
from importlib.util import find_spec
import numpy as np, torch
from ase import Atoms
from so3krates_torch.calculator.so3 import TorchkratesCalculator
torch.set_num_threads(1)
task = json.load(sys.stdin)
path = find_spec("so3krates_torch").submodule_search_locations[0] + "/pretrained/so3lr/so3lr.model"
def calculator(dtype, periodic):
    model = torch.load(path, map_location="cpu", weights_only=False).to(getattr(torch, dtype))
    made = TorchkratesCalculator(models=[model], default_dtype=dtype, r_max_lr=12.0 if periodic else 60.0,
                                 dispersion_energy_cutoff_lr_damping=2.0, compute_stress=periodic)
    if not periodic:
        model.r_max_lr = None
    return made
def atoms(system):
    made = Atoms(system["numbers"], system["positions"], cell=system.get("cell"), pbc="cell" in system)
    made.info.update(charge=0, total_spin=0)
    return made
out = {"seconds": {}, "energies": []}
for dtype in ("float32", "float64"):
    calc, rows = calculator(dtype, True), []
    for system in task["crystals"]:
        x = atoms(system)
        x.calc = calc
        x.get_forces()
        start = time.process_time()
        for _ in range(task["repeats"]):
            x.positions += task["move"]
            x.get_potential_energy(), x.get_forces(), x.get_stress()
        rows.append((time.process_time() - start) / task["repeats"])
    out["seconds"][dtype] = rows
calc = calculator("float64", False)
for system in task["molecules"]:
    x = atoms(system)
    x.calc = calc
    out["energies"].append(float(x.get_potential_energy()))
print(json.dumps(out))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="keep the figures for README and docs")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}; one thread, CPU time")
    crystals = [_crystal(group) for group in GROUPS]
    molecules = [Molecule.from_smiles(smiles) for smiles in MOLECULES]
    wheel = _wheel(crystals, molecules, args.repeats)
    whole = [_seconds(crystal, args.repeats, symmetry=False) for crystal in crystals]
    unit = [_seconds(crystal, args.repeats, symmetry=True) for crystal in crystals]
    exact = SO3LR(dtype="float64")
    free = exact.evaluate([m.numbers for m in molecules], [m.conformers[0] for m in molecules])
    worst = max(abs(ours[0] - theirs) for ours, theirs in zip(free, wheel["energies"]))
    rows = []
    for k, crystal in enumerate(crystals):
        rows.append(
            {
                "atoms": len(crystal.unit_cell()[0]),
                "space group": crystal.space_group.name,
                "ours, by symmetry, s": f"{unit[k]:.3f}",
                "ours, whole cell, s": f"{whole[k]:.3f}",
                "wheel, float32, s": f"{wheel['seconds']['float32'][k]:.2f}",
                "wheel, float64, s": f"{wheel['seconds']['float64'][k]:.2f}",
                "wheel float32 / ours, whole cell": f"{wheel['seconds']['float32'][k] / whole[k]:.1f}",
                "wheel float32 / ours, by symmetry": f"{wheel['seconds']['float32'][k] / unit[k]:.1f}",
            }
        )
        print("  ".join(f"{name} {value}" for name, value in rows[-1].items()))
    print(f"energies of {len(molecules)} free molecules in float64 differ by at most {worst:.1e} eV")
    if args.keep:
        sizes = " / ".join(str(row["atoms"]) for row in rows)
        what = f"SO3LR, energy + forces + stress of crystals of {sizes} atoms, one thread"
        ours = " / ".join(row["ours, whole cell, s"] for row in rows)
        symmetric = " / ".join(row["ours, by symmetry, s"] for row in rows)
        theirs = [" / ".join(row[f"wheel, {dtype}, s"] for row in rows) for dtype in ("float32", "float64")]
        figure = (
            f"{ours} s; by symmetry {symmetric} s; the wheel's calculator {theirs[0]} s (float32), {theirs[1]} s "
            f"(float64); energies of molecules equal to {worst:.0e} eV"
        )
        keep("so3lr_cost", [(what, figure)], {"cost": rows})
    return 0


def _crystal(group: str) -> MolecularCrystal:
    """The lowest of some pressed random packings of HMX on general positions of a space group."""
    molecule = Molecule.from_smiles(HMX)
    packings = press(random_packings(molecule, TRIALS, space_groups=[group], seed=0), parametrize(molecule))
    order = np.argsort(np.where(packings.ok, packings.energy, np.inf))
    found = (packings.crystal(int(i)) for i in order)
    return next(crystal for crystal in found if crystal.z == crystal.space_group.order)


def _seconds(crystal: MolecularCrystal, repeats: int, *, symmetry: bool) -> float:
    """CPU time of one evaluation, s."""
    model = SO3LR()
    numbers, positions, _, _ = crystal.unit_cell()
    orbits = Orbits.identity(len(numbers))
    if symmetry:
        orbits = orbits_of(crystal)
    model.evaluate([numbers], [positions], [crystal.cell], [orbits])  # compiles
    start = time.process_time()
    for _ in range(repeats):
        positions = positions + (0.0 if symmetry else MOVE)
        model.evaluate([numbers], [positions], [crystal.cell], [orbits])
    return (time.process_time() - start) / repeats


def _wheel(crystals: Sequence[MolecularCrystal], molecules: Sequence[Molecule], repeats: int) -> dict[str, Any]:
    """Seconds by precision and crystal, and energies of the molecules, of the wheel's calculator."""
    cells = []
    for crystal in crystals:
        numbers, positions, _, _ = crystal.unit_cell()
        cells.append({"numbers": numbers.tolist(), "positions": positions.tolist(), "cell": crystal.cell.tolist()})
    free = [{"numbers": m.numbers.tolist(), "positions": m.conformers[0].tolist()} for m in molecules]
    task = {"crystals": cells, "molecules": free, "repeats": repeats, "move": MOVE}
    done = subprocess.run(
        [sys.executable, "-c", WHEEL],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(f"the wheel's calculator failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    raise SystemExit(main())
