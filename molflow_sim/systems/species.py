"""Which molecules of a crystal are the same species, and in which atom order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from rdkit import Chem

from molflow_sim.chemistry.bond_orders import molecule_from_graph
from molflow_sim.chemistry.bonds import check_hydrogens, graph_mol, isotopes_of, skeleton
from molflow_sim.chemistry.checks import canonical_smiles, mirror_image, same_stereo
from molflow_sim.chemistry.conformers import with_stereo
from molflow_sim.errors import CrystalError, MoleculeError
from molflow_sim.geometry.superposition import kabsch
from molflow_sim.systems.molecule import Molecule

_MAX_MATCHES = 1000


class SpeciesTable:
    """Collects species by bond graph, isotopes and stereochemistry; mirror images are one species.

    Parameters
    ----------
    known : sequence of Molecule or None
        Species to recognise; with these given, any other is refused.
    what : str
        Named in errors.
    """

    def __init__(self, known: Sequence[Molecule] | None, what: str) -> None:
        self.closed = known is not None
        self.molecules: list[Molecule] = list(known or ())
        self.graphs = [_labelled(skeleton(m.rdmol), isotopes_of(m.rdmol)) for m in self.molecules]
        self.mirrored = [False] * len(self.molecules)
        self.what = what

    def identify(
        self, numbers: np.ndarray, positions: np.ndarray, bonds: np.ndarray, labels: list[str], isotopes: np.ndarray
    ) -> tuple[int, np.ndarray]:
        """Species index and the order (N,) that puts these atoms into the species' order; a new species if needed.

        Raises
        ------
        MissingHydrogensError, DisorderedCrystalError, CrystalError
            If the atoms form no supported molecule (an ion or a radical, say), or none of the known species.
        """
        graph = _labelled(graph_mol(numbers.tolist(), bonds.tolist()), isotopes)
        for species, (molecule, own) in enumerate(zip(self.molecules, self.graphs)):
            # natural atoms match isotopes, too: but not where there are as many of each
            if own.GetNumBonds() != graph.GetNumBonds() or not np.array_equal(
                np.sort(isotopes), np.sort(isotopes_of(own))
            ):
                continue
            matches = graph.GetSubstructMatches(own, uniquify=False, useChirality=False, maxMatches=_MAX_MATCHES)
            if not matches:
                continue
            order = self._best(molecule, positions, np.array(matches))
            hand = self._hand(molecule.rdmol, positions[order])
            if hand:
                self.mirrored[species] |= hand < 0
                return species, order
        check_hydrogens(numbers, positions, bonds, labels)
        try:
            rdmol = _labelled(molecule_from_graph(numbers, positions, bonds, self.what), isotopes)
        except MoleculeError as error:
            raise CrystalError(f"{error} (ions and radicals are not supported)") from error
        if self.closed:
            smiles = canonical_smiles(rdmol)
            known = ", ".join(m.smiles for m in self.molecules)
            raise CrystalError(f"{self.what}: contains {smiles}, which is none of the given molecules ({known})")
        self.molecules.append(Molecule.from_rdkit(rdmol))
        self.graphs.append(_labelled(skeleton(rdmol), isotopes))
        self.mirrored.append(False)
        return len(self.molecules) - 1, np.arange(len(numbers))

    def in_order(
        self, numbers: np.ndarray, positions: np.ndarray, bonds: np.ndarray, isotopes: np.ndarray
    ) -> int | None:
        """The species in whose order these atoms already stand, if any."""
        pairs = np.unique(np.sort(bonds, axis=1), axis=0).reshape(-1, 2)
        for species, molecule in enumerate(self.molecules):
            same = np.array_equal(molecule.numbers, numbers) and np.array_equal(molecule.bonds, pairs)
            if same and np.array_equal(isotopes_of(molecule.rdmol), isotopes) and self._hand(molecule.rdmol, positions):
                return species
        return None

    def with_conformers(self, found: list[tuple[int, np.ndarray]], mirrors: bool) -> tuple[Molecule, ...]:
        """The species with the conformers (species, positions) found in the crystal; given species stay as they are.

        With `mirrors`, operations of the crystal's space group make mirror images, so that chiral species are racemic.
        """
        out = []
        for species, molecule in enumerate(self.molecules):
            conformers = np.array([x for s, x in found if s == species])
            if self.closed or not len(conformers):
                out.append(molecule)
            else:
                racemic = molecule.racemic or self.mirrored[species] or (mirrors and molecule.is_chiral)
                out.append(replace(molecule.with_conformers(conformers), racemic=racemic))
        return tuple(out)

    def _best(self, molecule: Molecule, positions: np.ndarray, matches: np.ndarray) -> np.ndarray:
        """Of several orders, the one that superposes best on the species' first conformer."""
        target = molecule.conformers[0] - molecule.conformers[0].mean(axis=0)
        centred = positions - positions.mean(axis=0)
        best, best_error = matches[0], np.inf
        for match in matches if len(matches) > 1 else ():
            x = centred[match]
            for improper in (False, True):
                error = float(np.sum((x @ kabsch(x, target, improper).T - target) ** 2))
                if error < best_error - 1e-9:
                    best, best_error = match, error
        return np.asarray(best)

    def _hand(self, rdmol: Chem.Mol, positions: np.ndarray) -> int:
        """1 for the same stereoisomer, -1 for its mirror image, 0 for another."""
        other = with_stereo(rdmol, positions)
        if same_stereo(rdmol, other):
            return 1
        return -1 if same_stereo(mirror_image(rdmol), other) else 0


def _labelled(rdmol: Chem.Mol, isotopes: np.ndarray) -> Chem.Mol:
    """The molecule, given mass numbers (N,), 0 for natural atoms."""
    for atom, isotope in zip(rdmol.GetAtoms(), isotopes.tolist()):
        atom.SetIsotope(isotope)
    return rdmol
