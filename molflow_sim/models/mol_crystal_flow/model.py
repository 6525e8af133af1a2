"""MolCrystalFlow's P 1 mode: flow matching of cell, centroids and orientations of rigid molecules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import roma
import torch
from torch import Tensor

from molflow_sim.errors import InputError
from molflow_sim.models.mol_crystal_flow.batch import Poses
from molflow_sim.models.mol_crystal_flow.data import P1Data
from molflow_sim.models.mol_crystal_flow.interpolants import FlowPath, draw_prior
from molflow_sim.models.mol_crystal_flow.molecules import Contents, Samples, fill
from molflow_sim.models.mol_crystal_flow.network import P1Network
from molflow_sim.models.mol_crystal_flow.sampler import integrate
from molflow_sim.models.mol_crystal_flow.settings import P1Settings
from molflow_sim.threads import one_torch_thread
from molflow_sim.training.model import SettingsModel

if TYPE_CHECKING:
    from molflow_sim.systems.molecule import Molecule

CHUNK = 16
"""Samples integrated together: always those numbered from a multiple of it, so that the rounding of a sample, which
in a matrix product depends on the rows beside it, never depends on how many are asked for."""


class MolCrystalFlow(SettingsModel):
    """Flow over all molecules of a cell in P 1.

    Parameters
    ----------
    settings : P1Settings, optional
        `P1Settings.published()` for the published sizes, `P1Settings.small()` for a CPU.
    card : mapping, optional
        What the weights are: data, seed, metrics, the trained range.

    Notes
    -----
    Source: MolCrystalFlow (arXiv:2602.16020). On purpose different from what is published, in all settings: axis-flip
    states come from the geometry and are drawn molecule by molecule at sampling; the network sees the lattice and the
    neighbours' directions from each molecule's frame; the assignment of the coupling is applied, not its inverse;
    symmetry-equivalent orientations count as one; steps of sampling end where the path ends at the latest. Cells are
    kept as matrices throughout, and never rebuilt from six parameters.
    """

    kind: ClassVar[str] = "mol-crystal-flow"
    settings_type = P1Settings
    config = "molflow_sim.models.mol_crystal_flow.train:MolCrystalFlowConfig"
    trainer = "molflow_sim.models.mol_crystal_flow.train:train_mol_crystal_flow"

    def __init__(self, settings: P1Settings | None = None, card: Mapping[str, Any] | None = None) -> None:
        super().__init__(settings, card)
        self.network = P1Network(self.settings)

    def remember_range(self, data: P1Data) -> None:
        """Keep the largest molecule and the most molecules in a cell of the training data, to warn beyond them."""
        self.card["range"] = {
            "max_atoms": max(len(s.numbers) for s in data.shapes),
            "max_z": max(len(c.shape) for c in data.crystals),
        }

    def loss(self, path: FlowPath) -> dict[str, Tensor]:
        """Flow-matching loss.

        Parameters
        ----------
        path : FlowPath
            Crystals on their paths, as `P1Batches` gives them.

        Returns
        -------
        dict of str to Tensor
            "loss", the weighted sum of "centroid" (fractional), "rotation" (radians) and "lattice" (Å): squared errors
            of the velocities, mean over components and molecules; "explained" is one less the loss over that of
            velocities of zero.
        """
        s, true, mask = self.settings, path.velocity, path.batch.mask
        found = self.network(path.batch, path.t)
        weights = mask / mask.sum(1, keepdim=True)
        centroid = (((found.frac - true.frac) ** 2).mean(-1) * weights).sum(1).mean()
        rotation = (((found.omega - true.omega) ** 2).mean(-1) * weights).sum(1).mean()
        lattice = ((found.cell - true.cell) ** 2).mean()
        still = (true.frac**2).mean(-1), (true.omega**2).mean(-1)
        size = s.lattice_weight * (true.cell**2).mean() + sum(
            w * (x * weights).sum(1).mean() for w, x in zip((s.centroid_weight, s.rotation_weight), still)
        )
        total = s.centroid_weight * centroid + s.rotation_weight * rotation + s.lattice_weight * lattice
        terms = {"centroid": centroid, "rotation": rotation, "lattice": lattice}
        return {"loss": total, **terms, "explained": 1.0 - total / size}

    @torch.no_grad()
    def sample(
        self,
        molecules: Molecule | Sequence[Molecule],
        z: int | Sequence[int] = 4,
        n: int = 10,
        seed: int = 0,
        *,
        first_index: int = 0,
        hands: str = "any",
        steps: int | None = None,
    ) -> Samples:
        """Draw crystals in P 1.

        Parameters
        ----------
        molecules : Molecule or sequence of Molecule
            Several for a co-crystal. Their own conformers are used, in their shares.
        z : int or sequence of int
            Molecules in the cell, of each species.
        n : int
        seed, first_index : int
            Sample k of a seed is the same, bit for bit, whatever n and `first_index` it is drawn with.
        hands : {"any", "same", "both"}
            See `molecules.fill`; enantiopure molecules keep their hand.
        steps : int, optional
            Euler steps instead of the settings'.

        Raises
        ------
        InputError
            If the numbers do not fit.
        """
        if n < 1 or first_index < 0 or (steps is not None and steps < 1):
            raise InputError(f"n and steps must be at least 1 and first_index 0, got {n}, {steps} and {first_index}")
        last = first_index + n
        chunks: list[Samples] = []
        with one_torch_thread():
            for chunk in range(first_index // CHUNK, -(-last // CHUNK)):
                numbers = chunk * CHUNK + np.arange(CHUNK)
                rngs = [np.random.default_rng([seed, int(k)]) for k in numbers]
                contents = fill(molecules, z, rngs, hands, self.settings.racemic_share)
                if not chunks:
                    atoms = max(len(s.numbers) for s in contents.shapes)
                    self.warn_beyond_range(
                        max_atoms=(atoms, "atoms"), max_z=(len(contents.species), "molecules in the cell")
                    )
                found = Samples(contents, *self._carried(contents, rngs, steps), numbers)
                chunks.append(found.select((numbers >= first_index) & (numbers < last)))
        return Samples.concatenate(chunks)

    def _carried(
        self, contents: Contents, rngs: Sequence[np.random.Generator], steps: int | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cells, centroids and orientations of the conformers, from the prior to time 1."""
        training, parameter = self.training, next(self.parameters())
        self.eval()
        batch = contents.batch()
        rows = zip(batch.volume.unsqueeze(1), batch.poses.chi.unsqueeze(1), rngs)
        priors = [draw_prior(volume, chi, self.settings, rng) for volume, chi, rng in rows]
        batch = batch.with_poses(Poses.concatenate(priors)).to(device=parameter.device, dtype=parameter.dtype)
        embedding = self.network.embedder(batch.shapes)
        end = integrate(lambda b, t: self.network(b, t, embedding), batch, self.settings, steps).poses
        self.train(training)
        cell, frac, rotation = (x.cpu().double() for x in (end.cell, end.frac, end.rotation))
        finite = rotation.isfinite().all(-1).all(-1)[..., None, None]
        # The nearest rotations: without the rounding that many steps pile up.
        sound = roma.special_procrustes(torch.where(finite, rotation, torch.eye(3).double()))
        rotation = torch.where(finite, sound, rotation)
        return cell.numpy(), frac.numpy(), contents.orientations(rotation.numpy())

    @classmethod
    def _settings_of(cls, card: Mapping[str, Any]) -> Any:
        settings = card.get("settings")
        if isinstance(settings, Mapping):  # older weights name a coupling that was never on
            settings = {name: value for name, value in settings.items() if name != "relabel_cell"}
        return settings
