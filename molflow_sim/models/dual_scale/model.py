"""Dual-scale flow matching: beads from their prior, then atoms around the beads."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from molflow_sim.errors import InputError
from molflow_sim.models.dual_scale.batch import Item, PointBatch, collate
from molflow_sim.models.dual_scale.graphs import ATOMS, BEADS, ClusterGraph, MoleculeGraphs
from molflow_sim.models.dual_scale.network import PointNetwork, distance
from molflow_sim.models.dual_scale.settings import DualScaleSettings
from molflow_sim.threads import one_torch_thread
from molflow_sim.training.batches import Movable
from molflow_sim.training.model import SettingsModel

SMALL_NOISE = 0.3
"""Å of noise on a distance below which it counts in full in `pair_loss`."""


@dataclass(frozen=True, eq=False)
class DualBatch(Movable):
    """Both scales of a training step; `beads` is None where there is one scale."""

    beads: PointBatch | None
    atoms: PointBatch


@dataclass(frozen=True, eq=False)
class Heavy:
    """A sample: heavy atoms (N, 3) and beads (B, 3; none with one scale) in Å, and seconds per step of each scale."""

    atoms: np.ndarray
    beads: np.ndarray | None
    seconds: dict[str, float]


class DualScale(SettingsModel):
    """Flow from a prior to the heavy atoms of a cluster, in one or two scales.

    Parameters
    ----------
    settings : DualScaleSettings, optional
    card : mapping, optional
        What the weights are: data, seed, metrics, the trained range.

    Notes
    -----
    Source: Subramanian et al., "Efficient generation of molecular clusters with dual-scale equivariant flow matching".
    On purpose different from what is published, each a setting: ends of paths are aligned with their starts, atoms
    start around their beads and are trained on beads with noise, times lie closer together near the end, and the exact
    velocity is taken. The networks predict the end of the path as a linear estimate and what it leaves, in units of
    the expected error: the error then shrinks with the noise, and all times count alike in the loss.
    """

    kind: ClassVar[str] = "dual-scale"
    settings_type = DualScaleSettings
    config = "molflow_sim.models.dual_scale.train:DualScaleConfig"
    trainer = "molflow_sim.models.dual_scale.train:train_dual_scale"
    reader = "molflow_sim.models.dual_scale.data:read_frames"

    def __init__(self, settings: DualScaleSettings | None = None, card: Mapping[str, Any] | None = None) -> None:
        super().__init__(settings, card)
        s = self.settings
        dual = s.scales == "dual"
        self.beads = PointNetwork(s.beads, BEADS, s.self_conditioning) if dual else None
        self.atoms = PointNetwork(s.atoms, ATOMS, s.self_conditioning)

    # ------------------------------------------------------------------ training

    def loss(self, batch: DualBatch) -> dict[str, Tensor]:
        """Flow-matching loss of the predicted ends.

        Returns
        -------
        dict of str to Tensor
            "loss", the sum of the others but the last two. "beads" and "atoms": squared errors of a coordinate in units
            of what the linear estimate is expected to be off by, mean over points; 1 is what that estimate is worth.
            "beads_pairs" and "atoms_pairs": the same of distances within a few bonds. "beads_rmsd" and "atoms_rmsd" in
            Å, over all times.
        """
        terms, logged = {}, {}
        for name, points in ((BEADS, batch.beads), (ATOMS, batch.atoms)):
            if points is None:
                continue
            network, x, t = getattr(self, name), points.position, points.time
            guess = self._guess(network, points, x, t)
            estimate, unit = points.estimate(x, t), points.unknown(t)
            error = network(points, x, t, guess) - (points.end - estimate) / unit
            terms[name] = error.pow(2).mean()
            if self.settings.pair_weight:
                terms[f"{name}_pairs"] = self.settings.pair_weight * pair_loss(points, error * unit, unit)
            logged[f"{name}_rmsd"] = (error.detach() * unit).pow(2).sum(-1).mean().sqrt()
        return {"loss": torch.stack(list(terms.values())).sum(), **terms, **logged}

    def _guess(self, network: PointNetwork, points: PointBatch, x: Tensor, t: Tensor) -> Tensor | None:
        """In half of the steps a prediction of the network's own, otherwise the linear estimate."""
        if not network.guided:
            return None
        first = points.estimate(x, t)
        if not points.guided:
            return first
        with torch.no_grad():
            return predicted(network, points, x, t, first)

    # ------------------------------------------------------------------ sampling

    def graph(self, rdmols: Sequence[Any], order: Sequence[int] | np.ndarray) -> ClusterGraph:
        """The graph of a cluster of molecules (hydrogens explicit), `order` the species of each."""
        return ClusterGraph([MoleculeGraphs(m, self.settings) for m in rdmols], order)

    @torch.no_grad()
    def sample(
        self, graph: ClusterGraph, seed: int, index: int, beads: np.ndarray | None = None, draw: int = 0
    ) -> Heavy:
        """One cluster; the same for a seed and index whatever else is drawn.

        Parameters
        ----------
        graph : ClusterGraph
        seed, index : int
        beads : ndarray, shape (B, 3), optional
            Take these instead of generated ones (two scales).
        draw : int
            Another cluster of the same number.
        """
        self.warn_beyond_range(
            molecules=(len(graph.order), "molecules"),
            heavy_atoms=(max(m.atoms.n for m in graph.molecules), "heavy atoms in a molecule"),
        )
        s, rng = self.settings, np.random.default_rng([seed, index, draw])
        seconds: dict[str, float] = {}
        anchors = np.zeros((graph.scale(ATOMS).n, 3))
        with one_torch_thread():
            if self.beads is not None:
                if beads is None:
                    start = np.zeros((graph.scale(BEADS).n, 3))
                    beads, seconds[BEADS] = self._carried(graph, BEADS, start, s.bead_steps, rng)
                anchors = beads[graph.owner]
            steps = s.atom_steps if self.beads is not None else s.bead_steps + s.atom_steps
            atoms, seconds[ATOMS] = self._carried(graph, ATOMS, anchors, steps, rng)
        return Heavy(atoms, beads, seconds)

    def _carried(
        self, graph: ClusterGraph, name: str, anchors: np.ndarray, steps: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        """From the prior to the end of the path, and seconds per step."""
        s, scale = self.settings, graph.scale(name)
        network: PointNetwork = getattr(self, name)
        prior = scale.prior(network.settings, self.beads is not None and name == ATOMS)
        start = prior.mean(anchors) + prior.noise(rng)
        if name == BEADS or self.beads is None:
            start = start - start.mean(0)
        weight = next(self.parameters())
        points = collate([Item(scale, prior, anchors, start, start, 0.0)]).to(device=weight.device, dtype=weight.dtype)
        begin = time.perf_counter()
        training = network.training
        network.eval()
        x = integrate(network, points, times(steps, s.time_power), s.velocity)
        network.train(training)
        return x.cpu().double().numpy(), (time.perf_counter() - begin) / steps

    def remember_range(self, graphs: Sequence[ClusterGraph]) -> None:
        """Keep what the training data holds, to warn beyond it."""
        self.card["range"] = {
            "molecules": max(len(g.order) for g in graphs),
            "heavy_atoms": max(m.atoms.n for g in graphs for m in g.molecules),
        }


def pair_loss(points: PointBatch, error: Tensor, unit: Tensor) -> Tensor:
    """Squared errors of distances within a few bonds, in units of what noise does to them.

    A wrong length of a bond is one wrong direction among many of a molecule and hardly seen in the mean over points. It
    counts where noise is small: before, the mean over what may come has shorter bonds than any of it, rightly.
    """
    into, out = points.pairs
    if not len(into):
        return error.new_zeros(())
    true = distance(points.end[into] - points.end[out])
    found = distance((points.end + error)[into] - (points.end + error)[out])
    noise = (unit[into] ** 2 + unit[out] ** 2).squeeze(-1)
    return ((found - true) ** 2 / (noise * (1.0 + noise / SMALL_NOISE**2))).mean()


def times(steps: int, power: float) -> np.ndarray:
    """Times (steps + 1,) from 0 to 1, closer together at the end for powers above 1."""
    return 1.0 - (1.0 - np.linspace(0.0, 1.0, steps + 1)) ** power


def predicted(network: PointNetwork, points: PointBatch, x: Tensor, t: Tensor, guess: Tensor | None) -> Tensor:
    """The predicted end (M, 3) of the path through x at t (M, 1)."""
    return points.estimate(x, t) + points.unknown(t) * network(points, x, t, guess)


def integrate(network: PointNetwork, points: PointBatch, grid: np.ndarray, velocity: str) -> Tensor:
    """Euler steps from the start of the path over the times of a grid.

    The exact velocity leads to (1 − t) x₀ + t x₁ wherever the prediction is right and the same at all times, whatever
    was predicted before; the published one, x̂₁ − x₀, keeps the errors of former steps.
    """
    if velocity not in ("exact", "published"):
        raise InputError(f"velocity must be exact or published, got {velocity!r}")
    x, guess = points.start, None
    for now, after in pairwise(grid):
        t = torch.full_like(points.variance, float(now)).unsqueeze(-1)
        if network.guided and guess is None:
            guess = points.estimate(x, t)
        guess = predicted(network, points, x, t, guess)
        if velocity == "exact":
            x = x + float((after - now) / (1.0 - now)) * (guess - x)
        else:
            x = x + float(after - now) * (guess - points.start)
    return x
