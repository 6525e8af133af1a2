"""Training of the P 1 flow: batches of crystals on their paths, and the way from a data set to weights."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from molflow_sim.errors import InputError, TrainingError
from molflow_sim.models.mol_crystal_flow.data import P1Data
from molflow_sim.models.mol_crystal_flow.interpolants import FlowPath, make_path
from molflow_sim.models.mol_crystal_flow.model import MolCrystalFlow
from molflow_sim.models.mol_crystal_flow.settings import P1Settings
from molflow_sim.training.batches import data_identity, molecule_counts, validation_rows, with_measured_share
from molflow_sim.training.fit import FitConfig, begun, fit
from molflow_sim.training.settings import TrainSettings

if TYPE_CHECKING:
    from molflow_sim.dataset import CrystalDataset

CRYSTALS, VALIDATION = "crystals.npz", "crystals_validation.npz"
VALIDATION_BATCHES = 16


@dataclass(frozen=True)
class MolCrystalFlowConfig(FitConfig):
    """Everything that decides the weights of a `MolCrystalFlow` besides the data; see `FitConfig` too.

    Attributes
    ----------
    flow : P1Settings
        The mean and spread of the prior's cell lengths are replaced by the data's.
    draws : int
        Priors and times drawn for each crystal of a batch: the molecules are embedded once for all of them.
    max_z, max_atoms : int
        Crystals with more molecules in the primitive cell, or larger ones, are left out.
    """

    flow: P1Settings = field(default_factory=P1Settings.small)
    training: TrainSettings = field(
        default_factory=lambda: TrainSettings(
            max_steps=20_000, batch_size=64, learning_rate=1e-3, weight_decay=1e-3, ema_decay=0.999
        )
    )
    draws: int = 4
    experimental_share: float = 0.3
    max_z: int = 8
    max_atoms: int = 60

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        super().__post_init__()
        if self.draws < 1 or self.training.batch_size % self.draws:
            raise InputError(f"draws must divide the batch size {self.training.batch_size}, got {self.draws}")


class P1Batches:
    """Batches for training, each with its noise and coupling already drawn; they depend on seed and step alone.

    Crystals of a batch have the same number of molecules in the cell, so that nothing is computed for empty rows.

    Parameters
    ----------
    data : P1Data
    settings : P1Settings
    batch_size : int
    seed : int
    draws : int
        Times that each crystal of a batch stands in it, with a prior and a time of its own.

    Raises
    ------
    TrainingError
        If there is nothing to draw from.
    """

    def __init__(self, data: P1Data, settings: P1Settings, batch_size: int, seed: int = 0, draws: int = 1) -> None:
        weights = np.asarray(data.weights, dtype=float)
        if len(weights) == 0 or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
            reason = f"; left out: {data.skipped[0][1]}" if data.skipped else ""
            raise TrainingError(f"no crystals to train on{reason}")
        self.data, self.settings, self.batch_size, self.seed, self.draws = data, settings, batch_size, seed, draws
        z = np.array([len(c.shape) for c in data.crystals])
        self._groups = [np.flatnonzero(z == k) for k in np.unique(z)]
        self._share = np.array([weights[rows].sum() for rows in self._groups]) / weights.sum()
        self._within = [weights[rows] / max(weights[rows].sum(), 1e-300) for rows in self._groups]

    def batch(self, step: int) -> FlowPath:
        """Random crystals, drawn by their weights, at random times of their paths."""
        rng = np.random.default_rng([self.seed, step])
        k = rng.choice(len(self._groups), p=self._share)
        indices = np.repeat(rng.choice(self._groups[k], self.batch_size // self.draws, p=self._within[k]), self.draws)
        inverted = rng.random(len(indices)) < 0.5 if self.settings.mirror_images else None
        batch = self.data.batch(indices, inverted=inverted)
        return make_path(batch, self.settings, rng)


def train_mol_crystal_flow(
    data: CrystalDataset,
    config: MolCrystalFlowConfig | None = None,
    folder: str | Path = "mol_crystal_flow",
    *,
    initial: MolCrystalFlow | None = None,
    progress: bool = True,
) -> MolCrystalFlow:
    """Train on a data set; crystals and checkpoints are kept in `folder`, and a killed run goes on.

    Parameters
    ----------
    data : CrystalDataset
        Choose its split="train" to leave the test side out.
    config : MolCrystalFlowConfig, optional
    folder : path
        Gets weights, card, metrics with curves, checkpoint, and the crystals as they are trained on.
    initial : MolCrystalFlow, optional
        Start from these weights (fine-tuning); its settings are taken.

    Raises
    ------
    StoreError
        If the folder holds a training with other settings or initial weights.
    TrainingError
        If the data holds no usable crystal, the folder holds one on other data, or the loss is not finite.
    """
    config = config or MolCrystalFlowConfig()
    folder = Path(folder)
    scales = [config.energy_scale, config.experimental_share, config.validation_share, config.max_z, config.max_atoms]
    identity = data_identity(data, scales)
    weights = with_measured_share(data.weights(config.energy_scale), data.experimental, config.experimental_share)
    aside = validation_rows(data, config.validation_share)
    crystals = _stored(folder / CRYSTALS, identity, data, weights, np.flatnonzero(~aside), config)
    validation = None
    if aside.any():
        validation = _stored(folder / VALIDATION, identity, data, weights, np.flatnonzero(aside), config)
    flow = config.flow if initial is None else initial.settings
    if initial is None and flow.volume_prior:
        mean, std = crystals.length_statistics()
        flow = replace(flow, length_mean=mean, length_std=std)
    size, seed = config.training.batch_size, config.training.seed
    model = begun(MolCrystalFlow, flow, seed, initial)
    model.remember_range(crystals)
    trained: MolCrystalFlow = fit(
        model,
        P1Batches(crystals, model.settings, size, seed, config.draws),
        config,
        folder,
        data={"crystals": len(crystals), **molecule_counts(data, aside), "identity": identity},
        identity=identity,
        initial=initial,
        validation=None if validation is None else P1Batches(validation, model.settings, size, seed + 1, config.draws),
        validation_batches=VALIDATION_BATCHES,
        progress=progress,
    )
    return trained


def _stored(
    path: Path, identity: str, data: CrystalDataset, weights: np.ndarray, rows: np.ndarray, config: MolCrystalFlowConfig
) -> P1Data:
    if not path.exists():
        records = [data[int(i)] for i in rows]
        made = P1Data.from_records(records, weights[rows], config.max_z, config.max_atoms)
        if not made.crystals:
            reason = f"; left out: {made.skipped[0][1]}" if made.skipped else ""
            raise TrainingError(f"no crystals to train on{reason}")
        made.save(path, identity)
    crystals, stored = P1Data.load(path)
    if stored != identity:
        raise TrainingError(f"{path.parent} holds a training on other data or settings; choose another folder")
    return crystals
