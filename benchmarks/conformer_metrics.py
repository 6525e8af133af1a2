"""Conformers against known ones: coverage, average minimum RMSD; failures and wrong stereochemistry count.

RMSDs are over heavy atoms, the smallest over rotations and all ways in which the molecule maps on itself, as RDKit's
`GetBestRMS` after `RemoveHs` has it: conjugated terminal groups (carboxyl, nitro) count as symmetric.

Coverage and AMR are those of the field (Ganea et al., NeurIPS 2021; Reidenbach & Krishnapriyan, CoarsenConf, eq. 2).
Two faults of their usual evaluation are mended: a conformer that was asked for and is missing, or shows another
stereoisomer, counts as a failure in coverage *and* in the means, where it gets the RMSD of structures that nothing can
lay on one another (`unrelated`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rdkit import Chem, rdBase

from molflow_sim.chemistry.bonds import graph_mol
from molflow_sim.chemistry.checks import canonical_smiles
from molflow_sim.chemistry.conformers import keeps_stereo
from molflow_sim.errors import InputError
from molflow_sim.geometry.rmsd import rmsd_matrix

MAX_MAPPINGS = 20_000
"""Ways to map a molecule on itself that are tried at most."""


def mappings(reference: Chem.Mol, generated: Chem.Mol) -> tuple[np.ndarray, np.ndarray]:
    """Heavy atoms of two copies of a molecule, in every order in which one may be laid over the other.

    Parameters
    ----------
    reference, generated : rdkit.Chem.Mol
        Of the same constitution, in any atom order.

    Returns
    -------
    atoms : ndarray (n,) of int
        Heavy atoms of the reference.
    orders : ndarray (M, n) of int
        Their partners among the atoms of the other, one row for each mapping.

    Raises
    ------
    InputError
        They are different molecules.
    """
    atoms, graph = _heavy_graph(reference)
    others, other = _heavy_graph(generated)
    matches: tuple[tuple[int, ...], ...] = ()
    if len(atoms) == len(others):
        matches = other.GetSubstructMatches(graph, uniquify=False, useChirality=False, maxMatches=MAX_MAPPINGS)
    if not matches:
        raise InputError(f"{canonical_smiles(generated)} is not the molecule {canonical_smiles(reference)}")
    return atoms, others[np.array(matches)]


def heavy_atom_rmsds(reference: Chem.Mol, known: np.ndarray, generated: Chem.Mol, positions: np.ndarray) -> np.ndarray:
    """RMSD (L, K) in Å of each known conformer to each generated one.

    Parameters
    ----------
    reference : rdkit.Chem.Mol
    known : ndarray (L, N, 3)
        Å, in the reference's atom order.
    generated : rdkit.Chem.Mol
        The same molecule, in any atom order.
    positions : ndarray (K, N', 3)

    Raises
    ------
    InputError
        They are different molecules.
    """
    atoms, orders = mappings(reference, generated)
    used = np.unique(orders)
    return rmsd_matrix(np.asarray(known)[:, atoms], np.asarray(positions)[:, used], np.searchsorted(used, orders))


def right(rdmol: Chem.Mol, positions: np.ndarray) -> np.ndarray:
    """Which conformers (K, N, 3) are finite and show the stereoisomer that `rdmol` is."""
    good = np.isfinite(positions).all((1, 2))
    good[good] = keeps_stereo(rdmol, positions[good])
    return np.asarray(good)


def unrelated(rdmol: Chem.Mol, known: np.ndarray) -> float:
    """RMSD in Å of two structures that share nothing: √2 times the mean radius of gyration of the heavy atoms.

    No superposition of structures of that size leaves more.
    """
    heavy = [a.GetIdx() for a in rdmol.GetAtoms() if a.GetAtomicNum() > 1]
    x = np.asarray(known, dtype=float)[:, heavy]
    x = x - x.mean(1, keepdims=True)
    return float(np.sqrt(2.0 * (x * x).sum(2).mean()))


@dataclass(frozen=True)
class EnsembleScores:
    """How well generated conformers stand for known ones.

    Attributes
    ----------
    coverage_recall, coverage_precision : float
        Shares of the known, and of the generated conformers that have one of the others within the threshold.
    amr_recall, amr_precision : float
        Mean over the known, and over the generated ones of the smallest RMSD to the others, Å.
    failed : int
        Conformers that were asked for and are missing or of another stereoisomer.
    """

    coverage_recall: float
    amr_recall: float
    coverage_precision: float
    amr_precision: float
    failed: int


def compare_ensembles(
    reference: Chem.Mol, known: np.ndarray, generated: Chem.Mol, positions: np.ndarray, *, asked: int, threshold: float
) -> EnsembleScores:
    """Coverage and AMR, recall and precision.

    Parameters
    ----------
    reference, known, generated, positions
        See `heavy_atom_rmsds`; `positions` may be empty, (0, N', 3).
    asked : int
        How many conformers were asked for, as a rule twice as many as are known. Only the first so many count.
    threshold : float
        Å.

    Raises
    ------
    InputError
        They are different molecules, no conformer is known, or none was asked for.
    """
    if asked < 1 or not len(known) or not threshold > 0.0:
        raise InputError("coverage needs known conformers, some that were asked for, and a threshold above 0 Å")
    positions = np.asarray(positions)[:asked]
    positions = positions[right(generated, positions)]
    lost = unrelated(reference, known)
    nearest_known, nearest_generated = np.full(asked, lost), np.full(len(known), lost)
    if len(positions):
        rmsd = heavy_atom_rmsds(reference, known, generated, positions)
        nearest_known[: len(positions)] = rmsd.min(0)
        nearest_generated = rmsd.min(1)
    there = np.arange(asked) < len(positions)
    return EnsembleScores(
        float(np.mean((nearest_generated < threshold) & (len(positions) > 0))),
        float(nearest_generated.mean()),
        float(np.mean((nearest_known < threshold) & there)),
        float(nearest_known.mean()),
        asked - len(positions),
    )


def _heavy_graph(rdmol: Chem.Mol) -> tuple[np.ndarray, Chem.Mol]:
    """Heavy atoms, and their bond graph labelled by their hydrogens except for terminal atoms of conjugated groups."""
    with rdBase.BlockLogs():
        whole = Chem.Mol(rdmol)
        whole.UpdatePropertyCache(strict=False)
    atoms = np.array([a.GetIdx() for a in whole.GetAtoms() if a.GetAtomicNum() > 1], dtype=int)
    place = {int(a): k for k, a in enumerate(atoms)}
    heavy_degree = {i: sum(n.GetAtomicNum() > 1 for n in whole.GetAtomWithIdx(i).GetNeighbors()) for i in place}
    bonds, multiple = [], set()
    for b in whole.GetBonds():
        i, j = b.GetBeginAtomIdx(), b.GetEndAtomIdx()
        if i in place and j in place:
            bonds.append((place[i], place[j]))
            if b.GetBondType() == Chem.BondType.DOUBLE:
                multiple |= {(i, j), (j, i)}
    graph = graph_mol([whole.GetAtomWithIdx(int(a)).GetAtomicNum() for a in atoms], bonds)
    for i, k in place.items():
        atom = whole.GetAtomWithIdx(i)
        if not _is_conjugated_end(atom, heavy_degree, multiple):
            graph.GetAtomWithIdx(k).SetIsotope(1 + atom.GetTotalNumHs(includeNeighbors=True))
    return atoms, graph


def _is_conjugated_end(atom: Chem.Atom, heavy_degree: dict[int, int], multiple: set[tuple[int, int]]) -> bool:
    """Whether a terminal O, N or S shares its neighbour with another, one of the two by a double bond."""
    i = atom.GetIdx()
    if atom.GetAtomicNum() not in (7, 8, 16) or heavy_degree[i] != 1:
        return False
    centre = next(n for n in atom.GetNeighbors() if n.GetAtomicNum() > 1)
    ends = [
        n.GetIdx()
        for n in centre.GetNeighbors()
        if n.GetAtomicNum() == atom.GetAtomicNum() and heavy_degree.get(n.GetIdx()) == 1
    ]
    doubly = [(e, centre.GetIdx()) in multiple for e in ends]
    return len(ends) > 1 and any(doubly)
