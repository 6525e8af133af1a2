"""`molflow generate`: structures straight from a generator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from molflow_sim.cli import conformers as conformer_verb
from molflow_sim.cli import options as opt
from molflow_sim.cli.lists import file_name, is_list, read_list
from molflow_sim.cli.output import say
from molflow_sim.errors import InputError, MolflowError, NoCandidatesError
from molflow_sim.generators.protocol import DEFAULT_METHOD

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Structures straight from a generator.")

EPILOG = """
[bold]Examples[/bold]

molflow generate crystals "CC(=O)Oc1ccccc1C(=O)O" -n 100 -o aspirin.extxyz

molflow generate crystals urea.sdf -n 20 -o urea/ --space-groups "P-42_1m,P2_12_12_1" --press

molflow generate crystals molecules.smi -n 50 -o crystals.db --method mixed --option share=0.3

By the suffix: .extxyz, .db (an ASE database), .cif, or a folder with a CIF for each crystal. Molecules of a list that
cannot be used are named with the reason in NAME.failed.csv beside it (failed.csv in a folder).
"""


@app.command(epilog=EPILOG)
def crystals(
    molecule: opt.MoleculeOrList,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File (.extxyz, .db, .cif) or folder for CIFs.", show_default=False)
    ],
    number: Annotated[int, typer.Option("--candidates", "--number", "-n", help="How many for each molecule.")] = 100,
    method: opt.Method = "flow",
    seed: opt.Seed = 0,
    space_groups: opt.SpaceGroups = "common",
    z_prime: opt.ZPrime = 1,
    weights: opt.Weights = None,
    option: opt.Options = None,
    press: Annotated[
        bool, typer.Option("--press/--no-press", help="Press each to a rigid minimum of the potential.")
    ] = False,
    charges: opt.Charges = "mmff94",
    name: opt.Name = "",
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Propose crystals of a molecule, without relaxing or ranking them.

    Each carries its provenance: candidate number, seed, generator, SHA-256 of the weights, version and space group.
    """
    from molflow_sim.cli.screen import read_molecule
    from molflow_sim.generators.generate import checked, generate, searches_conformers
    from molflow_sim.generators.writers import structure_writer
    from molflow_sim.systems.molecule import Molecule

    options: dict[str, Any] = {
        "method": method, "weights": weights, "space_groups": space_groups, "z_prime": z_prime, "seed": seed,
        "press": press, "charges": charges,
    }  # fmt: skip
    options |= opt.pairs(option, (*options, "n"))
    # Settings that no molecule could be used with are an error of the call, not of each line.
    search = searches_conformers("crystals", checked("crystals", number, **options)[0])
    if not is_list(molecule):
        start = read_molecule(molecule, name=name, search=search)
        found = generate("crystals", start, number, **options)
        with structure_writer(output, overwrite=overwrite) as writer:
            writer.write(found)
        if not quiet:
            say(f"{len(found)} crystals of {found[0].molecules[0].formula} in {output}")
        return
    written = molecules = 0
    failed: list[dict[str, str]] = []
    taken: set[str] = set()
    lines = read_list(molecule, name=name)
    with structure_writer(output, overwrite=overwrite) as writer:
        for place, smiles, label in lines:
            try:
                start = Molecule.from_smiles(smiles, name=label, search=search)
                found = generate("crystals", start, number, **options)
            except MolflowError as error:
                failed.append({"source": place, "name": label, "smiles": smiles, "reason": error.reason})
                continue
            writer.write(found, file_name(label, place, taken))
            written, molecules = written + len(found), molecules + 1
            if not quiet and not sys.stderr.isatty():
                print(f"{place}: {len(found)} crystals of {smiles}", file=sys.stderr)
        table = _failed_table(output)
        if failed:
            from molflow_sim.dataset.items import reasons_table
            from molflow_sim.runs.files import write_bytes_atomically

            write_bytes_atomically(table, reasons_table(failed))
        else:
            table.unlink(missing_ok=True)
        if not molecules:
            raise NoCandidatesError(f"none of {len(lines)} molecules gave crystals; {table} says why")
    tail = f"; {len(failed)} molecules failed, see {table}" if failed else ""
    if not quiet:
        say(f"{written} crystals of {molecules} molecules in {output}{tail}")


CLUSTERS = """
[bold]Examples[/bold]

molflow generate clusters "CC(N)=O" --copies 17 -n 20 -o acetamide.extxyz

molflow generate clusters a.smi b.smi --copies 10,5 --method packmol --density 0.8 --periodic -o mixture.db

By the suffix: .extxyz, .db (an ASE database), or a folder with an extxyz for each cluster.
"""


@app.command(epilog=CLUSTERS)
def clusters(
    molecules: Annotated[
        list[str],
        typer.Argument(
            help="SMILES, or MOL, SDF, XYZ or .smi files, one molecule each.",
            metavar="SMILES|FILE...",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File (.extxyz, .db) or folder.", show_default=False)],
    copies: Annotated[str, typer.Option("--copies", help="Of each molecule: 17, or 10,5 for two.")] = "17",
    number: Annotated[int, typer.Option("--candidates", "--number", "-n", help="How many clusters.")] = 20,
    method: opt.ClusterMethod = DEFAULT_METHOD["clusters"],
    density: Annotated[float, typer.Option("--density", help="g/cm³ of the sphere or box at the start.")] = 0.5,
    periodic: Annotated[
        bool, typer.Option("--periodic/--open", help="A periodic cubic box, or a sphere in open space.")
    ] = False,
    seed: opt.Seed = 0,
    weights: opt.Weights = None,
    option: opt.Options = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Propose clusters of molecules, without relaxing or ranking them.

    Each carries its provenance: candidate number, seed, generator, SHA-256 of the weights and version.
    """  # fmt: skip
    from molflow_sim.cli.screen import read_molecule
    from molflow_sim.generators.generate import checked, generate, searches_conformers
    from molflow_sim.generators.protocol import ClusterRequest
    from molflow_sim.generators.writers import structure_writer
    from molflow_sim.systems.molecule import Molecule

    asked: dict[str, Any] = {"copies": copies, "density": density, "periodic": periodic}
    options: dict[str, Any] = {"method": method, "weights": weights, "seed": seed, **asked}
    options |= opt.pairs(option, (*options, "n", "press", "charges"))
    generator = checked("clusters", number, press=False, charges="mmff94", **options)[0]
    search = searches_conformers("clusters", generator)
    given = []
    for text in molecules:
        if is_list(text):
            lines = read_list(text)
            if len(lines) > 1:
                raise InputError(
                    f"{text} holds {len(lines)} molecules; give one file for each, as --copies counts them"
                )
            given.append(Molecule.from_smiles(lines[0][1], name=lines[0][2], search=search))
        else:
            given.append(read_molecule(text, search=search))
    ClusterRequest(tuple(given), **asked)
    with structure_writer(output, kind="clusters", overwrite=overwrite) as writer:
        found = generate("clusters", given, number, **options)
        writer.write(found)
    if not quiet:
        say(f"{len(found)} clusters {found[0].formula} in {output}")


app.command(epilog=conformer_verb.EPILOG)(conformer_verb.conformers)


def _failed_table(output: Path) -> Path:
    return output.with_name(f"{output.stem}.failed.csv") if output.suffix else output / "failed.csv"
