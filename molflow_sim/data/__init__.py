"""Small data that ship: frames to try the coarse-graining with."""

from __future__ import annotations

import json
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from molflow_sim.cg.frames import BeadFrames

__all__ = ["alanine_card", "alanine_frames"]


def alanine_frames() -> BeadFrames:
    """Capped alanine (ACE-ALA-NME) as five backbone beads, from molecular dynamics of our own.

    Amber ff99SB-ILDN in implicit solvent at 300 K; `alanine_card` holds the details. No forces. Made by
    ``examples/make_alanine_frames.py``.

    Returns
    -------
    BeadFrames

    Raises
    ------
    TrajectoryError
        The file is missing from the installation, or damaged.
    """
    from molflow_sim.cg.frames import BeadFrames

    with as_file(files(__name__) / "alanine.npz") as path:
        return BeadFrames.load(path)


def alanine_card() -> dict[str, Any]:
    """How those frames were made: force field, solvent, temperatures, interval, seed, versions, SHA-256."""
    card: dict[str, Any] = json.loads((files(__name__) / "alanine.json").read_text(encoding="utf-8"))
    return card
