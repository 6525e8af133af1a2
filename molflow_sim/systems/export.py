"""Crystals out: ASE, pymatgen, CIF with its symmetry kept, and files written whole or not at all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molflow_sim.errors import CrystalError
from molflow_sim.runs.files import atomic_path
from molflow_sim.symmetry.spacegroup import GIVEN_SETTING
from molflow_sim.systems.crystal_symmetry import site_symmetry

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    from molflow_sim.systems.crystal import MolecularCrystal


def to_ase(crystal: MolecularCrystal) -> Atoms:
    """ASE atoms with molecules whole.

    ``arrays["molecule"]`` numbers the molecules; ``info`` holds ``space_group``, ``smiles`` and the plain notes.
    """
    from ase import Atoms

    numbers, positions, molecule, _ = crystal.unit_cell()
    atoms = Atoms(numbers=numbers, positions=positions, cell=crystal.cell, pbc=True)
    symbols = _site_symbols(crystal)
    if {"D", "T"} & set(symbols):
        atoms.set_masses(crystal.masses)
    atoms.set_array("molecule", molecule)
    plain = {k: v for k, v in crystal.info.items() if isinstance(v, (str, int, float, bool))}
    atoms.info.update(plain, space_group=crystal.space_group.name, smiles=_smiles(crystal), z=crystal.z)
    return atoms


def to_pymatgen(crystal: MolecularCrystal) -> Structure:
    """Pymatgen structure, coordinates not wrapped, with the site property ``molecule``."""
    from pymatgen.core import Lattice, Structure

    _, positions, molecule, _ = crystal.unit_cell()
    return Structure(
        Lattice(crystal.cell),
        _site_symbols(crystal),
        positions,
        coords_are_cartesian=True,
        site_properties={"molecule": molecule.tolist()},
        properties={"space_group": crystal.space_group.name, "smiles": _smiles(crystal)},
    )


def to_cif(crystal: MolecularCrystal) -> str:
    """CIF text with the operations as triplets and only the symmetry-unique atoms of the asymmetric unit."""
    group = crystal.space_group
    title = str(crystal.info.get("name") or crystal.molecules[0].name or crystal.formula)
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "_", title)[:60].strip("_")
    lines = [f"data_{name or 'crystal'}"]
    items: list[tuple[str, Any]] = [
        ("_audit_creation_method", "'molflow-sim'"),
        ("_chemical_name_common", _quoted(title)),
        ("_chemical_formula_sum", _quoted(_sum_formula(crystal))),
        ("_molflow_smiles", _quoted(_smiles(crystal))),
        ("_cell_formula_units_Z", _formula_units(crystal)),
    ]
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    items += [(f"_cell_{name}", f"{value:.8f}") for name, value in zip(names, crystal.cell_parameters)]
    items += [("_cell_volume", f"{crystal.volume:.5f}"), ("_exptl_crystal_density_diffrn", f"{crystal.density:.5f}")]
    items.append(("_space_group_IT_number", group.number))
    if not group.name.endswith(GIVEN_SETTING):  # such a setting is defined by its operations alone
        items += [
            ("_space_group_name_H-M_alt", _quoted(group.name)),
            ("_symmetry_space_group_name_H-M", _quoted(group.name)),
        ]
    lines += [f"{key:<34} {value}" for key, value in items]
    lines += ["", "loop_", "_space_group_symop_id", "_space_group_symop_operation_xyz"]
    lines += [f"{g + 1} '{triplet}'" for g, triplet in enumerate(group.symbols)]
    lines += ["", "loop_", "_atom_site_label", "_atom_site_type_symbol"]
    lines += [f"_atom_site_fract_{axis}" for axis in "xyz"]
    lines += ["_atom_site_occupancy", "_atom_site_symmetry_multiplicity"]
    counters: dict[str, int] = {}
    for k, rigid in enumerate(crystal.asymmetric_unit):
        symbols = crystal.molecules[rigid.species].site_symbols
        for i, position, multiplicity in _unique_atoms(crystal, k):
            symbol = symbols[i]
            counters[symbol] = counters.get(symbol, 0) + 1
            xyz = " ".join(f"{x:.9f}" for x in position)
            lines.append(f"{symbol}{counters[symbol]:<4d} {symbol:<2s} {xyz} 1 {multiplicity}")
    return "\n".join(lines) + "\n"


def write(crystal: MolecularCrystal, path: Path) -> None:
    """Write a CIF, or whatever ASE writes for another suffix, through a temporary file in the same folder.

    Raises
    ------
    CrystalError
        If the suffix is unknown or the folder cannot be written.
    """
    from ase.io import write as ase_write

    if not path.parent.is_dir():
        raise CrystalError(f"cannot write {path}: there is no folder {path.parent}")
    try:
        with atomic_path(path) as temporary:
            if path.suffix.lower() == ".cif":
                temporary.write_text(to_cif(crystal), encoding="utf-8")
            else:
                ase_write(temporary, to_ase(crystal))
    except CrystalError:
        raise
    except Exception as error:  # ASE raises many kinds for formats it cannot write
        raise CrystalError(f"cannot write {path}: {error}") from error


def _unique_atoms(crystal: MolecularCrystal, k: int) -> list[tuple[int, np.ndarray, int]]:
    """(atom, fractional position, multiplicity) of the atoms of molecule k that no operation maps on an earlier one."""
    frac, operations, _, permutations = site_symmetry(crystal, k)
    order = crystal.space_group.order
    out, done = [], set()
    for i in _connected_order(crystal.molecules[crystal.asymmetric_unit[k].species].bonds, permutations):
        if i in done:
            continue
        orbit = {int(p[i]) for p in permutations}
        done |= orbit
        stabiliser = len(operations) // len(orbit)
        out.append((i, frac[i], order // stabiliser))
    return sorted(out, key=lambda item: item[0])


def _connected_order(bonds: np.ndarray, permutations: np.ndarray) -> list[int]:
    """Atoms ordered so that the symmetry-unique ones, taken greedily, hang together where they can."""
    n = permutations.shape[1]
    if len(permutations) == 1:
        return list(range(n))
    neighbours: list[list[int]] = [[] for _ in range(n)]
    for i, j in bonds:
        neighbours[i].append(int(j))
        neighbours[j].append(int(i))
    taken: list[int] = []
    covered: set[int] = set()
    while len(covered) < n:
        near = [j for i in taken for j in neighbours[i] if j not in covered]
        i = near[0] if near else next(a for a in range(n) if a not in covered)
        taken.append(i)
        covered |= {int(p[i]) for p in permutations}
    return taken


def _site_symbols(crystal: MolecularCrystal) -> list[str]:
    species = crystal.unit_cell()[3]
    return [symbol for s in species for symbol in crystal.molecules[s].site_symbols]


def _smiles(crystal: MolecularCrystal) -> str:
    return ".".join(m.smiles for m in crystal.molecules)


def _sum_formula(crystal: MolecularCrystal) -> str:
    """Formula of one formula unit, C and H first, then alphabetical, separated by blanks."""
    counts: dict[str, int] = {}
    for rigid in crystal.asymmetric_unit:
        for symbol in crystal.molecules[rigid.species].site_symbols:
            counts[symbol] = counts.get(symbol, 0) + len(rigid.images)
    units = _formula_units(crystal)
    order = sorted(counts, key=lambda s: (s != "C", s not in "HDT", s) if "C" in counts else (s,))
    return " ".join(f"{s}{counts[s] // units if counts[s] // units > 1 else ''}" for s in order)


def _formula_units(crystal: MolecularCrystal) -> int:
    per_species = np.zeros(len(crystal.molecules), dtype=int)
    for rigid in crystal.asymmetric_unit:
        per_species[rigid.species] += len(rigid.images)
    return int(np.gcd.reduce(per_species))


def _quoted(text: str) -> str:
    text = " ".join(text.split()) or "?"
    if "'" not in text:
        return f"'{text}'"
    return f'"{text}"' if '"' not in text else f"\n;{text}\n;"
