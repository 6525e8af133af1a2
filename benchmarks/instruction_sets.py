"""How many pressed candidates end elsewhere on an older processor? Compiled for two instruction sets, in one run.

    python -m benchmarks instruction_sets [--candidates 1000] [--older x86-64-v2]

Each side runs in a process of its own with its own cache of compiled code. A candidate ends elsewhere when its energy
differs by more than 1e-6 relative; "bit for bit" compares cells, orientations and energies as they are stored.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.tables import keep
from molflow_sim import Molecule, parametrize
from molflow_sim.packing import press, random_packings

MOLECULES = ("CC(N)=O", "CC(=O)Oc1ccccc1C(=O)O")


def pressed(candidates: int, path: Path) -> None:
    """Press the molecules' candidates and write what came of them."""
    out = {}
    for smiles in MOLECULES:
        molecule = Molecule.from_smiles(smiles, n_conformers=3)
        parameters = parametrize(molecule)
        start = random_packings(molecule, candidates, seed=0)
        press(start.select(slice(0, 20)), parameters)  # compiles
        begin = time.process_time()
        result = press(start, parameters)
        seconds = time.process_time() - begin
        numbers = np.concatenate([result.cell.reshape(candidates, -1), result.rotation.reshape(candidates, -1)], 1)
        out |= {f"{smiles} energy": result.energy, f"{smiles} numbers": numbers, f"{smiles} seconds": seconds}
    np.savez(path, **out)


def main(argv: Sequence[str] | None = None) -> int:
    """Run both sides and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--older", default="x86-64-v2", help="processor that the second side is compiled for")
    parser.add_argument("--keep", action="store_true", help="keep the figures for the docs")
    parser.add_argument("--side", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.side:
        pressed(args.candidates, args.side)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        sides = []
        for name in ("", args.older):
            path = Path(folder) / f"{name or 'native'}.npz"
            cpu = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""} if name else {}
            environment = {**os.environ, **cpu, "NUMBA_CACHE_DIR": f"{folder}/cache-{name}"}
            command = [sys.executable, "-m", "benchmarks.instruction_sets", "--side", str(path)]
            subprocess.run([*command, "--candidates", str(args.candidates)], env=environment, check=True)
            sides.append(np.load(path))
    lines = []
    for smiles in MOLECULES:
        a, b = (side[f"{smiles} energy"] for side in sides)
        elsewhere = int((np.abs(a - b) > 1e-6 * np.abs(a)).sum())
        same = all(np.array_equal(*(s[f"{smiles} {n}"] for s in sides), equal_nan=True) for n in ("energy", "numbers"))
        seconds = " / ".join(f"{s[f'{smiles} seconds']:.1f}" for s in sides)
        figure = f"{elsewhere} of {len(a)} end elsewhere{', bit for bit the same' if same else ''}; {seconds} s of CPU"
        print(f"{smiles}: native against {args.older}: {figure}")
        lines.append((f"press of {smiles}, native against {args.older}", figure))
    if args.keep:
        keep("instruction_sets", lines)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
