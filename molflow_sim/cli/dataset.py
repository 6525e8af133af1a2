"""`molflow dataset`: data sets to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from molflow_sim.cli import options as opt
from molflow_sim.cli.output import say
from molflow_sim.cli.screen import read_molecule
from molflow_sim.errors import InputError

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Make data sets to train on.")

EPILOG = """
[bold]Examples[/bold]

Low-energy packings of every molecule of a list, those of another list kept out:

    molflow dataset crystals molecules.smi -o packings/ --exclude holdout.smi

Experimental crystals as well:

    molflow dataset crystals molecules.smi -o packings/ --cifs cifs/

Another round with a trained flow, in a folder of its own, to train on both:

    molflow dataset crystals molecules.smi -o round1/ --exclude holdout.smi --generator flow --weights flow0/
    molflow train crystal-flow packings/ round1/ -o flow1/

Carry on after an interruption: give the same command again.
"""


@app.command(epilog=EPILOG)
def crystals(
    molecules: opt.SmilesFile = None,
    output: opt.Output = Path("dataset"),
    candidates: opt.Candidates = 400,
    window: Annotated[float, typer.Option(help="kJ/mol above the molecule's lowest packing that are kept.")] = 15.0,
    keep: Annotated[int, typer.Option(help="Packings kept at most for each molecule.")] = 60,
    max_atoms: Annotated[int, typer.Option(help="Larger molecules are dropped.")] = 40,
    seed: opt.Seed = 0,
    space_groups: opt.SpaceGroups = "common",
    charges: opt.Charges = "mmff94",
    generator: opt.Generator = "random",
    weights: opt.Weights = None,
    option: opt.Options = None,
    processes: opt.Processes = 2,
    exclude: opt.Exclude = None,
    cifs: Annotated[
        Path | None, typer.Option(help="Folder of experimental crystals (CIF) to add.", show_default=False)
    ] = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Search the low-energy packings of many molecules and keep them with their energies.

    Writes store/molecules and store/crystals (one shard for each molecule and CIF), store/manifest.jsonl,
    dropped.csv (what was left out and why) and run.json.
    """
    from molflow_sim.dataset import DatasetSettings, build_crystal_dataset

    settings = DatasetSettings(
        candidates=candidates, window=window, keep=keep, max_atoms=max_atoms, seed=seed, space_groups=space_groups,
        charges=charges, generator=generator, weights=None if weights is None else str(weights),
        generator_options=opt.pairs(option),
    )  # fmt: skip
    summary = build_crystal_dataset(
        molecules, output, cifs=cifs, exclude=exclude, settings=settings, processes=processes, overwrite=overwrite,
        progress=not quiet,
    )  # fmt: skip
    if not quiet:
        say(
            f"{summary.packings} packings of {summary.molecules} molecules and {summary.experimental} experimental "
            f"crystals in {summary.folder}; {summary.dropped} left out (dropped.csv)"
        )


CLUSTERS = """
[bold]Examples[/bold]

Every crystal's molecule and its 16 nearest, with loose starts, also as the files of COD-Cluster17:

    molflow dataset clusters --from-cif cifs/ --size 17 -o clusters/ --csv

Of packings of molflow dataset crystals, the molecules of a list kept for the test:

    molflow dataset clusters --from-packings packings/ --exclude holdout.smi -o clusters/

Then: molflow train cluster-flow clusters/ -o mine/

Frames of amorphous boxes from dynamics (PACKMOL, molten, cooled, sampled), for the dual-scale flow:

    molflow dataset clusters --md "c1ccccc1" --copies 17 --start-density 0.5 --hot-temperature 350 -o benzene17/

Then: molflow train dual-scale benzene17/ -o mine/
"""


@app.command(epilog=CLUSTERS)
def clusters(
    output: opt.Output,
    from_cif: Annotated[
        Path | None, typer.Option("--from-cif", help="Folder of CIFs, with its subfolders.", show_default=False)
    ] = None,
    from_packings: Annotated[
        Path | None, typer.Option("--from-packings", help="Data set of molflow dataset crystals.", show_default=False)
    ] = None,
    size: Annotated[int, typer.Option("--size", help="Molecules of a cluster: one and its nearest.")] = 17,
    translation: Annotated[float, typer.Option(help="Å, spread of a centre's coordinates in the starts.")] = 3.0,
    rotation: Annotated[float, typer.Option(help="Degrees that molecules of the starts are turned at most.")] = 180.0,
    inversion: Annotated[float, typer.Option(help="Share of the starts' molecules that are inverted.")] = 0.0,
    seed: opt.Seed = 0,
    exclude: opt.Exclude = None,
    csv: Annotated[bool, typer.Option("--csv", help="Write the files of COD-Cluster17, too.")] = False,
    md: Annotated[
        str | None,
        typer.Option(
            "--md", help="Dynamics of this molecule instead of crystals.", metavar="SMILES|FILE", show_default=False
        ),
    ] = None,
    copies: Annotated[int, typer.Option(help="Dynamics: molecules in a box.")] = 17,
    boxes: Annotated[int, typer.Option(help="Dynamics: independent boxes.")] = 3,
    frames: Annotated[int, typer.Option(help="Dynamics: frames of all boxes together.")] = 301,
    start_density: Annotated[float, typer.Option(help="Dynamics: g/cm³ that boxes are packed at.")] = 0.1,
    hot_temperature: Annotated[float, typer.Option(help="Dynamics: K; below the boiling point.")] = 650.0,
    temperature: Annotated[float, typer.Option(help="Dynamics: K, of the frames.")] = 300.0,
    hot_ps: Annotated[float, typer.Option(help="Dynamics: ps at the hot temperature, pressed at 1 kbar.")] = 400.0,
    cooling_rate: Annotated[float, typer.Option(help="Dynamics: K/ns.")] = 500.0,
    settle_ps: Annotated[float, typer.Option(help="Dynamics: ps between cooling and the first frame.")] = 50.0,
    production_ps: Annotated[float, typer.Option(help="Dynamics: ps of each box that frames are taken from.")] = 1000.0,
    timestep: Annotated[float, typer.Option(help="Dynamics: fs, with heavy hydrogens.")] = 3.0,
    packing: Annotated[str, typer.Option(help="Dynamics: packmol or random.")] = "packmol",
    platform: Annotated[str | None, typer.Option(help="Dynamics: OpenMM platform.", show_default=False)] = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Cut a cluster out of every crystal, with a loose start of the same molecules; or, with --md, record dynamics.

    Of crystals: writes clusters.npz, dropped.csv (disorder, polymers, several independent molecules ... with the
    reasons) and run.json. Sides to train on, to validate and to test by are fixed by the molecule, once and for all.

    Of dynamics: writes box_NNN.npz (frames of whole molecules with hydrogens, split 80:10:10), recipe.json and
    run.json; says which boxes are not in equilibrium. Killed, the same command carries on from the last 2 ps.
    """
    if md is not None:
        if from_cif is not None or from_packings is not None or exclude is not None or csv:
            raise InputError("--md makes its own data: give no --from-cif, --from-packings, --exclude or --csv with it")
        recipe = {
            "copies": copies, "boxes": boxes, "frames": frames, "start_density": start_density,
            "hot_temperature": hot_temperature, "temperature": temperature, "hot_ps": hot_ps,
            "cooling_rate": cooling_rate, "settle_ps": settle_ps, "production_ps": production_ps,
            "timestep": timestep, "packing": packing, "seed": seed,
        }  # fmt: skip
        _record(md, output, recipe, platform, overwrite, quiet)
        return
    from molflow_sim.dataset.clusters import ClusterSettings, build_cluster_dataset

    settings = ClusterSettings(size, translation, rotation, inversion, seed)
    summary = build_cluster_dataset(
        output, cifs=from_cif, packings=from_packings, exclude=exclude, settings=settings, csv=csv, overwrite=overwrite,
        progress=not quiet,
    )  # fmt: skip
    if not quiet:
        say(
            f"{summary.clusters} clusters of {summary.molecules} molecules in {summary.folder}; {summary.dropped} left "
            "out (dropped.csv)"
        )


def _record(
    molecule: str, output: Path, recipe: dict[str, Any], platform: str | None, overwrite: bool, quiet: bool
) -> None:
    """Frames from dynamics, and what is to be told of them."""
    from molflow_openmm.cluster.recipe import Recipe
    from molflow_openmm.cluster.record import record_clusters

    from molflow_sim.cli.output import Bar

    asked = Recipe(**recipe)
    with Bar("step", "segments", quiet=quiet) as watch:
        summary = record_clusters(
            read_molecule(molecule), output, asked, platform=platform, overwrite=overwrite, progress=watch
        )
    if quiet:
        return
    for box in summary["boxes"]:
        state = "[yellow]still drifting: not in equilibrium[/yellow]" if box["drifting"] else "steady"
        Console().print(
            f"box {box['box']}: {box['frames']} frames, {box['density']:.3f} g/cm³, {100 * box['change']:+.1f} ± "
            f"{100 * box['error']:.1f} % from half to half: {state}",
            highlight=False,
        )
    say(f"{summary['frames']} frames of {summary['formula']} × {asked.copies} in {output}")


CONFORMERS = """
[bold]Examples[/bold]

Conformers of every molecule of a list by GFN2-xTB (needs the extra xtb), molecules of two other files kept out:

    molflow dataset conformers molecules.smi -o conformers/ --exclude holdout.smi --exclude ligands.sdf.gz

Those of a file, with energies in kcal/mol under a property of its records:

    molflow dataset conformers --from-sdf dft.sdf.gz --energy-property dlpno_ccsdt_kcal --exclude holdout.smi -o dft/

As measured in crystals:

    molflow dataset conformers --from-cif cifs/ --exclude holdout.smi -o measured/

Few files to pass on, instead of one for each molecule:

    molflow dataset conformers --pack conformers/ --pack dft/ -o packed/

Carry on after an interruption: give the same command again. Then: molflow train coarsenconf conformers/ dft/ -o mine/
"""


@app.command(epilog=CONFORMERS)
def conformers(
    molecules: opt.SmilesFile = None,
    output: opt.Output = Path("conformers"),
    from_sdf: Annotated[
        Path | None, typer.Option("--from-sdf", help="SDF or SDF.GZ of conformers to take.", show_default=False)
    ] = None,
    energy_property: Annotated[
        str | None,
        typer.Option("--energy-property", help="Of the SDF's records: energies in kcal/mol.", show_default=False),
    ] = None,
    source: Annotated[str, typer.Option("--source", help="Of the SDF's conformers: dft, gfn2 or measured.")] = "dft",
    from_cif: Annotated[
        Path | None,
        typer.Option("--from-cif", help="Folder of crystals whose molecules to take as measured.", show_default=False),
    ] = None,
    pack: Annotated[
        list[Path] | None,
        typer.Option(
            "--pack", help="Data set to put into few files; of several, the first counts.", show_default=False
        ),
    ] = None,
    window: Annotated[float, typer.Option(help="kJ/mol above the lowest conformer that are kept.")] = 25.0,
    keep: Annotated[int, typer.Option(help="Conformers kept at most for each molecule.")] = 30,
    evaluations: Annotated[
        int, typer.Option(help="GFN2-xTB gradients for a molecule of up to 24 atoms; larger ones get fewer.")
    ] = 400,
    embeddings: Annotated[int, typer.Option(help="Embeddings at most; rigid molecules get fewer.")] = 100,
    kicks: Annotated[int, typer.Option(help="Conformers with one bond turned at most.")] = 60,
    max_atoms: Annotated[int, typer.Option(help="Larger molecules are dropped.")] = 60,
    seconds: Annotated[float, typer.Option(help="A molecule that takes longer is dropped.")] = 600.0,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            "--exclude", help=".smi or .sdf(.gz) of molecules never to train on; may be repeated.", show_default=False
        ),
    ] = None,
    seed: opt.Seed = 0,
    processes: opt.Processes = 1,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Search the conformers of many molecules at the level of GEOM, or take those of an SDF or of crystals.

    Writes store/molecules (one block for each molecule), dropped.csv (molecules and conformers that were left out and
    why) and run.json. molflow_sim.dataset.read_ensembles reads them, also while they are made.
    """
    if pack:
        if any(given is not None for given in (molecules, from_sdf, from_cif, exclude)):
            raise InputError(
                "--pack takes data sets that are there, with their sides: give it without molecules, --from-sdf, "
                "--from-cif and --exclude"
            )
        from molflow_sim.io.ensembles import write_packed

        files = write_packed(pack, output)
        if not quiet:
            say(f"{', '.join(p.name for p in files)} and contents.json in {output}")
        return
    from molflow_sim.dataset.conformer_build import build_conformer_dataset
    from molflow_sim.dataset.conformer_settings import ConformerSettings

    settings = ConformerSettings(
        window=window, keep=keep, evaluations=evaluations, embeddings=embeddings, kicks=kicks, max_atoms=max_atoms,
        seconds=seconds, seed=seed,
    )  # fmt: skip
    summary = build_conformer_dataset(
        molecules, output, sdf=from_sdf, cifs=from_cif, energy_property=energy_property, source=source,
        exclude=exclude, settings=settings, processes=processes, overwrite=overwrite, progress=not quiet,
    )  # fmt: skip
    if not quiet:
        say(
            f"{summary.conformers} conformers of {summary.molecules} molecules in {summary.folder}; {summary.dropped} "
            "rows of what was left out (dropped.csv)"
        )
