"""Latents of beads: posterior, prior and their divergence (Appendix F, eq. 9)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from molflow_sim.models.coarsenconf.batch import PairBatch
from molflow_sim.models.coarsenconf.encoder import Encoded
from molflow_sim.models.coarsenconf.settings import CoarsenConfSettings
from molflow_sim.nn.mlp import mlp
from molflow_sim.nn.vector import VectorMLP, lengths

BOUND = 5.0
"""Logarithms of variances lie between minus and plus this."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Independent normal vectors: mean (N, 3, F), and logarithm of the variance (N, F) of their three components."""

    mean: Tensor
    log_variance: Tensor

    def draw(self, noise: Tensor) -> Tensor:
        """A sample (N, 3, F) from standard normal noise of that shape."""
        return self.mean + noise * torch.exp(0.5 * self.log_variance).unsqueeze(1)


def divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q ‖ p) of each bead in nats, (N,)."""
    gap = q.log_variance - p.log_variance
    apart = ((q.mean - p.mean) ** 2).sum(1) * torch.exp(-p.log_variance)
    return 0.5 * (3.0 * (torch.exp(gap) - 1.0 - gap) + apart).sum(-1)


class Latent(nn.Module):
    """Posterior of both encodings and prior of the start's. Variances are invariant, means turn with the molecule.

    Parameters
    ----------
    settings : CoarsenConfSettings
    """

    def __init__(self, settings: CoarsenConfSettings) -> None:
        super().__init__()
        s = settings
        d, f = s.width, s.channels
        self.displaced = mlp(d, d, 2 * f) if s.displacements else None
        self._cutoff = s.cutoff
        seen = f * (4 if s.displacements else 2)
        self.prior_mean, self.posterior_mean = VectorMLP(f, f, f), VectorMLP(seen, f, f)
        self.prior_spread, self.posterior_spread = mlp(d + f, d, f), mlp(2 * d + seen, d, f)

    def prior(self, start: Encoded) -> Gaussian:
        """Of the start alone."""
        v = start.vectors
        known = torch.cat([start.beads[-1], lengths(v)], -1)
        return Gaussian(self.prior_mean(v), bounded(self.prior_spread(known)))

    def posterior(self, batch: PairBatch, start: Encoded, true: Encoded, end: Tensor) -> Gaussian:
        """Of the start and the true conformer, `end` (M, 3) in Å laid on the start."""
        v = torch.cat([true.vectors, start.vectors], -1)
        if self.displaced is not None:
            v = torch.cat([v, self._displacements(batch, start, end)], -1)
        known = torch.cat([true.beads[-1], start.beads[-1], lengths(v)], -1)
        return Gaussian(self.posterior_mean(v), bounded(self.posterior_spread(known)))

    def _displacements(self, batch: PairBatch, start: Encoded, end: Tensor) -> Tensor:
        """How the atoms of a bead move (N, 3, 2F): means over them, weighted by what they are and by how far out."""
        assert self.displaced is not None
        x, members = batch.start, batch.members
        plain, outer = self.displaced(start.atoms[-1]).chunk(2, -1)
        moves = (end - x).unsqueeze(-1)
        arm = torch.sqrt(((x - members.mean(x)[members.group]) ** 2).sum(-1, keepdim=True) + 1e-8) / self._cutoff
        return members.mean(torch.cat([moves * plain.unsqueeze(1), moves * (outer * arm).unsqueeze(1)], -1))


def bounded(x: Tensor) -> Tensor:
    """Numbers taken smoothly between −`BOUND` and `BOUND`."""
    return BOUND * torch.tanh(x / BOUND)
