"""Candidates per second of the rigid press, compiled and in torch, beside PyXtal + ASE + GFN1-xTB.

    python -m benchmarks press [--candidates 500] [--xtb 3] [SMILES ...]

Both paths press the same random packings; afterwards the energy of the same geometries is evaluated by both (they
must agree to 1e-5). The other way to the same end is timed in the same run: PyXtal's random crystals, relaxed with
ASE (FIRE, Fréchet cell filter, fmax 0.05 eV/Å) and tblite's GFN1-xTB, for as many structures as --xtb says.
"""

import argparse
import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from benchmarks.tables import keep
from molflow_sim import Molecule, parametrize
from molflow_sim.packing import PressSettings, RigidPackings, press, random_packings
from molflow_sim.units import KJ_PER_MOL

MOLECULES = {"benzene": "c1ccccc1", "aspirin": "CC(=O)Oc1ccccc1C(=O)O"}
WARM_UP = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Print machine, versions and the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("smiles", nargs="*", help="molecules (benzene and aspirin by default)")
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--torch-candidates", type=int, default=250)
    parser.add_argument("--xtb", type=int, default=3, help="PyXtal crystals to relax with GFN1-xTB, 0 for none")
    parser.add_argument("--xtb-steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep the figures for the README")
    args = parser.parse_args(argv)
    molecules = {s: s for s in args.smiles} or MOLECULES
    print_machine()
    print(
        f"{'molecule':>10} {'way':>22} {'structures':>10} {'seconds':>8} {'per second':>10} "
        f"{'converged':>9} {'g/cm3':>6}"
    )
    agreement = []
    speeds: dict[str, list[str]] = {}
    for name, smiles in molecules.items():
        molecule = Molecule.from_smiles(smiles, seed=args.seed)
        parameters = parametrize(molecule)
        pressed = None
        for backend, n in (("numba", args.candidates), ("torch", args.torch_candidates)):
            if not n:
                continue
            loose = random_packings(molecule, n, seed=args.seed)
            press(loose.select(slice(0, WARM_UP)), parameters, backend=backend)  # compiles
            start = time.perf_counter()
            result = press(loose, parameters, backend=backend)
            seconds = time.perf_counter() - start
            speeds.setdefault(backend, []).append(f"{n / seconds:.0f}")
            row(
                name,
                f"press, {backend}",
                n,
                seconds,
                float(result.ok.mean()),
                float(np.median(result.density[result.ok])),
            )
            pressed = pressed or result.select(result.ok)
        if pressed is not None:
            agreement.append((name, *energy_difference(pressed.select(slice(0, 50)), parameters)))
        if args.xtb:
            slow = relax_with_xtb(molecule, args.xtb, args.xtb_steps, args.seed)
            speeds.setdefault("xtb", []).append(f"{slow[0] / slow[1]:.2f}")
            row(name, "PyXtal + GFN1-xTB", *slow)
    for name, absolute, relative in agreement:
        print(f"{name}: compiled and torch energies differ by at most {absolute:.1e} kJ/mol, {relative:.1e} relative")
    if args.xtb:
        print(f"GFN1-xTB: converged means fmax 0.05 eV/Å within {args.xtb_steps} steps; cells as they are (Γ point)")
    if args.keep:
        ways = {"numba": "press, compiled", "torch": "press, torch on the CPU", "xtb": "PyXtal + ASE + GFN1-xTB"}
        names, worst = " / ".join(molecules), max((a[2] for a in agreement), default=float("nan"))
        unit = {"xtb": f"structures, stopped after {args.xtb_steps} steps,"}
        lines = []
        for way, found in speeds.items():
            what = unit.get(way, "candidates")
            lines.append((f"{ways[way]}: {names}", f"{' / '.join(found)} {what} a second"))
        keep("press", [*lines, ("largest relative difference of the two paths' energies", f"{worst:.0e}")])
    return 0


def row(name: str, way: str, n: int, seconds: float, converged: float, density: float) -> None:
    """One line of the table."""
    print(
        f"{name:>10} {way:>22} {n:>10} {seconds:>8.1f} {n / seconds:>10.3g} {100 * converged:>8.1f}% {density:>6.2f}",
        flush=True,
    )


def energy_difference(packings: RigidPackings, parameters) -> tuple[float, float]:
    """Largest difference of the two paths' energies at the same geometries: kJ/mol, and relative."""
    still = PressSettings(soft_evaluations=0, squeeze_evaluations=0, max_evaluations=1)
    a, b = (press(packings, parameters, still, backend=backend).energy for backend in ("numba", "torch"))
    return float(np.max(np.abs(a - b))) / KJ_PER_MOL, float(np.max(np.abs(a - b) / np.abs(a)))


def relax_with_xtb(molecule: Molecule, n: int, max_steps: int, seed: int) -> tuple[int, float, float, float]:
    """(structures, seconds, share converged, median density) of PyXtal crystals relaxed with ASE and GFN1-xTB."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE
    from tblite.ase import TBLite

    from benchmarks.pyxtal import pyxtal_packings

    start = time.perf_counter()
    converged, density = 0, []
    packings = pyxtal_packings(molecule, n, seed=seed)
    for k in range(n):
        crystal = packings.crystal(k)
        atoms = crystal.to_ase()
        atoms.calc = TBLite(method="GFN1-xTB", verbosity=0)
        try:
            converged += bool(FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=0.05, steps=max_steps))
        except Exception as error:  # a self-consistency failure of a bad start must not end the benchmark
            print(f"   GFN1-xTB gave up on structure {k}: {str(error).splitlines()[0]}")
            continue
        density.append(atoms.get_masses().sum() / atoms.get_volume() * 1.66053906660)
    return n, time.perf_counter() - start, converged / n, float(np.median(density)) if density else float("nan")


def print_machine() -> None:
    """Cores, Python and library versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = []
    for package in ("molflow-sim", "torch", "numba", "numpy", "pyxtal", "tblite", "ase"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} missing")
    print(f"{cores} cores, {platform.machine()}, Python {platform.python_version()}; {', '.join(versions)}")


if __name__ == "__main__":
    raise SystemExit(main())
