"""CoarsenConf: low-energy conformers as distortions of RDKit's, by a hierarchical equivariant autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from molflow_sim.models.coarsenconf.batch import Item, PairBatch, collate
from molflow_sim.models.coarsenconf.decoder import Decoder
from molflow_sim.models.coarsenconf.encoder import Encoded, Encoder
from molflow_sim.models.coarsenconf.graphs import ConformerGraph
from molflow_sim.models.coarsenconf.latent import Latent, divergence
from molflow_sim.models.coarsenconf.losses import assigned, distance_errors, laid_on, square_errors, torsion_errors
from molflow_sim.models.coarsenconf.settings import CoarsenConfSettings
from molflow_sim.threads import one_torch_thread
from molflow_sim.training.model import SettingsModel

CHUNK = 25
"""Starts that are decoded at once."""


class CoarsenConf(SettingsModel):
    """Conditional variational autoencoder p(X | R) of conformers X given RDKit's conformers R.

    Parameters
    ----------
    settings : CoarsenConfSettings, optional
    card : mapping, optional
        What the weights are: data, seed, metrics, the trained range.

    Notes
    -----
    Source: Reidenbach and Krishnapriyan, "CoarsenConf: equivariant coarsening with aggregated attention for molecular
    conformer generation" (2023). The network commutes with rotations and reflections of the start (with the latent's
    noise turned along) and does not see the order of atoms. On purpose different, most of it as settings: heavy atoms
    only; beads get vectors from where their atoms lie, and the posterior sees how they move; latents can turn a bead;
    the latent distorts the start instead of making coordinates anew; steps of the decoder add up; a bead's reference
    hangs on the bead before it; starts are matched to true conformers; the prior's mean is trained to be decoded well.
    """

    kind: ClassVar[str] = "coarsenconf"
    settings_type = CoarsenConfSettings
    config = "molflow_sim.models.coarsenconf.train:CoarsenConfConfig"
    trainer = "molflow_sim.models.coarsenconf.train:train_coarsenconf"
    reader = "molflow_sim.models.coarsenconf.data:read_pairs"

    def __init__(self, settings: CoarsenConfSettings | None = None, card: Mapping[str, Any] | None = None) -> None:
        super().__init__(settings, card)
        s = self.settings
        self.encoder = Encoder(s)
        self.true_encoder = None if s.share_inputs else Encoder(s)
        self.latent = Latent(s)
        self.decoder = Decoder(s)

    def loss(self, batch: PairBatch) -> dict[str, Tensor]:
        """The negative evidence bound, in the weights of the settings.

        Returns
        -------
        dict of str to Tensor
            "loss". "rmsd": Å, of what is decoded from the posterior, aligned, root of the mean; "start_rmsd" of the
            starts. "distance": the loss of distances, Å⁴. "kl": nats a bead, whatever is free.
            "mean_rmsd": Å, as "rmsd", of what the prior's mean is decoded to.
        """
        s, atoms = self.settings, batch.atoms
        start = self.encoder(batch, batch.start)
        prior = self.latent.prior(start)
        end = assigned(self.decoder(batch, start, prior.mean), batch) if batch.ends.shape[1] > 1 else batch.ends[:, 0]
        true = (self.true_encoder or self.encoder)(batch, end, read=start)
        posterior = self.latent.posterior(batch, start, true, end)
        loss, error, distance = self._reconstruction(batch, start, posterior.draw(batch.noise), end)
        kl = divergence(posterior, prior)
        loss = loss + batch.kl_weight * kl.clamp_min(s.free_bits).mean()
        found = {
            "rmsd": error.sqrt(),
            "start_rmsd": square_errors(batch.start, end, atoms).mean().sqrt(),
            "distance": distance,
            "kl": kl.mean(),
        }
        if s.mean_weight:
            more, error, _ = self._reconstruction(batch, start, prior.mean, end)
            loss = loss + s.mean_weight * more
            found["mean_rmsd"] = error.sqrt()
        return {"loss": loss, **found}

    def _reconstruction(self, batch: PairBatch, start: Encoded, z: Tensor, end: Tensor) -> tuple[Tensor, ...]:
        """Weighted loss of what latents are decoded to, squared error in Å² and loss of distances in Å⁴."""
        x = self.decoder(batch, start, z, placed=end)
        error = square_errors(laid_on(x, end, batch.atoms), end, batch.atoms).mean()
        distance = distance_errors(x, end, batch).mean()
        loss = self.settings.mse_weight * error + batch.distance_weight * distance
        if self.settings.torsion_weight:
            loss = loss + self.settings.torsion_weight * torsion_errors(x, end, batch).mean()
        return loss, error, distance

    @torch.no_grad()
    def decode(self, batch: PairBatch) -> Tensor:
        """Coordinates (M, 3) in Å from the prior and the batch's noise; zeros give the prior's mean."""
        start = self.encoder(batch, batch.start)
        return self.decoder(batch, start, self.latent.prior(start).draw(batch.noise))

    def distorted(
        self, graph: ConformerGraph, starts: np.ndarray, minimised: bool, noise: np.ndarray | None = None
    ) -> np.ndarray:
        """Starts of one molecule distorted, computed in double precision: each as if it were alone.

        Parameters
        ----------
        graph : ConformerGraph
        starts : ndarray, shape (S, n, 3)
            Heavy atoms, Å.
        minimised : bool
            Whether MMFF94 minimised them.
        noise : ndarray, shape (S, N, 3, F), optional
            Standard normal numbers that draw the latents; by default they take the prior's mean.

        Returns
        -------
        ndarray, shape (S, n, 3)
            Å, about their means.
        """
        x = starts - starts.mean(1, keepdims=True)
        if noise is None:
            noise = np.zeros((len(x), graph.n_beads, 3, self.settings.channels))
        made = []
        with one_torch_thread():
            model = self if next(self.parameters()).dtype == torch.float64 else self._double()
            for first in range(0, len(x), CHUNK):
                rows = slice(first, first + CHUNK)
                items = [Item(graph, row, minimised, row[None]) for row in x[rows]]
                batch = collate(items, self.settings, noise[rows].reshape(-1, *noise.shape[2:]), dtype=torch.float64)
                found = model.decode(batch)
                made.append(found.view(-1, graph.n, 3).numpy())
        out = np.concatenate(made)
        return np.asarray(out - out.mean(1, keepdims=True))

    def _double(self) -> CoarsenConf:
        """This network in double precision, made once."""
        made: CoarsenConf | None = self.__dict__.get("_doubled")
        if made is None:
            made = CoarsenConf(self.settings, self.card).double().eval()
            made.load_state_dict(self.state_dict())
            self.__dict__["_doubled"] = made
        return made
