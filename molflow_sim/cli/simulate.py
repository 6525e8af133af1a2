"""`molflow simulate`: molecular dynamics in OpenMM, of a crystal, or of a cluster (`molflow simulate cluster`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from molflow_sim.cli import options as opt
from molflow_sim.cli.output import Bar
from molflow_sim.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from molflow_sim.systems.cluster import MolecularCluster


class CrystalByDefault(TyperGroup):
    """A first word that is no verb is the structure of a crystal: ``molflow simulate FILE`` as ever."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb in."""
        if args and args[0] not in self.commands and not {"-h", "--help"} & set(args[:1]):
            args = ["crystal", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=CrystalByDefault, no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def _simulate() -> None:
    """Run molecular dynamics of a crystal, or of a cluster.

    `molflow simulate FILE` is `molflow simulate crystal FILE`; its options: molflow simulate crystal --help.
    """


EPILOG = """
[bold]Examples[/bold]

A short run of the best-ranked crystal:

    molflow simulate aspirin/structures/rank_001.cif --supercell 3,2,2 --ps 20

The smallest supercell that holds a 10 Å cutoff, 1 ns at 200 K and 1 kbar, 2 fs steps:

    molflow simulate form_I.cif --ps 1000 --report-every 1 -T 200 --pressure 1000 --constrain-hydrogens --timestep 2

Carry on after an interruption, or extend a finished run: give the same command again, with more --ps.
"""


@app.command("crystal", epilog=EPILOG)
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
    platform: opt.Platform = None,
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
    folder = output or Path(f"{cif.stem}_npt")
    with Bar("step", "steps", heading=_heading) as watch:
        crystal = MolecularCrystal.from_cif(cif, block=block)
        summary = run(crystal, folder, settings, overwrite=overwrite, progress=watch)
    print_summary(summary, folder)


CLUSTERS = """
[bold]Examples[/bold]

A droplet of generated molecules at 300 K, in open space:

    molflow generate clusters "c1ccccc1" --copies 17 -n 1 -o benzene.extxyz
    molflow simulate cluster benzene.extxyz --temperature 300 --ps 1000 -o droplet/

The same in a periodic box, pressed to the density of the liquid, then NPT at 1 bar:

    molflow simulate cluster benzene.extxyz --density 0.85 --ps 1000 -o liquid/

Carry on after an interruption, or extend a finished run: give the same command again, with more --ps.
"""


@app.command("cluster", epilog=CLUSTERS)
def cluster(
    file: Annotated[
        Path, typer.Argument(help="Cluster: extxyz, XYZ, PDB ... or COD-Cluster17's CSV.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the results. [dim]default: file's name + _md[/dim]"),
    ] = None,
    frame: Annotated[int, typer.Option(help="Which structure of the file, from 0.")] = 0,
    ps: Annotated[float, typer.Option(help="Length of the run in ps.")] = 100.0,
    temperature: opt.Temperature = 300.0,
    density: Annotated[
        float | None, typer.Option(help="g/cm³: a periodic box, pressed to this density first.", show_default=False)
    ] = None,
    pressure: Annotated[float, typer.Option(help="Pressure in bar, where there is a box.")] = 1.0,
    nvt: Annotated[bool, typer.Option("--nvt", help="Keep the box fixed.")] = False,
    timestep: opt.Timestep = 2.0,
    report_every: opt.ReportEvery = 1.0,
    cutoff: Annotated[float | None, typer.Option(help="Cutoff in a box, Å. [dim]default: 10[/dim]")] = None,
    charges: opt.Charges = "mmff94",
    constrain_hydrogens: Annotated[
        bool, typer.Option("--constrain-hydrogens/--free-hydrogens", help="Fix bonds to hydrogen (2 fs needs it).")
    ] = True,
    hydrogen_mass: Annotated[
        float | None,
        typer.Option(help="Hydrogen mass in amu, taken from the neighbours (3 allows 3 fs).", show_default=False),
    ] = None,
    friction: Annotated[float, typer.Option(help="Of the Langevin thermostat, 1/ps.")] = 1.0,
    seed: opt.Seed = 0,
    platform: opt.Platform = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Run a cluster: a droplet in open space, or a periodic box, NPT, pressed to a density.

    Writes trajectory.dcd, log.csv, state.xml (checkpoint), initial.pdb, system.xml, final.extxyz, final.pdb, run.svg
    (density and energy) and summary.json; says whether the density still drifts.
    """
    from molflow_openmm.cluster.settings import ClusterSettings
    from molflow_openmm.cluster.simulate import simulate_cluster

    settings = ClusterSettings(
        picoseconds=ps, temperature=temperature, density=density, pressure=None if nvt else pressure,
        timestep=timestep, report_every=report_every, cutoff=cutoff, charges=charges, hydrogen_mass=hydrogen_mass,
        constrain_hydrogens=constrain_hydrogens, friction=friction, seed=seed, platform=platform,
    )  # fmt: skip
    folder = output or Path(f"{file.stem}_md")
    with Bar("step", "steps", heading=_cluster_heading) as watch:
        summary = simulate_cluster(read_cluster(file, frame), folder, settings, overwrite=overwrite, progress=watch)
    print_cluster_summary(summary, folder)


def read_cluster(file: Path, frame: int = 0) -> MolecularCluster:
    """A structure of a file that ASE reads, or COD-Cluster17's CSV, as a cluster.

    Raises
    ------
    InputError
        There is no such file or frame, or ASE cannot read it.
    ClusterError, CrystalError
        Its atoms are no molecules.
    """
    import ase.io

    from molflow_sim.systems.cluster import MolecularCluster

    if not file.is_file():
        raise InputError(f"{file}: no such file")
    if file.suffix.lower() == ".csv":
        return MolecularCluster.from_csv(file)
    try:
        atoms = ase.io.read(file, index=frame)
    except Exception as error:  # ASE's readers raise whatever their format leads to
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file}: structure {frame} cannot be read ({why})") from error
    return MolecularCluster.from_atoms(atoms)  # type: ignore[arg-type]  # one frame, not a list of them


def _cluster_heading(event: dict[str, Any]) -> None:
    Console().print(f"{event['cluster']!r}, platform {event['platform']}", highlight=False, markup=False)


def print_cluster_summary(summary: dict[str, Any], folder: Path) -> None:
    """The run's result for people."""
    table = _table(summary)
    table.add_row("potential energy", f"{summary['energy_mean_kj_mol'] / summary['molecules']:.1f} kJ/mol a molecule")
    if summary["periodic"]:
        table.add_row("density", f"{summary['density_mean_g_cm3']:.3f} ± {summary['density_std_g_cm3']:.3f} g/cm³")
    change = f"{summary['drift_percent']:+.1f} ± {summary['drift_error_percent']:.1f} %"
    verdict = (
        "[red]still drifting: not in equilibrium, run longer[/red]" if summary["drifting"] else "[green]steady[/green]"
    )
    table.add_row(f"drift of the {summary['drift_of']}", f"{change} from half to half: {verdict}")
    table.add_row("results", escape(str(folder)))
    Console().print(table, highlight=False)


def _table(summary: dict[str, Any]) -> Table:
    """What every run's result begins with."""
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    speed = summary["speed_ns_per_day"]
    table.add_row("time", f"{summary['time_ps']:g} ps" + (f" at {speed:.3g} ns/day" if speed else ""))
    table.add_row("temperature", f"{summary['temperature_mean_K']:.0f} K")
    return table


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


def _heading(event: dict[str, Any]) -> None:
    """Says what is simulated, and what to beware of."""
    box = event["box"]
    Console().print(
        f"{len(box.order)} molecules, {len(box.numbers)} atoms ({'×'.join(map(str, box.supercell))} cells), "
        f"cutoff {event['cutoff']:g} Å, platform {event['platform']}",
        highlight=False,
    )
    if event["warning"]:
        Console().print(f"[yellow]warning:[/yellow] {escape(event['warning'])}", highlight=False)


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """The run's result for people."""
    table = _table(summary)
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
    Console().print(table, highlight=False)
