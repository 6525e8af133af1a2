"""How a data set of amorphous clusters is made: independent boxes, packed loosely, molten, cooled and sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from molflow_sim.errors import InputError
from molflow_sim.packing.clusters import PACKERS

SEGMENT_PS = 2.0
"""ps between checkpoints before production (in production: a frame)."""


class Segment(NamedTuple):
    """A run of steps at one temperature and pressure, at whose end a checkpoint is written."""

    stage: str
    steps: int
    temperature: float
    pressure: float
    frame: bool


@dataclass(frozen=True)
class Recipe:
    """Settings of the data set.

    Attributes
    ----------
    copies : int
        Molecules in a box.
    boxes : int
        Independent boxes, each packed with its own seed.
    frames : int
        Of all boxes together.
    packing : {"packmol", "random"}
        How the boxes are packed.
    start_density : float
        g/cm³.
    hot_temperature, temperature : float
        K; molten and equilibrated at the first, sampled at the second.
    hot_pressure, pressure : float
        bar; the first presses the loose box together (a liquid hardly notices it).
    hot_ps, production_ps : float
        ps, each box.
    cooling_rate : float
        K/ns.
    settle_ps : float
        ps at the final temperature before sampling.
    timestep : float
        fs, with bonds to hydrogen constrained.
    hydrogen_mass : float or None
        amu.
    friction : float
        1/ps.
    cutoff : float
        Å.
    charges : str
        Charge model.
    seed : int
    """

    copies: int
    boxes: int = 3
    frames: int = 301
    packing: str = "packmol"
    start_density: float = 0.1
    hot_temperature: float = 650.0
    temperature: float = 300.0
    hot_pressure: float = 1000.0
    pressure: float = 1.0
    hot_ps: float = 400.0
    production_ps: float = 1000.0
    cooling_rate: float = 500.0
    settle_ps: float = 50.0
    timestep: float = 3.0
    hydrogen_mass: float | None = 3.0
    friction: float = 1.0
    cutoff: float = 10.0
    charges: str = "mmff94"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "start_density", "hot_temperature", "temperature", "hot_ps", "production_ps", "cooling_rate", "timestep",
            "friction", "cutoff",
        ):  # fmt: skip
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"{name.replace('_', '-')} must be a positive number, not {value}")
        if min(self.copies, self.boxes) < 1 or self.frames < self.boxes:
            raise InputError("copies and boxes must be at least 1, and every box needs at least one frame")
        if self.packing not in PACKERS:
            raise InputError(f"packing must be one of {', '.join(PACKERS)}, not {self.packing!r}")
        if self.hot_temperature < self.temperature:
            raise InputError(f"hot-temperature must not be below temperature, {self.temperature:g} K")
        if self.settle_ps < 0 or self.seed < 0:
            raise InputError("settle-ps and seed must not be negative")

    def frames_of(self, box: int) -> int:
        """Frames that a box gives."""
        return self.frames // self.boxes + (box < self.frames % self.boxes)

    def segments(self, box: int) -> list[Segment]:
        """What a box goes through."""
        hot, cold = self.hot_temperature, self.temperature
        cooling_ps = 1e3 * (hot - cold) / self.cooling_rate
        n = max(1, round(cooling_ps / SEGMENT_PS)) if hot > cold else 0
        steps = self._steps(SEGMENT_PS)
        ramp = hot + (cold - hot) * (np.arange(n) + 1.0) / max(n, 1)
        frames = self.frames_of(box)
        every = self._steps(self.production_ps / frames)
        return [
            *[Segment("hot", steps, hot, self.hot_pressure, False)] * max(1, round(self.hot_ps / SEGMENT_PS)),
            *[Segment("cooling", steps, float(t), self.pressure, False) for t in ramp],
            *[Segment("settling", steps, cold, self.pressure, False)] * round(self.settle_ps / SEGMENT_PS),
            *[Segment("production", every, cold, self.pressure, True)] * frames,
        ]

    def _steps(self, ps: float) -> int:
        return max(1, round(1e3 * ps / self.timestep))


def split_frames(n: int, seed: int) -> np.ndarray:
    """0 (training), 1 (validation) or 2 (test) for n frames, 80:10:10, decided by the seed alone; uint8."""
    out = np.zeros(n, dtype=np.uint8)
    tenth = max(1, n // 10) if n > 2 else 0
    chosen = np.random.default_rng([seed, n]).permutation(n)
    out[chosen[:tenth]] = 2
    out[chosen[tenth : 2 * tenth]] = 1
    return out


def together(positions: np.ndarray, cell: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Whole molecules of a periodic box (N, 3) gathered into one cluster about the origin.

    One molecule after another is taken in the image nearest to the mean of those already there, the nearest first.
    """
    firsts = np.concatenate([[0], np.cumsum(sizes)])
    centres = np.add.reduceat(positions, firsts[:-1]) / np.asarray(sizes)[:, None]
    inverse = np.linalg.inv(cell)
    shifts = np.zeros_like(centres)
    done, todo = [0], list(range(1, len(centres)))
    near = np.array(list(np.ndindex(3, 3, 3)), dtype=float) - 1.0
    while todo:
        gap = centres[todo] - (centres + shifts)[done].mean(0)
        home = -np.rint(gap @ inverse)
        images = (home[:, None] + near) @ cell  # the nearest image of a skewed box may be next to the rounded one
        distance = np.linalg.norm(gap[:, None] + images, axis=2)
        k, image = np.unravel_index(distance.argmin(), distance.shape)
        shifts[todo[k]] = images[k, image]
        done.append(todo.pop(k))
    out = positions + np.repeat(shifts, sizes, axis=0)
    return out - out.mean(0)
