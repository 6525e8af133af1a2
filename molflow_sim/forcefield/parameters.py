"""Everything the crystal potential needs to know about one molecule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.errors import InputError, NonFiniteError
from molflow_sim.forcefield.charges import partial_charges
from molflow_sim.forcefield.exp6 import GUARD_RADIUS, exp6_parameters
from molflow_sim.forcefield.mmff import MMFFTerms, extract_mmff
from molflow_sim.forcefield.sites import ChargeSites, charge_sites

if TYPE_CHECKING:
    from molflow_sim.systems.molecule import Molecule

__all__ = ["GUARD_RADIUS", "MoleculeParameters", "distinct_species", "parametrize"]


@dataclass(frozen=True, eq=False)
class MoleculeParameters:
    """Force-field parameters of one molecular species, in its atom order.

    Two atoms i, j of different molecules (or of periodic images of one molecule) at distance r have the energy
    ``A exp(-B r) - C/r⁶ + C (1.1 Å)⁶/r¹² + q_i q_j/(4πε₀ r)`` with ``A = sqrt(A_i A_j)``, ``B = (B_i + B_j)/2``,
    ``C = sqrt(C_i C_j)``; see :mod:`molflow_sim.forcefield.exp6`.

    Attributes
    ----------
    numbers : (N,) array of int
        Atomic numbers.
    masses : (N,) array
        Masses in amu.
    exp6_a, exp6_b, exp6_c : (N,) arrays
        Buckingham parameters of like pairs: A in eV, B in 1/Å, C in eV·Å⁶.
    charges : (N,) array
        Intermolecular partial charges in e; they sum to 0 within rounding.
    charge_model : str
        Model the charges come from: "mmff94", "hf-esp", "gfn2-esp" or "gfn2".
    mmff : MMFFTerms
        Intramolecular terms. Their electrostatics keep MMFF94's own charges whatever `charge_model` is, since the
        torsions were fitted with them.
    sites : ChargeSites, optional
        Charges on atoms and beside them, for `molflow_sim.forcefield.site_potential.SitePotential` alone.
    """

    numbers: np.ndarray
    masses: np.ndarray
    exp6_a: np.ndarray
    exp6_b: np.ndarray
    exp6_c: np.ndarray
    charges: np.ndarray
    charge_model: str
    mmff: MMFFTerms
    sites: ChargeSites | None = None


def distinct_species(items: Sequence[Molecule | MoleculeParameters]) -> list[Any]:
    """Each species once.

    Raises
    ------
    InputError
        Two species with the same sequence of elements but other bonds: atoms alone do not tell them apart, so that
        every front end would take one for the other.
    """
    found: dict[bytes, Any] = {}
    for item in items:
        known = found.setdefault(np.asarray(item.numbers, dtype=np.uint8).tobytes(), item)
        if _bonds(known) != _bonds(item):
            names = " and ".join(getattr(x, "smiles", "") or "one without a SMILES" for x in (known, item))
            raise InputError(
                f"two species ({names}) have their elements in the same order and different bonds: atoms do not say "
                "which molecule they are, and this potential cannot hold both"
            )
    return list(found.values())


def _bonds(item: Molecule | MoleculeParameters) -> set[frozenset[int]]:
    pairs = item.mmff.bonds if isinstance(item, MoleculeParameters) else item.bonds
    return {frozenset(pair) for pair in np.asarray(pairs).tolist()}


def parametrize(
    molecule: Molecule, charges: str = "mmff94", *, conformer: int = 0, cache: bool = True, sites: bool = False
) -> MoleculeParameters:
    """Assign the force field to a molecule.

    Parameters
    ----------
    molecule : Molecule
        Neutral, with explicit hydrogens.
    charges : str
        Model of the intermolecular charges, one of `molflow_sim.forcefield.charges.CHARGE_MODELS`.
    conformer : int
        Conformer at which "hf-esp", "gfn2-esp" and "gfn2" charges are computed.
    cache : bool
        Whether computed charges are read from and written to the cache on disk.
    sites : bool
        Whether charges beside the atoms are fitted as well (`charge_sites`).

    Returns
    -------
    MoleculeParameters

    Raises
    ------
    UnsupportedElementError
        An element without intermolecular or MMFF94 parameters (boron has only the former).
    ParameterError
        An atom that MMFF94 cannot type, or a charge calculation that fails.
    MissingDependencyError
        The library that the charge model needs is not installed.
    InputError
        An unknown charge model.
    NonFiniteError
        A parameter that is not a finite number.
    """
    a, b, c = exp6_parameters(molecule.rdmol)
    terms = extract_mmff(molecule.rdmol)
    q = partial_charges(molecule, charges, conformer=conformer, cache=cache)
    if not np.isfinite(q).all():
        raise NonFiniteError(f"{charges} charges of {molecule.smiles} are not finite; use another charge model")
    return MoleculeParameters(
        numbers=np.asarray(molecule.numbers),
        masses=np.asarray(molecule.masses, dtype=float),
        exp6_a=a,
        exp6_b=b,
        exp6_c=c,
        charges=q,
        charge_model=charges,
        mmff=terms,
        sites=charge_sites(molecule, cache=cache) if sites else None,
    )
