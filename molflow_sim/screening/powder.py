"""A measured powder pattern held against the structures of a landscape."""

from __future__ import annotations

from typing import Any

from molflow_sim.evaluate.powder import PowderTarget
from molflow_sim.io.powder_read import read_pattern
from molflow_sim.screening.serialise import crystal_from_json, from_bytes, to_bytes
from molflow_sim.screening.settings import ScreenSettings
from molflow_sim.screening.stages import Shared

BATCH = 10
"""Structures compared at once."""


def measured(settings: ScreenSettings) -> PowderTarget | None:
    """The measured pattern of the settings, None if they name none.

    Raises
    ------
    PatternError
        If the file cannot be used.
    """
    return PowderTarget(read_pattern(settings.pxrd, settings.wavelength)) if settings.pxrd else None


def match_batch(shared: Shared, item: tuple[PowderTarget, list[dict[str, Any]]]) -> bytes:
    """Similarity and strain of structures fitted to the pattern, as fields of `LandscapeEntry`."""
    target, rows = item
    matches = [target.compare(crystal_from_json(row, [shared.molecule])) for row in rows]
    return to_bytes([{"pxrd_similarity": m.similarity, "pxrd_strain": m.strain.ravel().tolist()} for m in matches])


def fields_of(data: list[bytes]) -> list[dict[str, Any]]:
    """What `match_batch` stored, one dict a structure."""
    return [{**row, "pxrd_strain": tuple(row["pxrd_strain"])} for part in data for row in from_bytes(part)]
