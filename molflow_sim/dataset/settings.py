"""Settings of a data set, checked once, at the door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from molflow_sim.errors import InputError
from molflow_sim.generators.protocol import generator_identity, whole_number
from molflow_sim.screening.settings import ScreenSettings

if TYPE_CHECKING:
    from molflow_sim.generators.protocol import Generator

_SEARCH = (
    "candidates", "seed", "space_groups", "z_prime", "charges", "generator", "weights", "generator_options",
)  # fmt: skip


@dataclass(frozen=True)
class DatasetSettings:
    """How the packings of each molecule are searched and which are kept.

    Attributes
    ----------
    candidates : int
        Packings pressed for each molecule.
    window : float
        kJ/mol per molecule; packings higher than this above the molecule's lowest are left out.
    keep : int
        Packings kept at most for each molecule, the lowest.
    max_atoms : int
        Larger molecules of the list are dropped with a reason (experimental crystals are not).
    seed : int
        Seed of the whole set; every molecule draws from (seed, its SMILES), so order and company do not matter.
    space_groups : str or tuple of str
        ``"common"`` (frequency-weighted) or the symbols to use.
    z_prime : int
        Molecules in the asymmetric unit.
    charges : str
        Charge model of the potential, see `molflow_sim.parametrize`.
    generator : str
        Where the packings come from: ``"random"``, ``"flow"`` (a trained crystal flow) or ``"mixed"``.
    weights : str or None
        Folder of weights for the generator; those of the package if None.
    generator_options : mapping
        Other options of the generator, as in `ScreenSettings`.
    """

    candidates: int = 400
    window: float = 15.0
    keep: int = 60
    max_atoms: int = 40
    seed: int = 0
    space_groups: str | tuple[str, ...] = "common"
    z_prime: int = 1
    charges: str = "mmff94"
    generator: str = "random"
    weights: str | None = None
    generator_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The settings that a screening has too are checked as it checks them.
        search = self._search()
        object.__setattr__(self, "space_groups", search.space_groups)
        object.__setattr__(self, "weights", search.weights)
        for name in ("keep", "max_atoms"):
            whole_number(name, getattr(self, name), 1)
        if isinstance(self.window, bool) or not isinstance(self.window, (int, float)) or not 0 < self.window < 1e4:
            raise InputError(f"window must be a positive energy in kJ/mol, not {self.window!r}")
        object.__setattr__(self, "window", float(self.window))

    def _search(self) -> ScreenSettings:
        return ScreenSettings(**{name: getattr(self, name) for name in _SEARCH})

    def make_generator(self) -> Generator:
        """As `ScreenSettings.make_generator`."""
        return self._search().make_generator()

    def identity(self) -> dict[str, Any]:
        """The settings that make two data sets different ones; weights count by their SHA-256, wherever they lie.

        Raises
        ------
        WeightsError
            If the generator's weights cannot be used.
        """
        values = self.to_dict()
        for name in ("generator", "weights", "generator_options"):
            del values[name]
        return {**values, "packings": generator_identity(self.make_generator())}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-like values."""
        values = asdict(self)
        if not isinstance(self.space_groups, str):
            values["space_groups"] = list(self.space_groups)
        return values
