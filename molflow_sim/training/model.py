"""What every network with weights offers, and its files.

A folder of weights holds ``KIND.safetensors`` and ``KIND.json`` (the card), with "_" for the "-" of the kind.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from torch import Tensor, nn

from molflow_sim.errors import InputError, WeightsError
from molflow_sim.registry import MODELS
from molflow_sim.training.weights import load_into, load_weights, read_card, save_weights


class Stored(Protocol):
    """What is kept as tensors and a card, found again by its kind."""

    kind: str

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and a card that JSON can hold, with "kind" and all that `from_state` needs."""
        ...

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> Self:
        """Rebuild from what `state` gave.

        Raises
        ------
        WeightsError
            Tensors or a card of something else.
        """
        ...


@runtime_checkable
class Model(Stored, Protocol):
    """A network that is trained by a loss and kept as tensors and a card.

    A class that ``molflow train`` can train has two more attributes, each an object or "module:attribute":
    ``config``, a `YamlSettings` with a field ``training`` (`TrainSettings`), and ``trainer``, a function
    ``(data, config, folder, *, initial=None, progress=True)`` that gives the model and leaves its files in the folder.
    One that is not trained on crystals has a ``reader`` as well, a function that makes its data of paths.

    Attributes
    ----------
    kind : str
        Name in `MODELS`.
    card : dict
        What the weights are: data, seed, metrics; with the files' version and SHA-256 once they were written.
    """

    card: dict[str, Any]

    def loss(self, batch: Any) -> dict[str, Tensor]:
        """ "loss", the scalar to minimise, and whatever else is to be logged."""
        ...


class SettingsModel(nn.Module):
    """A `Model` that is made as ``cls(settings, card)`` and rebuilt from its settings and its tensors.

    Attributes
    ----------
    settings_type : type
        Of its settings, a `YamlSettings`.
    """

    kind: ClassVar[str]
    settings_type: ClassVar[Any]

    def __init__(self, settings: Any = None, card: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.settings = settings or self.settings_type()
        self.card: dict[str, Any] = dict(card or {})

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, and the card with the settings that `from_state` needs."""
        return self.state_dict(), {**self.card, "kind": self.kind, "settings": asdict(self.settings)}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> Self:
        """Rebuild from what `state` gave.

        Raises
        ------
        InputError, WeightsError
            Settings or tensors of something else.
        """
        model = cls(cls.settings_type.from_dict(cls._settings_of(card), "settings"), card)
        load_into(model, tensors, cls.kind)
        return model.eval()

    @classmethod
    def _settings_of(cls, card: Mapping[str, Any]) -> Any:
        """What the card says of the settings; a class with older cards puts them right here."""
        return card.get("settings")

    def warn_beyond_range(self, **found: tuple[int, str]) -> None:
        """Warn of numbers (and what they count) above those of the training, by their names in the card's range."""
        known = self.card.get("range", {})
        for name, (value, what) in found.items():
            if value > (most := known.get(name, value)):
                warnings.warn(
                    f"{value} {what} are beyond the trained range (at most {most}); expect poor samples", stacklevel=4
                )


_FORMER = {"crystal flow, contact network": "crystal-flow"}
"""Kinds in the cards of older versions."""


def model_class(kind: str) -> Any:
    """The class of a kind.

    Raises
    ------
    WeightsError
        An unknown kind, or one of a package that cannot be used.
    """
    try:
        return MODELS.get(kind)
    except InputError as error:
        raise WeightsError(str(error)) from None


def save_model(folder: str | Path, model: Model) -> None:
    """Write a model's weights and card; its `card` then has their SHA-256."""
    tensors, card = model.state()
    save_weights(folder, _stem(model.kind), tensors, card)
    model.card = read_card(folder, _stem(model.kind))


def load_model(folder: str | Path | Traversable, kind: str | None = None) -> Any:
    """The model in a folder, of the class that its card names.

    Parameters
    ----------
    folder : path
    kind : str, optional
        The kind wanted; whatever is there if not given.

    Raises
    ------
    WeightsError
        Weights that are missing, damaged, changed, or of another kind; or several, and no kind given.
    """
    root = Path(folder) if isinstance(folder, str) else folder
    stem = _found(root, kind)
    tensors, card = load_weights(root, stem)
    try:
        return model_class(_kind(card)).from_state(tensors, card)
    except InputError as error:
        raise WeightsError(f"the weights {root / stem} do not fit their card: {error}") from None


def shared_model(kind: str, folder: str | None = None) -> Any:
    """As `load_model`, from the package's own weights if no folder, or the name of some of them, is given; read once.

    Raises
    ------
    WeightsError
        As `load_model`.
    """
    root = _root(kind, folder)
    return _loaded(kind, folder, read_card(root, _found(root, kind))["sha256"])


def packaged(kind: str) -> Traversable:
    """Folder of the weights of a kind that come with the package."""
    return files("molflow_sim") / "pretrained" / kind


@lru_cache(maxsize=4)
def _loaded(kind: str, folder: str | None, sha256: str) -> Any:
    return load_model(_root(kind, folder), kind)


def _root(kind: str, folder: str | None) -> Path | Traversable:
    """What is named: a folder, or the NAME of weights of the package in pretrained/KIND-NAME."""
    if folder is None:
        return packaged(kind)
    named = packaged(f"{kind}-{folder}")
    return named if not Path(folder).exists() and named.is_dir() else Path(folder)


def _found(root: Path | Traversable, kind: str | None) -> str:
    """Stem of the files of a kind, or of the only ones that there are."""
    there: dict[str | None, str]
    if kind is not None and (root / f"{_stem(kind)}.json").is_file():
        there = {_kind(read_card(root, _stem(kind))): _stem(kind)}  # a damaged card is named as such
    else:
        names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
        there = {k: n.removesuffix(".json") for n in names if n.endswith(".json") for k in _kinds(root, n)}
    if kind in there:
        return there[kind]
    if kind is not None or not there:
        what = f"holds weights of {', '.join(map(str, there))}, not" if there else "holds no weights"
        raise WeightsError(f"{root} {what} of {kind}" if kind else f"{root} {what}")
    if len(there) > 1:
        raise WeightsError(f"{root} holds weights of several kinds ({', '.join(map(str, there))}); name one")
    return next(iter(there.values()))


def _kinds(root: Path | Traversable, name: str) -> list[str]:
    """The kind in a file, if it is the card of a model."""
    try:
        kind = _kind(read_card(root, name.removesuffix(".json")))
    except WeightsError:
        return []
    return [kind] if kind in MODELS.names() else []


def _kind(card: Mapping[str, Any]) -> str:
    kind = str(card.get("kind", ""))
    return _FORMER.get(kind, kind)


def _stem(kind: str) -> str:
    return kind.replace("-", "_")
