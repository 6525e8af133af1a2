"""What a coarse-grained run is: its settings, with their checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from molflow_openmm.cg.forcefield import BACKENDS
from molflow_openmm.cg.topology import check_replicas
from molflow_sim.errors import InputError

MAX_TEMPERATURES = 64
"""Most rungs of a ladder of temperatures."""


@dataclass(frozen=True)
class CGSimulationSettings:
    """Settings of `simulate_cg`.

    Attributes
    ----------
    replicas : int
        Independent copies of the molecule at each temperature.
    ns : float
        Length per copy, ns. A finished run is extended by asking for more.
    temperatures : tuple of float
        K, ascending. Several: replica exchange between neighbours.
    timestep_fs, friction_per_ps : float
        Of the Langevin integrator.
    report_every_ps : float
        Between frames.
    exchange_every_ps : float
        Between attempts to exchange; at least once per report, at even intervals.
    seed : int
        Seeds starting frames, velocities, thermostat and exchanges. Runs that were interrupted are equal to others
        in distribution, not step by step.
    backend, precision : str
        See `CGForceField.createSystem`.
    platform : str
        OpenMM platform.
    checkpoint_seconds : float
        Most time that a kill can cost.
    """

    replicas: int = 100
    ns: float = 1.0
    temperatures: tuple[float, ...] = (300.0,)
    timestep_fs: float = 2.0
    friction_per_ps: float = 1.0
    report_every_ps: float = 1.0
    exchange_every_ps: float = 1.0
    seed: int = 0
    backend: str = "python"
    precision: str = "double"
    platform: str = "Reference"
    checkpoint_seconds: float = 10.0

    def __post_init__(self) -> None:
        check_replicas(self.replicas)
        for name in ("ns", "timestep_fs", "friction_per_ps", "report_every_ps", "exchange_every_ps"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a positive number, not {value}")
        if not self.checkpoint_seconds >= 0:
            raise InputError(f"checkpoint_seconds must not be negative, not {self.checkpoint_seconds}")
        if self.backend not in BACKENDS:
            raise InputError(f"backend must be one of {', '.join(BACKENDS)}, not {self.backend!r}")
        if self.seed < 0:
            raise InputError(f"seed must not be negative, not {self.seed}")
        if self.report_steps < 1:
            raise InputError(
                f"report_every_ps ({self.report_every_ps:g}) is less than a time step ({self.timestep_fs:g} fs)"
            )
        object.__setattr__(self, "temperatures", temperature_ladder(self.temperatures))

    @property
    def report_steps(self) -> int:
        """Steps between frames."""
        return round(1000.0 * self.report_every_ps / self.timestep_fs)

    @property
    def reports(self) -> int:
        """Frames per copy in the whole run, at least one."""
        return max(1, round(1e6 * self.ns / self.timestep_fs / self.report_steps))

    @property
    def chunks(self) -> list[int]:
        """Steps between attempts to exchange, within one report; one chunk where there is one temperature."""
        n = 1 if len(self.temperatures) == 1 else max(1, round(self.report_every_ps / self.exchange_every_ps))
        cuts = np.linspace(0, self.report_steps, min(n, self.report_steps) + 1).round().astype(int)
        return np.diff(cuts).tolist()

    def identity(self) -> dict[str, Any]:
        """The settings that two runs must share to be parts of one run (all but length, platform and checkpoints)."""
        settings = asdict(self)
        for name in ("ns", "platform", "checkpoint_seconds"):
            del settings[name]
        return settings


def temperature_ladder(temperatures: float | str | Sequence[float]) -> tuple[float, ...]:
    """Temperatures from numbers, or from the text ``LOWEST:HIGHEST:NUMBER`` (a geometric ladder).

    Parameters
    ----------
    temperatures : float, str or sequence of float
        K.

    Returns
    -------
    tuple of float
        Ascending.

    Raises
    ------
    InputError
        No such text, a temperature that is not positive, temperatures that do not ascend, or more than 64 of them.

    Examples
    --------
    >>> [round(t, 1) for t in temperature_ladder("300:500:4")]
    [300.0, 355.7, 421.7, 500.0]
    """
    if isinstance(temperatures, str):
        values = _parsed(temperatures)
    elif isinstance(temperatures, (int, float)):
        values = [float(temperatures)]
    else:
        values = [float(t) for t in temperatures]
    if not values or len(values) > MAX_TEMPERATURES:
        raise InputError(f"1 to {MAX_TEMPERATURES} temperatures are possible, not {len(values)}")
    if not all(np.isfinite(t) and t > 0 for t in values) or any(b <= a for a, b in pairwise(values)):
        raise InputError(f"temperatures must be positive and ascend, not {', '.join(f'{t:g}' for t in values)}")
    return tuple(values)


def _parsed(text: str) -> list[float]:
    parts = text.split(":")
    try:
        if len(parts) == 3:
            low, high, n = float(parts[0]), float(parts[1]), int(parts[2])
            if n < 2 or not 0 < low < high or n > MAX_TEMPERATURES:
                raise ValueError
            return [round(t, 6) for t in np.geomspace(low, high, n).tolist()]
        return [float(t) for t in text.split(",")]
    except ValueError:
        raise InputError(
            f"temperatures {text!r} are neither LOWEST:HIGHEST:NUMBER (such as 300:500:4) nor numbers with commas"
        ) from None
