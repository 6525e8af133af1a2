"""Conformers: distance-geometry embedding, MMFF94 minimisation, symmetry-aware pruning.

RDKit's ETKDGv3 (Wang et al., J. Chem. Inf. Model. 60, 2044, 2020) proposes, MMFF94 (Halgren, J. Comput. Chem. 17,
490, 1996) minimises. Two conformers are the same when they superpose, over the automorphisms of the bond graph and,
for a molecule that is its own mirror image, over reflections: a conformer and its mirror image then fill the same
crystals.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import AllChem, rdDistGeom, rdMolDescriptors
from rdkit.Chem import rdForceFieldHelpers as mmff

from molflow_sim.chemistry.bonds import automorphisms
from molflow_sim.chemistry.checks import canonical_smiles, same_stereo
from molflow_sim.chemistry.pointgroup import point_group
from molflow_sim.errors import ConformerError
from molflow_sim.units import KCAL_PER_MOL, KJ_PER_MOL

ENERGY_WINDOW = 25.0
"""kJ/mol above the lowest conformer beyond which one is dropped."""
DUPLICATE_RMSD = 0.25
"""Å over heavy atoms and polar hydrogens below which two conformers are one."""
IDEALISE_TOLERANCE = 1.25
"""Å; how far apart an atom and its image may be for a conformer to bring the more symmetric geometry along."""
IDEALISE_WINDOW = 15.0
"""kJ/mol above the lowest conformer up to which such a geometry is kept."""
MAX_CONFORMERS = 10
"""Conformers kept when the caller names no number."""
STRAIN_SCALE = 8.0 * KJ_PER_MOL
"""Conformers are drawn with weights exp(-strain/STRAIN_SCALE)."""

_HYDROXYL = Chem.MolFromSmarts("[OX2H,SX2H]")
_AMINE = Chem.MolFromSmarts("[NX3H2;$(N-[CX4])]")


def count_rotors(rdmol: Chem.Mol) -> int:
    """Torsions that may give distinct conformers: rotatable bonds, hydroxyl-like hydrogens, ring puckers."""
    # on heavy atoms alone, or methyl groups would count
    rotors = rdMolDescriptors.CalcNumRotatableBonds(
        Chem.RemoveHs(rdmol), rdMolDescriptors.NumRotatableBondsOptions.NonStrict
    )
    hydroxyls = len(rdmol.GetSubstructMatches(_HYDROXYL))
    amines = len(rdmol.GetSubstructMatches(_AMINE))
    sp3 = [a.GetHybridization() == Chem.HybridizationType.SP3 for a in rdmol.GetAtoms()]
    pucker = sum(len(ring) > 4 and sum(sp3[i] for i in ring) > 1 for ring in rdmol.GetRingInfo().AtomRings())
    return int(rotors + hydroxyls + amines + pucker)


def embed(rdmol: Chem.Mol, count: int, seed: int, torsion_preferences: bool = True) -> Chem.Mol:
    """A copy of `rdmol` (explicit hydrogens) with up to `count` embedded, unminimised conformers.

    Without `torsion_preferences` the torsions are those of plain distance geometry: rotamers that are rare among
    experimental structures, such as E hydroxyl groups and cis amides, come up too. The work is bounded by counts of
    attempts, not by time, so that it is the same on every machine.

    Raises
    ------
    ConformerError
        If neither the usual nor random starting coordinates embed.
    """
    # crowded cages fail the checks of stereochemistry most of the time: few conformers, many attempts
    settings = [(torsion_preferences, random, count, 30) for random in (False, True)]
    settings += [(False, random, min(count, 4), 400) for random in (False, True)]
    for preferences, random, wanted, attempts in settings:
        first = _embedded(rdmol, 1, seed, preferences, random, min(attempts, 60))
        if first is not None:
            return _embedded(rdmol, wanted, seed, preferences, random, attempts) or first
    name = canonical_smiles(rdmol)
    flat = Chem.Mol(rdmol)
    Chem.RemoveStereochemistry(flat)
    written = canonical_smiles(flat) != name
    # RDKit's knowledge of rings and centres rules out bent benzene rings (paracyclophanes, fullerenes) and tiny cages;
    # without it isomers come out that are impossible, so that none may be asked for
    found = _embedded(flat, 1, seed, False if written else None, True, 30)
    if found is not None and not written:
        return with_positions(rdmol, found.GetConformer().GetPositions())
    if found is not None:
        raise ConformerError(
            f"{name}: with the stereochemistry that is written no three-dimensional structure could be embedded, "
            "without it one could: the combination is strained or impossible; check it, or give a file with coordinates"
        )
    raise ConformerError(f"{name}: no three-dimensional structure could be embedded; give a file with coordinates")


def _embedded(
    rdmol: Chem.Mol, count: int, seed: int, preferences: bool | None, random: bool, attempts: int
) -> Chem.Mol | None:
    """A copy with up to `count` conformers, each tried `attempts` times; None where none of them embeds."""
    mol = Chem.Mol(rdmol)
    # RDKit multiplies the seed by the conformer's index: 0 would give identical conformers, huge ones overflow
    parameters = embedding_parameters(42 + int(seed) % 1_000_000, preferences, random, attempts)
    parameters.forceTransAmides = bool(preferences)  # without preferences cis amides are wanted, see `embed`
    rdDistGeom.EmbedMultipleConfs(mol, count, parameters)
    return mol if mol.GetNumConformers() else None


def embedding_parameters(seed: int, preferences: bool | None, random: bool, attempts: int) -> Any:
    """Parameters of RDKit's distance geometry on one thread.

    Parameters
    ----------
    seed : int
    preferences : bool or None
        Torsion preferences: ETKDGv3; without, KDG; None: plain distance geometry.
    random : bool
        Random starting coordinates.
    attempts : int
        For each conformer.
    """
    kinds: Any = {True: rdDistGeom.ETKDGv3, False: rdDistGeom.KDG, None: rdDistGeom.EmbedParameters}
    parameters = kinds[preferences]()
    parameters.randomSeed = seed
    parameters.numThreads = 1
    parameters.maxIterations = attempts
    parameters.useRandomCoords = random
    return parameters


def keeps_stereo(rdmol: Chem.Mol, positions: np.ndarray) -> np.ndarray:
    """Which conformers (K, N, 3) in Å show the R/S and E/Z that `rdmol` has; what it leaves open may be either."""
    with rdBase.BlockLogs():
        found = Chem.FindPotentialStereo(Chem.Mol(rdmol))
        if not any(s.specified == Chem.StereoSpecified.Specified for s in found):
            return np.ones(len(positions), dtype=bool)
        right = np.zeros(len(positions), dtype=bool)
        signs, known = _handedness(rdmol, found, positions), {}
        for k, x in enumerate(positions):
            key = signs[k].tobytes()
            if key not in known:  # conformers of the same signs are of the same stereoisomer
                known[key] = same_stereo(with_stereo(rdmol, x), rdmol)
            right[k] = known[key]
        return right


def _handedness(rdmol: Chem.Mol, found: Any, positions: np.ndarray) -> np.ndarray:
    """Signs (K, S) of the volumes at stereocentres and of the torsions at stereo bonds; the conformer's own where flat.

    A centre that is all but flat, or a double bond turned by all but a right angle, is told apart by the conformer.
    """
    columns = []
    for stereo in found:
        if stereo.type == Chem.StereoType.Atom_Tetrahedral:
            near = [n.GetIdx() for n in rdmol.GetAtomWithIdx(stereo.centeredOn).GetNeighbors()][:3]
            v = positions[:, near] - positions[:, [stereo.centeredOn]]
            v = v / np.maximum(np.linalg.norm(v, axis=2, keepdims=True), 1e-12)
            measure = np.linalg.det(v) / 0.3 if len(near) == 3 else np.zeros(len(positions))
        elif stereo.type == Chem.StereoType.Bond_Double:
            bond = rdmol.GetBondWithIdx(stereo.centeredOn)
            a, b = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            i, j = (
                next((n.GetIdx() for n in rdmol.GetAtomWithIdx(x).GetNeighbors() if n.GetIdx() != y), x)
                for x, y in ((a, b), (b, a))
            )
            axis = positions[:, b] - positions[:, a]
            m, n = np.cross(positions[:, i] - positions[:, a], axis), np.cross(positions[:, j] - positions[:, b], axis)
            size = np.linalg.norm(m, axis=1) * np.linalg.norm(n, axis=1)
            measure = np.einsum("kx,kx->k", m, n) / np.maximum(size, 1e-12) / 0.5
        else:
            measure = np.zeros(len(positions))
        sure = np.abs(measure) >= 1.0
        columns.append(np.where(sure, np.sign(measure), 2 + np.arange(len(positions))))
    return np.array(columns, dtype=float).reshape(len(columns), len(positions)).T.copy()


def with_stereo(rdmol: Chem.Mol, positions: np.ndarray) -> Chem.Mol:
    """The molecule without conformer, its stereochemistry that of the positions (N, 3) in Å."""
    out = with_positions(rdmol, positions)
    with rdBase.BlockLogs():
        Chem.AssignStereochemistryFrom3D(out)
    out.RemoveAllConformers()
    return out


def generate(
    rdmol: Chem.Mol, n_conformers: int | None, seed: int, mirror: bool, trials: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Low-energy conformers of a molecule with explicit hydrogens.

    Parameters
    ----------
    rdmol : rdkit.Chem.Mol
        Explicit hydrogens, stereochemistry assigned, known to MMFF94.
    n_conformers : int or None
        How many to keep at most; None keeps one for a rigid molecule and up to `MAX_CONFORMERS` otherwise.
    seed : int
        Seed of the embedding.
    mirror : bool
        Whether mirror images count as one conformer (a molecule without fixed handedness).
    trials : int, optional
        Embeddings to minimise; by default more for more rotors.

    Returns
    -------
    positions : ndarray (K, N, 3), Å, sorted by energy
    energies : ndarray (K,), eV, MMFF94

    Raises
    ------
    ConformerError
        If nothing can be embedded or minimised to a finite energy with the stereochemistry that is written.
    """
    rotors = count_rotors(rdmol)
    keep = n_conformers if n_conformers is not None else (1 if rotors == 0 else MAX_CONFORMERS)
    if trials is None:
        trials = default_trials(rdmol, rotors)
        if keep == 1:
            trials = max(4, trials // 2)
    # half of the trials ignore the statistics of known crystals, so that rare rotamers are not missed
    mols = [embed(rdmol, max(trials // 2, 2), seed)]
    if rotors:
        mols.append(embed(rdmol, max(trials // 2, keep), seed, torsion_preferences=False))
    energies, positions = _minimised(mols)
    finite = np.isfinite(energies) & np.isfinite(positions).all(axis=(1, 2))
    if not finite.any():
        raise ConformerError(f"{canonical_smiles(rdmol)}: MMFF94 found no finite minimum")
    positions, energies = positions[finite], energies[finite]
    kept_stereo = keeps_stereo(rdmol, positions)
    if not kept_stereo.any():
        raise ConformerError(
            f"{canonical_smiles(rdmol)}: MMFF94 does not keep the stereochemistry that is written; all of "
            f"{len(positions)} embedded conformers were minimised to another isomer, the lowest to "
            f"{canonical_smiles(with_stereo(rdmol, positions[energies.argmin()]))}"
        )
    positions, energies = positions[kept_stereo], energies[kept_stereo]
    order = np.argsort(energies, kind="stable")
    kept = prune(rdmol, positions[order], energies[order], mirror=mirror, limit=keep)
    positions, energies = positions[order][kept], energies[order][kept]
    return _with_idealised(rdmol, positions, energies) if n_conformers is None else (positions, energies)


def default_trials(rdmol: Chem.Mol, rotors: int) -> int:
    """Embeddings to minimise: more for more rotors, fewer for large molecules."""
    # an embedding with minimisation costs about 0.1 ms per squared atom
    return 4 if rotors == 0 else int(min(20 + 12 * rotors, max(12, 90_000 // rdmol.GetNumAtoms() ** 2), 120))


def strain_shares(energies: np.ndarray) -> np.ndarray:
    """Weights exp(-strain/`STRAIN_SCALE`) of energies (K,) in eV, normalised; equal where energies are unknown."""
    strain = np.nan_to_num(energies - np.min(energies))
    weights = np.exp(-strain / STRAIN_SCALE)
    return np.asarray(weights / weights.sum())


def _with_idealised(rdmol: Chem.Mol, positions: np.ndarray, energies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The conformers and, for those close to a higher symmetry, the symmetric geometry, sorted by energy.

    Amino groups are pyramidal in MMFF94 and flat in many crystals, where the flat molecule can then sit on a mirror
    plane or a twofold axis (urea).
    """
    extra: list[np.ndarray] = []
    for x in positions:
        symmetric = _symmetric_minimum(rdmol, x)
        if symmetric is not None and all(np.abs(symmetric - y).max() > 0.05 for y in extra):
            extra.append(symmetric)
    if not extra:
        return positions, energies
    found = mmff_energies(rdmol, np.array(extra))
    near = (found - energies[0] < IDEALISE_WINDOW * KJ_PER_MOL) & keeps_stereo(rdmol, np.array(extra))
    positions, energies = np.concatenate([positions, np.array(extra)[near]]), np.concatenate([energies, found[near]])
    order = np.argsort(energies, kind="stable")
    return positions[order], energies[order]


def _symmetric_minimum(rdmol: Chem.Mol, x: np.ndarray) -> np.ndarray | None:
    """Lowest geometry (N, 3) of the higher symmetry that conformer x (N, 3) is close to; None where there is none."""
    order = len(point_group(rdmol, x, 0.1)[0])
    matrices, _, ideal = point_group(rdmol, x, IDEALISE_TOLERANCE)
    if len(matrices) <= order:
        return None
    mol = with_positions(rdmol, ideal)
    # A few steps at a time and back to the symmetry: left alone, rounding errors would roll off the saddle.
    for _ in range(30):
        converged = mmff.MMFFOptimizeMolecule(mol, maxIters=5, mmffVariant="MMFF94") == 0
        kept, _, ideal = point_group(rdmol, mol.GetConformer().GetPositions(), 0.3)
        if len(kept) < len(matrices):
            return None
        mol.GetConformer().SetPositions(np.ascontiguousarray(ideal))
        if converged:
            break
    return ideal


def with_positions(rdmol: Chem.Mol, positions: np.ndarray) -> Chem.Mol:
    """A copy of the molecule with one conformer (N, 3) in Å."""
    mol = Chem.Mol(rdmol)
    mol.RemoveAllConformers()
    mol.AddConformer(Chem.Conformer(mol.GetNumAtoms()), assignId=True)
    mol.GetConformer().SetPositions(np.ascontiguousarray(positions, dtype=float))
    return mol


def _minimised(mols: list[Chem.Mol]) -> tuple[np.ndarray, np.ndarray]:
    """MMFF94 energies (K,) in eV and positions (K, N, 3) in Å of all conformers, each at its nearest minimum."""
    energies, positions = [], []
    for mol in mols:
        results = mmff.MMFFOptimizeMoleculeConfs(mol, numThreads=1, maxIters=2000, mmffVariant="MMFF94")
        energies += [energy * KCAL_PER_MOL for _, energy in results]
        positions += [conformer.GetPositions() for conformer in mol.GetConformers()]
    return np.array(energies), np.array(positions)


def minimised(rdmol: Chem.Mol, starts: np.ndarray, dielectric: float) -> tuple[np.ndarray, np.ndarray]:
    """Minima of MMFF94, its electrostatics divided by `dielectric`, near `starts` (S, N, 3) in Å.

    Returns
    -------
    positions : ndarray (S, N, 3), Å
    energies : ndarray (S,), eV
    """
    properties = mmff.MMFFGetMoleculeProperties(rdmol, mmffVariant="MMFF94")
    properties.SetMMFFDielectricConstant(dielectric)
    mol = with_positions(rdmol, starts[0])
    field = mmff.MMFFGetMoleculeForceField(mol, properties, ignoreInterfragInteractions=False)
    positions, energies = [], []
    for x in starts:
        mol.GetConformer().SetPositions(np.ascontiguousarray(x))
        field.Initialize()
        field.Minimize(maxIts=2000)
        positions.append(mol.GetConformer().GetPositions())
        energies.append(field.CalcEnergy() * KCAL_PER_MOL)
    return np.array(positions), np.array(energies)


def prune(rdmol: Chem.Mol, positions: np.ndarray, energies: np.ndarray, *, mirror: bool, limit: int) -> list[int]:
    """Indices of the distinct conformers inside the energy window, lowest first.

    `positions` (K, N, 3) in Å and `energies` (K,) in eV must be sorted by energy.
    """
    core = core_atoms(rdmol)
    matches = automorphisms(rdmol, core, max_matches=500)
    kept: list[int] = []
    for k in range(len(positions)):
        if len(kept) >= limit or energies[k] - energies[0] > ENERGY_WINDOW * KJ_PER_MOL:
            break
        x = positions[k][core]
        if all(best_rmsd(positions[j][core], x, matches, mirror=mirror) > DUPLICATE_RMSD for j in kept):
            kept.append(k)
    return kept


def core_atoms(rdmol: Chem.Mol) -> np.ndarray:
    """Indices of heavy atoms and of hydrogens not on carbon; all atoms where that leaves fewer than three."""
    core = [
        atom.GetIdx()
        for atom in rdmol.GetAtoms()
        if atom.GetAtomicNum() > 1 or all(n.GetAtomicNum() not in (1, 6) for n in atom.GetNeighbors())
    ]
    return np.array(core if len(core) > 2 else range(rdmol.GetNumAtoms()))


def best_rmsd(x: np.ndarray, y: np.ndarray, matches: np.ndarray, *, mirror: bool) -> float:
    """Smallest RMSD in Å of `y` (n, 3) superposed on `x` (n, 3) over permutations `matches` (M, n) of y's rows.

    Minimum over proper rotations, and improper ones too when `mirror` is set (Kabsch, Acta Cryst. A32, 922, 1976).
    """
    x = x - x.mean(axis=0)
    y = (y - y.mean(axis=0))[matches]
    singular = np.linalg.svd(np.einsum("mni,nj->mij", y, x), compute_uv=False)
    determinant = np.linalg.det(np.einsum("mni,nj->mij", y, x))
    overlap = singular[:, 0] + singular[:, 1] + np.sign(determinant) * singular[:, 2]
    if mirror:
        overlap = np.maximum(overlap, singular[:, 0] + singular[:, 1] - np.sign(determinant) * singular[:, 2])
    square = (np.sum(x * x) + np.sum(y[0] * y[0]) - 2.0 * overlap.max()) / len(x)
    return float(np.sqrt(max(square, 0.0)))


def mmff_energies(rdmol: Chem.Mol, positions: np.ndarray) -> np.ndarray:
    """MMFF94 energies (K,) in eV of given conformers (K, N, 3) in Å; NaN where MMFF94 has no types for the molecule."""
    properties = mmff.MMFFGetMoleculeProperties(rdmol, mmffVariant="MMFF94")
    if properties is None:
        return np.full(len(positions), np.nan)
    mol = with_positions(rdmol, positions[0])
    field = mmff.MMFFGetMoleculeForceField(mol, properties, ignoreInterfragInteractions=False)
    return np.array([field.CalcEnergy(list(map(float, x.ravel()))) for x in positions]) * KCAL_PER_MOL


def molecular_volume(rdmol: Chem.Mol, positions: np.ndarray) -> float:
    """Van der Waals volume in Å³ of one conformer (N, 3), on RDKit's grid of 0.2 Å."""
    return float(AllChem.ComputeMolVolume(with_positions(rdmol, positions), gridSpacing=0.2, boxMargin=2.0))
