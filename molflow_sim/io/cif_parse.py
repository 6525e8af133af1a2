"""CIF text to cell, symmetry operations and sites, with every defect named."""

from __future__ import annotations

import codecs
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from molflow_sim.symmetry.operations import read_operations, space_group_from_operations

MAX_BYTES = 20_000_000
"""Largest CIF read."""
MAX_SITES = 3000
"""Most atom sites read."""

_OPERATION_TAGS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
_NAME_TAGS = ("_space_group_name_H-M_alt", "_symmetry_space_group_name_H-M")
_HALL_TAGS = ("_space_group_name_Hall", "_symmetry_space_group_name_Hall")
_NUMBER_TAGS = ("_space_group_IT_number", "_symmetry_Int_Tables_number")
_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")


@dataclass(frozen=True)
class Sites:
    """What a CIF says, checked but not interpreted.

    Attributes
    ----------
    numbers, isotopes : ndarray (n,) of int
        Atomic numbers; mass numbers where they are given (2 for deuterium), else 0.
    labels : list of str
    fractional : ndarray (n, 3)
        On `cell` rows in the standard frame.
    cell : ndarray (3, 3)
    space_group : SpaceGroup
    name : str
        Of the block.
    notes : dict
        What was corrected or chosen.
    declared : dict
        ``formula`` ({symbol: count}), ``weight`` (g/mol), ``density`` (g/cm³) and ``z``, as far as the file has them.
    """

    numbers: np.ndarray
    labels: list[str]
    fractional: np.ndarray
    cell: np.ndarray
    space_group: SpaceGroup
    name: str
    notes: dict[str, str]
    isotopes: np.ndarray
    declared: dict[str, Any] = field(default_factory=dict)


def read_text(source: str | Path) -> tuple[str, str]:
    """The text of a CIF and where it came from, given a path or the text itself.

    Lines end as on Unix, and the dotted names of the newer dictionaries (``_cell.length_a``) become those of the older.

    Raises
    ------
    CrystalError
        If the file cannot be read, is too large, or is not text.
    """
    if isinstance(source, str) and (re.search(r"[\n\r]", source) or source.lstrip("\ufeff \t").startswith("data_")):
        if len(source) > MAX_BYTES:
            raise CrystalError(f"a CIF of {len(source)} characters; the limit is {MAX_BYTES}")
        return _as_older(source.lstrip("\ufeff")), "CIF text"
    path = Path(source)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CrystalError(f"{path}: {path.stat().st_size} bytes; the limit for a CIF is {MAX_BYTES}")
        data = path.read_bytes()
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if wide else "utf-8-sig", errors="replace")
        return _as_older(text), str(path)
    except (OSError, ValueError) as error:
        raise CrystalError(f"cannot read {str(path)[:200]!r}: {error}") from error


def _as_older(text: str) -> str:
    return re.sub(r"(?<!\S)(_\w+)\.", r"\1_", re.sub(r"\r\n?", "\n", text))


def parse_cif(source: str | Path, block: str | None = None) -> Sites:
    """Read a block with atom sites: the first, with a note that names the others, or the one of a name.

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
    blocks = [b for b in document if len(b.find_values("_atom_site_fract_x"))]
    if not blocks:
        raise CrystalError(f"{where}: no atom sites with fractional coordinates (_atom_site_fract_x)")
    names = ", ".join(b.name for b in blocks)
    wanted = blocks if block is None else [b for b in blocks if b.name.lower() == block.lower()]
    if not wanted:
        raise CrystalError(f"{where}: no block {block!r} with atom sites; there are {names}")
    found = wanted[0]
    where = f"{where}, block {found.name}"
    try:
        cell = _cell(found, where)
        group, shift, notes = _space_group(found, cell, where)
        numbers, isotopes, labels, fractional = _atoms(found, where)
    except (ValueError, RuntimeError, IndexError) as error:
        if isinstance(error, MolflowError):
            raise
        raise CrystalError(f"{where}: malformed: {error}") from error
    if block is None and len(blocks) > 1:
        notes["other_blocks"] = ", ".join(b.name for b in blocks[1:])
        warnings.warn(f"{where}: read the first of {len(blocks)} structures; name another block: {names}", stacklevel=4)
    fractional = fractional + shift
    if group.name.endswith(":R"):
        cell, fractional, group = _hexagonal_axes(cell, fractional, group)
    cell = _constrained(cell, group, where)
    return Sites(numbers, labels, fractional, cell, group, found.name, notes, isotopes, _declared(found))


def _declared(block: gemmi.cif.Block) -> dict[str, Any]:
    """Formula, weight, density and Z as the file states them."""
    out: dict[str, Any] = {}
    text = _text(block, "_chemical_formula_sum")
    parts = re.findall(r"([A-Z][a-z]?)\s*(\d+(?:\.\d+)?)?", text)
    if parts and re.fullmatch(r"[A-Za-z0-9.\s]+", text):
        counts: dict[str, float] = {}
        for symbol, count in parts:
            symbol = "H" if symbol in ("D", "T") else symbol
            counts[symbol] = counts.get(symbol, 0.0) + float(count or 1.0)
        out["formula"] = counts
    tags = {
        "weight": "_chemical_formula_weight", "density": "_exptl_crystal_density_diffrn", "z": "_cell_formula_units_Z",
    }  # fmt: skip
    for name, tag in tags.items():
        value = gemmi.cif.as_number(_text(block, tag) or "?")
        if np.isfinite(value) and value > 0:
            out[name] = float(value)
    return out


def _text(block: gemmi.cif.Block, *tags: str) -> str:
    for tag in tags:
        for value in block.find_values(tag):
            text = gemmi.cif.as_string(value).strip()
            if text not in ("", "?", "."):
                return text
    return ""


def _cell(block: gemmi.cif.Block, where: str) -> np.ndarray:
    values = []
    for name in _CELL:
        raw = _text(block, f"_cell_{name}")
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


def _space_group(block: gemmi.cif.Block, cell: np.ndarray, where: str) -> tuple[SpaceGroup, np.ndarray, dict[str, str]]:
    """The group of the listed operations, or without a list the named one; a shift of origin, and notes."""
    still, notes = np.zeros(3), {}
    named = re.sub(r"[()]", "", _text(block, *_NAME_TAGS))  # P2(1)/c is P21/c
    triplets = next((rows for tag in _OPERATION_TAGS if (rows := list(block.find_values(tag)))), [])
    known = gemmi.find_spacegroup_by_name(named, *cell_parameters(cell)[[3, 5]]) if named else None
    hall, by_hall = _text(block, *_HALL_TAGS), None
    if hall:  # it tells origin and setting, which the Hermann-Mauguin symbol often leaves open
        with suppress(ValueError, RuntimeError, SpaceGroupError):
            by_hall = space_group_from_operations(list(gemmi.symops_from_hall(hall)), where)
            if known is not None and known.number != by_hall.number:
                by_hall = None
    declared = known or by_hall
    if triplets:
        operations, shift = read_operations([gemmi.cif.as_string(v) for v in triplets[:400]], where)
        group = space_group_from_operations(operations, where)
        if group.order > 1 or declared is None or declared.number == 1:
            if shift.any():
                notes["origin_shift"] = " ".join(f"{x:.5f}" for x in shift)
            if named and _plain(named) != _plain(group.name):
                notes["space_group_declared"] = named
            if group.order == 1 and named and declared is None:
                warnings.warn(
                    f"{where}: read as P 1: only the identity is listed, and {named!r} is no known space group",
                    stacklevel=5,
                )
            return group, shift, notes
        # only x,y,z although a larger group is named: atoms of an expanded cell merge, a lost list is made good
        notes["space_group_note"] = "only the identity was listed; the operations of the named group were used"
    if by_hall is not None:
        return by_hall, still, notes
    if hall:  # not readable, or not of the named group
        notes["space_group_declared"] = hall
    number = _text(block, *_NUMBER_TAGS)
    by_number = known is None and number.isdigit() and 0 < int(number) <= 230
    found = gemmi.find_spacegroup_by_number(int(number)) if by_number else known
    if found is None:
        raise SpaceGroupError(f"{where}: no symmetry operations, and space group {named or 'unnamed'!r} is unknown")
    chosen = ""
    if by_number:
        chosen = f"no operations and no readable symbol: {found.xhm()}, the usual setting of number {number}, was taken"
    elif found.ext in ("1", "2") and f":{found.ext}" not in named:
        chosen = f"no operations and no Hall symbol: origin choice {found.ext} of {found.hm} was taken"
    if chosen:
        notes["space_group_note"] = chosen
        warnings.warn(f"{where}: {chosen}", stacklevel=5)
    return space_group_from_operations(list(found.operations()), where), still, notes


def _plain(name: str) -> str:
    tokens = re.sub(r"[()_:]", "", name).split()
    return "".join(t for t in tokens if t != "1" or len(tokens) < 4).lower()


def _atoms(block: gemmi.cif.Block, where: str) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    optional = ("label", "type_symbol", "occupancy", "disorder_group", "calc_flag", "disorder_assembly")
    table = block.find("_atom_site_", ["fract_x", "fract_y", "fract_z", *(f"?{o}" for o in optional)])
    if len(table) == 0:
        raise CrystalError(f"{where}: the atom sites lack one of _atom_site_fract_x, _y, _z")
    if len(table) > MAX_SITES:
        raise CrystalError(f"{where}: {len(table)} atom sites; the limit is {MAX_SITES}")
    present = [table.has_column(3 + k) for k in range(len(optional))]
    numbers: list[int] = []
    isotopes: list[int] = []
    parts: dict[str, str] = {}
    labels: list[str] = []
    fractional: list[list[float]] = []
    for row in table:
        label, symbol, occupancy, disorder, flag, assembly = (
            gemmi.cif.as_string(row[3 + k]).strip() if present[k] else "" for k in range(len(optional))
        )
        label = label or f"site {len(labels) + 1}"
        if flag == "dum":
            continue
        number, isotope = _element(symbol, label, where)
        # one group of an assembly, fully occupied, is one model of it that somebody has kept
        if disorder not in ("", ".", "?", "0") and (
            parts.setdefault(assembly, disorder) != disorder or disorder.startswith("-")
        ):
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
        isotopes.append(isotope)
        labels.append(label)
        fractional.append(xyz)
    if not numbers:
        raise CrystalError(f"{where}: no atoms")
    return np.array(numbers), np.array(isotopes), labels, np.array(fractional)


def _element(symbol: str, label: str, where: str) -> tuple[int, int]:
    """Atomic number and isotope (0: natural) from the type symbol (charges stripped), else from the label."""
    match = re.match(r"[A-Za-z]+", symbol if symbol not in ("", ".", "?") else label)
    letters = match.group(0) if match else ""
    if symbol in ("", ".", "?") and len(letters) > 1:
        two = letters[:2]
        letters = two if two[1].islower() or two in ("CL", "BR", "SI") else letters[0]
    letters = letters.capitalize()
    isotope = {"D": 2, "T": 3}.get(letters, 0)
    number = 1 if isotope else gemmi.Element(letters).atomic_number
    if number < 1:
        raise UnsupportedElementError(f"{where}: {label} is of unknown element {symbol or label!r}")
    return int(number), isotope


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
