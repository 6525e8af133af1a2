"""Metrics of the field, each with its definition and source."""

from molflow_sim.evaluate.packing_similarity import (
    DUPLICATE_RMSD,
    FOUND_RMSD,
    PackingMatch,
    is_same_packing,
    packing_similarity,
    prepare,
)
from molflow_sim.evaluate.validity import Validity, ValidityThresholds, check_validity

__all__ = [
    "DUPLICATE_RMSD",
    "FOUND_RMSD",
    "PackingMatch",
    "Validity",
    "ValidityThresholds",
    "check_validity",
    "is_same_packing",
    "packing_similarity",
    "prepare",
]
