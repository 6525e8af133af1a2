"""`molflow generate conformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from molflow_sim.cli import options as opt
from molflow_sim.cli.lists import file_name, is_list, read_list
from molflow_sim.cli.output import say
from molflow_sim.errors import InputError, NoCandidatesError
from molflow_sim.generators.protocol import DEFAULT_METHOD

EPILOG = """
[bold]Examples[/bold]

molflow generate conformers "CC(=O)Oc1ccccc1C(=O)O" -n 50 -o aspirin.sdf

molflow generate conformers "CC(=O)Oc1ccccc1C(=O)O" -n 20 --energy best --window 25 -o aspirin.extxyz

molflow generate conformers ligands.smi -n 50 --method coarsenconf -o out/

By the suffix: .sdf, .extxyz, .db (an ASE database). A .smi list needs a folder, which gets an SDF for each molecule and
summary.csv, with the reason for each that fails; the same command again carries on where it was stopped.
"""
Inside = Annotated[
    str,
    typer.Option(
        "--energy",
        help="What relaxes and ranks: restrained (MMFF94, ε 4, some with their torsions held), mmff94:EPSILON "
        "(minima with this dielectric constant), mmff94 (in vacuum), none, so3lr, gfn2-xtb, aimnet2, best (the mean of "
        "so3lr and aimnet2; what is left of it, or mmff94, for atoms that they do not know).",
    ),
]


def conformers(
    molecule: opt.MoleculeOrList,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="File (.sdf, .extxyz, .db), or a folder for a list.", show_default=False),
    ],
    number: Annotated[int, typer.Option("--conformers", "--number", "-n", help="How many of each molecule.")] = 50,
    method: opt.ConformerMethod = DEFAULT_METHOD["conformers"],
    energy: Inside = "restrained",
    window: Annotated[
        float | None, typer.Option("--window", help="kJ/mol above the lowest; none higher.", show_default=False)
    ] = None,
    pool: Annotated[
        int | None, typer.Option("--pool", help="How many are drawn to choose from.", show_default=False)
    ] = None,
    focus: Annotated[
        float, typer.Option("--focus", help="kJ/mol; smaller: low energies before coverage, in choosing.")
    ] = 20.0,
    seed: opt.Seed = 0,
    weights: opt.Weights = None,
    option: opt.Options = None,
    name: opt.Name = "",
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Conformers of a molecule: drawn, relaxed, without duplicates, chosen to cover what there is, ranked.

    Each carries its energy above the lowest, its Boltzmann share at 298.15 K and where it comes from.
    """
    from molflow_sim.cli.screen import read_molecule
    from molflow_sim.generators.generate import checked, generate
    from molflow_sim.generators.writers import conformers_of, structure_writer

    given = {"window": window, "pool": pool}
    options: dict[str, Any] = {
        "method": method, "weights": weights, "seed": seed, "energy": energy, "focus": focus,
        **{key: value for key, value in given.items() if value is not None},
    }  # fmt: skip
    options |= opt.pairs(option, (*options, *given, "n", "press", "charges"))
    checked("conformers", number, press=False, charges="mmff94", **options)
    if not is_list(molecule):
        with structure_writer(output, kind="conformers", overwrite=overwrite) as writer:
            found = generate("conformers", read_molecule(molecule, name=name, search=False), number, **options)
            writer.write(conformers_of(found))
        if not quiet:
            tail = f"; {found.info['lost']} left out" if found.info["lost"] else ""
            say(f"{len(found.conformers)} conformers of {found.formula} in {output}{tail}")
        return
    from molflow_sim.generators.batches import conformers_of_list

    if output.suffix:
        raise InputError(f"a list of molecules is written to a folder, not to {output}")
    lines, taken = read_list(molecule, name=name), set[str]()
    items = [(place, smiles, label, file_name(label, place, taken)) for place, smiles, label in lines]
    rows = conformers_of_list(items, output, number, overwrite=overwrite, progress=not quiet, **options)
    failed = [row for row in rows if row["reason"]]
    if len(failed) == len(rows):
        raise NoCandidatesError(f"none of {len(rows)} molecules gave conformers; {output / 'summary.csv'} says why")
    if not quiet:
        total = sum(row["conformers"] or 0 for row in rows)
        tail = f"; {len(failed)} molecules failed, see {output / 'summary.csv'}" if failed else ""
        say(f"{total} conformers of {len(rows) - len(failed)} molecules in {output}{tail}")
