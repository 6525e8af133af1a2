"""Where packings come from: one protocol for every generator, and their names.

``random`` draws them at random (`random_packings`), ``flow`` asks a trained crystal flow, ``mixed`` does both in turn.
Generators are small and picklable: workers load weights themselves, once per process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from molflow_sim.errors import CrystalError, InputError, WeightsError
from molflow_sim.packing.packings import RigidPackings
from molflow_sim.runs.identity import code_identity

if TYPE_CHECKING:
    from molflow_sim.systems.molecule import Molecule

FLOW_DRAWS = 3
"""Packings that a flow draws for each one it proposes unless said otherwise."""


class Generator(Protocol):
    """Something that proposes packings of a molecule.

    What it proposes has the conformers of `body_conformers`, so that packings of several generators can be joined.
    """

    def propose(
        self,
        molecule: Molecule,
        n: int,
        *,
        seed: int,
        first_index: int = 0,
        space_groups: str | Sequence[str] = "common",
        z_prime: int = 1,
    ) -> RigidPackings:
        """Packings `first_index` to `first_index` + n - 1 of a seed's endless list, not pressed.

        Number i is the same in whatever pieces the list is asked for.

        Parameters
        ----------
        molecule : Molecule
        n : int
        seed : int
            Same molecule, seed and settings: same packings.
        first_index : int
            Number of the first one, kept in `RigidPackings.index`.
        space_groups : "common" or sequence of str
        z_prime : int
            Molecules in the asymmetric unit.

        Raises
        ------
        InputError
            Numbers out of range, or a space group that cannot host the molecule (SpaceGroupError).
        WeightsError
            Weights that are missing or damaged.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """JSON-like values that change when its packings do: name, settings, SHA-256 of weights."""
        ...


@dataclass(frozen=True)
class RandomGenerator:
    """`random_packings` as a generator."""

    def propose(
        self,
        molecule: Molecule,
        n: int,
        *,
        seed: int,
        first_index: int = 0,
        space_groups: str | Sequence[str] = "common",
        z_prime: int = 1,
    ) -> RigidPackings:
        """See `Generator.propose`."""
        from molflow_sim.packing.random_packing import random_packings

        return random_packings(
            molecule, n, space_groups=space_groups, z_prime=z_prime, seed=seed, first_index=first_index
        )

    def identity(self) -> dict[str, Any]:
        """See `Generator.identity`; the code's version is part of every run's identity anyway."""
        return {"generator": "random"}


@dataclass(frozen=True)
class FlowGenerator:
    """A trained crystal flow as a generator.

    Attributes
    ----------
    weights : str or None
        Folder with the weights; those of the package if None.
    draws : int
        Packings drawn for each one proposed, which are the lower ones; see `CrystalFlow.propose`.
    """

    weights: str | None = None
    draws: int = FLOW_DRAWS

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise InputError(f"the flow must draw at least one packing for each proposed, got {self.draws}")

    def propose(
        self,
        molecule: Molecule,
        n: int,
        *,
        seed: int,
        first_index: int = 0,
        space_groups: str | Sequence[str] = "common",
        z_prime: int = 1,
    ) -> RigidPackings:
        """See `Generator.propose`."""
        found: RigidPackings = self.load().propose(
            molecule,
            n,
            seed=seed,
            first_index=first_index,
            space_groups=space_groups,
            z_prime=z_prime,
            draws=self.draws,
        )
        return found

    def identity(self) -> dict[str, Any]:
        """See `Generator.identity`.

        Raises
        ------
        WeightsError
            As `load`.
        """
        weights = str(self.load().card["sha256"])
        code = code_identity(f"{__name__}:FlowGenerator")
        return {"generator": "flow", "weights": weights, "draws": self.draws, "code": code}

    def load(self) -> Any:
        """The flow (`molflow_sim.models.crystal_flow.CrystalFlow`), loaded once in each process.

        Raises
        ------
        WeightsError
            If this installation has no crystal flow, or its weights are missing, damaged or changed.
        """
        return _flow(self.weights)


@dataclass(frozen=True)
class MixedGenerator:
    """Two generators in turn: candidate k comes from `first` whenever floor((k + 1) share) exceeds floor(k share).

    Any stretch of candidates so holds both in their shares, and every candidate's origin follows from its number.

    Attributes
    ----------
    first, second : Generator
    share : float
        Of the first, between 0 and 1.
    """

    first: Generator
    second: Generator
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise InputError(f"the share of a mixed generator must lie between 0 and 1, got {self.share}")

    def from_first(self, index: np.ndarray) -> np.ndarray:
        """Boolean (n,): which candidates, by number, come from the first generator."""
        index = np.asarray(index, dtype=float)
        # 1e-9: a share such as 0.1 is not exact, and the tenth candidate is to be counted.
        return np.floor((index + 1.0) * self.share + 1e-9) > np.floor(index * self.share + 1e-9)

    def propose(
        self,
        molecule: Molecule,
        n: int,
        *,
        seed: int,
        first_index: int = 0,
        space_groups: str | Sequence[str] = "common",
        z_prime: int = 1,
    ) -> RigidPackings:
        """See `Generator.propose`."""
        if n < 1:
            raise InputError(f"at least one candidate is needed, got {n}")
        numbers = first_index + np.arange(n)
        chosen = self.from_first(numbers)
        seeds = np.random.SeedSequence(seed).generate_state(2, np.uint32).tolist()
        before = int(np.floor(first_index * self.share + 1e-9))
        parts = []
        for generator, rows, own_seed, own_first in (
            (self.first, chosen, seeds[0], before),
            (self.second, ~chosen, seeds[1], first_index - before),
        ):
            if rows.any():
                part = generator.propose(
                    molecule, int(rows.sum()), seed=own_seed, first_index=own_first, space_groups=space_groups,
                    z_prime=z_prime,
                )  # fmt: skip
                parts.append(replace(part, index=numbers[rows]))
        for part in parts[1:]:
            if part.conformers.shape != parts[0].conformers.shape or not np.allclose(
                part.conformers, parts[0].conformers, atol=1e-6
            ):
                raise CrystalError("the two generators describe the molecule by different conformers")
        joined = RigidPackings.concatenate(parts)
        return joined.select(np.argsort(joined.index, kind="stable"))

    def identity(self) -> dict[str, Any]:
        """See `Generator.identity`."""
        return {
            "generator": "mixed",
            "share": self.share,
            "first": self.first.identity(),
            "second": self.second.identity(),
        }


GENERATORS: dict[str, Callable[[str | None, float, int], Generator]] = {
    "random": lambda weights, share, draws: RandomGenerator(),
    "flow": lambda weights, share, draws: FlowGenerator(weights, draws),
    "mixed": lambda weights, share, draws: MixedGenerator(FlowGenerator(weights, draws), RandomGenerator(), share),
}
"""Generators by name, made from a folder of weights (or None), a share of the flow and its draws."""


def make_generator(
    name: str, *, weights: str | Path | None = None, flow_share: float = 0.5, flow_draws: int = FLOW_DRAWS
) -> Generator:
    """The generator of a name.

    Parameters
    ----------
    name : {"random", "flow", "mixed"}
    weights : path, optional
        Folder of weights for the flow; those of the package if not given.
    flow_share : float
        Share of the flow's candidates in "mixed".
    flow_draws : int
        Packings that the flow draws for each one it proposes.

    Raises
    ------
    InputError
        If the name is unknown, the share is not between 0 and 1, there are no draws, or weights are given to "random".
    """
    if name not in GENERATORS:
        raise InputError(f"unknown generator {name!r}; choose from {', '.join(GENERATORS)}")
    if weights is not None and name == "random":
        raise InputError("random packing has no weights; choose the generator 'flow' or 'mixed' to use them")
    return GENERATORS[name](None if weights is None else str(weights), flow_share, flow_draws)


@lru_cache(maxsize=4)
def _flow(weights: str | None) -> Any:
    try:
        from molflow_sim.models.crystal_flow import CrystalFlow
    except ImportError as error:
        raise WeightsError(f"this installation has no crystal flow ({error}); choose the generator 'random'") from error
    return CrystalFlow.from_pretrained() if weights is None else CrystalFlow.from_pretrained(weights)
