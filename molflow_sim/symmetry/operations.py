"""Space groups from lists of operations: known settings by name, any other group as given."""

from __future__ import annotations

import re
from itertools import product

import gemmi
import numpy as np

from molflow_sim.errors import SpaceGroupError
from molflow_sim.symmetry.spacegroup import GIVEN_SETTING, SpaceGroup, cell_matrix


def space_group_from_operations(operations: list[gemmi.Op], where: str = "") -> SpaceGroup:
    """The space group made of `operations`.

    A setting that gemmi's tables know comes back under its extended Hermann-Mauguin symbol (``:R`` for rhombohedral
    axes, which the caller must transform); any other keeps the given operations, and its name is the reference
    symbol followed by `GIVEN_SETTING`.

    Raises
    ------
    SpaceGroupError
        If the operations are not unimodular, do not form a group, or cannot act on any cell of their crystal system.
    """
    where = f"{where}: " if where else ""
    den = gemmi.Op.DEN
    unique: dict[tuple, gemmi.Op] = {}
    for op in operations:
        op = op.wrap()
        if any(v % den for row in op.rot for v in row) or abs(op.det_rot()) != den**3:
            raise SpaceGroupError(f"{where}symmetry operation {op.triplet()!r} is not a crystallographic one")
        unique.setdefault(_key(op), op)
    ops = list(unique.values())
    if len(ops) > 192:
        raise SpaceGroupError(f"{where}{len(ops)} symmetry operations; a space group has at most 192")
    if _key(gemmi.Op()) not in unique and _key(gemmi.Op("x,y,z")) not in unique:
        raise SpaceGroupError(f"{where}the symmetry operations lack the identity x,y,z")
    for a in ops:
        for b in ops:
            if _key((a * b).wrap()) not in unique:
                raise SpaceGroupError(
                    f"{where}the symmetry operations form no group: {a.triplet()} times {b.triplet()} is not listed"
                )
    found = gemmi.find_spacegroup_by_ops(gemmi.GroupOps(ops))
    if found is not None and not found.xhm().endswith(":R"):
        return SpaceGroup.from_name(found.xhm())
    return _as_given(ops, found, where)


def read_operations(triplets: list[str], where: str = "") -> tuple[list[gemmi.Op], np.ndarray]:
    """Operations from triplets such as ``-x, 1/2+y, 0.5-z``, and the shift of origin that makes them standard.

    Translations may be any fraction or decimal: a group whose origin lies off its symmetry elements has ones that are
    no multiples of 1/24. It is described from the origin that makes them so.

    Returns
    -------
    operations : list of gemmi.Op
    shift : ndarray (3,)
        To be added to fractional coordinates; zero for standard operations.

    Raises
    ------
    SpaceGroupError
        If a triplet is not readable, or no shift of the origin makes the translations multiples of 1/24.
    """
    read = [_triplet(text, where) for text in triplets]
    rotations, translations = np.array([w for w, _ in read]), np.array([t for _, t in read])
    shift = _standard_origin(rotations, translations)
    if shift is None:
        raise SpaceGroupError(f"{where}: the translations of the symmetry operations fit no space group")
    operations = _moved(rotations, translations, shift)
    if shift.any() and not _known(operations):  # on a symmetry element, but not the one where tables put the origin
        for parts in (8, 12):
            for further in product(range(parts), repeat=3):
                origin = np.mod(shift + np.array(further) / parts, 1.0)
                if _known(found := _moved(rotations, translations, origin)):
                    return found, origin
    return operations, shift


def _moved(rotations: np.ndarray, translations: np.ndarray, shift: np.ndarray) -> list[gemmi.Op]:
    operations = []
    moved = translations + shift - rotations @ shift
    for rotation, translation in zip(rotations, np.rint(moved * gemmi.Op.DEN).astype(int)):
        op = gemmi.Op()
        op.rot, op.tran = (rotation * gemmi.Op.DEN).tolist(), translation.tolist()
        operations.append(op.wrap())
    return operations


def _known(operations: list[gemmi.Op]) -> bool:
    return gemmi.find_spacegroup_by_ops(gemmi.GroupOps(operations)) is not None


_TERM = re.compile(r"([+-]?)(?:([xyz])|(\d+(?:\.\d*)?|\.\d+)(?:/(\d+(?:\.\d*)?))?)")


def _triplet(text: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    rotation, translation = np.zeros((3, 3), dtype=int), np.zeros(3)
    parts = text.replace(" ", "").lower().split(",")
    for k, part in enumerate(parts[:3]):
        terms = list(_TERM.finditer(part))
        whole = "".join(t.group(0) for t in terms) == part and all(t.group(1) for t in terms[1:])
        if not terms or not whole or len(part) > 60 or any(float(t.group(4) or 1.0) == 0.0 for t in terms):
            break
        for term in terms:
            sign = -1 if term.group(1) == "-" else 1
            if term.group(2):
                rotation[k, "xyz".index(term.group(2))] += sign
            else:
                translation[k] += sign * float(term.group(3)) / float(term.group(4) or 1.0)
    else:
        if len(parts) == 3:
            return rotation, np.mod(translation, 1.0)
    raise SpaceGroupError(f"{where}: symmetry operation {text[:60]!r} is not readable")


_ROUNDED = 2e-3
"""Largest error of a translation: 0.333 stands for 1/3."""


def _standard_origin(rotations: np.ndarray, translations: np.ndarray) -> np.ndarray | None:
    """The shift s for which w + (1 - W) s is a multiple of 1/24 in every operation, none where there is none."""

    def fits(shift: np.ndarray) -> bool:
        moved = gemmi.Op.DEN * (translations + shift - rotations @ shift)
        return bool(np.abs(moved - np.rint(moved)).max() < gemmi.Op.DEN * _ROUNDED)

    if fits(np.zeros(3)):
        return np.zeros(3)
    # rows of (1 - W) s = n - w: as many independent ones as there are, for every choice of small whole numbers n
    rows = (np.eye(3, dtype=int) - rotations).reshape(-1, 3)
    chosen: list[int] = []
    for k in range(len(rows)):
        if np.linalg.matrix_rank(rows[[*chosen, k]]) > len(chosen):
            chosen.append(k)
    if not chosen:
        return None
    inverse = np.linalg.pinv(rows[chosen].astype(float))
    for n in product(range(-2, 3), repeat=len(chosen)):
        shift = inverse @ (np.array(n) - translations.reshape(-1)[chosen])
        if fits(shift):
            return np.mod(shift, 1.0)
    return None


def _key(op: gemmi.Op) -> tuple:
    return (*(v for row in op.rot for v in row), *op.tran)


def _as_given(ops: list[gemmi.Op], known: gemmi.SpaceGroup | None, where: str) -> SpaceGroup:
    import spglib

    ops = sorted(ops, key=lambda op: op.triplet() != "x,y,z")
    rotations = np.array([op.rot for op in ops]) // gemmi.Op.DEN
    translations = np.mod(np.array([op.tran for op in ops]) / gemmi.Op.DEN, 1.0)
    if known is not None:
        label, reference = known.xhm(), known
    else:
        try:
            kind = spglib.get_spacegroup_type_from_symmetry(rotations, translations, symprec=1e-4)
        except Exception:  # spglib raises different errors in different versions
            kind = None
        if kind is None:
            raise SpaceGroupError(f"{where}the symmetry operations belong to no known space group")
        reference = gemmi.find_spacegroup_by_number(kind.number)
        label = reference.hm + GIVEN_SETTING
    system = reference.crystal_system_str()
    axis = _unique_axis(rotations) if system == "monoclinic" else ""
    group = SpaceGroup(label, reference.number, system, axis, rotations, translations)
    if known is None:
        # the Cartesian rotations must not depend on the cell: true only for conventional axes
        cell = cell_matrix(group.constrain(np.array([5.0, 7.0, 9.0, 81.0, 97.0, 103.0])))
        metric = cell @ cell.T
        if np.abs(np.einsum("gji,jk,gkl->gil", rotations, metric, rotations) - metric).max() > 1e-6:
            raise SpaceGroupError(f"{where}{label} is on unconventional axes; transform the cell to a standard setting")
    return group


def _unique_axis(rotations: np.ndarray) -> str:
    """The axis that every operation maps on plus or minus itself while some operation turns the other two."""
    for rotation in rotations:
        diagonal = np.diag(rotation)
        if np.abs(rotation - np.diag(diagonal)).max() == 0 and abs(diagonal.sum()) == 1:
            # twofold axis: the one +1 among -1; mirror: the one -1 among +1
            return "abc"[int(np.flatnonzero(diagonal == -diagonal.sum())[0])]
    return "b"
