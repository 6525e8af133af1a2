"""Metrics of the field, each with its definition and source."""

from molflow_sim.evaluate.free_energy import coverage, dihedral, free_energy_mse, kl_divergence, phi_psi_histogram
from molflow_sim.evaluate.overlap import CLASH_OVERLAP, heavy_atom_overlap
from molflow_sim.evaluate.packing_similarity import (
    DUPLICATE_RMSD,
    FOUND_RMSD,
    PackingMatch,
    found_rmsd,
    packing_similarity,
    prepare,
)
from molflow_sim.evaluate.spearing import speared_rings
from molflow_sim.evaluate.validity import Validity, ValidityThresholds, check_validity

__all__ = [
    "CLASH_OVERLAP",
    "DUPLICATE_RMSD",
    "FOUND_RMSD",
    "PackingMatch",
    "Validity",
    "ValidityThresholds",
    "check_validity",
    "coverage",
    "dihedral",
    "found_rmsd",
    "free_energy_mse",
    "heavy_atom_overlap",
    "kl_divergence",
    "packing_similarity",
    "phi_psi_histogram",
    "prepare",
    "speared_rings",
]
