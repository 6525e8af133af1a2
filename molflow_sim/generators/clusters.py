"""Generators of clusters that need no network of their own: loose starts, and pieces of packings."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from molflow_sim.errors import InputError, PackingError, RequestError
from molflow_sim.generators.protocol import (
    ClusterRequest,
    CrystalRequest,
    Drawn,
    Generator,
    generator_identity,
    make_generator,
    served,
    whole_number,
)
from molflow_sim.units import KJ_PER_MOL


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


@dataclass(frozen=True)
class CrystalFlowClusters:
    """Ordered clusters: a molecule of a packing of the crystal flow with its nearest ones, as the press leaves them.

    Their `info` has the space group and the lattice energy in kJ/mol per molecule.

    Attributes
    ----------
    weights : str or None
        Of the crystal flow; those of the package if None.
    pool : int
        Packings drawn and pressed for each cluster, of which the one of lowest lattice energy is taken.

    Warns
    -----
    UserWarning
        In `sample`, if a density is asked for: pieces of packings have their own.
    """

    kind: ClassVar[str] = "clusters/crystal-flow"
    weights: str | None = None
    pool: int = 4

    def __post_init__(self) -> None:
        whole_number("pool", self.pool, 1)

    @property
    def packings(self) -> Generator:
        """The crystal flow."""
        return make_generator("crystals", "flow", weights=self.weights)

    def sample(self, request: ClusterRequest, n: int, *, seed: int, first_index: int = 0) -> Drawn:
        """See `Generator.sample`.

        Raises
        ------
        RequestError
            Several species, or a periodic box.
        """
        from molflow_sim.forcefield import parametrize
        from molflow_sim.packing import press
        from molflow_sim.packing.candidates import packings_of
        from molflow_sim.systems.cluster import MolecularCluster

        asked = served(request, ClusterRequest, self.kind, n)
        if len(asked.molecules) > 1 or asked.periodic:
            raise RequestError(
                f"the generator {self.kind} makes open clusters of one molecule; choose random or packmol"
            )
        if asked.density != ClusterRequest.density:
            warnings.warn("pieces of packings have their own density, not the one asked for", stacklevel=2)
        copies: Any = asked.copies  # a tuple, once the request is checked
        molecule, pool = asked.molecules[0], self.pool
        loose = self.packings.sample(CrystalRequest(molecule), n * pool, seed=seed, first_index=first_index * pool)
        pressed = press(packings_of(loose, molecule), parametrize(molecule))
        energy = np.where(pressed.ok, pressed.energy, np.inf).reshape(n, pool)
        lowest = energy.argmin(1) + pool * np.arange(n)
        clusters = [
            MolecularCluster.from_crystal(pressed.crystal(int(k)), copies[0]).with_info(
                space_group=pressed.space_groups[k], lattice_energy_kj_per_mol=round(float(e) / KJ_PER_MOL, 4)
            )
            if np.isfinite(e)
            else None
            for k, e in zip(lowest, energy.min(1))
        ]
        reasons = ["" if c is not None else f"none of {pool} packings converged in the press" for c in clusters]
        return Drawn(first_index + np.arange(n), clusters, reasons)

    def identity(self) -> dict[str, Any]:
        """See `Generator.identity`."""
        return {"generator": "crystal-flow", "pool": self.pool, "first": generator_identity(self.packings)}
