"""What an NPT run is: its settings, with units in the names' documentation, and their checks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import openmm

from molflow_openmm.crystal.box import SHRINK_ROOM, check_supercell, largest_cutoff, smallest_supercell
from molflow_openmm.crystal.system import commas, extent
from molflow_sim.errors import InputError
from molflow_sim.forcefield.potential import SWITCH_WIDTH
from molflow_sim.systems.crystal import MolecularCrystal

DEFAULT_CUTOFF = 10.0
"""Cutoff of molecular dynamics, Å. With the dispersion correction the pressure of exp-6 is within 5 MPa of its
untruncated value (benzene, urea); without it, 50 MPa too high."""
LEAST_CUTOFF = 6.0
"""Shortest cutoff, Å, taken without being asked for: 30 MPa with the dispersion correction, 300 MPa without."""


def check_positive(settings: Any, *names: str) -> None:
    """Raise an InputError unless these settings are positive numbers, or None."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 0 < value < np.inf:
            raise InputError(f"{name.replace('_', '-')} must be a positive number, not {value}")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings that every run of molecules has.

    Attributes
    ----------
    picoseconds : float
        Length of the run, ps. A finished run is extended by asking for more.
    temperature : float
        K.
    pressure : float or None
        bar; None keeps the cell fixed (NVT).
    timestep : float
        fs.
    report_every : float
        ps between frames, log rows and checkpoints.
    cutoff : float or None
        Å; never changed. None: 10 Å, or what the box can hold if that is less.
    dispersion_correction : bool
        Isotropic long-range correction of exp-6 beyond the cutoff.
    charges : str
        Charge model, see `molflow_sim.forcefield.parametrize`.
    hydrogen_mass : float or None
        amu, repartitioned from the neighbours; None leaves masses alone.
    constrain_hydrogens : bool
        Fix bonds to hydrogen, which allows 2 fs, and 3 fs with `hydrogen_mass` 3; the stiff bonds between heavy atoms
        do not stand 4 fs.
    friction : float
        Langevin friction, 1/ps.
    seed : int
        Seeds velocities, thermostat and barostat. Runs after a restart are equal in distribution, not step by step.
    platform : str or None
        OpenMM platform; None takes the fastest available. Without a GPU the compiled loops run
        (`molflow_openmm.compiled`).
    """

    picoseconds: float = 20.0
    temperature: float = 300.0
    pressure: float | None = 1.0
    timestep: float = 1.0
    report_every: float = 0.1
    cutoff: float | None = None
    dispersion_correction: bool = True
    charges: str = "mmff94"
    hydrogen_mass: float | None = None
    constrain_hydrogens: bool = False
    friction: float = 1.0
    seed: int = 0
    platform: str | None = None

    def __post_init__(self) -> None:
        check_positive(self, "picoseconds", "temperature", "timestep", "report_every", "friction", "hydrogen_mass")
        if self.timestep > 4.0:
            raise InputError(f"a time step of {self.timestep:g} fs is unstable; 2 fs works with constrained hydrogens")
        if self.pressure is not None and not np.isfinite(self.pressure):
            raise InputError(f"pressure must be finite, not {self.pressure}")
        if not 0 <= self.seed < 2**31 - 1:
            raise InputError(f"seed must lie between 0 and {2**31 - 2}, not {self.seed}")
        if self.report_steps < 1:
            raise InputError(f"report-every ({self.report_every:g} ps) is less than a time step ({self.timestep:g} fs)")

    @property
    def report_steps(self) -> int:
        """Steps between reports."""
        return round(1000.0 * self.report_every / self.timestep)

    @property
    def total_steps(self) -> int:
        """Length of the run in steps: whole report intervals, at least two."""
        return max(2, round(1000.0 * self.picoseconds / self.timestep / self.report_steps)) * self.report_steps

    def identity(self) -> dict[str, Any]:
        """The settings that two runs must share to be parts of one run (all but length and platform)."""
        settings = asdict(self)
        del settings["picoseconds"], settings["platform"]
        return settings


@dataclass(frozen=True, kw_only=True)
class SimulationSettings(RunSettings):
    """Settings of an NPT (or NVT) run of a crystal: those of `RunSettings` and

    Attributes
    ----------
    supercell : tuple of int or None
        Repeats along a, b, c; enlarged, with a warning, if it cannot hold 6 Å. None: the smallest that holds the
        cutoff.
    """

    supercell: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.supercell is not None:
            object.__setattr__(self, "supercell", check_supercell(self.supercell))


def choose_box(crystal: MolecularCrystal, settings: SimulationSettings) -> tuple[tuple[int, int, int], float, str]:
    """Supercell and cutoff of a run.

    Returns
    -------
    supercell : tuple of int
    cutoff : float
        Å.
    warning : str
        What was done about a supercell that is too small for the default cutoff; empty if nothing.

    Raises
    ------
    InputError
        The supercell cannot hold the cutoff asked for.
    """
    cell, longest = np.asarray(crystal.cell), extent(crystal)
    wanted = settings.cutoff if settings.cutoff is not None else DEFAULT_CUTOFF
    if not wanted > SWITCH_WIDTH:
        raise InputError(f"the cutoff ({wanted:g} Å) must exceed the switch width, {SWITCH_WIDTH:g} Å")
    smallest = smallest_supercell(cell * SHRINK_ROOM, wanted, longest)
    if settings.supercell is None:
        return smallest, wanted, ""

    def holds(counts: tuple[int, int, int]) -> float:
        return float(np.floor(10.0 * SHRINK_ROOM * largest_cutoff(cell, counts, longest)) / 10.0)

    asked, fits = settings.supercell, holds(settings.supercell)
    if fits >= wanted:
        return asked, wanted, ""
    better = commas(np.maximum(smallest, asked))
    if settings.cutoff is not None:
        raise InputError(
            f"supercell {commas(asked)} holds a cutoff of {max(fits, 0.0):.1f} Å, not the {wanted:g} Å asked for; "
            f"use --supercell {better}" + (f" or --cutoff {fits:.1f}" if fits > 2.0 * SWITCH_WIDTH else "")
        )
    if fits >= LEAST_CUTOFF:
        return asked, fits, f"supercell {commas(asked)} holds a cutoff of {fits:g} Å; {better} would hold {wanted:g} Å"
    least = smallest_supercell(cell * SHRINK_ROOM, LEAST_CUTOFF + 0.1, longest)
    counts = check_supercell(np.maximum(least, asked).tolist())
    fits = min(wanted, holds(counts))
    return (
        counts,
        fits,
        f"supercell {commas(asked)} is too small for any sensible cutoff; {commas(counts)} is used, which holds "
        f"{fits:g} Å; {better} would hold {wanted:g} Å",
    )


def find_platform(name: str | None) -> openmm.Platform | None:
    """An OpenMM platform by name (any case); None for the fastest.

    Raises
    ------
    InputError
        No such platform here; the message lists those there are.
    """
    if name is None:
        return None
    names = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    for known in names:
        if known.lower() == name.lower():
            return openmm.Platform.getPlatform(known)
    raise InputError(f"OpenMM has no platform {name!r} here; available: {', '.join(names)} (molflow doctor says why)")
