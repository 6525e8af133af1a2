"""Options that several verbs share: one name, one meaning, one help text each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from molflow_sim.errors import InputError
from molflow_sim.registry import GENERATORS

Molecule = Annotated[
    str, typer.Argument(help="SMILES, or a MOL, SDF or XYZ file.", metavar="SMILES|FILE", show_default=False)
]
MoleculeOrList = Annotated[
    str,
    typer.Argument(help="SMILES, a MOL, SDF or XYZ file, or a .smi list.", metavar="SMILES|FILE", show_default=False),
]
SmilesFile = Annotated[
    Path | None, typer.Argument(help="File with one molecule a line: SMILES [name].", show_default=False)
]
Platform = Annotated[
    str | None, typer.Option("--platform", help="OpenMM platform. [dim]default: the fastest there is[/dim]")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for the results; made if absent.", show_default=False)
]
Candidates = Annotated[
    int | None, typer.Option("--candidates", "--number", "-n", help="How many to generate.", show_default=False)
]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, settings and version: same result.")]
Steps = Annotated[
    int | None, typer.Option("--steps", help="Training steps, instead of those of the settings.", show_default=False)
]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file of settings; what it leaves out keeps its default.", show_default=False),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="auto, cpu or cuda. [dim]default: what suits the network[/dim]", show_default=False),
]
SpaceGroups = Annotated[
    str, typer.Option("--space-groups", "-g", help="'common' (weighted by frequency), or symbols: P21/c,P-1,P212121.")
]
ZPrime = Annotated[int, typer.Option("--z-prime", help="Molecules in the asymmetric unit (Z′).")]
Charges = Annotated[
    Literal["mmff94", "hf-esp", "gfn2", "gfn2-esp"], typer.Option("--charges", help="Charge model of the potential.")
]
Potential = Annotated[
    Literal["fit", "bespoke"],
    typer.Option("--potential", help="FIT, or the molecule's own, fitted to SO3LR first (a minute)."),
]
Name = Annotated[str, typer.Option("--name", help="Name of the molecule.", show_default=False)]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="Folder of weights, instead of those of the package.", show_default=False),
]
Block = Annotated[
    str | None, typer.Option("--block", help="Data block of the CIF, where it has several.", show_default=False)
]
Generator = Annotated[
    str, typer.Option("--generator", help=f"Where crystals come from: {', '.join(GENERATORS.names('crystals'))}.")
]
Method = Annotated[str, typer.Option("--method", help=f"One of {', '.join(GENERATORS.names('crystals'))}.")]
ClusterMethod = Annotated[str, typer.Option("--method", help=f"One of {', '.join(GENERATORS.names('clusters'))}.")]
ConformerMethod = Annotated[str, typer.Option("--method", help=f"One of {', '.join(GENERATORS.names('conformers'))}.")]
Conformers = Annotated[
    str,
    typer.Option(
        "--conformers",
        help=f"Where conformers come from: rdkit, {', '.join(GENERATORS.names('conformers'))}, or an .sdf file.",
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="Another option of the generator.", show_default=False),
]
Exclude = Annotated[
    Path | None, typer.Option("--exclude", help="File of molecules to keep out, in any tautomer.", show_default=False)
]
Processes = Annotated[int, typer.Option("--processes", help="Processes of one thread each.")]
Temperature = Annotated[float, typer.Option("--temperature", "-T", help="Temperature in K.")]
FreeEnergy = Annotated[
    float | None,
    typer.Option(
        "--temperature", "-T", help="K; rank the first ten by free energy, lattice vibrations included.",
        show_default=False,
    ),
]  # fmt: skip
Timestep = Annotated[float, typer.Option("--timestep", help="Time step in fs.")]
ReportEvery = Annotated[float, typer.Option("--report-every", help="ps between frames, log rows and checkpoints.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what another run left there; without it a run is carried on.")
]
Top = Annotated[int, typer.Option("--top", help="CIF files written.")]
Energy = Annotated[
    str,
    typer.Option(
        "--energy",
        help="What ranks: best (a mean of fit-hf, so3lr and aimnet2), potential (the force field), so3lr, fit, "
        "gfn2-xtb, gfn1-xtb, mace:FILE, ase:module:factory, torchsim:module:factory, or mean(a,b).",
    ),
]
Pxrd = Annotated[
    Path | None,
    typer.Option(
        "--pxrd", help="Measured powder pattern (two columns) to compare structures with.", show_default=False
    ),
]
Wavelength = Annotated[
    float | None,
    typer.Option("--wavelength", help="Å, of powder patterns. [dim]default: Cu Kα, 1.5418[/dim]", show_default=False),
]
Scheduler = Annotated[
    str | None,
    typer.Option("--scheduler", help="Dask scheduler (tcp://host:8786) that runs the batches.", show_default=False),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")]


def pairs(options: list[str] | None, given: Iterable[str] = ()) -> dict[str, Any]:
    """NAME=VALUE as names and values, read as in YAML; `given` are names that the verb has options of its own for.

    Raises
    ------
    InputError
        Something else, or one of those names.
    """
    import yaml

    found = {}
    for text in options or ():
        name, equals, value = (part.strip() for part in text.partition("="))
        if not name or not equals:
            raise InputError(f"--option takes NAME=VALUE, not {text!r}")
        if name in given:
            raise InputError(f"--option {name}: this verb has an option of its own for it, see --help")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"--option {name}: {value!r} cannot be read as a value") from None
    return found
