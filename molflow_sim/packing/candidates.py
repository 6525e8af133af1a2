"""What any generator drew, as the packings that the press takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from molflow_sim.errors import CrystalError, NoCandidatesError
from molflow_sim.packing.packings import STATUS, RigidPackings
from molflow_sim.packing.random_packing import body_conformers

if TYPE_CHECKING:
    from molflow_sim.generators.protocol import Candidates
    from molflow_sim.systems.molecule import Molecule

CONFORMER_TOLERANCE = 0.2
"""Å, between an atom of a generator's conformer and of the molecule's own (which may be symmetrised)."""


def packings_of(candidates: Candidates, molecule: Molecule) -> RigidPackings:
    """What a generator drew as packings of the molecule's own conformers; its failed rows are "not generated".

    Raises
    ------
    CrystalError
        Crystals with other conformers, of several species, or with asymmetric units of several sizes.
    """
    if isinstance(candidates, RigidPackings):
        return candidates
    systems = candidates.systems()
    crystals = [system for system in systems if system is not None]
    conformers = body_conformers(molecule)
    if not crystals:
        raise NoCandidatesError(f"the generator failed for all {len(systems)} candidates: {candidates.reasons[0]}")
    made = RigidPackings.from_crystals(crystals)
    if made.conformers.shape[1:] != conformers.shape[1:]:
        raise CrystalError("the generator drew crystals of another molecule")
    apart = np.linalg.norm(made.conformers[:, None] - conformers[None], axis=3).max(2)
    if apart.min(1).max() > CONFORMER_TOLERANCE:
        raise CrystalError("the generator drew crystals with conformers that are not the molecule's own")
    made = replace(made, conformers=conformers, conformer=apart.argmin(1)[made.conformer])
    good = np.array([system is not None for system in systems])
    if not good.all():
        made = made.select(np.maximum(np.cumsum(good) - 1, 0))
        made.cell[~good] = np.nan
        made.status[~good] = STATUS.index("not generated")
    return replace(made, index=np.asarray(candidates.index))
