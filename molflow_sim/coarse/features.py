"""What networks are told of atoms and bonds, and what of it beads keep.

Features of atoms and bonds as in Stärk et al. (FlowSite, ICML 2024); whole numbers are written as one-hot columns.
Beads take the mean of numbers over their atoms (of one-hot columns: shares), and OR of yes-or-no features; features
that are names (chirality, hybridisation) they do not get.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from molflow_sim.coarse.beads import MoleculeBeads

if TYPE_CHECKING:
    from rdkit import Chem

ELEMENTS = (5, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53)
"""Atomic numbers with a column of their own: the heavy elements that a molecule may have here."""
_COLUMNS: tuple[tuple[str, str, Sequence[object]], ...] = (
    ("atomic number", "number", ELEMENTS),
    ("degree", "number", range(5)),
    ("rings", "number", range(4)),
    ("implicit valence", "number", range(5)),
    ("formal charge", "number", (-1, 0, 1)),
    ("hydrogens", "number", range(5)),
    ("aromatic", "flag", (True,)),
    ("in ring of 5", "flag", (True,)),
    ("in ring of 6", "flag", (True,)),
    ("chirality", "name", ("R", "S")),
    ("hybridisation", "name", ("SP", "SP2", "SP3")),
)
N_ATOM_FEATURES = sum(len(values) for _, _, values in _COLUMNS)
_KINDS = np.array([kind for _, kind, values in _COLUMNS for _ in values])
PARITY_EVEN = np.array([name != "chirality" for name, _, values in _COLUMNS for _ in values])
"""Columns of an atom that are the same in a molecule and its mirror image."""
N_BEAD_FEATURES = int((_KINDS != "name").sum()) + 1
_BONDS = ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")
N_BOND_FEATURES = len(_BONDS) + 3
LARGE_BEAD = 10.0
"""Heavy atoms that the size of a bead is measured in."""


@dataclass(frozen=True, eq=False)
class GraphFeatures:
    """Features of n points and of the bonds between them.

    Attributes
    ----------
    nodes : ndarray, shape (n, F)
    bonds : ndarray of int, shape (nb, 2)
    bond_features : ndarray, shape (nb, N_BOND_FEATURES)
        Type (four columns), E and Z, conjugated.
    """

    nodes: np.ndarray
    bonds: np.ndarray
    bond_features: np.ndarray


def atom_features(rdmol: Chem.Mol) -> GraphFeatures:
    """Features (F = N_ATOM_FEATURES) of the heavy atoms of a molecule, numbered among themselves, and of their bonds.

    Chirality is the CIP label (R or S), which does not depend on the order of the atoms.
    """
    from rdkit import Chem
    from rdkit.Chem import rdCIPLabeler

    rdmol = Chem.Mol(rdmol)
    rdCIPLabeler.AssignCIPLabels(rdmol)
    rings = rdmol.GetRingInfo()
    heavy = [a for a in rdmol.GetAtoms() if a.GetAtomicNum() > 1]
    place = {a.GetIdx(): k for k, a in enumerate(heavy)}
    rows = []
    for a in heavy:
        hydrogens = a.GetTotalNumHs(includeNeighbors=True)
        values = (
            a.GetAtomicNum(), sum(n.GetIdx() in place for n in a.GetNeighbors()),
            min(rings.NumAtomRings(a.GetIdx()), 3), hydrogens, a.GetFormalCharge(), hydrogens, a.GetIsAromatic(),
            rings.IsAtomInRingOfSize(a.GetIdx(), 5), rings.IsAtomInRingOfSize(a.GetIdx(), 6),
            a.GetPropsAsDict().get("_CIPCode", ""), str(a.GetHybridization()),
        )  # fmt: skip
        rows.append([float(v == known) for v, (_, _, options) in zip(values, _COLUMNS) for known in options])
    bonds, features = [], []
    for b in rdmol.GetBonds():
        if b.GetBeginAtomIdx() in place and b.GetEndAtomIdx() in place:
            bonds.append((place[b.GetBeginAtomIdx()], place[b.GetEndAtomIdx()]))
            label = b.GetPropsAsDict().get("_CIPCode", "")
            known = [str(b.GetBondType()) == kind for kind in _BONDS]
            features.append([*known, label == "E", label == "Z", b.GetIsConjugated()])
    return GraphFeatures(
        np.array(rows, np.float32).reshape(-1, N_ATOM_FEATURES),
        np.array(bonds, np.int64).reshape(-1, 2),
        np.array(features, np.float32).reshape(-1, N_BOND_FEATURES),
    )


def bead_features(atoms: GraphFeatures, beads: MoleculeBeads) -> GraphFeatures:
    """Features (F = N_BEAD_FEATURES, the last one the number of heavy atoms) of beads and their bonds, from atoms.

    A bond between beads has each feature that one of the bonds between their atoms has.
    """
    owner = beads.owner[beads.owner >= 0]
    shares = (owner[None, :] == np.arange(beads.n_beads)[:, None]).astype(np.float32)
    size = shares.sum(1, keepdims=True)
    numbers = shares @ atoms.nodes[:, _KINDS == "number"] / size
    flags = (shares @ atoms.nodes[:, _KINDS == "flag"] > 0).astype(np.float32)
    place = {(int(i), int(j)): k for k, (i, j) in enumerate(beads.topology.bonds)}
    features = np.zeros((len(place), N_BOND_FEATURES), np.float32)
    for (i, j), values in zip(owner[atoms.bonds], atoms.bond_features):
        if i != j:
            k = place[min(i, j), max(i, j)]
            features[k] = np.maximum(features[k], values)
    return GraphFeatures(np.concatenate([numbers, flags, size / LARGE_BEAD], 1), beads.topology.bonds, features)
