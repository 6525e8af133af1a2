"""The cluster flow as a generator: loose molecules, moved to where they stand in crystals."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from molflow_sim.errors import InputError, RequestError
from molflow_sim.generators.protocol import ClusterRequest, Drawn, served
from molflow_sim.generators.trained import TrainedGenerator
from molflow_sim.models.cluster_flow.model import ClusterFlow
from molflow_sim.models.cluster_flow.paths import loose_start
from molflow_sim.models.cluster_flow.settings import ClusterFlowSettings

TRIES = 4
"""Starts from which a candidate is drawn at most."""
BOTH_HANDS = 0.8
"""Share of the clusters with both hands in equal parts, where both are allowed: about that of organic crystals."""


@dataclass(frozen=True)
class ClusterFlowGenerator(TrainedGenerator):
    """A trained `ClusterFlow` of the variant ``rigid`` (a `molflow_sim.generators.protocol.Generator`).

    All molecules of a cluster have one conformer, drawn by its share, as in a crystal of one independent molecule.
    Clusters with molecules closer than their atoms' covalent radii, or with speared rings, are drawn again, and fail
    after `TRIES`.

    Attributes
    ----------
    weights : str or None
        See `TrainedGenerator`.
    steps : int
        Euler steps; 0 for those of the weights.

    Warns
    -----
    UserWarning
        In `sample`, if the molecule is larger than those trained on, or starts are of another density; the message
        gives what was trained on.
    """

    kind: ClassVar[str] = "clusters/cluster-flow"
    model: ClassVar[str] = ClusterFlow.kind
    steps: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InputError(f"steps must not be negative, got {self.steps}")

    def sample(self, request: ClusterRequest, n: int, *, seed: int, first_index: int = 0) -> Drawn:
        """See `Generator.sample`.

        Raises
        ------
        RequestError
            Several species, a periodic box, or weights of a variant that needs a crystal to start from.
        """
        asked = served(request, ClusterRequest, self.kind, n)
        if len(asked.molecules) > 1 or asked.periodic:
            raise RequestError(
                f"the generator {self.kind} makes open clusters of one molecule; choose random or packmol"
            )
        flow: ClusterFlow = self.load()
        if flow.settings.variant != "rigid":
            raise RequestError(
                f"weights of the variant {flow.settings.variant} start from noised crystals; use rigid ones"
            )
        copies: Any = asked.copies  # a tuple, once the request is checked
        molecule, count = asked.molecules[0], copies[0]
        flow.warn_beyond_range(max_atoms=(molecule.n_atoms, "atoms"))
        if asked.density != flow.settings.density:
            warnings.warn(
                f"the flow was trained from starts of {flow.settings.density:g} g/cm³, not {asked.density:g}",
                stacklevel=2,
            )
        settings = replace(flow.settings, density=asked.density)
        numbers = first_index + np.arange(n)
        drawn = [self._one(flow, settings, molecule, count, np.random.default_rng([seed, int(k)])) for k in numbers]
        return Drawn(numbers, [cluster for cluster, _ in drawn], [reason for _, reason in drawn])

    def _one(
        self, flow: ClusterFlow, settings: ClusterFlowSettings, molecule: Any, count: int, rng: np.random.Generator
    ) -> tuple[Any, str]:
        """A cluster, or None and why."""
        from molflow_sim.evaluate.clusters import contacts
        from molflow_sim.evaluate.spearing import speared_rings
        from molflow_sim.systems.cluster import MolecularCluster

        body = molecule.conformers[rng.choice(len(molecule.conformers), p=molecule.shares)]
        both = not molecule.is_enantiopure and rng.random() < BOTH_HANDS
        hand = rng.permutation(np.where(np.arange(count) % 2, -1.0, 1.0)) if both else np.ones(count)
        for _ in range(TRIES):
            start = loose_start(body, hand, molecule.molar_mass, settings, rng)
            if start is None:
                return None, "no loose start was found; ask for a lower density"
            x = flow.move(molecule.numbers, start.positions(body), steps=self.steps or None)
            x = np.round(x - x.reshape(-1, 3).mean(0), 6)
            cluster = MolecularCluster((molecule,), np.zeros(count, dtype=int), x.reshape(-1, 3))
            if count < 2 or not (contacts(molecule.numbers, x).collision or speared_rings(cluster)):
                return cluster, ""
        return None, f"molecules upon each other from {TRIES} starts"
