"""``molflow rank``: the command line of `molflow_sim.rank`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from molflow_sim.cli import options as opt
from molflow_sim.screening.settings import DEFAULT_ENERGY

EPILOG = """
[bold]Examples[/bold]

molflow rank genarris/*.cif -o ranked/ --relax

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
    """Rank crystal structures of any origin: read, evaluate or relax, merge duplicates, report."""
    from molflow_sim.cli.screen import summary
    from molflow_sim.screening import rank as run_ranking

    ranking = run_ranking(
        files,
        energy,
        relax,
        charges=charges,
        temperature=temperature,
        output=output,
        pxrd=pxrd,
        wavelength=wavelength,
        top=top,
        scheduler=scheduler,
        overwrite=overwrite,
        progress=not quiet,
    )
    if quiet:
        return
    for landscape in ranking:
        summary(landscape, landscape.folder or output)
    if ranking.dropped:
        typer.echo(f"{len(ranking.dropped)} structures are not ranked or merged: see {output / 'dropped.csv'}")
