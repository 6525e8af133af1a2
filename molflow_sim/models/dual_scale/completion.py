"""From heavy atoms to whole molecules that a simulation can start from: hydrogens, relaxation, checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from molflow_sim.chemistry.conformers import keeps_stereo
from molflow_sim.errors import ClusterError
from molflow_sim.evaluate.overlap import CLASH_OVERLAP, heavy_atom_overlap
from molflow_sim.evaluate.spearing import speared_rings
from molflow_sim.systems.cluster import MolecularCluster

if TYPE_CHECKING:
    from rdkit import Chem

    from molflow_sim.systems.molecule import Molecule


HEIGHT = 0.4
"""Å: how far a stereocentre stands from the plane of its three heavy neighbours at least (0.5 in a tetrahedron)."""


def with_hydrogens(rdmol: Chem.Mol, heavy: np.ndarray) -> np.ndarray:
    """All atoms (N, 3) of a molecule from its heavy ones (n, 3) in Å, hydrogens at ideal lengths and angles.

    Parameters
    ----------
    rdmol : rdkit.Chem.Mol
        Hydrogens explicit.
    heavy : ndarray, shape (n, 3)
        In the molecule's order.
    """
    from rdkit import Chem
    from rdkit.Geometry import Point3D

    out = np.zeros((rdmol.GetNumAtoms(), 3))
    kept = [a.GetIdx() for a in rdmol.GetAtoms() if a.GetAtomicNum() > 1]
    out[kept] = heavy
    bare = Chem.RemoveAllHs(Chem.Mol(rdmol), sanitize=False)
    conformer = Chem.Conformer(len(kept))
    for k, x in enumerate(heavy):
        conformer.SetAtomPosition(k, Point3D(*map(float, x)))
    bare.RemoveAllConformers()
    bare.AddConformer(conformer)
    bare.UpdatePropertyCache(strict=False)
    whole = Chem.AddHs(bare, addCoords=True)
    positions = whole.GetConformer().GetPositions()
    # RDKit appends the hydrogens; those of one heavy atom are interchangeable.
    for k, parent in enumerate(kept):
        wanted = [n.GetIdx() for n in rdmol.GetAtomWithIdx(parent).GetNeighbors() if n.GetAtomicNum() == 1]
        made = [n.GetIdx() for n in whole.GetAtomWithIdx(k).GetNeighbors() if n.GetIdx() >= len(kept)]
        out[wanted] = positions[made]
    return out


def with_hands(rdmol: Chem.Mol, heavy: np.ndarray) -> np.ndarray:
    """Heavy atoms (n, 3) in Å with stereocentres of the wrong hand put right.

    A centre with three heavy neighbours has the wrong hand where it stands on the wrong side of their plane, a step of
    less than an Å for a flow: it is reflected in that plane. One nearly within the plane, which relaxation may take to
    either side, is first moved `HEIGHT` away from it. Other centres, those of rings and double bonds stay as they are;
    `failure` names them where they are wrong.
    """
    from molflow_sim.chemistry.conformers import with_stereo

    kept = [a.GetIdx() for a in rdmol.GetAtoms() if a.GetAtomicNum() > 1]
    place = {i: k for k, i in enumerate(kept)}
    out, planes = heavy.copy(), {}
    for atom in rdmol.GetAtoms():
        around = [place[n.GetIdx()] for n in atom.GetNeighbors() if n.GetIdx() in place]
        if len(around) == 3 and not atom.IsInRing() and int(atom.GetChiralTag()):
            a, b, c = heavy[around]
            normal = np.cross(b - a, c - a)
            normal /= max(np.linalg.norm(normal), 1e-9)
            k = place[atom.GetIdx()]
            height = (heavy[k] - a) @ normal
            lift = max(abs(height), HEIGHT) * (1.0 if height >= 0 else -1.0)
            planes[atom.GetIdx()] = k, lift * normal
            if abs(height) < HEIGHT:
                out[k] += (lift - height) * normal
    shown = with_stereo(rdmol, with_hydrogens(rdmol, out)) if planes else rdmol
    for i, (k, above) in planes.items():
        if shown.GetAtomWithIdx(i).GetChiralTag() != rdmol.GetAtomWithIdx(i).GetChiralTag():
            out[k] -= 2.0 * above
    return out


def completed(molecules: Sequence[Molecule], order: np.ndarray, heavy: np.ndarray) -> MolecularCluster:
    """A cluster with its hydrogens and hands from the heavy atoms (n, 3) in Å."""
    counts = [int((m.numbers > 1).sum()) for m in molecules]
    rows, first = [], 0
    for s in order:
        one = with_hands(molecules[s].rdmol, heavy[first : first + counts[s]])
        rows.append(with_hydrogens(molecules[s].rdmol, one))
        first += counts[s]
    return MolecularCluster(tuple(molecules), order, np.concatenate(rows))


def relaxed(cluster: MolecularCluster, steps: int = 200) -> MolecularCluster:
    """The cluster after minimisation in open space.

    First MMFF94 within the molecules and a soft overlap between them (`molflow_sim.relax.parting`): a flow's molecules
    may lie in one another, where the potential leaves them. Then the whole with the potential (`relax_cluster`).

    Parameters
    ----------
    cluster : MolecularCluster
    steps : int
        Of either minimisation, at most; the whole need not have converged.

    Raises
    ------
    ClusterError
        If the energy is not finite.
    ParameterError, UnsupportedElementError
        A molecule that the potential has no parameters for.
    """
    from molflow_sim.forcefield import CrystalPotential, parametrize
    from molflow_sim.relax.clusters import relax_cluster
    from molflow_sim.relax.parting import parted

    parameters = [parametrize(molecule) for molecule in cluster.species]
    loose = parted(cluster, parameters, steps=steps)
    if not np.isfinite(loose.positions).all():
        raise ClusterError("coordinates are not finite: atoms lie on one another")
    found = relax_cluster(loose, CrystalPotential(parameters), max_steps=steps)
    if not np.isfinite(found.energy):
        raise ClusterError(f"the cluster cannot be relaxed: {found.reason}")
    return found.cluster


def wrong_stereo(cluster: MolecularCluster) -> str:
    """Which molecule has another stereochemistry than was asked for, "" if none has."""
    for m, (s, first) in enumerate(zip(cluster.order, cluster.firsts)):
        molecule = cluster.species[s]
        positions = cluster.positions[first : first + molecule.n_atoms]
        if not np.isfinite(positions).all():
            return f"molecule {m} has coordinates that are not finite"
        if not keeps_stereo(molecule.rdmol, positions[None])[0]:
            return f"molecule {m} has another stereochemistry (R/S or E/Z) than {molecule.smiles}"
    return ""


def failure(cluster: MolecularCluster) -> str:
    """Why a cluster is not to be used, "" if it is: stereochemistry, clashes of molecules, speared rings."""
    if reason := wrong_stereo(cluster):
        return reason
    if (overlap := heavy_atom_overlap(cluster)) > CLASH_OVERLAP:
        return f"molecules clash: van der Waals spheres of heavy atoms overlap by {overlap:.2f} Å"
    if speared := speared_rings(cluster):
        return f"{len(speared)} rings are speared by a bond of another molecule, the first at atom {speared[0][0][0]}"
    return ""
