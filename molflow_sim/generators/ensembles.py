"""Conformers of a molecule from what a generator draws: gathered, ranked, with Boltzmann shares."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.units import kB

from molflow_sim.chemistry import conformers as conf
from molflow_sim.errors import NoCandidatesError
from molflow_sim.generators.protocol import ConformerRequest, Generator

if TYPE_CHECKING:
    from molflow_sim.systems.molecule import Molecule

TEMPERATURE = 298.15
"""K, of Boltzmann shares."""


def ensemble(
    molecule: Molecule, n: int, generator: Generator, *, seed: int, info: Mapping[str, Any] | None = None
) -> Molecule:
    """The molecule with `n` conformers of a generator, lowest energy first.

    Raises
    ------
    NoCandidatesError
        None was drawn.
    """
    found = generator.sample(ConformerRequest(molecule), n, seed=seed)
    positions = np.array([system.conformers[0] for system in found.systems() if system is not None])
    failed = Counter(reason for reason in found.reasons if reason)
    counts = ", ".join(f"{count} {reason}" for reason, count in failed.most_common())
    if not len(positions):
        raise NoCandidatesError(f"none of {n} conformers of {molecule.name or molecule.formula} is left: {counts}")
    if failed:
        warnings.warn(f"{failed.total()} of {n} conformers of {molecule.smiles} failed: {counts}", stacklevel=3)
    energies = conf.mmff_energies(molecule.rdmol, positions)
    order = np.argsort(energies, kind="stable")
    positions, energies = positions[order], energies[order]
    return replace(molecule, conformers=positions, energies=energies, shares=boltzmann(energies), info=dict(info or {}))


def boltzmann(energies: np.ndarray, temperature: float = TEMPERATURE) -> np.ndarray:
    """Boltzmann weights (K,) of energies (K,) in eV, normalised; equal where an energy is unknown."""
    if not np.isfinite(energies).all():
        return np.full(len(energies), 1.0 / len(energies))
    weights = np.exp(-(energies - energies.min()) / (kB * temperature))
    return np.asarray(weights / weights.sum())
