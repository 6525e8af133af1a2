"""Batches for training: frames at random times of their paths from the prior, aligned with where they start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from molflow_sim.errors import TrainingError
from molflow_sim.flow.couplings import align_clusters
from molflow_sim.models.dual_scale.batch import Item, PointBatch, collate
from molflow_sim.models.dual_scale.data import ClusterFrames
from molflow_sim.models.dual_scale.graphs import ATOMS, BEADS, ClusterGraph, MoleculeGraphs
from molflow_sim.models.dual_scale.model import DualBatch
from molflow_sim.models.dual_scale.settings import DualScaleSettings, ScaleSettings

LATEST = 0.999
"""Latest time of training; at 1 nothing is left to predict."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Frames of one cluster with its graph: heavy atoms (F, N, 3) and beads (F, B, 3) in Å about their centre."""

    graph: ClusterGraph
    atoms: np.ndarray
    beads: np.ndarray


def prepare(frames: Sequence[ClusterFrames], settings: DualScaleSettings, side: int) -> list[Prepared]:
    """The frames of one side of the split."""
    found = []
    for one in frames:
        graph = ClusterGraph([MoleculeGraphs(m, settings) for m in one.rdmols()], one.order)
        atoms = one.heavy(side).astype(float)
        if len(atoms):
            beads = graph.bead_positions(atoms)
            centre = beads.mean(1, keepdims=True) if settings.scales == "dual" else atoms.mean(1, keepdims=True)
            found.append(Prepared(graph, atoms - centre, beads - centre))
    return found


def with_data(settings: DualScaleSettings, data: Sequence[Prepared]) -> DualScaleSettings:
    """The settings with the training data's spreads and bond lengths for those that are 0."""

    def filled(scale: ScaleSettings, name: str) -> ScaleSettings:
        lengths, spreads = [], []
        for one in data:
            x = one.beads if name == BEADS else one.atoms
            i, j = one.graph.scale(name).bonds.T
            lengths.append((x[:, i] - x[:, j]).ravel())
            if name == ATOMS and settings.scales == "dual":
                x = x - one.beads[:, one.graph.owner]
            elif scale.prior == "harmonic":  # of the molecules' centres
                molecule = one.graph.scale(name).molecule
                x = np.stack([x[:, molecule == m].mean(1) for m in range(molecule[-1] + 1)], 1)
            spreads.append(x.ravel())
        joined = np.concatenate(lengths)
        length = 3.0**0.5 * float(np.sqrt((joined**2).mean())) if len(joined) else 0.0
        spread = float(np.sqrt((np.concatenate(spreads) ** 2).mean()))
        return replace(scale, sigma=scale.sigma or max(spread, 0.1), bond_length=scale.bond_length or length)

    return replace(settings, beads=filled(settings.beads, BEADS), atoms=filled(settings.atoms, ATOMS))


class PathBatches:
    """Batches that depend on seed and step alone.

    Parameters
    ----------
    data : sequence of Prepared
    settings : DualScaleSettings
        With spreads.
    atom_batch, bead_batch : int
        Structures of a step at either scale.
    seed : int

    Raises
    ------
    TrainingError
        If there are no frames.
    """

    def __init__(
        self, data: Sequence[Prepared], settings: DualScaleSettings, atom_batch: int, bead_batch: int, seed: int
    ) -> None:
        if not data:
            raise TrainingError("no frames to train on")
        self.data, self.settings, self.seed = list(data), settings, seed
        self.atom_batch, self.bead_batch = atom_batch, bead_batch
        self._ends = np.cumsum([len(d.atoms) for d in self.data])
        dual = settings.scales == "dual"
        self._priors = {
            BEADS: [d.graph.scale(BEADS).prior(settings.beads, False) for d in self.data] if dual else [],
            ATOMS: [d.graph.scale(ATOMS).prior(settings.atoms, dual) for d in self.data],
        }

    def batch(self, step: int) -> DualBatch:
        """Random frames at random times."""
        rng = np.random.default_rng([self.seed, step])
        guided = bool(self.settings.self_conditioning and rng.random() < 0.5)
        beads: PointBatch | None = None
        if self.settings.scales == "dual":
            beads = collate([self._item(BEADS, rng) for _ in range(self.bead_batch)], guided)
        return DualBatch(beads, collate([self._item(ATOMS, rng) for _ in range(self.atom_batch)], guided))

    def _item(self, name: str, rng: np.random.Generator) -> Item:
        s = self.settings
        row = int(rng.integers(self._ends[-1]))
        k = int(np.searchsorted(self._ends, row, side="right"))
        one, prior = self.data[k], self._priors[name][k]
        row -= int(self._ends[k] - len(one.atoms))
        scale = one.graph.scale(name)
        end: Any = one.beads[row] if name == BEADS else one.atoms[row]
        anchored = name == ATOMS and s.scales == "dual"
        anchors = np.zeros_like(end)
        if anchored:
            beads = one.beads[row] + s.bead_noise * rng.normal(size=one.beads[row].shape)
            anchors = beads[one.graph.owner]
        start = prior.mean(anchors) + prior.noise(rng)
        if not anchored:
            start = start - start.mean(0)
        if s.align:
            end = align_clusters(end, start, scale.order, scale.symmetries, exchange=not anchored, rotate=not anchored)
        t = min(1.0 - (1.0 - rng.random()) ** s.time_power, LATEST)
        return Item(scale, prior, anchors, start, end, t)
