"""`molflow train`: networks trained or fine-tuned on one's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from molflow_sim.errors import InputError, TrainingError

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Train networks, or fine-tune ours.")

EPILOG = """
[bold]Examples[/bold]

On a data set of molflow dataset crystals:

    molflow train crystal-flow packings/ -o flow/

Fine-tune the shipped flow on your own crystals, or on the landscape of one molecule:

    molflow train crystal-flow my_cifs/ -o tuned/ --from-pretrained

    molflow train crystal-flow aspirin/ -o tuned/ --from-pretrained --config short.yaml

Carry on after an interruption: give the same command again. Use the result with --generator flow --weights tuned/.
"""


@app.callback()
def _train() -> None:
    """Train networks, or fine-tune ours."""


@app.command("crystal-flow", epilog=EPILOG)
def crystal_flow(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="A data set (or several), a folder of CIFs, or the folder of a screening.",
            metavar="FOLDER...",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for weights, metrics and checkpoints.", show_default=False)
    ],
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings; what it leaves out keeps its default.")
    ] = None,
    from_pretrained: Annotated[
        bool, typer.Option("--from-pretrained", help="Start from the shipped weights (or --weights).")
    ] = False,
    weights: Annotated[
        Path | None, typer.Option(help="Folder of other weights to start from.", show_default=False)
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="'train' leaves one molecule in five out, 'all' does not. "
            "[dim]default: train, for a screening all[/dim]",
            show_default=False,
        ),
    ] = None,
    exclude: Annotated[
        Path | None,
        typer.Option(help="File of molecules whose CIFs are not trained on, in any tautomer.", show_default=False),
    ] = None,
    processes: Annotated[int, typer.Option(help="Processes that read CIFs.")] = 2,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
) -> None:
    """Train a crystal flow, or fine-tune one.

    CIFs that cannot be used (salts, metals, disorder ...) are left out; data/dropped.csv in the output says why.
    """
    from molflow_sim.dataset.sources import training_source

    library = _library()
    if config is not None and not config.is_file():
        raise InputError(f"there is no file {config}")
    settings = library.CrystalFlowConfig() if config is None else library.CrystalFlowConfig.from_yaml(config)
    initial = None
    if from_pretrained or weights is not None:
        flow = library.CrystalFlow
        initial = flow.from_pretrained() if weights is None else flow.from_pretrained(weights)
    source = training_source(
        data, output / "data", split=split, exclude=exclude, processes=processes, progress=not quiet
    )
    if not quiet:
        left_out = f"; {source.dropped} left out (see dropped.csv in {source.folder})" if source.dropped else ""
        _say(f"{len(source.dataset)} crystals of {len(source.dataset.keys)} molecules ({source.kind}){left_out}")
    library.train_crystal_flow(source.dataset, settings, output, initial=initial, progress=not quiet)
    if not quiet:
        _say(f"weights and curves in {output}; use them with --generator flow --weights {output}")


def _library() -> Any:
    try:
        import molflow_sim.models.crystal_flow as library

        _ = library.train_crystal_flow
    except (ImportError, AttributeError) as error:
        raise TrainingError(f"this installation cannot train a crystal flow ({error})") from error
    return library


def _say(text: str) -> None:
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
