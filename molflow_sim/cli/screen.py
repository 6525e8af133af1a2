"""``molflow screen``: the command line of `molflow_sim.screen`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from molflow_sim.cli import options as opt
from molflow_sim.errors import InputError, MoleculeError
from molflow_sim.screening.settings import DEFAULT_ENERGY, DEFAULT_GENERATOR

if TYPE_CHECKING:
    from molflow_sim.screening.landscape import Landscape
    from molflow_sim.systems.molecule import Molecule

FILE_SUFFIXES = (".mol", ".sdf", ".xyz")
EPILOG = """
[bold]Examples[/bold]

molflow screen "CC(=O)Oc1ccccc1C(=O)O" -o aspirin/

molflow screen urea.sdf -o urea/ --candidates 4000 --space-groups "P-42_1m,P2_12_12_1"

molflow screen "c1ccccc1" -o benzene/ --reference benzene.cif --energy gfn2-xtb

molflow screen "NC(N)=O" -o urea/ --pxrd measured.xy

The same command again carries on where it was stopped; a larger --candidates or --relax-top adds to what is there.
"""


def screen(
    molecule: opt.Molecule,
    output: opt.Output,
    candidates: opt.Candidates = None,
    seed: opt.Seed = 0,
    space_groups: opt.SpaceGroups = "common",
    z_prime: opt.ZPrime = 1,
    charges: opt.Charges = "mmff94",
    potential: opt.Potential = "fit",
    relax_top: Annotated[
        int | None, typer.Option(help="Packings relaxed with flexible molecules.", show_default=False)
    ] = None,
    energy: opt.Energy = DEFAULT_ENERGY,
    energy_top: Annotated[int | None, typer.Option(help="Structures ranked by --energy.", show_default=False)] = None,
    refine_top: Annotated[
        int | None, typer.Option(help="Structures relaxed on --energy best at the end.", show_default=False)
    ] = None,
    temperature: opt.FreeEnergy = None,
    reference: Annotated[
        Path | None, typer.Option(help="CIF of the experimental form: says where it came.", show_default=False)
    ] = None,
    block: opt.Block = None,
    generator: opt.Generator = DEFAULT_GENERATOR,
    weights: opt.Weights = None,
    option: opt.Options = None,
    conformers: opt.Conformers = "rdkit",
    pxrd: opt.Pxrd = None,
    wavelength: opt.Wavelength = None,
    top: opt.Top = 100,
    name: opt.Name = "",
    scheduler: opt.Scheduler = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Predict crystal structures of a molecule: pack, press, relax, rank, report."""
    from molflow_sim.screening import ScreenSettings
    from molflow_sim.screening import screen as run_screening

    start = read_molecule(molecule, name=name)
    if conformers != "rdkit":
        from molflow_sim.generators.crystal_conformers import with_conformers_of

        start = with_conformers_of(start, conformers, seed=seed)
    landscape = run_screening(
        start, candidates, seed=seed, output=output,
        space_groups=space_groups, z_prime=z_prime, charges=charges, potential=potential, relax_top=relax_top,
        reference=reference, reference_block=block, energy=energy, energy_top=energy_top, refine_top=refine_top,
        temperature=temperature, weights=weights, scheduler=scheduler, overwrite=overwrite, progress=not quiet,
        pxrd=pxrd, wavelength=wavelength,
        settings=ScreenSettings(top=top, generator=generator, generator_options=opt.pairs(option)),
    )  # fmt: skip
    if not quiet:
        summary(landscape, output)


def read_molecule(text: str, *, name: str = "", search: bool = True) -> Molecule:
    """The molecule of a SMILES or of a file; without `search`, conformers of a SMILES are not looked for.

    Raises
    ------
    MoleculeError
        If it is neither, or the molecule is refused.
    InputError
        A crystal.
    """
    from dataclasses import replace

    from molflow_sim.systems.molecule import Molecule

    path = Path(text)
    if path.suffix.lower() == ".cif":
        raise InputError(f"{text} is a crystal; give the molecule (SMILES, MOL, SDF, XYZ), and the CIF as --reference")
    if path.suffix.lower() in FILE_SUFFIXES:
        if not path.is_file():
            raise MoleculeError(f"there is no file {text}")
        molecule = Molecule.from_file(path)
        return replace(molecule, name=name or molecule.name or path.stem)
    if text and os.path.exists(path):  # unlike Path.exists, False for a SMILES longer than a file's name may be
        raise MoleculeError(f"{text} is no molecule file; molecules are read from {', '.join(FILE_SUFFIXES)} files")
    return Molecule.from_smiles(text, name=name, search=search)


def summary(landscape: Landscape, output: Path) -> None:
    """Print the first ten of a landscape."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{landscape.molecule.name or landscape.molecule.formula}: {len(landscape)} structures")
    given = any(entry.source for entry in landscape)
    warm = any(entry.static_rank for entry in landscape)
    titles = ("rank", *["ΔF kJ/mol"] * warm, "ΔE kJ/mol", "±", "g/cm³", "space group", "Z", "Z′", "converged", "found")
    for title in (*titles, *["source"] * given):
        left = title in ("space group", "source")
        table.add_column(title, justify="left" if left else "right", overflow="fold" if left else "ellipsis")
    for entry in landscape.entries[:10]:
        free, delta = (f"{x:.2f}" if x == x else "–" for x in (entry.free_energy_relative, entry.relative_energy))
        table.add_row(
            str(entry.rank),
            *[free] * warm,
            delta,
            f"{entry.uncertainty:.1f}" if entry.uncertainty == entry.uncertainty else "–",
            f"{entry.density:.3f}",
            entry.space_group,
            str(entry.z),
            f"{entry.z_prime:g}",
            "yes" if entry.converged else "no",
            str(entry.copies),
            *[escape(Path(entry.source).name)] * given,
        )
    console = Console()
    console.print(table)
    match = landscape.reference
    if match is not None:
        near = "as relaxed" if match.rmsd15 is None else f"RMSD15 {match.rmsd15:.2f} Å"
        place = f"rank {match.rank}, {near}" if match.rank else "not found"
        own = match.relaxed_relative_energy
        told = (place, "" if own is None else f"relaxed by itself {own:+.2f} kJ/mol against rank 1", match.note)
        console.print(f"reference {match.name}: {'; '.join(x for x in told if x)}", markup=False, highlight=False)
    best = landscape.best_match
    if best is not None and landscape.measured is not None:
        console.print(
            f"{landscape.measured.name}: most alike is rank {best.rank}, similarity {best.pxrd_similarity:.2f}",
            markup=False,
            highlight=False,
        )
    console.print(f"results in {output}{'' if str(output).endswith('/') else '/'} (open report.html)", markup=False)
