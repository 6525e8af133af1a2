"""Training of the crystal flow: flow matching on pairs of random and low-energy packings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from molflow_sim.errors import TrainingError
from molflow_sim.models.crystal_flow.config import CrystalFlowConfig
from molflow_sim.models.crystal_flow.grow import grown
from molflow_sim.models.crystal_flow.model import CrystalFlow
from molflow_sim.models.crystal_flow.network import ContactNetwork
from molflow_sim.models.crystal_flow.pairs import PairBatches, PairSet, make_pairs
from molflow_sim.runs.files import sha256
from molflow_sim.training.batches import data_identity, molecule_counts, validation_rows
from molflow_sim.training.fit import fit

if TYPE_CHECKING:
    from molflow_sim.dataset import CrystalDataset

PAIRS, VALIDATION_PAIRS = "pairs.npz", "pairs_validation.npz"
PAIRS_DEPEND_ON = (
    "starts", "seed", "energy_scale", "experimental_share", "packing_coefficient", "validation_share",
)  # fmt: skip
EXPERIMENTAL_STARTS = 4
"""Times as many starts for an experimental crystal: it is drawn more often than one of a molecule's many packings."""
VALIDATION_BATCHES = 12


def train_on_pairs(
    pairs: PairSet,
    config: CrystalFlowConfig,
    folder: str | Path,
    *,
    initial: CrystalFlow | None = None,
    validation: PairSet | None = None,
    card: dict[str, Any] | None = None,
    progress: bool = True,
) -> CrystalFlow:
    """Train on pairs alone: needs torch, Lightning, roma, NumPy, SciPy and safetensors, no chemistry library.

    Parameters
    ----------
    pairs : PairSet
    config : CrystalFlowConfig
    folder : path
        Gets weights, card, metrics and the checkpoint; a training found here goes on.
    initial : CrystalFlow, optional
        Start from these weights (fine-tuning). Their network's size is taken, and grown where `config` asks for more
        scalars or layers (`molflow_sim.models.crystal_flow.grow`).
    validation : PairSet, optional
        Looked at now and then.
    card : dict, optional
        What to say of the data in the model card.

    Raises
    ------
    StoreError
        If the folder holds another training.
    TrainingError
        If the loss is not finite.
    InputError
        If the initial weights' network cannot be grown to the width wanted.
    """
    torch.manual_seed(config.training.seed)
    if initial is None:
        network = ContactNetwork(config.network)
    else:
        network = grown(initial.network, config.network, config.training.seed)
    size, seed = config.training.batch_size, config.training.seed
    flow: CrystalFlow = fit(
        CrystalFlow(network),
        PairBatches(pairs, size, seed),
        config,
        folder,
        data={"pairs": len(pairs), "crystals": len(pairs.weight), "atoms": _range(pairs), **(card or {})},
        identity=sha256(pairs.end_cell.tobytes()),
        initial=initial,
        validation=None if validation is None else PairBatches(validation, size, seed + 1),
        validation_batches=VALIDATION_BATCHES,
        curves=False,
        progress=progress,
    )
    return flow


def train_crystal_flow(
    data: CrystalDataset,
    config: CrystalFlowConfig | None = None,
    folder: str | Path = "crystal_flow",
    *,
    initial: CrystalFlow | None = None,
    progress: bool = True,
) -> CrystalFlow:
    """Make pairs of a data set and train on them; both are kept in `folder`, and a killed run goes on.

    Parameters
    ----------
    data : CrystalDataset
        Choose its split="train" to leave the test side out.
    config, folder, initial
        As in `train_on_pairs`; the folder gets the curves as a picture, too.

    Raises
    ------
    TrainingError
        As `train_on_pairs`, or if the data holds no usable crystal, or has changed since the folder was begun.
    """
    from molflow_sim.training import plot_curves

    config = config or CrystalFlowConfig()
    identity = data_identity(data, *(getattr(config, name) for name in PAIRS_DEPEND_ON))
    aside = validation_rows(data, config.validation_share)
    pairs = _stored_pairs(Path(folder) / PAIRS, identity, data, config, ~aside, progress)
    validation = None
    if aside.any():
        validation = _stored_pairs(Path(folder) / VALIDATION_PAIRS, identity, data, config, aside, progress)
    card = {**molecule_counts(data, aside), "identity": identity}
    flow = train_on_pairs(pairs, config, folder, initial=initial, validation=validation, card=card, progress=progress)
    plot_curves(folder)
    return flow


def _stored_pairs(
    path: Path, identity: str, data: CrystalDataset, config: CrystalFlowConfig, rows: np.ndarray, progress: bool
) -> PairSet:
    from molflow_sim.runs.progress import Progress

    if not path.exists():
        with Progress(progress).stage(path.stem.replace("_", " of "), int(rows.sum())) as advance:
            pairs_of(data, config, rows, advance).save(path, {"identity": identity})
    pairs, card = PairSet.with_card(path)
    if card.get("identity") != identity:
        raise TrainingError(f"{path.parent} holds a training on other data or settings; choose another folder")
    return pairs


def pairs_of(
    data: CrystalDataset,
    config: CrystalFlowConfig,
    rows: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
) -> PairSet:
    """Pairs of a data set (or of chosen rows of it); experimental crystals get their share of the weight.

    Raises
    ------
    TrainingError
        No crystal of a share above 0 is usable.
    """
    chosen = np.ones(len(data), bool) if rows is None else rows
    parts, shares = [], []
    reason = "the crystals are all from experiment, which have a share of 0"
    for kind, share, more in (
        (~data.experimental, 1.0 - config.experimental_share, 1),
        (data.experimental, config.experimental_share, EXPERIMENTAL_STARTS),
    ):
        if (kind & chosen).any() and share > 0.0:
            try:
                made = make_pairs(
                    data, more * config.starts, seed=config.seed, scale=config.energy_scale, rows=kind & chosen,
                    packing_coefficient=config.packing_coefficient, progress=progress,
                )  # fmt: skip
            except TrainingError as error:  # the other kind may do
                reason = str(error)
                continue
            parts.append(made)
            shares.append(share)
    if not parts:
        raise TrainingError(f"no crystals to train on: {reason}")
    return PairSet.join(parts, shares) if len(parts) > 1 else parts[0]


def _range(pairs: PairSet) -> list[int]:
    sizes = (pairs.numbers > 0).sum(1)
    return [int(sizes.min()), int(sizes.max())]
