"""Crystals that the cluster flow's clusters imply: a lattice read from each, for the press to refine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.spatial.distance import pdist

from molflow_sim.errors import InputError, RequestError
from molflow_sim.generators.protocol import ClusterRequest, CrystalRequest, served
from molflow_sim.generators.trained import TrainedGenerator
from molflow_sim.models.cluster_flow.generator import ClusterFlowGenerator
from molflow_sim.models.cluster_flow.model import ClusterFlow
from molflow_sim.packing.implied import implied_crystal
from molflow_sim.packing.packings import STATUS, RigidPackings
from molflow_sim.packing.random_packing import DIGITS, body_conformers, placements_for
from molflow_sim.packing.relief import CRYSTAL_PACKING_COEFFICIENT
from molflow_sim.symmetry.placements import general_placement


@dataclass(frozen=True)
class ClusterFlowCrystals(TrainedGenerator):
    """Candidates for the press from clusters of a `ClusterFlow` (a `molflow_sim.generators.protocol.Generator`).

    Each cluster gives the crystal with one independent molecule that lies nearest to it, in any of the triclinic,
    monoclinic and orthorhombic groups asked for (`molflow_sim.packing.implied`). A cluster that is too far from every
    one has the reason "no lattice implied", one that the flow did not make (`ClusterFlowGenerator`) "not generated".

    Attributes
    ----------
    weights, steps
        See `ClusterFlowGenerator`.
    copies : int
        Molecules of a cluster.
    misfit : float
        Largest root mean square deviation of a cluster's molecules from the crystal's, in cube roots of the volume per
        molecule. Pieces of crystals disturbed by 20° and 0.6 Å have 0.2, molecules at random 0.5 to 0.8: the default
        takes nearly every cluster.
    """

    kind: ClassVar[str] = "crystals/cluster-flow"
    model: ClassVar[str] = ClusterFlow.kind
    steps: int = 0
    copies: int = 17
    misfit: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.copies < 4 or not self.misfit > 0.0:
            raise InputError(
                "steps must not be negative, copies at least 4 and the misfit positive, got "
                f"{self.steps}, {self.copies} and {self.misfit}"
            )

    def sample(self, request: CrystalRequest, n: int, *, seed: int, first_index: int = 0) -> RigidPackings:
        """See `Generator.sample`.

        Raises
        ------
        RequestError
            Several molecules in the asymmetric unit, or weights of a variant that needs a crystal to start from.
        """
        asked = served(request, CrystalRequest, self.kind, n)
        if asked.z_prime != 1:
            raise RequestError(f"the generator {self.kind} makes crystals of one independent molecule; choose random")
        molecule = asked.molecule
        bodies, places = body_conformers(molecule), placements_for(molecule, asked.space_groups)
        clusters = ClusterFlowGenerator(self.weights, self.steps).sample(
            ClusterRequest((molecule,), self.copies), n, seed=seed, first_index=first_index
        )
        limit = self.misfit * (molecule.volume / CRYSTAL_PACKING_COEFFICIENT) ** (1 / 3)
        groups: dict[str, int] = {"P 1": 0}
        rows: list[tuple[Any, ...]] = []
        for cluster in clusters.structures:
            if cluster is None:
                rows.append((STATUS.index("not generated"), *_NOTHING))
                continue
            x = cluster.positions.reshape(self.copies, -1, 3)
            k = int(np.argmin([np.square(pdist(body) - pdist(x[0])).sum() for body in bodies]))  # of either hand
            found = implied_crystal(bodies[k], x, molecule.point_group_operations(k)[0], molecule.volume, *places)
            if found is None or found.misfit > limit:
                rows.append((STATUS.index("no lattice implied"), *_NOTHING))
                continue
            place = groups.setdefault(found.space_group, len(groups))
            pose = (found.cell, found.centroid[None], found.rotation[None])
            rows.append((STATUS.index("not pressed"), place, k, *(np.round(a, DIGITS) for a in pose)))
        status, placement, conformer, cell, centroid, rotation = (np.array(column) for column in zip(*rows))
        made = RigidPackings.proposed(
            molecule, bodies, [general_placement(name) for name in groups], placement, conformer, cell, centroid,
            rotation, clusters.index,
        )  # fmt: skip
        made.status[:] = status
        return made


_NOTHING = (0, 0, np.full((3, 3), np.nan), np.full((1, 3), np.nan), np.full((1, 3, 3), np.nan))
"""Group, conformer, cell and pose of a candidate that there is not."""
