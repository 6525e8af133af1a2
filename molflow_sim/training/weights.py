"""Trained weights on disk: safetensors for the numbers, JSON for what they are; never a pickle.

``NAME.safetensors`` holds the tensors, ``NAME.json`` the card: what was trained, on what, with which seed and version,
and the SHA-256 of the tensors' file. Replacing a pair may be cut off anywhere (a checkpoint is, if its run is killed):
new tensors go to ``NAME.next.safetensors``, then the card that names them is replaced, then they take their own name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from molflow_sim import __version__
from molflow_sim.errors import WeightsError
from molflow_sim.runs.files import sha256, write_bytes_atomically

FORMAT = "molflow-sim weights 1"


def files_of(name: str) -> tuple[str, str, str]:
    """Names of all files that weights of a name are kept in."""
    return f"{name}.json", f"{name}.safetensors", f"{name}.next.safetensors"


def save_weights(folder: str | Path, name: str, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write tensors and their card into a folder (created if absent).

    Parameters
    ----------
    folder : path
    name : str
        File stem of both files.
    tensors : mapping of str to Tensor
        Any device; they are stored as they are (dtype and shape), from the CPU.
    card : mapping
        Anything JSON can hold.

    Raises
    ------
    WeightsError
        If a tensor is not finite.
    """
    folder = Path(folder)
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise WeightsError(f"tensor {key!r} of {name} holds values that are not finite; nothing was written")
    data = _packed(tensors)
    head = {"format": FORMAT, "version": __version__, "sha256": sha256(data)}
    text = json.dumps({**card, **head}, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes_atomically(folder / f"{name}.next.safetensors", data)
    write_bytes_atomically(folder / f"{name}.json", text.encode() + b"\n")
    (folder / f"{name}.next.safetensors").replace(folder / f"{name}.safetensors")


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 that the card of these tensors has once they are written."""
    return sha256(_packed(tensors))


def _packed(tensors: Mapping[str, Tensor]) -> bytes:
    return save({key: value.detach().to("cpu").contiguous().clone() for key, value in tensors.items()})


def load_weights(folder: str | Path | Traversable, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read back what `save_weights` wrote: tensors on the CPU, and the card.

    Parameters
    ----------
    folder : path or Traversable
        A folder, or packaged data (``importlib.resources.files``).
    name : str

    Raises
    ------
    WeightsError
        If a file is missing, truncated, of another kind, or not the one its card was written for.
    """
    root = Path(folder) if isinstance(folder, str) else folder
    card = read_card(root, name)
    data = _tensors_of(root, name, card["sha256"])
    try:
        return load(data), card
    except SafetensorError as error:
        raise WeightsError(f"{root / name}.safetensors cannot be read: {error}") from None


def _tensors_of(root: Path | Traversable, name: str, digest: str) -> bytes:
    """The file that a card describes, under its own name or, after a kill, still under the next one's."""
    unread = []
    for path in (root / f"{name}.safetensors", root / f"{name}.next.safetensors"):
        try:
            data = path.read_bytes()
        except OSError as error:
            unread.append(error.strerror)
            continue
        if sha256(data) == digest:
            return data
    if len(unread) == 2:
        raise WeightsError(f"no weights {name}.safetensors in {root}: {unread[0]}")
    raise WeightsError(
        f"{root / name}.safetensors is not the file its card describes (SHA-256 differs): "
        "it was changed or cut off; copy or train it again"
    )


def read_card(folder: str | Path | Traversable, name: str) -> dict[str, Any]:
    """The card of some weights, without reading the weights.

    Raises
    ------
    WeightsError
        If it is missing, or not such a card.
    """
    root = Path(folder) if isinstance(folder, str) else folder
    try:
        card = json.loads((root / f"{name}.json").read_bytes())
    except OSError as error:
        raise WeightsError(f"no weights here: {root / name}.json cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise WeightsError(f"{root / name}.json is not a weights card: {error}") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT or not isinstance(card.get("sha256"), str):
        raise WeightsError(f"{root / name}.json is not a card of the kind {FORMAT!r}")
    return card


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Give a module its tensors, all of them and no others.

    Parameters
    ----------
    module : nn.Module
    tensors : mapping of str to Tensor
    what : str
        Name of the model in the error.

    Raises
    ------
    WeightsError
        Tensors missing, unknown or of another shape than the module's; one line that names the first of each.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in tensors]
    unknown = [name for name in tensors if name not in own]
    other = [
        f"{name} ({tuple(tensors[name].shape)}, not {tuple(value.shape)})"
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    found = (("missing", missing), ("unknown", unknown), ("of another shape", other))
    wrong = [
        f"{kind}: {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for kind, names in found
        if names
    ]
    if wrong:
        raise WeightsError(
            f"the tensors do not fit the {what} that their card describes ({'; '.join(wrong)}): "
            "the model is of another version or was put together from two; train it again"
        )
    module.load_state_dict(dict(tensors))
