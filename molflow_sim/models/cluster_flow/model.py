"""The cluster flow: loose molecules move to where they stand in a crystal."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import roma
import torch
from torch import Tensor

from molflow_sim.models.cluster_flow.batch import Item, collate
from molflow_sim.models.cluster_flow.network import ClusterNetwork
from molflow_sim.models.cluster_flow.paths import LATEST, ClusterBatch, diffusion
from molflow_sim.models.cluster_flow.settings import ClusterFlowSettings
from molflow_sim.nn.egnn import gathered
from molflow_sim.threads import one_torch_thread
from molflow_sim.training.model import SettingsModel

SCALE = 5.0
"""Å per unit time: the network's output is in this unit, about the size of the velocities."""


class ClusterFlow(SettingsModel):
    """Flow from a loose cluster of molecules to one as in a crystal.

    Parameters
    ----------
    settings : ClusterFlowSettings, optional
    card : mapping, optional
        What the weights are: data, seed, metrics, the trained range.

    Notes
    -----
    Source of the variants ``lerp``, ``ve``, ``vp`` and ``gnn-md``: Liu et al., "An equivariant flow matching framework
    for learning molecular crystallization" (2024). Sizes, noise and schedules are in no public file; ours are in
    `ClusterFlowSettings`. On purpose different: ``lerp`` is not shown where its path began, as it is published, because
    the velocity can then be read off and nothing is learned; with ``rigid`` molecules stay rigid, starts are random in
    a sphere, molecules are assigned to their ends and the whole end is turned before the path, orientations go along
    geodesics.
    """

    kind: ClassVar[str] = "cluster-flow"
    settings_type = ClusterFlowSettings
    config = "molflow_sim.models.cluster_flow.train:ClusterFlowConfig"
    trainer = "molflow_sim.models.cluster_flow.train:train_cluster_flow"
    reader = "molflow_sim.models.cluster_flow.data:read_clusters"

    def __init__(self, settings: ClusterFlowSettings | None = None, card: Mapping[str, Any] | None = None) -> None:
        super().__init__(settings, card)
        self.network = ClusterNetwork(self.settings)

    def loss(self, batch: ClusterBatch) -> dict[str, Tensor]:
        """Flow-matching loss.

        Returns
        -------
        dict of str to Tensor
            "loss": squared error of an atom's velocity, Å² per unit time squared, over `SCALE`²; mean over atoms, each
            cluster counting alike. "explained": one less the loss over that of molecules that rest.
        """
        true = batch.velocity / SCALE
        error = ((self.network(batch) - true) ** 2).sum(-1)
        owner, n = batch.owner, len(batch.time)
        size = torch.bincount(owner, minlength=n).to(error)
        loss = (gathered(error, owner, n) / size).mean()
        still = (gathered((true * true).sum(-1), owner, n) / size).mean()
        return {"loss": loss, "explained": 1.0 - loss / still}

    @torch.no_grad()
    def move(self, numbers: np.ndarray, start: np.ndarray, seed: int = 0, steps: int | None = None) -> np.ndarray:
        """Carry one cluster from its start to time 1.

        Parameters
        ----------
        numbers : ndarray (N,)
            Of one molecule.
        start : ndarray (m, N, 3)
            Å.
        seed : int
            Of the noise from which VE and VP begin.
        steps : int, optional
            Instead of ``settings.steps``.

        Returns
        -------
        ndarray (m, N, 3)
            Å; with the rigid variant the molecules keep their shapes.
        """
        s, variant = self.settings, self.settings.variant
        m, n = start.shape[:2]
        middle = start.reshape(-1, 3).mean(0)
        began = start.reshape(-1, 3) - middle
        steps = 1 if variant == "gnn-md" else steps or s.steps
        last = LATEST if variant in ("ve", "vp") else 1.0
        batch = collate([Item(numbers, began, began, 0.0, began)])
        x = torch.as_tensor(began, dtype=torch.float64)
        if variant in ("ve", "vp"):
            _, sigma, _, _ = diffusion(0.0, s)
            noise = torch.as_tensor(np.random.default_rng(seed).normal(size=x.shape))
            x = sigma * noise + (x if variant == "ve" else 0.0)
        with one_torch_thread():
            for now, after in pairwise(np.linspace(0.0, last, steps + 1).tolist()):
                at = ClusterBatch(
                    batch.numbers, batch.molecule, batch.cluster, x.float(), batch.start,
                    torch.tensor([now]), batch.velocity,
                )  # fmt: skip
                step = (after - now) * SCALE * self.network(at).double()
                x = _rigid_step(x.view(m, n, 3), step.view(m, n, 3)).view(-1, 3) if variant == "rigid" else x + step
        return np.asarray(x.view(m, n, 3).numpy() + middle)


def _rigid_step(x: Tensor, step: Tensor) -> Tensor:
    """Molecules (m, N, 3) moved by the rigid motion that their atoms' displacements are; shapes are kept exactly."""
    centre = x.mean(1, keepdim=True)
    arm = x - centre
    eye = torch.eye(3, dtype=x.dtype)
    inertia = ((arm * arm).sum(-1)[..., None, None] * eye - arm.unsqueeze(-1) * arm.unsqueeze(-2)).sum(1) + 1e-6 * eye
    omega = torch.linalg.solve(inertia, torch.linalg.cross(arm, step).sum(1))
    return centre + step.mean(1, keepdim=True) + arm @ roma.rotvec_to_rotmat(omega).mT
