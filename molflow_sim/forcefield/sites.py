"""Charges on atoms and beside them, fitted to the electrostatic potential of a molecule.

Charges on atoms alone miss what lone pairs do outside a molecule, and with it most of what better electrostatics gives
crystals (G. M. Day, W. D. S. Motherwell, W. Jones, Cryst. Growth Des. 5, 1023 (2005)). Every atom here has one more
site, opposite to its bonds. Its place is a weighted sum of atoms, so that it turns with its surroundings in any
conformer and its force is one on atoms.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from molflow_sim.errors import ParameterError
from molflow_sim.forcefield.charges import cached_charges
from molflow_sim.forcefield.esp import equivalent_atoms, fit_charges, hf_potential, inverse_distances, shell_points

if TYPE_CHECKING:
    from molflow_sim.systems.molecule import Molecule

REACH = 0.4
"""Of the mean bond vector (twice that for three bonds or more), from which a site stands off, backwards."""
LEAST_OFFSET = 0.1
"""Å; nearer to its atom a site says nothing that the atom's charge does not."""
CONFORMERS, SMALL = 3, 13
"""At most so many conformers are fitted together, of molecules of up to so many heavy atoms; of larger ones one is."""
MAX_HEAVY = 24
"""Larger molecules are refused: Hartree-Fock would take longer than all the rest of a screening."""
_MODEL = "hf-sites"


@dataclass(frozen=True, eq=False)
class ChargeSites:
    """Point charges that move with the atoms of a molecule.

    Attributes
    ----------
    weights : (S, N) array
        Site s stands at ``weights[s] @ positions``; rows sum to 1, and the first N sites are the atoms.
    charges : (S,) array
        e; they sum to 0 within rounding.
    """

    weights: np.ndarray
    charges: np.ndarray

    def reordered(self, order: np.ndarray) -> ChargeSites:
        """Those of the same molecule with its atoms in another order: atom k of it is atom ``order[k]`` here."""
        rows = np.append(order, np.arange(len(order), len(self.weights)))
        return ChargeSites(self.weights[rows][:, order], self.charges[rows])


def charge_sites(molecule: Molecule, *, cache: bool = True) -> ChargeSites:
    """Charges on atoms and sites from HF/6-31G* potentials, those of the molecule whatever its conformer here.

    What is fitted are the potentials of the lowest conformers that the SMILES gives, so that all structures of a
    molecule, from wherever they come, have the same charges. Equivalent atoms have equal charges, and so have their
    sites.

    Parameters
    ----------
    molecule : Molecule
    cache : bool
        Read and write the cache on disk: a potential takes seconds of CPU for ten heavy atoms, a minute for twenty.

    Raises
    ------
    MissingDependencyError
        pyscf is not installed.
    ParameterError
        More than `MAX_HEAVY` heavy atoms, or the self-consistent field does not converge.
    """
    model = _model(molecule.smiles, CONFORMERS if checked_size(molecule) <= SMALL else 1)
    order = np.array(model.rdmol.GetSubstructMatch(molecule.rdmol), dtype=int)
    if len(order) != molecule.n_atoms:  # a SMILES that is read as another molecule than it was written for
        model, order = molecule, np.arange(molecule.n_atoms)
    weights, classes = site_weights(model, model.conformers[0])
    n = len(weights) if cache else None
    charges = cached_charges(model, _MODEL, 0, n, lambda: _fitted(model, weights, classes))
    return ChargeSites(weights, charges).reordered(order)


def checked_size(molecule: Molecule) -> int:
    """Number of heavy atoms, if charges beside the atoms can be had in reasonable time.

    Raises
    ------
    ParameterError
        More than `MAX_HEAVY`.
    """
    heavy = int((np.asarray(molecule.numbers) > 1).sum())
    if heavy > MAX_HEAVY:
        raise ParameterError(
            f"{molecule.formula}: Hartree-Fock of {heavy} heavy atoms takes minutes; charges beside the atoms are for "
            f"molecules of up to {MAX_HEAVY}"
        )
    return heavy


@lru_cache(maxsize=64)
def _model(smiles: str, few: int) -> Molecule:
    """The lowest conformers, at most so many, of what a SMILES says."""
    from molflow_sim.systems.molecule import Molecule

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of stereochemistry that is not specified: any will do here
        return Molecule.from_smiles(smiles, n_conformers=few)


def _fitted(model: Molecule, weights: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Charges (S,) that fit the potentials of all conformers at once."""
    symbols = list(model.symbols)
    units, potentials = [], []
    for positions in model.conformers[:CONFORMERS]:
        points = shell_points(symbols, positions)
        units.append(inverse_distances(points, weights @ positions))
        potentials.append(hf_potential(symbols, positions, points))
    restrained = np.append(np.asarray(model.numbers) > 1, np.ones(len(weights) - model.n_atoms, dtype=bool))
    return fit_charges(np.concatenate(units), np.concatenate(potentials), classes, restrained)


def site_weights(molecule: Molecule, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where sites stand, (S, N) weights of the atoms, and the class (S,) of each: those of a class are equivalent.

    Classes whose sites would lie on their atoms, as in the middle of a plane or a line, have none.
    """
    n = molecule.n_atoms
    atoms, classes = np.eye(n), equivalent_atoms(molecule.rdmol)
    backwards = np.zeros((n, n))
    for ends in (molecule.bonds, molecule.bonds[:, ::-1]):
        np.add.at(backwards, ends[:, 0], atoms[ends[:, 0]] - atoms[ends[:, 1]])
    bonds = np.bincount(molecule.bonds.ravel(), minlength=n)
    backwards *= (REACH * np.where(bonds < 3, 1.0, 2.0) / np.maximum(bonds, 1))[:, None]
    offset = np.linalg.norm(backwards @ positions, axis=1)
    have = (np.bincount(classes, offset) / np.bincount(classes))[classes] > LEAST_OFFSET
    own = np.unique(classes[have], return_inverse=True)[1] + classes.max() + 1
    return np.concatenate([atoms, (atoms + backwards)[have]]), np.concatenate([classes, own])
