"""`molflow train`: networks trained or fine-tuned on one's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from molflow_sim.cli import options as opt
from molflow_sim.cli.output import say
from molflow_sim.registry import MODELS

EPILOG = """
[bold]Examples[/bold]

On a data set of molflow dataset crystals:

    molflow train crystal-flow packings/ -o flow/

Fine-tune the shipped flow on your own crystals, or on the landscape of one molecule:

    molflow train crystal-flow my_cifs/ -o tuned/ --from-pretrained

    molflow train crystal-flow aspirin/ -o tuned/ --from-pretrained --steps 2000

On frames of a simulation of a cluster:

    molflow train dual-scale frames.npz -o mine/

On clusters of molflow dataset clusters:

    molflow train cluster-flow clusters/ -o mine/

On ensembles of molflow dataset conformers:

    molflow train coarsenconf conformers/ -o mine/

Carry on after an interruption: give the same command again. Use the result with --weights tuned/.
"""


def train(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(MODELS.names())}.", show_default=False)],
    data: Annotated[
        list[Path],
        typer.Argument(
            help="A data set (or several), a folder of CIFs, or the folder of a screening; for dual-scale frames of "
            "clusters (.npz, or a folder of them), for cluster-flow folders of molflow dataset clusters, for "
            "coarsenconf of molflow dataset conformers.",
            metavar="FOLDER...",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for weights, metrics and checkpoints.", show_default=False)
    ],
    config: opt.Config = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the settings' seed.", show_default=False)] = None,
    steps: opt.Steps = None,
    device: opt.Device = None,
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
    exclude: opt.Exclude = None,
    processes: opt.Processes = 2,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Train a network, or fine-tune one.

    CIFs that cannot be used (salts, metals, disorder ...) are left out; data/dropped.csv in the output says why.
    """
    from molflow_sim.dataset.sources import TrainingSource
    from molflow_sim.dataset.train import PRETRAINED
    from molflow_sim.dataset.train import train as run

    def tell(source: TrainingSource) -> None:
        left_out = f"; {source.dropped} left out (see dropped.csv in {source.folder})" if source.dropped else ""
        found = f"{len(source.dataset)} crystals of {len(source.dataset.keys)} molecules ({source.kind})"
        say(found + left_out)

    run(
        kind, data, output, config=config, seed=seed, steps=steps, device=device, split=split, exclude=exclude,
        initial=weights or (PRETRAINED if from_pretrained else None), processes=processes, overwrite=overwrite,
        progress=not quiet, found=None if quiet else tell,
    )  # fmt: skip
    if not quiet:
        say(f"weights and curves in {output}; use them with --weights {output}")
