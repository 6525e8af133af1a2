"""How do I turn an all-atom trajectory into a coarse-grained force field and know whether to believe it?

Capped alanine as five backbone beads, end to end: a normalizing flow is fitted to frames (no forces), a force field
is distilled from it, simulated in OpenMM, and compared with the frames in one HTML page. By default the frames that
ship with molflow-sim are used and everything is small; `--md` makes a trajectory of your own first, from nothing but
the molecule's SMILES.

    python alanine_dipeptide.py -o alanine/                             # some minutes on one core
    python alanine_dipeptide.py -o alanine/ --full                      # the default trainings, 100 copies × 2 ns
    python alanine_dipeptide.py -o alanine/ --md 20 --full              # 20 ns of all-atom dynamics first
    python alanine_dipeptide.py -o water/ --md 100 --water explicit --full

Every stage carries on where it was stopped when the same command is given again. The same on the command line:

    molflow cg fit --trajectory md.trr --topology md.pdb --beads backbone --temperature 300 -o model/
    molflow cg distill model/
    molflow cg simulate model/ --replicas 100 --ns 2
    molflow cg report model/ --reference md.trr
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from make_alanine_frames import run_md, settings_for
from molflow_openmm import simulate_cg

from molflow_sim.cg import distill, fit, report
from molflow_sim.data import alanine_card, alanine_frames


def main() -> int:
    """Run all stages and print the verdict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("alanine"), help="folder of everything")
    parser.add_argument("--md", type=float, metavar="NS", help="run all-atom dynamics of this length first")
    parser.add_argument("--water", choices=("implicit", "explicit"), default="implicit")
    parser.add_argument("--full", action="store_true", help="default trainings and a long simulation")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = options.output
    folder.mkdir(parents=True, exist_ok=True)

    if options.md:
        trajectory, topology = run_md(folder / "md", options.md, settings_for(options.water))
        source = {"topology": topology, "beads": "backbone", "temperature": 300.0}
    else:
        trajectory, source = folder / "frames.npz", {}
        alanine_frames().save(trajectory)
        card = alanine_card()
        print(f"{card['frames']} frames of {card['system']}; {card['solvent']}, {card['temperature_K']:g} K")

    # None stands for the default length of a training.
    teacher_steps, student_steps, samples = (None, None, 200_000) if options.full else (600, 3000, 40_000)
    replicas, ns = (100, 2.0) if options.full else (100, 0.1)
    model = folder / "model"
    fit(trajectory, model, **source, steps=teacher_steps, seed=options.seed, progress=print)
    distill(model, samples=samples, steps=student_steps, seed=options.seed, progress=print)
    print(f"simulating {replicas} copies for {ns:g} ns each")
    # A hastily trained network is rough: at 2 fs it would heat up.
    timestep = 2.0 if options.full else 1.0
    run = simulate_cg(model, replicas, ns, timestep_fs=timestep, seed=options.seed, progress=tell)
    outcome = report(model, trajectory, discard_ps=100.0 * ns)
    print(f"{run.summary['microseconds_per_step'] or float('nan'):.0f} µs per step of all copies")
    print(outcome.verdict)
    print(f"see {outcome.path}")
    return 0


def tell(event: dict[str, int]) -> None:
    """A line for every tenth of the simulation."""
    if event["report"] % max(1, event["total"] // 10) == 0:
        print(f"  {event['report']} of {event['total']} frames", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
