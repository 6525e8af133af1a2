"""Crystals in: sites expanded by symmetry, bonds perceived, molecules made whole, species recognised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from scipy.spatial import cKDTree

from molflow_sim.chemistry.bonds import perceive_bonds
from molflow_sim.chemistry.checks import ELEMENTS, MAX_ATOMS
from molflow_sim.errors import (
    CrystalError,
    InputError,
    MissingHydrogensError,
    MoleculeTooLargeError,
    OverlappingAtomsError,
    UnsupportedElementError,
)
from molflow_sim.io.cif_parse import Sites, parse_cif
from molflow_sim.symmetry import SpaceGroup, cell_matrix, cell_parameters
from molflow_sim.symmetry.operations import space_group_from_operations
from molflow_sim.systems.molecule import Molecule
from molflow_sim.systems.rigid import RigidMolecule, rigid_from_cartesian
from molflow_sim.systems.species import SpeciesTable
from molflow_sim.units import AMU_PER_A3

MAX_CELL_ATOMS = 20_000
"""Most atoms in a cell."""
MAX_ATOM_DENSITY = 0.4
"""Atoms per Å³ beyond which atoms must overlap; organic crystals have about 0.1."""
SPECIAL_POSITION_TOLERANCE = 0.2
"""Å within which the images of a site are one atom on a special position."""
DUPLICATE_TOLERANCE = 0.1
"""Å within which two listed sites of one element are the same atom."""
HYDROGEN_BONDS = {6: 1.089, 7: 1.015, 8: 0.993}
"""Mean neutron X-H lengths in Å by the atomic number of X (Allen & Bruno, Acta Cryst. B66, 380, 2010)."""
_ALLOWED = frozenset(gemmi.Element(s).atomic_number for s in ELEMENTS)


def read_cif(
    source: str | Path,
    *,
    normalise_hydrogens: bool = False,
    molecules: Sequence[Molecule] | None = None,
    block: str | None = None,
    symprec: float | None = None,
) -> dict[str, Any]:
    """What a `MolecularCrystal` is made of, see `MolecularCrystal.from_cif`."""
    sites = parse_cif(source, block)
    try:
        if symprec is not None:
            site, fractional, _ = expand(sites)
            group, cell, fractional, chosen = _standardised(
                1000 * sites.isotopes[site] + sites.numbers[site], fractional, sites.cell, symprec
            )
            site = site[chosen]
            sites = replace(
                sites, numbers=sites.numbers[site], isotopes=sites.isotopes[site], fractional=fractional, cell=cell,
                labels=[sites.labels[s] for s in site], space_group=group,
            )  # fmt: skip
        return assemble(sites, normalise_hydrogens=normalise_hydrogens, molecules=molecules)
    except InputError as error:
        where = "CIF text" if isinstance(source, str) and set(source) & {"\n", "\r"} else source
        raise type(error)(f"{where}, block {sites.name}: {str(error).removeprefix(f'{sites.name}: ')}") from error


def from_sites(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    *,
    symprec: float | None = None,
    molecules: Sequence[Molecule] | None = None,
    isotopes: np.ndarray | None = None,
) -> dict[str, Any]:
    """What a `MolecularCrystal` is made of, from all atoms of a cell.

    Parameters
    ----------
    numbers : ndarray (n,)
    positions : ndarray (n, 3)
        Å, any periodic images.
    cell : ndarray (3, 3)
        Rows in Å.
    symprec : float, optional
        Let spglib look for a space group within this many Å; otherwise P 1.
    molecules : sequence of Molecule, optional
        Species to recognise, so that their atom order is kept.
    isotopes : ndarray (n,) of int, optional
        Mass numbers where they matter (2 for deuterium), else 0.

    Raises
    ------
    CrystalError and its subclasses
        As `read_cif`.
    """
    numbers = np.asarray(numbers, dtype=int)
    isotopes = np.zeros_like(numbers) if isotopes is None else np.asarray(isotopes, dtype=int)
    positions, cell = np.asarray(positions, dtype=float), np.asarray(cell, dtype=float)
    if cell.shape != (3, 3) or not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-3:
        raise CrystalError("the cell must be three finite, independent vectors")
    if len(numbers) == 0 or positions.shape != (len(numbers), 3) or not np.isfinite(positions).all():
        raise CrystalError("the positions must be finite, one (x, y, z) for each atom")
    fractional = positions @ np.linalg.inv(cell)
    if np.linalg.det(cell) < 0:  # the same lattice on right-handed axes
        cell, fractional = -cell, -fractional
    labels = [f"{gemmi.Element(int(z)).name}{k + 1}" for k, z in enumerate(numbers)]
    if symprec is None:
        group, frame = SpaceGroup.from_name("P 1"), cell_matrix(cell_parameters(cell))
    else:
        group, frame, fractional, chosen = _standardised(1000 * isotopes + numbers, fractional, cell, symprec)
        numbers, isotopes, labels = numbers[chosen], isotopes[chosen], [labels[k] for k in chosen]
    sites = Sites(numbers, labels, fractional, frame, group, "", {}, isotopes)
    return assemble(sites, molecules=molecules)


def heavy_hydrogen(numbers: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Mass numbers (n,) of deuterium and tritium by masses in amu, 0 for all other atoms."""
    return np.where((numbers == 1) & (masses > 1.5), np.rint(masses), 0).astype(int)


def _standardised(
    numbers: np.ndarray, fractional: np.ndarray, cell: np.ndarray, symprec: float
) -> tuple[SpaceGroup, np.ndarray, np.ndarray, np.ndarray]:
    """Group, cell, symmetry-unique fractional positions and their indices in the standard setting spglib finds."""
    import spglib

    if not 0.0 < symprec < np.inf:
        raise CrystalError(f"symprec must be a length above 0 Å, not {symprec}")
    try:
        found = spglib.get_symmetry_dataset((cell.tolist(), fractional.tolist(), numbers.tolist()), symprec=symprec)
    except Exception as error:  # spglib raises different errors in different versions
        raise CrystalError(f"spglib finds no symmetry at symprec {symprec}: {error}") from error
    if found is None:
        raise CrystalError(f"spglib finds no symmetry at symprec {symprec}; are atoms too close?")
    group = space_group_from_operations(list(gemmi.symops_from_hall(found.hall)))
    change = np.asarray(found.transformation_matrix)
    frame = np.linalg.inv(change).T @ cell
    unique = np.unique(found.equivalent_atoms)
    moved = fractional[unique] @ change.T + found.origin_shift
    return group, cell_matrix(group.constrain(cell_parameters(frame))), moved, unique


def assemble(
    sites: Sites, *, normalise_hydrogens: bool = False, molecules: Sequence[Molecule] | None = None
) -> dict[str, Any]:
    """Whole molecules, species and asymmetric unit from symmetry-unique sites.

    Raises
    ------
    CrystalError and its subclasses
        Overlaps, polymers, missing hydrogens, ions, unsupported elements, molecules too large, atoms that the declared
        formula has and the sites have not.
    """
    group, cell, what = sites.space_group, sites.cell, sites.name or "crystal"
    strange = sorted({gemmi.Element(int(z)).name for z in sites.numbers if int(z) not in _ALLOWED})
    if strange:
        raise UnsupportedElementError(
            f"{what}: element {', '.join(strange)} is not supported; supported are {', '.join(ELEMENTS)}"
        )
    volume = float(np.linalg.det(cell))
    # bounds before the work: special positions make the cell's atoms fewer than sites times operations
    if len(sites.numbers) * group.order > min(10 * MAX_CELL_ATOMS, 5.0 * volume):
        raise CrystalError(
            f"{what}: {len(sites.numbers)} sites in {group.name} are too many atoms for a cell of {volume:.0f} Å³"
        )
    site, fractional, first = expand(sites)
    if len(site) > MAX_CELL_ATOMS:
        raise CrystalError(f"{what}: {len(site)} atoms in the cell; the limit is {MAX_CELL_ATOMS}")
    if len(site) > MAX_ATOM_DENSITY * volume:
        raise OverlappingAtomsError(f"{what}: {len(site)} atoms in a cell of {volume:.0f} Å³ must overlap")
    numbers, isotopes, labels = sites.numbers[site], sites.isotopes[site], [sites.labels[s] for s in site]
    notes = sites.notes | check_content(sites, numbers, volume)
    bonds, shifts = perceive_bonds(numbers, fractional @ cell, cell, labels)
    component, lattice = connected(len(site), bonds, shifts, labels, what)
    whole = fractional + lattice
    members = [np.flatnonzero(component == c) for c in range(component.max() + 1)]
    table = SpeciesTable(molecules, what=what)
    rigid: list[RigidMolecule] = []
    done: set[int] = set()
    # molecules that the file lists come first and stay where the file has them
    for c in sorted(range(len(members)), key=lambda c: (-np.sum(first[members[c]]), site[members[c][0]])):
        if c in done:
            continue
        atoms = members[c]
        images = _images(int(atoms[0]), component, site, fractional, group)
        done |= set(images)
        anchor = next((a for a in atoms if first[a]), atoms[0])
        offset = sites.fractional[site[anchor]] - whole[anchor] if first[anchor] else 0.0
        positions = (whole[atoms] + np.rint(offset)) @ cell
        local = np.searchsorted(atoms, bonds[component[bonds[:, 0]] == c])
        names = [labels[a] for a in atoms]
        if len(atoms) > MAX_ATOMS:
            raise MoleculeTooLargeError(f"{what}: a molecule of {len(atoms)} atoms; the limit is {MAX_ATOMS}")
        if normalise_hydrogens:
            positions = normalised_hydrogens(numbers[atoms], positions, local)
        species, order = table.identify(numbers[atoms], positions, local, names, isotopes[atoms])
        rigid.append(
            rigid_from_cartesian(species, table.molecules[species], positions[order], cell, tuple(images.values()))
        )
    info: dict = {"name": sites.name} if sites.name else {}
    info.update(notes)
    if normalise_hydrogens:
        info["hydrogens"] = "normalised to neutron lengths"
    species_molecules = table.with_conformers([(r.species, r.conformer) for r in rigid], not group.is_sohncke)
    rigid.sort(key=lambda r: r.species)
    return {
        "molecules": species_molecules, "asymmetric_unit": tuple(rigid), "space_group": group, "cell": cell,
        "info": info,
    }  # fmt: skip


def check_content(sites: Sites, numbers: np.ndarray, volume: float) -> dict[str, str]:
    """Refuse a cell whose atoms contradict what the file itself declares.

    Files are wrong about their formula, weight, Z or density now and then, and some give the formula of the asymmetric
    unit. So hydrogens count as missing where the other elements stand in the formula's ratio and neither weight nor
    density speaks for what was read instead; any other difference counts where formula, Z and density agree among
    themselves, and not with the atoms.

    Parameters
    ----------
    sites : Sites
    numbers : ndarray (n,)
        Atomic numbers of all atoms of the cell.
    volume : float
        Å³.

    Returns
    -------
    dict
        A note where the density alone differs, by more than a tenth.

    Raises
    ------
    MissingHydrogensError
        The sites have fewer hydrogens than the formula.
    CrystalError
        They have other atoms, or another number of formula units.
    """
    formula = sites.declared.get("formula", {})
    weight, density, z = (sites.declared.get(name, 0.0) for name in ("weight", "density", "z"))
    counts = {gemmi.Element(int(n)).name: int(k) for n, k in zip(*np.unique(numbers, return_counts=True))}
    read, stated = _mass(counts), density * volume / AMU_PER_A3
    units = {s: counts.get(s, 0) / n for s, n in formula.items()}
    heavy = [n for s, n in units.items() if s != "H"]
    if heavy and formula.keys() | {"H"} == counts.keys() | {"H"} and np.ptp(heavy) < 1e-6 * heavy[0]:
        missing = formula.get("H", 0.0) * heavy[0] - counts.get("H", 0)
        hydrogen = missing * gemmi.Element("H").weight
        told = [weight * heavy[0], stated if hydrogen > 0.006 * read else 0.0]  # what is too little to tell is silent
        if missing > 0.5 and not any(t and abs(t - read) < 0.4 * hydrogen for t in told):
            raise MissingHydrogensError(
                f"hydrogens missing: {missing / heavy[0]:g} of H{formula['H']:g} in _chemical_formula_sum are not "
                "among the atom sites; add them before reading it"
            )
    expected = z * _mass(formula)
    if expected and stated and abs(stated / expected - 1.0) < 0.01 and abs(stated / read - 1.0) > 0.02:
        raise CrystalError(
            f"the atom sites make {_formula(counts)} in the cell, {read / volume * AMU_PER_A3:.3f} g/cm³; the file "
            f"declares {_formula(formula)}, Z = {z:g} and {density:g} g/cm³: atoms or operations are missing, or extra"
        )
    return {"density_declared": f"{density:g} g/cm³"} if stated and abs(stated / read - 1.0) > 0.1 else {}


def _mass(formula: dict[str, Any]) -> float:
    return float(sum(n * gemmi.Element(s).weight for s, n in formula.items()))


def _formula(counts: dict[str, Any]) -> str:
    return " ".join(f"{s}{n:g}" for s, n in counts.items())


def expand(sites: Sites) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All atoms of the cell.

    Sites near a special position are moved onto it, and a site that repeats an earlier one is dropped.

    Returns
    -------
    site : ndarray (n,) of int
        Which listed site each atom comes from.
    fractional : ndarray (n, 3)
        In [0, 1).
    first : ndarray (n,) of bool
        Whether the atom is the listed one and not an image of it.
    """
    group, cell = sites.space_group, sites.cell
    site_parts, frac_parts, first_parts = [], [], []
    for s, f in enumerate(sites.fractional):
        images = group.rotations @ f + group.translations
        delta = images - f
        shift = np.rint(delta)
        stabiliser = np.linalg.norm((delta - shift) @ cell, axis=1) < SPECIAL_POSITION_TOLERANCE
        if stabiliser.sum() > 1 and group.order % stabiliser.sum() == 0:
            f = np.mean(images[stabiliser] - shift[stabiliser], axis=0)
            images = group.rotations @ f + group.translations
        images = np.mod(np.round(images, 12), 1.0)
        keep: list[int] = []
        if stabiliser.sum() == 1:
            keep = list(range(len(images)))
        else:
            for g, x in enumerate(images):
                gap = images[keep] - x
                gap -= np.rint(gap)
                if not keep or np.linalg.norm(gap @ cell, axis=1).min() > 0.5 * SPECIAL_POSITION_TOLERANCE:
                    keep.append(g)
        site_parts.append(np.full(len(keep), s))
        frac_parts.append(images[keep])
        first_parts.append(np.arange(len(keep)) == 0)
    site, fractional, first = np.concatenate(site_parts), np.concatenate(frac_parts), np.concatenate(first_parts)
    unique = ~np.isin(site, list(_repeated_sites(sites.numbers, site, fractional, cell)))
    return site[unique], fractional[unique], first[unique]


def _repeated_sites(numbers: np.ndarray, site: np.ndarray, fractional: np.ndarray, cell: np.ndarray) -> set[int]:
    """Sites of which an image coincides with an image of an earlier site of the same element."""
    inverse = np.linalg.inv(cell)
    radius = min(DUPLICATE_TOLERANCE * float(np.linalg.norm(inverse, 2)), 0.45)
    wrapped = np.where(fractional >= 1.0, 0.0, fractional)
    pairs = cKDTree(wrapped, boxsize=1.0).query_pairs(radius, output_type="ndarray")
    gap = fractional[pairs[:, 0]] - fractional[pairs[:, 1]]
    close = np.linalg.norm((gap - np.rint(gap)) @ cell, axis=1) < DUPLICATE_TOLERANCE
    a, b = site[pairs[close]].T
    same = (a != b) & (numbers[a] == numbers[b])
    repeated: set[int] = set()
    for low, high in sorted(zip(np.minimum(a, b)[same].tolist(), np.maximum(a, b)[same].tolist())):
        if low not in repeated:
            repeated.add(high)
    return repeated


def connected(
    n: int, bonds: np.ndarray, shifts: np.ndarray, labels: list[str], what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Component (n,) of each atom and the lattice translation (n, 3) that makes components whole.

    Raises
    ------
    CrystalError
        If a bonded network has no end.
    """
    neighbours: list[list[tuple[int, np.ndarray]]] = [[] for _ in range(n)]
    for (i, j), shift in zip(bonds, shifts):
        neighbours[i].append((int(j), shift))
        neighbours[j].append((int(i), -shift))
    component = np.full(n, -1)
    lattice = np.zeros((n, 3), dtype=int)
    for start in range(n):
        if component[start] >= 0:
            continue
        component[start] = component.max() + 1
        stack = [start]
        while stack:
            i = stack.pop()
            for j, shift in neighbours[i]:
                if component[j] < 0:
                    component[j] = component[start]
                    lattice[j] = lattice[i] + shift
                    stack.append(j)
                elif np.any(lattice[j] != lattice[i] + shift):
                    raise CrystalError(
                        f"{what}: the bonds through {labels[i]} and {labels[j]} form an endless network, not molecules"
                    )
    return component, lattice


def _images(
    atom: int, component: np.ndarray, site: np.ndarray, fractional: np.ndarray, group: SpaceGroup
) -> dict[int, int]:
    """Component -> first operation that carries an atom's component to it, in the order of the operations."""
    out: dict[int, int] = {}
    same = np.flatnonzero(site == site[atom])
    for g in range(group.order):
        gap = fractional[same] - (group.rotations[g] @ fractional[atom] + group.translations[g])
        image = same[np.abs(gap - np.rint(gap)).sum(axis=1).argmin()]
        out.setdefault(int(component[image]), g)
    if group.order % len(out):
        raise CrystalError("the copies of a molecule do not match the space group; the symmetry is inconsistent")
    return out


def normalised_hydrogens(numbers: np.ndarray, positions: np.ndarray, bonds: np.ndarray) -> np.ndarray:
    """Positions (N, 3) with every hydrogen moved along its bond to carbon, nitrogen or oxygen to `HYDROGEN_BONDS`."""
    out = positions.copy()
    for a, b in bonds:
        for x, h in ((a, b), (b, a)):
            if numbers[h] == 1 and int(numbers[x]) in HYDROGEN_BONDS:
                vector = positions[h] - positions[x]
                out[h] = positions[x] + vector * (HYDROGEN_BONDS[int(numbers[x])] / np.linalg.norm(vector))
    return out
