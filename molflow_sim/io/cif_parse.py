"""CIF text to cell, symmetry operations and sites, with every defect named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np

from molflow_sim.errors import (
    CrystalError,
    DisorderedCrystalError,
    MissingHydrogensError,
    MolflowError,
    SpaceGroupError,
    UnsupportedElementError,
)
from molflow_sim.symmetry import SpaceGroup, cell_matrix, cell_parameters
from molflow_sim.symmetry.operations import space_group_from_operations

MAX_BYTES = 20_000_000
"""Largest CIF read."""
MAX_SITES = 3000
"""Most atom sites read."""

_OPERATION_TAGS = (
    "_space_group_symop_operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_space_group_symop.operation_xyz",
    "_symmetry_equiv.pos_as_xyz",
)
_NAME_TAGS = ("_space_group_name_H-M_alt", "_symmetry_space_group_name_H-M", "_space_group.name_H-M_alt")
_HALL_TAGS = ("_space_group_name_Hall", "_symmetry_space_group_name_Hall", "_space_group.name_Hall")
_NUMBER_TAGS = ("_space_group_IT_number", "_symmetry_Int_Tables_number", "_space_group.IT_number")
_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")


@dataclass(frozen=True)
class Sites:
    """What a CIF says, checked but not interpreted: `fractional` (n, 3) on `cell` rows in the standard frame."""

    numbers: np.ndarray
    labels: list[str]
    fractional: np.ndarray
    cell: np.ndarray
    space_group: SpaceGroup
    name: str
    notes: dict[str, str]


def read_text(source: str | Path) -> tuple[str, str]:
    """The text of a CIF and where it came from, given a path or the text itself.

    Raises
    ------
    CrystalError
        If the file cannot be read, is too large, or is not text.
    """
    if isinstance(source, str) and ("\n" in source or source.lstrip().startswith("data_")):
        if len(source) > MAX_BYTES:
            raise CrystalError(f"a CIF of {len(source)} characters; the limit is {MAX_BYTES}")
        return source, "CIF text"
    path = Path(source)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CrystalError(f"{path}: {path.stat().st_size} bytes; the limit for a CIF is {MAX_BYTES}")
        return path.read_bytes().decode("utf-8", errors="replace"), str(path)
    except (OSError, ValueError) as error:
        raise CrystalError(f"cannot read {str(path)[:200]!r}: {error}") from error


def parse_cif(source: str | Path) -> Sites:
    """Read the first block with atom sites.

    Raises
    ------
    CrystalError and its subclasses
        Syntax errors, missing or non-numeric items, disorder, unknown elements, operations that form no group.
    """
    text, where = read_text(source)
    try:
        document = gemmi.cif.read_string(text)
    except (ValueError, RuntimeError) as error:
        raise CrystalError(f"{where}: not a readable CIF: {error}") from error
    block = next((b for b in document if len(b.find_values("_atom_site_fract_x"))), None)
    if block is None:
        raise CrystalError(f"{where}: no atom sites with fractional coordinates (_atom_site_fract_x)")
    where = f"{where}, block {block.name}"
    try:
        cell = _cell(block, where)
        group, notes = _space_group(block, cell, where)
        numbers, labels, fractional = _atoms(block, where)
    except (ValueError, RuntimeError, IndexError) as error:
        if isinstance(error, MolflowError):
            raise
        raise CrystalError(f"{where}: malformed: {error}") from error
    if group.name.endswith(":R"):
        cell, fractional, group = _hexagonal_axes(cell, fractional, group)
    return Sites(numbers, labels, fractional, _constrained(cell, group, where), group, block.name, notes)


def _text(block: gemmi.cif.Block, tags: tuple[str, ...]) -> str:
    for tag in tags:
        for value in block.find_values(tag):
            text = gemmi.cif.as_string(value).strip()
            if text not in ("", "?", "."):
                return text
    return ""


def _cell(block: gemmi.cif.Block, where: str) -> np.ndarray:
    values = []
    for name in _CELL:
        raw = _text(block, (f"_cell_{name}", f"_cell.{name}"))
        value = gemmi.cif.as_number(raw) if raw else float("nan")
        if not np.isfinite(value):
            raise CrystalError(f"{where}: _cell_{name} is {raw or 'missing'}")
        values.append(value)
    p = np.array(values)
    if p[:3].min() < 1.5 or p[:3].max() > 500 or p[3:].min() < 10 or p[3:].max() > 170:
        raise CrystalError(f"{where}: cell {', '.join(f'{x:g}' for x in p)} is not that of a molecular crystal")
    cell = cell_matrix(p)
    if np.linalg.det(cell) < 0.02 * p[:3].prod():
        raise CrystalError(f"{where}: cell angles {p[3]:g}, {p[4]:g}, {p[5]:g} leave no volume")
    return cell


def _space_group(block: gemmi.cif.Block, cell: np.ndarray, where: str) -> tuple[SpaceGroup, dict[str, str]]:
    """The group of the listed operations; without a list, the one that is named."""
    named = _text(block, _NAME_TAGS)
    triplets: list[str] = []
    for tag in _OPERATION_TAGS:
        triplets = [gemmi.cif.as_string(v) for v in block.find_values(tag)]
        if triplets:
            break
    known = gemmi.find_spacegroup_by_name(named, *cell_parameters(cell)[[3, 5]]) if named else None
    notes: dict[str, str] = {}
    if triplets:
        operations = []
        for triplet in triplets[:400]:
            try:
                operations.append(gemmi.Op(triplet.replace(" ", "").lower()))
            except (ValueError, RuntimeError) as error:
                raise SpaceGroupError(f"{where}: symmetry operation {triplet[:60]!r} is not readable") from error
        group = space_group_from_operations(operations, where)
        if group.order == 1 and known is not None and known.number > 1:
            # only x,y,z although a larger group is named: atoms of an expanded cell merge, a lost list is made good
            notes["space_group_note"] = f"only the identity was listed; the operations of {known.xhm()} were used"
            return space_group_from_operations(list(known.operations()), where), notes
        if named and _plain(named) != _plain(group.name):
            notes["space_group_declared"] = named
        return group, notes
    found = known
    hall = _text(block, _HALL_TAGS)
    if found is None and hall:
        return space_group_from_operations(list(gemmi.symops_from_hall(hall)), where), {}
    number = _text(block, _NUMBER_TAGS)
    if found is None and number.isdigit():
        found = gemmi.find_spacegroup_by_number(int(number))
    if found is None:
        raise SpaceGroupError(f"{where}: no symmetry operations, and space group {named or 'unnamed'!r} is unknown")
    return space_group_from_operations(list(found.operations()), where), notes


def _plain(name: str) -> str:
    tokens = re.sub(r"[()_:]", "", name).split()
    return "".join(t for t in tokens if t != "1" or len(tokens) < 4).lower()


def _atoms(block: gemmi.cif.Block, where: str) -> tuple[np.ndarray, list[str], np.ndarray]:
    optional = ("label", "type_symbol", "occupancy", "disorder_group", "calc_flag")
    table = block.find("_atom_site_", ["fract_x", "fract_y", "fract_z", *(f"?{o}" for o in optional)])
    if len(table) == 0:
        raise CrystalError(f"{where}: the atom sites lack one of _atom_site_fract_x, _y, _z")
    if len(table) > MAX_SITES:
        raise CrystalError(f"{where}: {len(table)} atom sites; the limit is {MAX_SITES}")
    present = [table.has_column(3 + k) for k in range(len(optional))]
    numbers: list[int] = []
    labels: list[str] = []
    fractional: list[list[float]] = []
    for row in table:
        label, symbol, occupancy, disorder, flag = (
            gemmi.cif.as_string(row[3 + k]).strip() if present[k] else "" for k in range(len(optional))
        )
        label = label or f"site {len(labels) + 1}"
        if flag == "dum":
            continue
        number = _element(symbol, label, where)
        if disorder not in ("", ".", "?", "0"):
            raise DisorderedCrystalError(f"{where}: {label} is in disorder group {disorder}; give one ordered model")
        if occupancy not in ("", ".", "?"):
            value = gemmi.cif.as_number(occupancy)
            if not np.isfinite(value):
                raise CrystalError(f"{where}: occupancy of {label} is {occupancy}")
            if abs(value - 1.0) > 1e-3:
                raise DisorderedCrystalError(f"{where}: {label} has occupancy {value:g}; give one ordered model")
        xyz = [gemmi.cif.as_number(row[k]) for k in range(3)]
        if not np.isfinite(xyz).all() or np.abs(xyz).max() > 50:
            kind = MissingHydrogensError if number == 1 else CrystalError
            raise kind(f"{where}: coordinates of {label} are {row[0]} {row[1]} {row[2]}")
        numbers.append(number)
        labels.append(label)
        fractional.append(xyz)
    if not numbers:
        raise CrystalError(f"{where}: no atoms")
    return np.array(numbers), labels, np.array(fractional)


def _element(symbol: str, label: str, where: str) -> int:
    """Atomic number from the type symbol (charges stripped), else from the label."""
    match = re.match(r"[A-Za-z]+", symbol if symbol not in ("", ".", "?") else label)
    letters = match.group(0) if match else ""
    if symbol in ("", ".", "?") and len(letters) > 1:
        two = letters[:2]
        letters = two if two[1].islower() or two in ("CL", "BR", "SI") else letters[0]
    letters = letters.capitalize()
    number = 1 if letters in ("D", "T") else gemmi.Element(letters).atomic_number
    if number < 1:
        raise UnsupportedElementError(f"{where}: {label} is of unknown element {symbol or label!r}")
    return int(number)


def _hexagonal_axes(
    cell: np.ndarray, fractional: np.ndarray, group: SpaceGroup
) -> tuple[np.ndarray, np.ndarray, SpaceGroup]:
    """Rhombohedral axes to the obverse hexagonal ones: a = a_r - b_r, b = b_r - c_r, c = a_r + b_r + c_r."""
    change = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0], [1.0, 1.0, 1.0]])
    return (
        cell_matrix(cell_parameters(change @ cell)),
        fractional @ np.linalg.inv(change),
        SpaceGroup.from_name(group.name[:-2] + ":H"),
    )


def _constrained(cell: np.ndarray, group: SpaceGroup, where: str) -> np.ndarray:
    """The cell with the crystal system's equalities made exact, if it nearly has them."""
    parameters = cell_parameters(cell)
    wanted = group.constrain(parameters)
    length = np.abs(wanted[:3] / parameters[:3] - 1.0).max()
    angle = np.abs(wanted[3:] - parameters[3:]).max()
    if length > 0.005 or angle > 0.5:
        raise CrystalError(
            f"{where}: cell {', '.join(f'{x:g}' for x in parameters.round(4))} is not {group.crystal_system}, "
            f"as {group.name} needs"
        )
    return cell_matrix(wanted)
