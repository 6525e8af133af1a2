"""`molflow simulate`: NPT molecular dynamics of a crystal in OpenMM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from molflow_sim.cli import options as opt
from molflow_sim.cli.output import Bar
from molflow_sim.errors import InputError

EPILOG = """
[bold]Examples[/bold]

A short run of the best-ranked crystal:

    molflow simulate aspirin/structures/rank_001.cif --supercell 3,2,2 --ps 20

The smallest supercell that holds a 10 Å cutoff, 1 ns at 200 K and 1 kbar, 2 fs steps:

    molflow simulate form_I.cif --ps 1000 --report-every 1 -T 200 --pressure 1000 --constrain-hydrogens --timestep 2

Carry on after an interruption, or extend a finished run: give the same command again, with more --ps.
"""


def simulate(
    cif: Annotated[Path, typer.Argument(help="Crystal structure (CIF).", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the results. [dim]default: CIF's name + _npt[/dim]"),
    ] = None,
    supercell: Annotated[
        str | None, typer.Option(help="Repeats along a,b,c. [dim]default: the smallest that holds the cutoff[/dim]")
    ] = None,
    block: opt.Block = None,
    ps: Annotated[float, typer.Option(help="Length of the run in ps.")] = 20.0,
    temperature: opt.Temperature = 300.0,
    pressure: Annotated[float, typer.Option(help="Pressure in bar.")] = 1.0,
    nvt: Annotated[bool, typer.Option("--nvt", help="Keep the cell fixed.")] = False,
    timestep: opt.Timestep = 1.0,
    report_every: opt.ReportEvery = 0.1,
    cutoff: Annotated[
        float | None,
        typer.Option(help="Cutoff in Å. [dim]default: 10, or what the supercell holds if that is less[/dim]"),
    ] = None,
    dispersion_correction: Annotated[
        bool, typer.Option("--dispersion-correction/--no-dispersion-correction", help="Isotropic tail of the exp-6.")
    ] = True,
    charges: opt.Charges = "mmff94",
    constrain_hydrogens: Annotated[
        bool, typer.Option("--constrain-hydrogens", help="Fix bonds to hydrogen (allows --timestep 2).")
    ] = False,
    hydrogen_mass: Annotated[
        float | None, typer.Option(help="Hydrogen mass in amu, taken from the neighbours (e.g. 3).", show_default=False)
    ] = None,
    seed: opt.Seed = 0,
    platform: Annotated[
        str | None, typer.Option(help="OpenMM platform. [dim]default: the fastest there is[/dim]")
    ] = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Run NPT molecular dynamics of a crystal and say whether its packing stays.

    Writes trajectory.dcd, log.csv (StateDataReporter), state.xml (checkpoint), initial.pdb, system.xml, average.cif,
    final.cif, final.pdb and summary.json; prints the density drift and the RMSD15 against the start.
    """
    from molflow_openmm.crystal.settings import SimulationSettings
    from molflow_openmm.crystal.simulate import simulate as run

    from molflow_sim.systems.crystal import MolecularCrystal

    if not cif.is_file():
        raise InputError(f"{cif}: no such file")
    settings = SimulationSettings(
        supercell=parse_supercell(supercell) if supercell else None, picoseconds=ps, temperature=temperature,
        pressure=None if nvt else pressure, timestep=timestep, report_every=report_every, cutoff=cutoff,
        dispersion_correction=dispersion_correction, charges=charges, hydrogen_mass=hydrogen_mass,
        constrain_hydrogens=constrain_hydrogens, seed=seed, platform=platform,
    )  # fmt: skip
    console = Console()
    folder = output or Path(f"{cif.stem}_npt")
    with Bar(console, "step", "steps", heading=_heading(console)) as watch:
        crystal = MolecularCrystal.from_cif(cif, block=block)
        summary = run(crystal, folder, settings, overwrite=overwrite, progress=watch)
    print_summary(console, summary, folder)


def parse_supercell(text: str) -> tuple[int, int, int]:
    """``3,2,2`` or ``3x2x2`` as three ints.

    Raises
    ------
    InputError
        Anything else.
    """
    try:
        a, b, c = (int(part) for part in text.lower().replace("x", ",").split(","))
        return a, b, c
    except ValueError:
        raise InputError(f"--supercell must be three positive whole numbers such as 3,2,2; got {text!r}") from None


def _heading(console: Console) -> Callable[[dict[str, Any]], None]:
    """Says what is simulated, and what to beware of."""

    def show(event: dict[str, Any]) -> None:
        box = event["box"]
        console.print(
            f"{len(box.order)} molecules, {len(box.numbers)} atoms ({'×'.join(map(str, box.supercell))} cells), "
            f"cutoff {event['cutoff']:g} Å, platform {event['platform']}",
            highlight=False,
        )
        if event["warning"]:
            console.print(f"[yellow]warning:[/yellow] {escape(event['warning'])}", highlight=False)

    return show


def print_summary(console: Console, summary: dict[str, Any], folder: Path) -> None:
    """The run's result for people."""
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    speed = summary["speed_ns_per_day"]
    table.add_row("time", f"{summary['time_ps']:g} ps" + (f" at {speed:.3g} ns/day" if speed else ""))
    table.add_row("temperature", f"{summary['temperature_mean_K']:.0f} K")
    table.add_row(
        "density",
        f"{summary['density_start_g_cm3']:.3f} → {summary['density_mean_g_cm3']:.3f} ± "
        f"{summary['density_std_g_cm3']:.3f} g/cm³",
    )
    table.add_row("density drift", f"{summary['density_drift_percent']:+.1f} %")
    for label, kind in (("RMSD15 of the mean structure", "average"), ("RMSD15 of the last frame", "final")):
        matched = summary[f"rmsd15_{kind}_matched"]
        value = f"{summary[f'rmsd15_{kind}_A']:.2f} Å, " if matched else ""
        table.add_row(label, f"{value}{matched} of 15 molecules matched")
    kept = summary["packing_kept"]
    table.add_row("packing", "[green]stayed[/green]" if kept else "[red]changed[/red]")
    table.add_row("results", escape(str(folder)))
    console.print(table, highlight=False)
