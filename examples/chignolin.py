"""How do I learn a coarse-grained force field of a protein that folds, and see it fold?

CLN025, a variant of chignolin (YYDPETGTWY), from its sequence: all-atom replica exchange in implicit solvent, one bead
per Cα, flow, force field, plain Langevin dynamics of it, and one HTML page with the free energy over the Cα RMSD to
the folded structure, the share of native frames and the number of folding and unfolding events.

    python chignolin.py -o chignolin/ --quick                    # minutes on one core: every stage, no statistics
    python chignolin.py -o chignolin/ --platform CUDA            # the full size: days of all-atom dynamics
    python chignolin.py -o chignolin/ --native 5awl.pdb          # with a folded structure of your own

Every stage carries on where it was stopped when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from make_chignolin_frames import Settings, ladder, run_md
from molflow_openmm import simulate_cg

from molflow_sim.cg import distill, fit, read_frames, report
from molflow_sim.cg.reports.reporting import Report


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes
    ----------
    md : Settings
        The all-atom run.
    md_ns : float
        Its length per replica, ns.
    teacher_steps, student_steps : int or None
        Training steps; None for the defaults.
    samples : int
        Configurations drawn from the flow.
    copies : int
        Coarse-grained molecules.
    ns : float
        Length of each of them.
    """

    md: Settings
    md_ns: float
    teacher_steps: int | None
    student_steps: int | None
    samples: int
    copies: int
    ns: float


FULL = Plan(Settings(temperatures=ladder(340.0, 550.0, 8)), 500.0, None, None, 200_000, 100, 20.0)
QUICK_MD = Settings(temperatures=ladder(340.0, 450.0, 3), interval_ps=0.2, equilibration_ps=5.0, solvent="obc")
QUICK = Plan(QUICK_MD, 0.1, 400, 1500, 20_000, 20, 0.1)


def run(folder: Path, plan: Plan, native: Path | None = None, platform: str | None = None, seed: int = 0) -> Report:
    """All stages.

    Parameters
    ----------
    folder : Path
        Of everything.
    plan : Plan
        `FULL`, `QUICK` or another.
    native : Path, optional
        File with the folded structure; by default it is taken from the all-atom run.
    platform : str, optional
        OpenMM's, for the all-atom run.
    seed : int
        Of trainings and coarse-grained dynamics; the all-atom run has its own.

    Returns
    -------
    Report
    """
    folder.mkdir(parents=True, exist_ok=True)
    trajectory, topology, found = run_md(folder / "md", plan.md_ns, plan.md, platform)
    kelvin = plan.md.temperatures[0]
    frames = read_frames(trajectory, topology, "calpha", kelvin)
    # Replicas swap places: the frames of one temperature are no time series.
    beads = replace(frames, lengths=()).save(folder / "frames.npz")
    structure = read_frames(native or found, None, "calpha", kelvin).save(folder / "native.npz")
    model = folder / "model"
    fit(beads, model, steps=plan.teacher_steps, seed=seed, progress=print)
    distill(model, samples=plan.samples, steps=plan.student_steps, seed=seed, progress=print)
    print(f"simulating {plan.copies} copies for {plan.ns:g} ns each, plain Langevin dynamics at {kelvin:g} K")
    done = simulate_cg(model, plan.copies, plan.ns, seed=seed)
    print(f"{done.summary['microseconds_per_step'] or float('nan'):.0f} µs per step of all copies")
    return report(model, beads, native=structure, discard_ps=100.0 * plan.ns)


def main() -> int:
    """Run all stages and print the verdict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("chignolin"), help="folder of everything")
    parser.add_argument("--quick", action="store_true", help="every stage in minutes, too short for statistics")
    parser.add_argument("--ns", type=float, help="length of each all-atom replica (default: 500; quick: 0.1)")
    parser.add_argument("--replicas", type=int, help="all-atom replicas (default: 8; quick: 3)")
    parser.add_argument("--temperature", type=float, default=340.0, help="of the frames and the model, K")
    parser.add_argument("--solvent", choices=("gbn2", "obc"), help="default: gbn2; quick: obc")
    parser.add_argument("--native", type=Path, help="folded structure (default: from the all-atom run)")
    parser.add_argument("--platform", help="OpenMM's for the all-atom run, such as CUDA; default: the fastest")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    highest, replicas = plan.md.temperatures[-1], options.replicas or len(plan.md.temperatures)
    temperatures = ladder(options.temperature, highest, replicas)
    md = replace(plan.md, temperatures=temperatures, solvent=options.solvent or plan.md.solvent)
    plan = replace(plan, md=md, md_ns=options.ns or plan.md_ns)
    outcome = run(options.output, plan, options.native, options.platform, options.seed)
    print(outcome.verdict)
    print(f"see {outcome.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
