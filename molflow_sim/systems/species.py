"""Which molecules of a crystal are the same species, and in which atom order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rdkit import Chem, rdBase

from molflow_sim.chemistry.bonds import graph_mol, skeleton
from molflow_sim.chemistry.checks import canonical_smiles, mirror_image, same_stereo
from molflow_sim.chemistry.pointgroup import kabsch
from molflow_sim.errors import CrystalError
from molflow_sim.systems.molecule import Molecule

_MAX_MATCHES = 1000


class SpeciesTable:
    """Collects species by bond graph and stereochemistry.

    Parameters
    ----------
    known : sequence of Molecule or None
        Species to recognise; with these given, any other is refused.
    mirror : bool
        Whether enantiomers are one species, as they must be where improper operations turn one into the other.
    what : str
        Named in errors.
    """

    def __init__(self, known: Sequence[Molecule] | None, mirror: bool, what: str) -> None:
        self.closed = known is not None
        self.molecules: list[Molecule] = list(known or ())
        self.skeletons = [skeleton(m.rdmol) for m in self.molecules]
        self.mirror, self.what = mirror, what

    def identify(
        self, numbers: np.ndarray, positions: np.ndarray, bonds: np.ndarray, labels: list[str]
    ) -> tuple[int, np.ndarray]:
        """Species index and the order (N,) that puts these atoms into the species' order; a new species if needed.

        Raises
        ------
        CrystalError
            If the atoms form no supported molecule, or none of the known species.
        """
        from molflow_sim.io.crystal_read import molecule_in_crystal

        graph = graph_mol(numbers.tolist(), bonds.tolist())
        for species, (molecule, bare) in enumerate(zip(self.molecules, self.skeletons)):
            if bare.GetNumAtoms() != graph.GetNumAtoms() or bare.GetNumBonds() != graph.GetNumBonds():
                continue
            matches = graph.GetSubstructMatches(bare, uniquify=False, useChirality=False, maxMatches=_MAX_MATCHES)
            if not matches:
                continue
            order = self._best(molecule, positions, np.array(matches))
            if self._same_isomer(molecule.rdmol, positions[order]):
                return species, order
        rdmol = molecule_in_crystal(numbers, positions, bonds, labels, self.what)
        if self.closed:
            smiles = canonical_smiles(rdmol)
            known = ", ".join(m.smiles for m in self.molecules)
            raise CrystalError(f"{self.what}: contains {smiles}, which is none of the given molecules ({known})")
        self.molecules.append(Molecule.from_rdkit(rdmol))
        self.skeletons.append(skeleton(rdmol))
        return len(self.molecules) - 1, np.arange(len(numbers))

    def with_conformers(self, found: list[tuple[int, np.ndarray]]) -> tuple[Molecule, ...]:
        """The species with the conformers (species, positions) found in the crystal; given species stay as they are."""
        out = []
        for species, molecule in enumerate(self.molecules):
            conformers = np.array([x for s, x in found if s == species])
            if self.closed or not len(conformers):
                out.append(molecule)
            else:
                out.append(molecule.with_conformers(conformers))
        return tuple(out)

    def _best(self, molecule: Molecule, positions: np.ndarray, matches: np.ndarray) -> np.ndarray:
        """Of several orders, the one that superposes best on the species' first conformer."""
        target = molecule.conformers[0] - molecule.conformers[0].mean(axis=0)
        centred = positions - positions.mean(axis=0)
        best, best_error = matches[0], np.inf
        for match in matches if len(matches) > 1 else ():
            x = centred[match]
            for improper in (False, True) if self.mirror else (False,):
                error = float(np.sum((x @ kabsch(x, target, improper).T - target) ** 2))
                if error < best_error - 1e-9:
                    best, best_error = match, error
        return np.asarray(best)

    def _same_isomer(self, rdmol: Chem.Mol, positions: np.ndarray) -> bool:
        other = Chem.Mol(rdmol)
        other.RemoveAllConformers()
        conformer = Chem.Conformer(other.GetNumAtoms())
        conformer.SetPositions(np.ascontiguousarray(positions, dtype=float))
        other.AddConformer(conformer, assignId=True)
        with rdBase.BlockLogs():
            Chem.AssignStereochemistryFrom3D(other)
        return same_stereo(rdmol, other) or (self.mirror and same_stereo(mirror_image(rdmol), other))
