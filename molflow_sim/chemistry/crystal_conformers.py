"""Conformers as crystals have them: three families, each with its share of the candidates of a search.

A molecule in a crystal seldom sits in a minimum of its vacuum energy: intramolecular hydrogen bonds open, soft torsions
stand where neighbours press them. So two families are set beside the vacuum minima:

- **held**: ETKDGv3's torsions, which follow the statistics of measured crystals (Riniker & Landrum, J. Chem. Inf.
  Model. 55, 2562, 2015), are kept while MMFF94 minimises all else;
- **screened**: minima of MMFF94 with its electrostatics divided by `SCREENING`, which neighbours do to them.

The shares were chosen on the training side of a set of measured crystals, see docs/methods/conformers.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdForceFieldHelpers as mmff
from rdkit.Chem import rdMolTransforms

from molflow_sim.chemistry import conformers as conf
from molflow_sim.chemistry.bonds import automorphisms
from molflow_sim.chemistry.rotors import torsions

SHARES = {"vacuum": 0.3, "held": 0.5, "screened": 0.2}
"""Of the candidates of a search; within a family they follow the strain, see `conformers.strain_shares`."""
SCREENING = 10.0
"""Relative permittivity of the screened family."""
MAX_HELD, MAX_SCREENED = 20, 10
SAME_RMSD = 0.1
"""Å; conformers of two families that are closer are one."""
HOLD = 0.01
"""kcal/(mol degree²): stiffness that holds a torsion."""


@dataclass(frozen=True)
class Conformers:
    """Conformers of a molecule with their shares of the candidates of a search.

    Attributes
    ----------
    positions : ndarray, shape (K, N, 3)
        Å, sorted by energy.
    energies : ndarray, shape (K,)
        eV, MMFF94 in vacuum.
    shares : ndarray, shape (K,)
        They sum to 1; an empty array leaves them to the strain.
    """

    positions: np.ndarray
    energies: np.ndarray
    shares: np.ndarray = field(default_factory=lambda: np.empty(0))


def crystal_conformers(rdmol: Chem.Mol, seed: int, mirror: bool) -> Conformers:
    """Conformers of all families.

    Parameters
    ----------
    rdmol : rdkit.Chem.Mol
        Explicit hydrogens, stereochemistry assigned, known to MMFF94.
    seed : int
        Seed of the embedding.
    mirror : bool
        Whether mirror images count as one conformer (a molecule without fixed handedness).

    Raises
    ------
    ConformerError
        If nothing can be embedded or minimised to a finite energy.
    """
    positions, energies = conf.generate(rdmol, None, seed, mirror)
    families = [(SHARES["vacuum"], positions, energies)]
    rotors = conf.count_rotors(rdmol)
    if rotors:
        trials = conf.default_trials(rdmol, rotors)
        held, strain = _held(rdmol, conf.embed(rdmol, trials, seed), mirror)
        if torsions(rdmol):
            families.append((SHARES["held"], held, strain))
        # from rotamers that are rare in crystals, too
        rare = conf.embed(rdmol, max(trials // 2, 2), seed, torsion_preferences=False)
        starts = np.concatenate([held, [c.GetPositions() for c in rare.GetConformers()]])
        minima = _distinct(rdmol, *conf.minimised(rdmol, starts, SCREENING), mirror, MAX_SCREENED)
        families.append((SHARES["screened"], *minima))
    return _joined(rdmol, families, mirror)


def _held(rdmol: Chem.Mol, embedded: Chem.Mol, mirror: bool) -> tuple[np.ndarray, np.ndarray]:
    """Distinct conformers with the torsions they were embedded with, and their energies in eV."""
    mol, held = Chem.Mol(embedded), torsions(rdmol)
    properties = mmff.MMFFGetMoleculeProperties(mol, mmffVariant="MMFF94")
    for conformer in mol.GetConformers():
        field = mmff.MMFFGetMoleculeForceField(
            mol, properties, confId=conformer.GetId(), ignoreInterfragInteractions=False
        )
        field.Initialize()
        for torsion in held:
            angle = rdMolTransforms.GetDihedralDeg(conformer, *torsion)
            if np.isfinite(angle):  # three atoms of a straight chain have none
                field.MMFFAddTorsionConstraint(*torsion, False, angle, angle, HOLD)
        field.Minimize(maxIts=1000)
    positions = np.array([c.GetPositions() for c in mol.GetConformers()])
    return _distinct(rdmol, positions, conf.mmff_energies(rdmol, positions), mirror, MAX_HELD)


def _distinct(
    rdmol: Chem.Mol, positions: np.ndarray, energies: np.ndarray, mirror: bool, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    good = np.isfinite(energies) & np.isfinite(positions).all(axis=(1, 2))
    good[good] = conf.keeps_stereo(rdmol, positions[good])
    order = np.flatnonzero(good)[np.argsort(energies[good], kind="stable")]
    kept = order[conf.prune(rdmol, positions[order], energies[order], mirror=mirror, limit=limit)]
    return positions[kept], energies[kept]


def _joined(rdmol: Chem.Mol, families: list[tuple[float, np.ndarray, np.ndarray]], mirror: bool) -> Conformers:
    """The families as one set; what two of them share keeps the geometry of the first and both its shares."""
    core = conf.core_atoms(rdmol)
    matches = automorphisms(rdmol, core, max_matches=500)
    positions: list[np.ndarray] = []
    shares: list[float] = []
    for total, members, energies in families:
        before = len(positions)  # conformers of one family differ, whatever `SAME_RMSD`
        for x, share in zip(members, total * conf.strain_shares(energies) if len(energies) else []):
            apart = [conf.best_rmsd(y[core], x[core], matches, mirror=mirror) for y in positions[:before]]
            if apart and min(apart) < SAME_RMSD:
                shares[int(np.argmin(apart))] += share
            else:
                positions.append(x)
                shares.append(share)
    found = np.array(positions)
    strain = conf.mmff_energies(rdmol, found)
    order = np.argsort(strain, kind="stable")
    weights = np.array(shares)[order]
    return Conformers(found[order], strain[order], weights / weights.sum())
