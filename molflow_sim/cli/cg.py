"""`molflow cg`: coarse-grained force fields from trajectories, and simulations with them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from molflow_sim.cli import options as opt
from molflow_sim.cli.output import Bar, say, show_report, spent

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Coarse-grained force fields from trajectories, without forces.",
    epilog="fit, distill, simulate and report, in this order, take a trajectory to a coarse-grained simulation and a "
    "verdict on it. Each carries on where it was stopped when the same command is given again.",
)

FIT_EPILOG = """
[bold]Examples[/bold]

molflow cg fit --trajectory md.xtc --topology md.pdb --beads "name CA" --temperature 300 -o model/

molflow cg fit --trajectory run1.dcd --trajectory run2.dcd --topology ala.pdb --beads backbone -T 300 -o ala/

--beads takes an MDTraj selection, atom indices counted from 0 (4,6,8,14), groups of them for centres of mass
(0,1,2; 3,4,5), backbone or calpha.
"""
DISTILL_EPILOG = """
[bold]Examples[/bold]

molflow cg distill model/

molflow cg distill model/ --samples 400000 --seed 1 --overwrite

molflow cg distill baseline/ --method density

molflow cg distill model/ --config small.yaml

small.yaml may hold {force_field: {width: 128, depth: 2}, sampling: {flatness: 10.0}, energy_weight: 0.5}.
"""
SIMULATE_EPILOG = """
[bold]Examples[/bold]

molflow cg simulate model/ --replicas 100 --ns 10

Replica exchange over four temperatures from 300 to 500 K:

molflow cg simulate model/ --replicas 25 --ns 10 --temperatures 300:500:4

Extend a finished run: the same command with more --ns.
"""
REPORT_EPILOG = """
[bold]Examples[/bold]

molflow cg report model/ --reference md.xtc

molflow cg report model/ --reference long.xtc --topology long.pdb --discard-ps 200 -o long.html

A molecule that folds:

molflow cg report model/ --reference md.xtc --native folded.pdb
"""
EXPORT_EPILOG = """
[bold]Examples[/bold]

molflow cg export model/ --torchscript model.pt

molflow cg export model/ --torchscript hundred.pt --replicas 100 --precision single
"""

Model = Annotated[Path, typer.Argument(help="Model folder, as fit makes it.", show_default=False)]


@app.command(epilog=FIT_EPILOG)
def fit(
    trajectory: Annotated[
        list[Path],
        typer.Option(help="All-atom trajectory, or frames saved as .npz; may be repeated.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model folder; made if absent.", show_default=False)],
    topology: Annotated[
        Path | None, typer.Option(help="File with the atoms (PDB, GRO, PSF, ...).", show_default=False)
    ] = None,
    beads: Annotated[
        str | None, typer.Option(help="Selection, indices, groups, backbone or calpha.", show_default=False)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", "-T", help="Of the trajectory, in K.", show_default=False)
    ] = None,
    stride: Annotated[int, typer.Option(help="Use every so many frames.")] = 1,
    steps: opt.Steps = None,
    config: opt.Config = None,
    seed: opt.Seed = 0,
    device: opt.Device = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Fit a normalizing flow (the teacher) to the mapped frames of a trajectory; no forces are needed.

    Writes frames.npz, teacher.safetensors and teacher.json into the model folder.
    """
    from molflow_sim.cg.pipeline import fit as run
    from molflow_sim.cg.teacher import TeacherSettings

    start = time.monotonic()
    flow = run(
        trajectory, output, topology=topology, beads=beads, temperature=temperature, stride=stride,
        settings=TeacherSettings.from_yaml(config) if config else None, steps=steps, seed=seed, device=device,
        overwrite=overwrite, progress=None if quiet else say,
    )  # fmt: skip
    if not quiet:
        n = sum(p.numel() for p in flow.parameters())
        say(f"flow of {n} parameters in {output} after {spent(start)}; next: molflow cg distill {output}")


@app.command(epilog=DISTILL_EPILOG)
def distill(
    model: Model,
    method: Annotated[
        Literal["flow-forces", "density", "force-matching"],
        typer.Option(help="What is learned from; density, force-matching (frames with forces): baselines."),
    ] = "flow-forces",
    samples: Annotated[int, typer.Option(help="Configurations drawn from the flow.")] = 200_000,
    steps: opt.Steps = None,
    config: opt.Config = None,
    seed: opt.Seed = 0,
    device: opt.Device = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Train the force field (the student) on configurations and forces drawn from the flow.

    Writes student.safetensors and student.json into the model folder.
    """
    from molflow_sim.cg.pipeline import distill as run
    from molflow_sim.cg.student.training import DistillSettings

    start = time.monotonic()
    run(
        model, method=method, samples=samples, settings=DistillSettings.from_yaml(config) if config else None,
        steps=steps, seed=seed, device=device, overwrite=overwrite, progress=None if quiet else say,
    )  # fmt: skip
    if not quiet:
        say(f"force field in {model} after {spent(start)}; next: molflow cg simulate {model}")


@app.command(epilog=SIMULATE_EPILOG)
def simulate(
    model: Model,
    replicas: Annotated[int, typer.Option(help="Independent copies at each temperature.")] = 100,
    ns: Annotated[float, typer.Option(help="Length of each copy, ns.")] = 1.0,
    temperatures: Annotated[
        str | None,
        typer.Option(
            help="K: one, several with commas, or LOWEST:HIGHEST:NUMBER for replica exchange. "
            "[dim]default: the model's[/dim]",
            show_default=False,
        ),
    ] = None,
    timestep: opt.Timestep = 2.0,
    friction: Annotated[float, typer.Option(help="Langevin friction, 1/ps.")] = 1.0,
    report_every: opt.ReportEvery = 1.0,
    exchange_every: Annotated[float, typer.Option(help="ps between attempts to exchange.")] = 1.0,
    backend: Annotated[Literal["python", "torchforce"], typer.Option(help="How OpenMM calls it.")] = "python",
    platform: Annotated[
        str, typer.Option(help="OpenMM platform; Reference is the fastest for few beads.")
    ] = "Reference",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run. [dim]default: MODEL/simulation[/dim]")
    ] = None,
    seed: opt.Seed = 0,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Simulate copies of the molecule in OpenMM: Langevin dynamics, or replica exchange over temperatures.

    Writes one DCD file per temperature, topology.pdb and summary.json.
    """
    from molflow_openmm import simulate_cg

    with Bar("report", "frames", quiet) as bar:
        done = simulate_cg(
            model, replicas=replicas, ns=ns, temperatures=temperatures, timestep_fs=timestep, friction_per_ps=friction,
            report_every_ps=report_every, exchange_every_ps=exchange_every, backend=backend, platform=platform,
            seed=seed, output=output, overwrite=overwrite, progress=bar,
        )  # fmt: skip
    if not quiet:
        cost = done.summary["microseconds_per_step"]
        kelvin = ", ".join(f"{t:.4g}" for t in done.temperatures)
        text = f"{done.replicas} copies × {done.summary['ns']:g} ns at {kelvin} K"
        text += f", {cost:.0f} µs per step of all copies" if cost else ""
        if done.acceptance:
            text += f"; exchanges accepted: {', '.join(f'{100 * a:.0f} %' for a in done.acceptance)}"
        say(f"{text}\n{output or model / 'simulation'}; next: molflow cg report {model} --reference TRAJECTORY")


@app.command(epilog=REPORT_EPILOG)
def report(
    model: Model,
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            help="All-atom trajectory to compare with; may be repeated. [dim]default: the frames of the fit[/dim]",
            show_default=False,
        ),
    ] = None,
    topology: Annotated[
        Path | None, typer.Option(help="The reference's atoms. [dim]default: those of the fit[/dim]")
    ] = None,
    beads: Annotated[str | None, typer.Option(help="As in fit. [dim]default: those of the fit[/dim]")] = None,
    native: Annotated[
        Path | None, typer.Option(help="Folded structure: adds RMSD to it and folding events.", show_default=False)
    ] = None,
    simulation: Annotated[
        Path | None, typer.Option(help="Folder of the run. [dim]default: MODEL/simulation[/dim]")
    ] = None,
    discard_ps: Annotated[float, typer.Option(help="ps left out at the start of each copy.")] = 0.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file. [dim]default: MODEL/report.html[/dim]")
    ] = None,
    quiet: opt.Quiet = False,
) -> None:
    """Compare simulation and flow with a reference: free-energy surfaces, KL divergence, coverage, bonds and angles.

    Writes one HTML file that needs no network.
    """
    from molflow_sim.cg.reports.comparison import report as run

    made = run(
        model, reference, topology=topology, beads=beads, native=native, simulation=simulation, discard_ps=discard_ps,
        output=output,
    )  # fmt: skip
    if not quiet:
        show_report(made)


@app.command(epilog=EXPORT_EPILOG)
def export(
    model: Model,
    torchscript: Annotated[Path, typer.Option(help="File to write (.pt).", show_default=False)],
    replicas: Annotated[int, typer.Option(help="Copies evaluated at once.")] = 1,
    precision: Annotated[Literal["double", "single"], typer.Option(help="Of the numbers.")] = "double",
    forces: Annotated[
        bool, typer.Option("--forces", help="Give forces (kJ/mol/nm) as well, for TorchForce.setOutputsForces(True).")
    ] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write the force field as TorchScript: positions (nm) to energy (kJ/mol), for openmmtorch and C++."""
    from molflow_openmm import export_torchscript

    path = export_torchscript(model, torchscript, replicas=replicas, precision=precision, forces=forces)
    if not quiet:
        more = ", forces in kJ/mol/nm" if forces else ""
        say(f"wrote {path}: positions ({replicas} × beads, 3) in nm to energy in kJ/mol{more}")
