"""Settings of a screening, checked once, at the door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from molflow_sim.errors import InputError
from molflow_sim.generators.protocol import (
    generator_identity,
    make_generator,
    space_group_names,
    whole_number,
    without_code,
)
from molflow_sim.io.powder_read import check_wavelength
from molflow_sim.units import thermal_energy

if TYPE_CHECKING:
    from molflow_sim.generators.protocol import Generator

DEFAULT_CANDIDATES = 12_000
"""Packings searched unless said otherwise: two to four minutes for an aspirin-sized molecule on two cores."""

DEFAULT_GENERATOR = "mixed"
"""Where candidates come from unless said otherwise, see `molflow_sim.generators`: half from the flow, which
are the better ones, half at random, which reach what the flow does not think of."""

DEFAULT_ENERGY = "best"
"""What ranks unless said otherwise: the mean of force field and SO3LR, see `molflow_sim.energies.models`."""

ENERGY_DIGITS = 7
"""Decimals of an energy in eV that decide an order; the rest is rounding, which may differ from run to run."""

POTENTIALS = ("fit", "bespoke")

CHARGE_MODELS = ("mmff94", "hf-esp", "gfn2", "gfn2-esp")

# What a folder's results depend on. The others only say how far to go and in what pieces: they may change later.
_IDENTITY = ("seed", "space_groups", "z_prime", "charges", "potential")


@dataclass(frozen=True)
class ScreenSettings:
    """How a screening runs.

    Attributes
    ----------
    candidates : int
        Packings generated and pressed.
    seed : int
        Seed of the whole run: candidate i follows from it and from i, whatever the size of batches.
    space_groups : str or tuple of str
        ``"common"`` (frequency-weighted) or the symbols to use.
    z_prime : int
        Molecules in the asymmetric unit.
    charges : str
        Charge model of the potential, see `molflow_sim.parametrize`.
    potential : str
        What presses, compares and relaxes: ``"fit"``, or ``"bespoke"``, the molecule's own, see `molflow_sim.bespoke`.
    batch_size : int
        Candidates pressed at once.
    free_top : int
        Lowest distinct pressed packings that are relaxed loosely with all atoms free before any is chosen, so that a
        conformer that is a little off comes home; at least those compared. With rotatable bonds only; 0: none.
    compare_top : int
        Distinct pressed packings whose energy is evaluated again with the full potential (Ewald sums).
    relax_top : int
        How many of those are relaxed with flexible molecules.
    relax_batch : int
        Crystals relaxed at once.
    energy : str
        Energy model that ranks, see `molflow_sim.energies.models`; ``"potential"`` is the force field alone.
    energy_top : int
        How many of the relaxed structures it ranks; the others follow.
    refine_top : int
        How many of the first are relaxed again on ``"best"``, where that ranks.
    temperature : float or None
        K; the first structures are then ranked by their free energy with harmonic lattice vibrations.
    temperature_top : int
        How many.
    top : int
        CIF files written.
    minimum_density, maximum_density : float
        g/cm³; structures outside are dropped (0.5-3.0: FastCSP's filter).
    maximum_stress : float
        GPa; a relaxed structure with more residual stress is marked as not converged.
    generator : str
        Where the packings come from: ``"random"``, ``"flow"`` (a trained crystal flow), ``"mixed"`` (both), or another
        that is installed.
    weights : str or None
        Folder of weights for the generator; those of the package if None.
    pxrd : str or None
        File of a measured powder pattern that every ranked structure is compared with.
    wavelength : float or None
        Å, of that pattern and of the simulated ones; Cu Kα if None.
    generator_options : mapping
        Other options of the generator: its fields, such as ``draws`` of the flow, ``share`` of the mixture.
    """

    candidates: int = DEFAULT_CANDIDATES
    seed: int = 0
    space_groups: str | tuple[str, ...] = "common"
    z_prime: int = 1
    charges: str = "mmff94"
    potential: str = "fit"
    batch_size: int = 500
    free_top: int = 3000
    compare_top: int = 1000
    relax_top: int = 250
    relax_batch: int = 16
    energy: str = DEFAULT_ENERGY
    energy_top: int = 250
    refine_top: int = 40
    temperature: float | None = None
    temperature_top: int = 10
    top: int = 100
    minimum_density: float = 0.5
    maximum_density: float = 3.0
    maximum_stress: float = 0.1
    generator: str = DEFAULT_GENERATOR
    weights: str | None = None
    pxrd: str | None = None
    wavelength: float | None = None
    generator_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = ("candidates", "z_prime", "batch_size", "compare_top", "relax_top", "relax_batch", "energy_top")
        for name in (*counts, "temperature_top"):
            whole_number(name, getattr(self, name), 1)
        for name in ("seed", "top", "refine_top", "free_top"):
            whole_number(name, getattr(self, name), 0)
        if self.charges not in CHARGE_MODELS:
            raise InputError(f"unknown charge model {self.charges!r}; choose from {', '.join(CHARGE_MODELS)}")
        if self.temperature is not None:
            thermal_energy(self.temperature)
        if self.potential not in POTENTIALS:
            raise InputError(f"unknown potential {self.potential!r}; choose from {', '.join(POTENTIALS)}")
        if not 0 <= self.minimum_density < self.maximum_density:
            raise InputError("minimum_density must be below maximum_density, both in g/cm³")
        object.__setattr__(self, "space_groups", space_group_names(self.space_groups))
        for name in ("weights", "pxrd"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, str(getattr(self, name)))
        check_wavelength(self.wavelength)
        self.make_generator()  # refuses what cannot be

    def make_generator(self) -> Generator:
        """The generator of these settings; no weights are read yet."""
        options = dict(self.generator_options)
        if self.weights is not None:
            options["weights"] = self.weights
        return make_generator("crystals", self.generator, **options)

    @property
    def n_batches(self) -> int:
        """Number of press batches."""
        return -(-self.candidates // self.batch_size)

    def size_of_batch(self, index: int) -> int:
        """Candidates in batch `index` (the last may be smaller)."""
        return min(self.batch_size, self.candidates - index * self.batch_size)

    def identity(self) -> dict[str, Any]:
        """The settings that make two runs different runs; the others may grow within one folder.

        Weights count by their SHA-256, wherever they lie.

        Raises
        ------
        WeightsError
            If the generator's weights cannot be used.
        """
        values = self.to_dict()
        packings = without_code(generator_identity(self.make_generator()))
        return {**{name: values[name] for name in _IDENTITY}, "packings": packings}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-like values."""
        values = asdict(self)
        if not isinstance(self.space_groups, str):
            values["space_groups"] = list(self.space_groups)
        return values
