"""Is a relaxed crystal still a sensible crystal of the same molecules?

Four columns, each with a reason where it fails, so that a landscape keeps the row and says why it is not ranked:
the right number of molecules, the same bonds, a density that organic crystals have, and no clash. The list follows
the filters of FastCSP (Gharakhanyan et al., arXiv 2508.02641); the contact test is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from rdkit import Chem
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from molflow_sim.chemistry.bonds import neighbour_pairs
from molflow_sim.evaluate.fingerprint import cell_arrays
from molflow_sim.units import AMU_PER_A3

if TYPE_CHECKING:
    from molflow_sim.systems.crystal import MolecularCrystal

_DONORS = (7, 8, 9, 16)
_ACCEPTORS = (7, 8, 9, 16, 17, 35, 53)


@dataclass(frozen=True)
class ValidityThresholds:
    """Limits of the validity columns.

    Attributes
    ----------
    min_density, max_density : float
        g/cm³.
    broken_bond : float
        Å over the sum of covalent radii beyond which a bond of the molecule counts as broken.
    formed_bond : float
        Å over the sum of covalent radii below which two atoms count as newly bonded. It is the smaller of the two,
        so that a distance between them, as in strained rings, changes nothing.
    contact : float
        Fraction of the sum of van der Waals radii (RDKit's table) below which an intermolecular contact is a clash.
    hydrogen_bond : float
        Shortest H...A distance (Å) allowed for H on N, O, F or S and an acceptor N, O, F, S, Cl, Br or I of another
        molecule; strong hydrogen bonds are far shorter than `contact` allows.
    """

    min_density: float = 0.5
    max_density: float = 3.0
    broken_bond: float = 0.45
    formed_bond: float = 0.25
    contact: float = 0.65
    hydrogen_bond: float = 1.2


@dataclass(frozen=True)
class Validity:
    """Outcome of `check_validity`: one flag per column and the reasons of those that are False.

    Attributes
    ----------
    z_ok : bool
        The molecules in the cell are as many as before: none fused, none came apart.
    bonds_unchanged : bool
        Every molecule has the bonds it should have.
    density_ok : bool
        The density is within the limits.
    no_clash : bool
        No intermolecular contact is too short.
    density : float
        g/cm³.
    shortest_contact : float
        Smallest intermolecular distance over the shortest one allowed for that pair of atoms; NaN if none is
        within 1.5 times of it. Below 1 is a clash.
    reasons : tuple of str
        One text per failed column.
    """

    z_ok: bool
    bonds_unchanged: bool
    density_ok: bool
    no_clash: bool
    density: float
    shortest_contact: float
    reasons: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether every column holds."""
        return self.z_ok and self.bonds_unchanged and self.density_ok and self.no_clash

    def columns(self) -> dict[str, Any]:
        """The fields as columns of a table, `reasons` joined into one text."""
        row = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "reasons"}
        return {**row, "valid": self.valid, "reason": "; ".join(self.reasons)}


def check_validity(crystal: MolecularCrystal, *, thresholds: ValidityThresholds | None = None) -> Validity:
    """Check number of molecules, bonds, density and contacts of a crystal.

    Parameters
    ----------
    crystal : MolecularCrystal
    thresholds : ValidityThresholds, optional

    Returns
    -------
    Validity
        Non-finite coordinates or a flat cell fail every column, with that reason.
    """
    limits = thresholds or ValidityThresholds()
    numbers, cell, positions, molecule = cell_arrays(crystal)
    bonds = unit_cell_bonds(crystal)
    volume = abs(np.linalg.det(cell)) if np.all(np.isfinite(cell)) else 0.0
    if not np.all(np.isfinite(positions)) or volume < 1e-3:
        nan = float("nan")
        return Validity(
            False, False, False, False, nan, nan, ("coordinates or cell are not finite, or the cell is flat",)
        )
    covalent, vdw = (table[numbers] for table in _tables())
    density = float(crystal.masses.sum() / volume * AMU_PER_A3)
    density_ok = limits.min_density <= density <= limits.max_density
    reasons = []

    broken, formed = _bond_changes(numbers, positions, molecule, bonds, covalent, limits)
    shortest, clash, close = _contacts(numbers, cell, positions, molecule, bonds, covalent, vdw, limits)
    n_molecules = len(np.unique(molecule))
    found = _count_molecules(len(numbers), bonds, broken, formed, close)
    z_ok = found == n_molecules
    if not z_ok:
        reasons.append(f"{found} molecules in the cell instead of {n_molecules}")
    if len(broken) or len(formed):
        pair, what = (broken[0], "broken") if len(broken) else (formed[0], "formed")
        i, j = pair
        reasons.append(
            f"{len(broken)} bonds broken and {len(formed)} formed, first: {_name(numbers, i)}-{_name(numbers, j)} "
            f"{what} at {np.linalg.norm(positions[i] - positions[j]):.2f} Å"
        )
    if not density_ok:
        reasons.append(f"density {density:.2f} g/cm³ outside {limits.min_density:g}-{limits.max_density:g}")
    if clash:
        reasons.append(clash)
    return Validity(
        z_ok=z_ok,
        bonds_unchanged=not (len(broken) or len(formed)),
        density_ok=density_ok,
        no_clash=not clash,
        density=density,
        shortest_contact=shortest,
        reasons=tuple(reasons),
    )


def unit_cell_bonds(crystal: Any) -> np.ndarray:
    """Bonds (nb, 2) of a MolecularCrystal's whole unit cell, in the atom order of ``unit_cell()``."""
    molecule, species = crystal.unit_cell()[2:4]
    start = np.searchsorted(molecule, np.arange(len(species)))
    parts = [np.asarray(crystal.molecules[s].bonds).reshape(-1, 2) + k for s, k in zip(species, start)]
    return np.concatenate(parts) if parts else np.empty((0, 2), int)


def _contacts(numbers, cell, positions, molecule, bonds, covalent, vdw, limits) -> tuple[float, str, np.ndarray]:
    """Shortest contact over what is allowed, what is wrong about it, and pairs close enough to be bonded."""
    donor_hydrogen = np.zeros(len(numbers), bool)
    for i, j in np.concatenate([bonds, bonds[:, ::-1]]):
        donor_hydrogen[i] |= numbers[i] == 1 and numbers[j] in _DONORS
    acceptor = np.isin(numbers, _ACCEPTORS)
    reach = max(1.5 * limits.contact * 2.0 * vdw.max(), 2.0 * covalent.max() + limits.formed_bond)
    pairs, shift, d = neighbour_pairs(positions, cell, reach)
    i, j = pairs.T
    other = (molecule[i] != molecule[j]) | np.any(shift != 0, axis=1)
    i, j, d = i[other], j[other], d[other]
    allowed = limits.contact * (vdw[i] + vdw[j])
    hydrogen_bond = (donor_hydrogen[i] & acceptor[j]) | (donor_hydrogen[j] & acceptor[i])
    allowed = np.where(hydrogen_bond, np.minimum(limits.hydrogen_bond, allowed), allowed)
    ratio = d / allowed
    bonded = d < covalent[i] + covalent[j] + limits.formed_bond
    # A hydrogen bond may be shorter than a stretched covalent one; only a real transfer of the proton counts.
    bonded &= ~hydrogen_bond | (ratio < 1.0)
    pairs = np.stack([i[bonded], j[bonded]], axis=1)
    if not len(ratio) or ratio.min() > 1.5:
        return float("nan"), "", pairs
    k = int(np.argmin(ratio))
    text = ""
    if ratio[k] < 1.0:
        text = (
            f"{int(np.sum(ratio < 1.0))} contacts too short, worst: {_name(numbers, i[k])}...{_name(numbers, j[k])} "
            f"{d[k]:.2f} Å (at least {allowed[k]:.2f})"
        )
    return float(ratio[k]), text, pairs


def _bond_changes(numbers, positions, molecule, bonds, covalent, limits) -> tuple[np.ndarray, np.ndarray]:
    """Bonds stretched beyond the limit, and pairs within one molecule that came within bonding distance."""
    n = len(numbers)
    length = np.linalg.norm(positions[bonds[:, 0]] - positions[bonds[:, 1]], axis=1)
    broken = bonds[length > covalent[bonds].sum(axis=1) + limits.broken_bond]
    known = np.sort(bonds, axis=1) @ np.array([n, 1])
    formed = []
    for m in np.unique(molecule):
        atoms = np.flatnonzero(molecule == m)
        i, j = np.triu_indices(len(atoms), 1)
        i, j = atoms[i], atoms[j]
        close = np.linalg.norm(positions[i] - positions[j], axis=1) < covalent[i] + covalent[j] + limits.formed_bond
        i, j = i[close], j[close]
        new = ~np.isin(i * n + j, known)
        formed.append(np.stack([i[new], j[new]], axis=1))
    return broken, np.concatenate(formed) if formed else np.empty((0, 2), int)


def _count_molecules(n: int, bonds, broken, formed, between) -> int:
    lost = {tuple(sorted(p)) for p in broken.tolist()}
    kept = [p for p in bonds.tolist() if tuple(sorted(p)) not in lost]
    pairs = np.array(kept + formed.tolist() + between.tolist(), dtype=int).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return int(connected_components(graph, directed=False)[0])


def _name(numbers: np.ndarray, atom: int) -> str:
    return f"{Chem.GetPeriodicTable().GetElementSymbol(int(numbers[atom]))}{int(atom) + 1}"


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Covalent and van der Waals radii (Å) by atomic number, from RDKit's periodic table."""
    table = Chem.GetPeriodicTable()
    rows = [(table.GetRcovalent(z), table.GetRvdw(z)) for z in range(1, 119)]
    covalent, vdw = np.array([(0.0, 0.0), *rows]).T
    return covalent, vdw
