"""Conformers of two generators, pooled: embeddings that exchange torsions, and a network's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from molflow_sim.chemistry.embedding import effort
from molflow_sim.generators.crystals import Mixture
from molflow_sim.generators.protocol import ConformerRequest, Drawn, Generator, make_generator, served
from molflow_sim.generators.torsions import TorsionConformers

if TYPE_CHECKING:
    from molflow_sim.systems.molecule import Molecule


@dataclass(frozen=True)
class MixedConformers(Mixture):
    """Draws of CoarsenConf, the first, and `TorsionConformers` in turn, so that what is kept is chosen from both.

    Attributes
    ----------
    share, weights
        See `Mixture`; draws of CoarsenConf cost ten times the others.
    """

    kind: ClassVar[str] = "conformers/mixed"
    share: float = 0.125

    @property
    def first(self) -> Generator:
        """CoarsenConf."""
        return make_generator("conformers", "coarsenconf", weights=self.weights)

    @property
    def second(self) -> TorsionConformers:
        """Embeddings that exchange torsions."""
        return TorsionConformers()

    def sample(self, request: ConformerRequest, n: int, *, seed: int, first_index: int = 0) -> Drawn:
        """See `Generator.sample`; raises as both."""
        served(request, ConformerRequest, self.kind, n)
        systems: list[Any] = [None] * n
        reasons = [""] * n
        for rows, part in self.parts(request, n, seed, first_index):
            for k, system, reason in zip(rows, part.systems(), part.reasons):
                systems[k], reasons[k] = system, reason
        return Drawn(first_index + np.arange(n), systems, reasons)

    def most(self, molecule: Molecule, n: int) -> int:
        """Draws that hold as many of `TorsionConformers` as it makes by itself; fewer of large molecules."""
        return round(self.second.most(molecule, n) * effort(molecule.rdmol) / (1.0 - self.share))
