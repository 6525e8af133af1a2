"""Generators of clusters that need no network: the loose starts themselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from molflow_sim.errors import InputError, PackingError
from molflow_sim.generators.protocol import ClusterRequest, Drawn, served


@dataclass(frozen=True)
class RandomClusters:
    """Molecules put one by one at random places that are free (`molflow_sim.packing.clusters.random_cluster`).

    Attributes
    ----------
    tolerance : float
        Å; atoms of different molecules are at least this far apart.
    """

    kind: ClassVar[str] = "clusters/random"
    tolerance: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 < self.tolerance < 10.0:
            raise InputError(f"tolerance must lie between 0 and 10 Å, not {self.tolerance}")

    def sample(self, request: ClusterRequest, n: int, *, seed: int, first_index: int = 0) -> Drawn:
        """See `Generator.sample`; a candidate that found no place fails with that reason."""
        from molflow_sim.packing.clusters import PACKERS

        asked = served(request, ClusterRequest, self.kind, n)
        pack = PACKERS[self.kind.rpartition("/")[2]]
        numbers = first_index + np.arange(n)
        clusters: list[Any] = []
        reasons = []
        for k in numbers:
            try:
                clusters.append(
                    pack(
                        asked.molecules, asked.copies, density=asked.density, periodic=asked.periodic,
                        seed=[seed, int(k)], **asdict(self),
                    )
                )  # fmt: skip
                reasons.append("")
            except PackingError as error:
                clusters.append(None)
                reasons.append(error.reason)
        return Drawn(numbers, clusters, reasons)

    def identity(self) -> dict[str, Any]:
        """See `Generator.identity`."""
        return {"generator": self.kind.rpartition("/")[2], **asdict(self)}


@dataclass(frozen=True)
class PackmolClusters(RandomClusters):
    """Molecules packed by PACKMOL (`molflow_sim.packing.clusters.packmol_cluster`)."""

    kind: ClassVar[str] = "clusters/packmol"

    def identity(self) -> dict[str, Any]:
        """See `Generator.identity`; PACKMOL's version belongs to it."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return {**super().identity(), "packmol": version("packmol")}
        except PackageNotFoundError:
            return super().identity()
