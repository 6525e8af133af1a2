"""One door to the training of every network that has a trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molflow_sim.dataset.reader import CrystalDataset
from molflow_sim.dataset.sources import TrainingSource, training_source
from molflow_sim.errors import InputError
from molflow_sim.generators.protocol import whole_number
from molflow_sim.registry import MODELS, resolve
from molflow_sim.training.model import load_model, packaged

if TYPE_CHECKING:
    from molflow_sim.training.model import Model
    from molflow_sim.training.settings import YamlSettings

PRETRAINED = "pretrained"


def train(
    kind: str,
    data: CrystalDataset | str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    config: YamlSettings | Mapping[str, Any] | str | Path | None = None,
    seed: int | None = None,
    steps: int | None = None,
    device: str | None = None,
    initial: Model | str | Path | None = None,
    split: str | None = None,
    exclude: str | Path | None = None,
    processes: int = 1,
    overwrite: bool = False,
    progress: bool = True,
    found: Callable[[TrainingSource], None] | None = None,
) -> Any:
    """Train a network, or fine-tune one; the same call again goes on where a former one was stopped.

    Parameters
    ----------
    kind : str
        ``crystal-flow``, or another of `molflow_sim.registry.MODELS` that has a trainer.
    data : CrystalDataset, path, or what the kind is trained on
        A data set (or several), a folder of CIFs, or the folder of a screening; for kinds with a ``reader``, such as
        ``dual-scale``, paths that it reads.
    output : path
        Gets weights, card, metrics and checkpoints.
    config : settings, mapping or path of a YAML file, optional
        What it leaves out keeps its default.
    seed, steps, device : optional
        Instead of those of `config`.
    initial : model or path, optional
        Weights to start from; ``"pretrained"`` for those that come with the package.
    split, exclude, processes
        How folders are read, see `training_source`.
    overwrite : bool
        Train anew where the folder holds a training; without it the same one goes on and another is refused.
    progress : bool
    found : callable, optional
        Called with what was found in the folders.

    Returns
    -------
    Model

    Raises
    ------
    InputError
        An unknown kind, settings or data that cannot be used.
    TrainingError
        Too little data, or a loss that is not finite.
    StoreError
        The folder holds another training.
    WeightsError
        Weights to start from that are missing, damaged or of another kind.
    """
    settings = training_settings(kind, config, seed=seed, steps=steps, device=device)
    start: Any = initial
    if isinstance(initial, (str, Path)):
        start = load_model(packaged(kind) if initial == PRETRAINED else Path(initial), kind)
    model = MODELS.get(kind)
    fixed = hasattr(model, "reader") or isinstance(data, CrystalDataset)
    if fixed and (split is not None or exclude is not None):
        raise InputError("this data has its sides from where it was made: give it without split and exclude")
    given = isinstance(data, (str, Path)) or (isinstance(data, Sequence) and isinstance(data[0], (str, Path)))
    if reader := getattr(model, "reader", None):
        data = resolve(reader)(data) if given else data
    elif not isinstance(data, CrystalDataset):
        source = training_source(
            data, Path(output) / "data", split=split, exclude=exclude, processes=processes, overwrite=overwrite,
            progress=progress,
        )  # fmt: skip
        if found is not None:
            found(source)
        data = source.dataset
    if overwrite:
        from molflow_sim.training.loop import discard

        discard(output)
    return resolve(model.trainer)(data, settings, Path(output), initial=start, progress=progress)


def training_settings(
    kind: str,
    config: YamlSettings | Mapping[str, Any] | str | Path | None = None,
    *,
    seed: int | None = None,
    steps: int | None = None,
    device: str | None = None,
) -> Any:
    """The settings with which `train` trains a kind.

    Raises
    ------
    InputError
        A kind that is unknown or cannot be trained, or settings that cannot be used.
    """
    model = MODELS.get(kind)
    if not hasattr(model, "trainer"):
        raise InputError(f"models of the kind {kind} are not trained on crystals or frames of clusters")
    cls = resolve(model.config)
    settings = config
    if isinstance(config, (str, Path)):
        settings = cls.from_yaml(config)
    elif config is None or isinstance(config, Mapping):
        settings = cls.from_dict(config or {})
    given = {"seed": seed, "max_steps": steps, "device": device}
    if seed is not None:
        whole_number("seed", seed, 0)
        if hasattr(settings, "seed"):
            settings = replace(settings, seed=seed)  # type: ignore[type-var]
    training = replace(settings.training, **{k: v for k, v in given.items() if v is not None})  # type: ignore[union-attr]
    return replace(settings, training=training)  # type: ignore[type-var]
