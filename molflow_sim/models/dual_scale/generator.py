"""The dual-scale flow as a generator: amorphous clusters with all their atoms."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from molflow_sim.errors import InputError, MolflowError, RequestError
from molflow_sim.generators.protocol import ClusterRequest, Drawn, served
from molflow_sim.generators.trained import TrainedGenerator
from molflow_sim.models.dual_scale.model import DualScale

DRAWS = 4
"""How often a candidate is drawn at most."""


@dataclass(frozen=True)
class DualScaleGenerator(TrainedGenerator):
    """A trained `DualScale` (a `molflow_sim.generators.protocol.Generator`).

    Heavy atoms come from the flow, hydrogens are placed at ideal lengths and angles, and the cluster is relaxed. What
    then has another stereochemistry than was asked for, clashes or speared rings is drawn again, `DRAWS` times at most.

    Attributes
    ----------
    weights : str or None
        See `TrainedGenerator`.
    relax : int
        Steps of minimisation at most, of each molecule with MMFF94 and of the whole with the potential; 0 for none.
    check : bool
        Refuse candidates with a wrong hand, clashes or speared rings.

    Warns
    -----
    UserWarning
        In `sample`, if a molecule was not trained on, or the cluster is larger; the message says what was.
    """

    kind: ClassVar[str] = "clusters/dual-scale"
    model: ClassVar[str] = DualScale.kind
    uses_conformers: ClassVar[bool] = False
    relax: int = 200
    check: bool = True

    def __post_init__(self) -> None:
        if self.relax < 0:
            raise InputError(f"relax must not be negative, got {self.relax}")

    def sample(self, request: ClusterRequest, n: int, *, seed: int, first_index: int = 0) -> Drawn:
        """See `Generator.sample`.

        Raises
        ------
        RequestError
            A periodic box.
        """
        asked = served(request, ClusterRequest, self.kind, n)
        if asked.periodic:
            raise RequestError(
                f"the generator {self.kind} makes clusters in open space; take them into a box with molflow simulate"
            )
        flow: DualScale = self.load()
        _warn_of_others(flow, [m.smiles for m in asked.molecules])
        counts: Any = asked.copies  # the request made one number for each molecule of it
        order = np.repeat(np.arange(len(asked.molecules)), counts)
        graph = flow.graph([m.rdmol for m in asked.molecules], order)
        numbers = first_index + np.arange(n)
        made = [self._one(flow, graph, asked.molecules, order, seed, int(k)) for k in numbers]
        return Drawn(numbers, [cluster for cluster, _ in made], [reason for _, reason in made])

    def _one(
        self, flow: DualScale, graph: Any, molecules: Any, order: np.ndarray, seed: int, index: int
    ) -> tuple[Any, str]:
        from molflow_sim.models.dual_scale.completion import completed, failure, relaxed, wrong_stereo

        reason = ""
        for draw in range(DRAWS if self.check else 1):
            try:
                cluster = completed(molecules, order, flow.sample(graph, seed, index, draw=draw).atoms)
                # what is another molecule already would be relaxed for nothing
                if self.check and (reason := wrong_stereo(cluster)):
                    continue
                if self.relax:
                    cluster = relaxed(cluster, self.relax)
            except MolflowError as error:
                reason = error.reason
                continue
            reason = failure(cluster) if self.check else ""
            if not reason:
                return cluster, ""
        return None, reason


def _warn_of_others(flow: DualScale, smiles: list[str]) -> None:
    """Molecules that the weights were not trained on are named."""
    from molflow_sim.chemistry.checks import canonical_smiles, parse_smiles

    systems = flow.card.get("data", {}).get("systems", [])
    known = {canonical_smiles(parse_smiles(s.rpartition(" ")[2])) for s in systems}
    if known and (others := [s for s in smiles if s not in known]):
        warnings.warn(
            f"{', '.join(others)} was not trained on ({', '.join(systems)} was); train on frames of it with "
            "molflow train dual-scale, or expect poor clusters",
            stacklevel=3,
        )
