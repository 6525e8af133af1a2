"""Generators of crystals that need no network of their own: at random, and in turn with the flow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from molflow_sim.errors import CrystalError, InputError
from molflow_sim.generators.protocol import CrystalRequest, Generator, generator_identity, make_generator, served

if TYPE_CHECKING:
    from molflow_sim.packing.packings import RigidPackings


@dataclass(frozen=True)
class RandomGenerator:
    """`random_packings` as a generator."""

    kind: ClassVar[str] = "crystals/random"

    def sample(self, request: CrystalRequest, n: int, *, seed: int, first_index: int = 0) -> RigidPackings:
        """See `Generator.sample`."""
        from molflow_sim.packing.random_packing import random_packings

        asked = served(request, CrystalRequest, self.kind, n)
        return random_packings(
            asked.molecule, n, space_groups=asked.space_groups, z_prime=asked.z_prime, seed=seed,
            first_index=first_index,
        )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        """See `Generator.identity`."""
        return {"generator": "random"}


@dataclass(frozen=True)
class Mixture:
    """Two generators in turn: candidate k comes from the first whenever floor((k + 1) share) exceeds floor(k share).

    Any stretch of candidates so holds both in their shares, and every candidate's origin follows from its number.

    Attributes
    ----------
    share : float
        Of the first, between 0 and 1.
    weights : str or None
        Weights of the first; those of the package if None.
    """

    share: float = 0.5
    weights: str | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise InputError(f"the share of a mixed generator must lie between 0 and 1, got {self.share}")

    @property
    def first(self) -> Generator:
        """The one that the share is of."""
        raise NotImplementedError

    @property
    def second(self) -> Generator:
        """The other."""
        raise NotImplementedError

    def _before(self, index: np.ndarray) -> np.ndarray:
        """How many of the candidates before each come from the first."""
        # 1e-9: a share such as 0.1 is not exact, and the tenth candidate is to be counted.
        return np.floor(np.asarray(index, dtype=float) * self.share + 1e-9)

    def from_first(self, index: np.ndarray) -> np.ndarray:
        """Boolean (n,): which candidates, by number, come from the first generator."""
        return self._before(np.asarray(index) + 1) > self._before(index)

    def parts(self, request: Any, n: int, seed: int, first_index: int) -> Iterator[tuple[np.ndarray, Any]]:
        """Places (k,) of a generator's candidates among the n, and the candidates; nothing of one that has none."""
        chosen = self.from_first(first_index + np.arange(n))
        before = int(self._before(np.array(first_index)))
        seeds = np.random.SeedSequence(seed).generate_state(2, np.uint32).tolist()
        starts = before, first_index - before
        for generator, rows, own_seed, start in zip((self.first, self.second), (chosen, ~chosen), seeds, starts):
            if rows.any():
                drawn = generator.sample(request, int(rows.sum()), seed=own_seed, first_index=start)
                yield np.flatnonzero(rows), drawn

    def identity(self) -> dict[str, Any]:
        """See `Generator.identity`; that of both belongs to it."""
        of_both = {"first": generator_identity(self.first), "second": generator_identity(self.second)}
        return {"generator": "mixed", "share": self.share, **of_both}


@dataclass(frozen=True)
class MixedGenerator(Mixture):
    """The crystal flow, the first, and random packing in turn.

    Attributes
    ----------
    share, weights
        See `Mixture`.
    draws : int
        Of the flow, see there.
    """

    kind: ClassVar[str] = "crystals/mixed"
    draws: int = 3

    @property
    def first(self) -> Generator:
        """The flow."""
        return make_generator("crystals", "flow", weights=self.weights, draws=self.draws)

    @property
    def second(self) -> Generator:
        """Random packing."""
        return RandomGenerator()

    def sample(self, request: CrystalRequest, n: int, *, seed: int, first_index: int = 0) -> RigidPackings:
        """See `Generator.sample`."""
        from molflow_sim.packing.packings import RigidPackings

        served(request, CrystalRequest, self.kind, n)
        parts = [replace(part, index=first_index + rows) for rows, part in self.parts(request, n, seed, first_index)]
        if len(parts) == 2 and not np.allclose(parts[0].conformers, parts[1].conformers, atol=1e-6):
            raise CrystalError("the two generators describe the molecule by different conformers")
        joined = RigidPackings.concatenate(parts)
        return joined.select(np.argsort(joined.index, kind="stable"))
