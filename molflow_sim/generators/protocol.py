"""What a generator is: requests in, numbered candidates out.

A request says all that fixes what is asked for, and is checked when it is made. One class for each kind of structure
stands in `REQUESTS`; a generator is a small frozen dataclass whose fields are its options, so that it can be pickled
and sent to workers, which load weights themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

from molflow_sim.errors import InputError, RequestError
from molflow_sim.registry import GENERATORS
from molflow_sim.runs.identity import code_identity

if TYPE_CHECKING:
    import numpy as np

    from molflow_sim.systems.molecule import Molecule

R = TypeVar("R")


@dataclass(frozen=True)
class CrystalRequest:
    """Crystals of one molecule.

    Attributes
    ----------
    molecule : Molecule
    space_groups : str or tuple of str
        ``"common"`` (frequency-weighted), or symbols: a sequence, or text such as ``"P21/c,P-1"``.
    z_prime : int
        Molecules in the asymmetric unit.

    Raises
    ------
    InputError
        A number below 1, no or (SpaceGroupError) an unknown space group.
    """

    kind: ClassVar[str] = "crystals"
    molecule: Molecule
    space_groups: str | Sequence[str] = "common"
    z_prime: int = 1

    def __post_init__(self) -> None:
        whole_number("z_prime", self.z_prime, 1)
        object.__setattr__(self, "space_groups", space_group_names(self.space_groups))


@dataclass(frozen=True)
class ClusterRequest:
    """Clusters of molecules.

    Attributes
    ----------
    molecules : Molecule or sequence of Molecule
        The species, each once.
    copies : int, sequence of int, or text such as "10,5"
        How many of each; a single number is of every species.
    density : float
        g/cm³ of the sphere or box at the start.
    periodic : bool
        A cubic periodic box; otherwise a sphere in open space.

    Raises
    ------
    InputError
        No molecules, copies that do not match them, or a density that is not positive.
    """

    kind: ClassVar[str] = "clusters"
    molecules: tuple[Molecule, ...]
    copies: int | str | Sequence[int] = 17
    density: float = 0.5
    periodic: bool = False

    def __post_init__(self) -> None:
        given: Any = self.molecules
        molecules = tuple(given) if isinstance(given, (list, tuple)) else (given,)
        try:
            copies = [int(c) for c in self.copies.split(",")] if isinstance(self.copies, str) else self.copies
        except ValueError:
            raise InputError(
                f"copies are numbers with commas between them, such as 10,5, not {self.copies!r}"
            ) from None
        counts: list[Any] = list(copies) if isinstance(copies, (list, tuple)) else [copies]
        if len(counts) == 1:
            counts = counts * len(molecules)
        if not molecules or len(counts) != len(molecules):
            raise InputError(
                f"{len(molecules)} molecules and {len(counts)} numbers of copies; give one number for each molecule, "
                "or a single one for all"
            )
        for count in counts:
            whole_number("copies", count, 1)
        if isinstance(self.density, bool) or not isinstance(self.density, Real) or not 0.0 < self.density < 25.0:
            raise InputError(f"the density must lie between 0 and 25 g/cm³, not {self.density!r}")
        object.__setattr__(self, "molecules", molecules)
        object.__setattr__(self, "copies", tuple(counts))


@dataclass(frozen=True)
class ConformerRequest:
    """Conformers of one molecule.

    Attributes
    ----------
    molecule : Molecule
        In whose atom order and stereochemistry; its own conformers do not matter. `Molecule.from_smiles` with
        ``search=False`` does not look for any.
    """

    kind: ClassVar[str] = "conformers"
    molecule: Molecule


REQUESTS: dict[str, type] = {"crystals": CrystalRequest, "clusters": ClusterRequest, "conformers": ConformerRequest}
"""Requests by the kind of structure."""
DEFAULT_METHOD = {"crystals": "flow", "clusters": "random", "conformers": "torsions"}
"""Generators by the kind of structure, where none is named."""


class Candidates(Protocol):
    """n numbered structures, some of which may have failed; `molflow_sim.packing.RigidPackings` is one.

    Attributes
    ----------
    index : ndarray of int, shape (n,)
        Numbers of the candidates.
    reasons : list of str, length n
        Empty where there is a structure, otherwise why there is none.
    """

    @property
    def index(self) -> np.ndarray:
        """Numbers (n,)."""
        ...

    @property
    def reasons(self) -> list[str]:
        """Why a row has no structure; empty where it has."""
        ...

    def systems(self) -> list[Any]:
        """The structures (a `Molecule` of one conformer for conformers), None where one failed."""
        ...


@dataclass(frozen=True, eq=False)
class Drawn:
    """Candidates as lists."""

    index: np.ndarray
    structures: list[Any]
    reasons: list[str]

    def systems(self) -> list[Any]:
        """See `Candidates.systems`."""
        return self.structures


@runtime_checkable
class Generator(Protocol):
    """Something that draws structures; its name in the registry is `kind`, such as "crystals/flow".

    One whose class says ``uses_conformers = False`` is given molecules without a search of their conformers.
    """

    kind: ClassVar[str]

    def sample(self, request: Any, n: int, *, seed: int, first_index: int = 0) -> Candidates:
        """Candidates `first_index` to `first_index` + n - 1 of a seed.

        Parameters
        ----------
        request : CrystalRequest, ...
            Of the kind that the generator's name begins with.
        n : int
        seed : int
        first_index : int
            Number of the first one.

        Raises
        ------
        RequestError
            A request that this generator cannot serve.
        InputError
            Numbers out of range, or a space group that cannot host the molecule (SpaceGroupError).
        WeightsError
            Weights that are missing or damaged.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """JSON-like values that change when its structures do: name, options, SHA-256 of weights."""
        ...


def make_generator(kind: str, method: str, **options: Any) -> Generator:
    """The generator of a method, e.g. ``make_generator("crystals", "flow", draws=5)``; no weights are read yet.

    Raises
    ------
    InputError
        An unknown kind or method, or options that it does not have.
    PluginError
        A method of another package that cannot be used.
    """
    if kind not in REQUESTS:
        raise InputError(f"unknown kind of structure {kind!r}; choose from {', '.join(REQUESTS)}")
    made = GENERATORS.make(f"{kind}/{method}", options)
    if not isinstance(made, Generator):
        raise InputError(f"{kind}/{method} is no generator: it lacks kind, sample or identity")
    return made


def generator_identity(generator: Generator) -> dict[str, Any]:
    """What results of a generator depend on: its identity, its code, and the package of one that is not ours."""
    origin = GENERATORS.origin(generator.kind)
    code = code_identity(f"{type(generator).__module__}:{type(generator).__qualname__}")
    return {**generator.identity(), "code": code, **({"package": origin} if origin else {})}


def without_code(identity: dict[str, Any]) -> dict[str, Any]:
    """A generator's identity without its code and that of generators inside of it."""
    return {k: without_code(v) if isinstance(v, dict) else v for k, v in identity.items() if k != "code"}


def served(request: Any, of: type[R], by: str, n: int) -> R:
    """The request, if it is of the class that a generator serves, and a number of candidates that can be drawn.

    Raises
    ------
    RequestError
        It is not.
    InputError
        None are to be drawn.
    """
    whole_number("the number of candidates", n, 1)
    if not isinstance(request, of):
        kind = getattr(request, "kind", type(request).__name__)
        raise RequestError(f"the generator {by} cannot serve a request for {kind}")
    return request


def whole_number(name: str, value: Any, least: int) -> None:
    """Refuse what is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}")


def space_group_names(value: str | Sequence[str]) -> str | tuple[str, ...]:
    """``"common"``, or the full symbols of the groups named, each once.

    Raises
    ------
    InputError
        No group, or (SpaceGroupError) an unknown one.
    """
    from molflow_sim.symmetry import SpaceGroup

    if isinstance(value, str):
        if value == "common":
            return value
        value = [name.strip() for name in value.split(",")]
    if not isinstance(value, Iterable):
        raise InputError(f"space groups are symbols or 'common', not {value!r}")
    names = tuple(dict.fromkeys(SpaceGroup.from_name(str(name)).name for name in value if str(name)))
    if not names:
        raise InputError("no space group given; name some (P21/c,P-1) or say 'common'")
    return names
