"""Generators of crystals that need no network of their own: at random, and two others in turn."""

from __future__ import annotations

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


def from_first(index: np.ndarray, share: float) -> np.ndarray:
    """Boolean (n,): which candidates of a mixture, by number, come from the generator that has this share."""
    index = np.asarray(index, dtype=float)
    # 1e-9: a share such as 0.1 is not exact, and the tenth candidate is to be counted.
    return np.floor((index + 1.0) * share + 1e-9) > np.floor(index * share + 1e-9)


def check_share(share: float) -> None:
    """Refuse a share of a mixture that leaves nothing to one of both."""
    if not 0.0 < share < 1.0:
        raise InputError(f"the share of a mixed generator must lie between 0 and 1, got {share}")


@dataclass(frozen=True)
class MixedGenerator:
    """Two generators in turn: candidate k comes from the first whenever floor((k + 1) share) exceeds floor(k share).

    Any stretch of candidates so holds both in their shares, and every candidate's origin follows from its number.

    Attributes
    ----------
    share : float
        Of the first, between 0 and 1.
    weights : str or None
        Weights of the first, which is the flow; those of the package if None.
    draws : int
        Of the flow, see there.
    """

    kind: ClassVar[str] = "crystals/mixed"
    share: float = 0.5
    weights: str | None = None
    draws: int = 3

    def __post_init__(self) -> None:
        check_share(self.share)

    @property
    def first(self) -> Generator:
        """The flow."""
        return make_generator("crystals", "flow", weights=self.weights, draws=self.draws)

    @property
    def second(self) -> Generator:
        """Random packing."""
        return RandomGenerator()

    def from_first(self, index: np.ndarray) -> np.ndarray:
        """Boolean (n,): which candidates, by number, come from the first generator."""
        return from_first(index, self.share)

    def sample(self, request: CrystalRequest, n: int, *, seed: int, first_index: int = 0) -> RigidPackings:
        """See `Generator.sample`."""
        from molflow_sim.packing.packings import RigidPackings

        served(request, CrystalRequest, self.kind, n)
        numbers = first_index + np.arange(n)
        chosen = self.from_first(numbers)
        seeds = np.random.SeedSequence(seed).generate_state(2, np.uint32).tolist()
        before = int(np.floor(first_index * self.share + 1e-9))
        parts: list[RigidPackings] = []
        for generator, rows, own_seed, own_first in (
            (self.first, chosen, seeds[0], before),
            (self.second, ~chosen, seeds[1], first_index - before),
        ):
            if rows.any():
                part: Any = generator.sample(request, int(rows.sum()), seed=own_seed, first_index=own_first)
                parts.append(replace(part, index=numbers[rows]))
        if len(parts) == 2 and not np.allclose(parts[0].conformers, parts[1].conformers, atol=1e-6):
            raise CrystalError("the two generators describe the molecule by different conformers")
        joined = RigidPackings.concatenate(parts)
        return joined.select(np.argsort(joined.index, kind="stable"))

    def identity(self) -> dict[str, Any]:
        """See `Generator.identity`."""
        return {
            "generator": "mixed",
            "share": self.share,
            "first": generator_identity(self.first),
            "second": generator_identity(self.second),
        }
