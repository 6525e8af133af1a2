"""``molflow rank``: the command line of `molflow_sim.rank`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from molflow_sim.cli import options as opt
from molflow_sim.errors import InputError
from molflow_sim.screening.settings import DEFAULT_ENERGY

EPILOG = """
[bold]Examples[/bold]

molflow rank genarris/*.cif -o ranked/ --relax

molflow rank clusters.db -o ranked/ --relax                     [dim]atoms without periodicity are clusters[/dim]

molflow rank known.cif pool.extxyz run.db POSCAR_1 -o ranked/ --energy gfn2-xtb

Several molecules get a folder each; what is left out is in dropped.csv with the reason.

The same command again carries on where it was stopped; more files may be added.
"""


def rank(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="CIF (all blocks), extxyz (all frames), ASE .db, POSCAR, JSON of pymatgen, or what else ASE reads.",
            show_default=False,
        ),
    ],
    output: opt.Output,
    energy: opt.Energy = DEFAULT_ENERGY,
    relax: Annotated[
        bool, typer.Option("--relax", help="Relax cell and molecules on the potential first, space group kept.")
    ] = False,
    charges: opt.Charges = "mmff94",
    temperature: opt.FreeEnergy = None,
    pxrd: opt.Pxrd = None,
    wavelength: opt.Wavelength = None,
    top: opt.Top = 100,
    scheduler: opt.Scheduler = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Rank crystal structures, or clusters, of any origin: read, evaluate or relax, merge duplicates, report."""
    from molflow_sim.cli.screen import summary
    from molflow_sim.screening import rank as run_ranking
    from molflow_sim.systems.collect import holds_clusters

    options: dict[str, Any] = {
        "charges": charges,
        "output": output,
        "top": top,
        "overwrite": overwrite,
        "progress": not quiet,
    }
    if holds_clusters(files):
        if any(given is not None for given in (temperature, pxrd, wavelength, scheduler)):
            raise InputError(
                "clusters have no lattice vibrations, powder patterns or scheduler; leave these options out"
            )
        _clusters(files, energy, relax, options, quiet)
        return

    ranking = run_ranking(
        files, energy, relax, temperature=temperature, pxrd=pxrd, wavelength=wavelength, scheduler=scheduler, **options
    )
    if quiet:
        return
    for landscape in ranking:
        summary(landscape, landscape.folder or output)
    if ranking.dropped:
        typer.echo(f"{len(ranking.dropped)} structures are not ranked or merged: see {output / 'dropped.csv'}")


def _clusters(files: list[Path], energy: str, relax: bool, options: dict[str, Any], quiet: bool) -> None:
    """Rank clusters and print the first ten."""
    from molflow_sim.screening import rank_clusters
    from molflow_sim.systems.collect import find_crystals

    ranking = rank_clusters(list(find_crystals(files)), energy, relax, **options)
    if quiet:
        return
    for entry in ranking.entries[:10]:
        told = f"{entry.rank:4d}  {entry.relative_energy:8.2f} kJ/mol  found {entry.copies}  {Path(entry.source).name}"
        typer.echo(told + (f"  {entry.speared} speared rings" if entry.speared else ""))
    left = f"; {len(ranking.dropped)} merged or left out (dropped.csv)" if ranking.dropped else ""
    typer.echo(f"{len(ranking.entries)} clusters ranked in {ranking.folder}{left}")
