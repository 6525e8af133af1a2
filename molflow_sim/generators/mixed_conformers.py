"""Conformers of two generators, pooled: embeddings that exchange torsions, and a network's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from molflow_sim.generators.crystals import check_share, from_first
from molflow_sim.generators.protocol import (
    ConformerRequest,
    Drawn,
    Generator,
    generator_identity,
    make_generator,
    served,
)
from molflow_sim.generators.torsions import TorsionConformers

if TYPE_CHECKING:
    from molflow_sim.systems.molecule import Molecule


@dataclass(frozen=True)
class MixedConformers:
    """Draws of `TorsionConformers` and CoarsenConf in turn, so that what is kept is chosen from both.

    Attributes
    ----------
    share : float
        Of CoarsenConf, between 0 and 1; its draws cost ten times the others.
    weights : str or None
        Weights of CoarsenConf; those of the package if None.
    """

    kind: ClassVar[str] = "conformers/mixed"
    share: float = 0.125
    weights: str | None = None

    def __post_init__(self) -> None:
        check_share(self.share)

    @property
    def first(self) -> Generator:
        """CoarsenConf."""
        return make_generator("conformers", "coarsenconf", weights=self.weights)

    def sample(self, request: ConformerRequest, n: int, *, seed: int, first_index: int = 0) -> Drawn:
        """See `Generator.sample`; raises as both."""
        served(request, ConformerRequest, self.kind, n)
        numbers = first_index + np.arange(n)
        before = int(from_first(np.arange(first_index), self.share).sum())
        chosen = from_first(numbers, self.share)
        seeds = np.random.SeedSequence(seed).generate_state(2, np.uint32).tolist()
        systems: list[Any] = [None] * n
        reasons = [""] * n
        for generator, rows, own_seed, own_first in (
            (self.first, chosen, seeds[0], before),
            (TorsionConformers(), ~chosen, seeds[1], first_index - before),
        ):
            if rows.any():
                part = generator.sample(request, int(rows.sum()), seed=own_seed, first_index=own_first)
                for k, system, reason in zip(np.flatnonzero(rows), part.systems(), part.reasons):
                    systems[k], reasons[k] = system, reason
        return Drawn(numbers, systems, reasons)

    def most(self, molecule: Molecule, n: int) -> int:
        """Draws that hold as many of `TorsionConformers` as it makes by itself."""
        return round(TorsionConformers().most(molecule, n) / (1.0 - self.share))

    def identity(self) -> dict[str, Any]:
        """See `Generator.identity`; that of both belongs to it."""
        of_both = {"first": generator_identity(self.first), "second": generator_identity(TorsionConformers())}
        return {"generator": "mixed", **asdict(self), **of_both}
