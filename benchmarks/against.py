"""This checkout against another one, in turns: the cost of press, relaxation, flow, CG step and screening.

    python -m benchmarks against OTHER_CHECKOUT [--rounds 5] [--only press flow ...]

Both run in this environment, each piece in a process of its own that first does a small part of it, which compiles.
Times are CPU seconds of one thread, so that other work on the machine tells less; the ratio is that of pairs run one
after the other. The screening is asked for what both versions do: 300 random candidates, ranked by the force field,
nothing relaxed on another energy.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
WARM_UP = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("other", type=Path, help="checkout of another version")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PIECES, default=list(PIECES))
    parser.add_argument("--keep", action="store_true", help="keep the figures for README and docs")
    parser.add_argument("--piece", choices=PIECES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.piece:
        print(PIECES[args.piece]())
        return 0
    from benchmarks.tables import keep

    lines = []
    names = [_version(args.other), _version(ROOT)]
    print(f"CPU seconds, least of {args.rounds}, of {' and '.join(names)}; ratio of pairs: median (least to most)")
    for piece in args.only:
        pairs = [(_seconds(args.other, piece), _seconds(ROOT, piece)) for _ in range(args.rounds)]
        ratios = sorted(b / a for a, b in pairs)
        least = [min(side) for side in zip(*pairs)]
        figure = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) times {names[0]}'s CPU time"
        print(f"{piece:>12}  {least[0]:8.3f}  {least[1]:8.3f}   {figure}", flush=True)
        lines.append((f"{piece}, {names[1]}", figure))
    if args.keep:
        keep("against", lines)
    return 0


def _version(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or str(checkout)


def _seconds(checkout: Path, piece: str) -> float:
    """CPU seconds of a piece by the code of a checkout."""
    path = os.pathsep.join([str(checkout), str(checkout / "integrations")])
    one = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    run = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", str(Path(__file__).resolve()), ".", "--piece", piece],
        env={**os.environ, **one, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if run.returncode:
        sys.exit(f"{piece} failed in {checkout}:\n{run.stderr.strip()[-2000:]}")
    return float(run.stdout.split()[-1])


def _timed(work: Callable[[int], Any], n: int) -> float:
    work(WARM_UP)
    start = time.process_time()
    work(n)
    return time.process_time() - start


def _aspirin() -> tuple[Any, Any]:
    from molflow_sim import Molecule, parametrize

    molecule = Molecule.from_smiles(ASPIRIN, n_conformers=1)
    return molecule, parametrize(molecule)


def _press() -> float:
    """300 random packings of aspirin."""
    from molflow_sim.packing import press, random_packings

    molecule, parameters = _aspirin()
    loose = random_packings(molecule, 300, seed=0)
    return _timed(lambda n: press(loose.select(slice(0, n)), parameters), 300)


def _relaxation() -> float:
    """48 pressed packings of aspirin, molecules flexible and cell free."""
    from molflow_sim import CrystalPotential
    from molflow_sim.packing import press, random_packings

    try:
        from molflow_sim.relax.flexible import relax_flexible
    except ImportError:
        from molflow_sim.relax import relax_flexible

    molecule, parameters = _aspirin()
    packings = press(random_packings(molecule, 150, seed=0), parameters)
    crystals = [packings.crystal(int(i)) for i in np.argsort(np.where(packings.ok, packings.energy, np.inf))[:48]]
    return _timed(lambda n: relax_flexible(crystals[:n], CrystalPotential([parameters])), 48)


def _flow() -> float:
    """100 packings of aspirin by the crystal flow, three drawn for each."""
    molecule, _ = _aspirin()
    try:
        from molflow_sim.generators.protocol import CrystalRequest, make_generator

        flow, request = make_generator("crystals", "flow"), CrystalRequest(molecule)
        return _timed(lambda n: flow.sample(request, n, seed=0), 100)
    except ImportError:
        from molflow_sim.crystal_flow import CrystalFlow

        old = CrystalFlow.from_pretrained()
        return _timed(lambda n: old.propose(molecule, n, seed=0), 100)


def _cg_step() -> float:
    """3,000 steps of 100 copies of capped alanine's force field."""
    import openmm
    from molflow_openmm import CGForceField

    from molflow_sim.cg import CGNet, CGNetSettings
    from molflow_sim.data import alanine_frames

    frames = alanine_frames()
    field = CGForceField(CGNet.from_data(frames.positions, frames.topology, frames.temperature, CGNetSettings()).fold())
    system = field.createSystem(field.createTopology(replicas=100))
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(np.tile(np.asarray(frames.positions[0]) / 10.0, (100, 1)))
    return _timed(integrator.step, 3000)


def _screening() -> float:
    """300 random candidates of urea, ranked by the force field."""
    from molflow_sim import Molecule, screen
    from molflow_sim.screening import ScreenSettings

    asked = {"generator": "random", "energy": "potential", "refine_top": 0, "free_top": 0, "relax_top": 40}
    asked = {k: v for k, v in asked.items() if k in ScreenSettings.__dataclass_fields__}
    if "refine_top" not in asked:
        asked["energy"] = None  # what the former version calls the force field
    molecule = Molecule.from_smiles("NC(N)=O")

    def work(n: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            settings = ScreenSettings(candidates=n, **asked)
            screen(molecule, settings=settings, output=folder, progress=False)

    return _timed(work, 300)


PIECES: dict[str, Callable[[], float]] = {
    "press": _press,
    "relaxation": _relaxation,
    "flow": _flow,
    "CG step": _cg_step,
    "screening": _screening,
}


if __name__ == "__main__":
    sys.exit(main())
