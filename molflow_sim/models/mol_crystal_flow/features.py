"""The 18 invariants of a molecule that the published network sees beside its embedding.

In this order: number of atoms; three principal moments; radius of gyration, asphericity, eccentricity, planarity; heavy
atoms, molar mass; stereocentres, hydrogen-bond donors, acceptors, rotatable bonds, rings, aromatic rings, logP, TPSA.
The first eight follow from the geometry alone; RDKit is needed for the others only, and imported when they are asked
for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from molflow_sim.errors import MoleculeError

NAMES = (
    "atoms", "moment_1", "moment_2", "moment_3", "radius_of_gyration", "asphericity", "eccentricity", "planarity",
    "heavy_atoms", "molar_mass", "stereocentres", "donors", "acceptors", "rotatable_bonds", "rings", "aromatic_rings",
    "logp", "tpsa",
)  # fmt: skip
N_FEATURES = len(NAMES)

# Typical sizes among organic molecules of up to 60 atoms: the network sees (value - centre) / width.
_CENTRE = np.array([25, 6.0, 2.5, 0.7, 3.0, 4.0, 0.9, 0.8, 14, 200, 0.5, 1.0, 3.0, 2.0, 1.5, 1.0, 1.5, 45.0])
_WIDTH = np.array([12, 5.0, 1.5, 0.7, 0.8, 4.0, 0.15, 0.2, 7, 90, 1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 1.5, 30.0])

_VOLUMES = {
    1: 5.08, 5: 13.24, 6: 13.87, 7: 11.8, 8: 11.39, 9: 11.17, 14: 37.3, 15: 29.5, 16: 25.2, 17: 25.8, 34: 30.3,
    35: 32.7, 53: 46.2,
}  # fmt: skip


def crystal_volume(numbers: np.ndarray) -> float:
    """Volume in Å³ that a molecule takes in a crystal: sum of average atomic volumes.

    Source: Hofmann, Acta Cryst. B58, 489 (2002), table of average volumes in organic crystals; other elements count
    as 30 Å³.
    """
    return float(sum(_VOLUMES.get(int(z), 30.0) for z in np.asarray(numbers)))


def geometric_features(n: int, moments: np.ndarray) -> np.ndarray:
    """The eight invariants of n atoms that need no chemistry (8,), from their principal moments λ₁ ≥ λ₂ ≥ λ₃ in Å².

    Asphericity is λ₁ − (λ₂ + λ₃)/2, eccentricity sqrt(1 − λ₃/λ₁), planarity 1 − λ₃/λ₂ (1 for flat molecules).
    """
    l1, l2, l3 = moments
    return np.array(
        [
            n, l1, l2, l3, np.sqrt(moments.sum()), l1 - 0.5 * (l2 + l3),
            np.sqrt(max(0.0, 1.0 - l3 / max(l1, 1e-9))), 1.0 - l3 / max(l2, 1e-9) if l2 > 1e-6 else 0.0,
        ]
    )  # fmt: skip


def chemical_features(rdmol: Any) -> np.ndarray:
    """The ten invariants of the molecular graph (10,), from an RDKit molecule."""
    from rdkit import rdBase
    from rdkit.Chem import Crippen, Descriptors, FindMolChiralCenters, RemoveHs, rdMolDescriptors

    with rdBase.BlockLogs():
        try:
            rdmol = RemoveHs(rdmol)  # the patterns of donors and acceptors expect implicit hydrogens
        except ValueError:
            pass  # perceived from a crystal and not quite RDKit's idea of a molecule: as it is
        centres = FindMolChiralCenters(rdmol, includeUnassigned=True, useLegacyImplementation=False)
    d: Any = rdMolDescriptors
    crippen: Any = Crippen
    descriptors: Any = Descriptors
    return np.array(
        [
            rdmol.GetNumHeavyAtoms(), descriptors.MolWt(rdmol), len(centres), d.CalcNumHBD(rdmol), d.CalcNumHBA(rdmol),
            d.CalcNumRotatableBonds(rdmol), d.CalcNumRings(rdmol), d.CalcNumAromaticRings(rdmol),
            crippen.MolLogP(rdmol), d.CalcTPSA(rdmol),
        ],
        dtype=float,
    )  # fmt: skip


def chemical_features_of_smiles(smiles: str) -> np.ndarray:
    """As `chemical_features`, from a SMILES.

    Raises
    ------
    MoleculeError
        If it cannot be parsed.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        rdmol = Chem.MolFromSmiles(smiles)
    if rdmol is None:
        raise MoleculeError(f"SMILES {smiles!r} cannot be parsed")
    return chemical_features(rdmol)


def invariants(numbers: np.ndarray, moments: np.ndarray, chemical: np.ndarray) -> np.ndarray:
    """All 18 (18,), centred and scaled for the network, cut off at five widths."""
    raw = np.concatenate([geometric_features(len(numbers), moments), chemical])
    return np.clip((raw - _CENTRE) / _WIDTH, -5.0, 5.0)
