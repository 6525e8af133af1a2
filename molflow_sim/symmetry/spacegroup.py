"""Space groups as arrays: operations, free cell parameters, Cartesian rotations.

Operations come from gemmi's tables (imported on first look-up: arrays need no tables); any setting that gemmi
knows can be named (``P 1 21/n 1``, ``I 1 2/a 1``,
``R -3:H``). Rhombohedral axes are refused: in the standard Cartesian frame used here (a along x, b in the xy
plane) the Cartesian form of every operation is then independent of the cell, which is what lets the rigid
press strain a cell without touching the molecules.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from molflow_sim.errors import SpaceGroupError

if TYPE_CHECKING:
    import gemmi

GIVEN_SETTING = " (given setting)"
"""Ends the name of a group in a setting that has no symbol of its own."""


@dataclass(frozen=True)
class SpaceGroup:
    """A space group in one setting.

    Attributes
    ----------
    name : str
        Extended Hermann-Mauguin symbol, e.g. ``P 1 21/c 1``.
    number : int
        International Tables number, 1-230.
    crystal_system : str
        ``triclinic`` ... ``cubic``.
    rotations : ndarray of int, shape (G, 3, 3)
        W of each operation x' = W x + w, on fractional column vectors. The identity is first.
    translations : ndarray of float, shape (G, 3)
        w of each operation, in [0, 1).
    """

    name: str
    number: int
    crystal_system: str
    unique_axis: str
    rotations: np.ndarray
    translations: np.ndarray

    @staticmethod
    def from_name(name: str | int) -> SpaceGroup:
        """Look up a space group by symbol (any setting gemmi knows) or number (its reference setting).

        Raises
        ------
        SpaceGroupError
            If the symbol is unknown or the setting uses rhombohedral axes.
        """
        return _lookup(str(name))

    @property
    def order(self) -> int:
        """Number of operations of the conventional cell (centring included)."""
        return len(self.rotations)

    @cached_property
    def gemmi(self) -> gemmi.SpaceGroup:
        """The same group as a gemmi object, that of the reference setting where this one has no symbol."""
        import gemmi

        return gemmi.SpaceGroup(self.name.removesuffix(GIVEN_SETTING))

    @cached_property
    def is_sohncke(self) -> bool:
        """Whether all operations are proper, so that an enantiopure molecule can crystallise in it."""
        return bool(np.all(np.linalg.det(self.rotations) > 0))

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """The operations as ``x,y,z`` triplets, in the order of `rotations`."""
        import gemmi

        out = []
        for w, t in zip(self.rotations, self.translations):
            op = gemmi.Op()
            op.rot = (w * op.DEN).astype(int).tolist()
            op.tran = np.rint(t * op.DEN).astype(int).tolist()
            out.append(op.triplet())
        return tuple(out)

    def constrain(self, parameters: np.ndarray) -> np.ndarray:
        """Cell parameters (..., 6) in Å and degrees with the crystal system's equalities imposed."""
        p = np.array(parameters, dtype=float, copy=True)
        system = self.crystal_system
        if system == "monoclinic":
            for i in range(3):
                if "abc"[i] != self.unique_axis:
                    p[..., 3 + i] = 90.0
        elif system != "triclinic":
            p[..., 3:] = 90.0
            if system in ("trigonal", "hexagonal"):
                p[..., 5] = 120.0
            if system != "orthorhombic":
                p[..., 1] = p[..., 0]
            if system == "cubic":
                p[..., 2] = p[..., 0]
        return p

    @cached_property
    def cartesian_rotations(self) -> np.ndarray:
        """Rotation part of each operation in the standard Cartesian frame, shape (G, 3, 3).

        Acts on Cartesian column vectors; constant for every cell that obeys the crystal system.
        """
        cell = cell_matrix(self.constrain(np.array([5.0, 7.0, 9.0, 81.0, 97.0, 103.0])))
        a = cell.T
        w = a @ self.rotations @ np.linalg.inv(a)
        return np.where(np.abs(w) < 1e-12, 0.0, w)

    @cached_property
    def inverses(self) -> np.ndarray:
        """Index of the operation that inverts each one (up to a lattice translation), shape (G,)."""
        inv = np.rint(np.linalg.inv(self.rotations)).astype(int)
        tran = -np.einsum("gij,gj->gi", inv, self.translations)
        out = np.empty(self.order, dtype=int)
        for g in range(self.order):
            same = np.all(inv[g] == self.rotations, axis=(1, 2))
            delta = tran[g] - self.translations
            hit = np.flatnonzero(same & np.all(np.abs(delta - np.rint(delta)) < 1e-6, axis=1))
            out[g] = hit[0]
        return out


@cache
def _lookup(name: str) -> SpaceGroup:
    import gemmi

    try:
        sg = gemmi.find_spacegroup_by_number(int(name)) if name.isdigit() else gemmi.SpaceGroup(name)
    except ValueError:
        sg = None
    if sg is None or name == "0":  # gemmi takes 0 for 1
        raise SpaceGroupError(f"unknown space group {name!r}; give a Hermann-Mauguin symbol or a number 1-230")
    if sg.xhm().endswith(":R"):
        raise SpaceGroupError(f"{name}: rhombohedral axes are not supported; use the hexagonal setting ({sg.hm}:H)")
    ops = sorted(sg.operations(), key=lambda op: op.triplet() != "x,y,z")
    return SpaceGroup(
        name=sg.xhm(),
        number=sg.number,
        crystal_system=sg.crystal_system_str(),
        unique_axis=sg.monoclinic_unique_axis() if sg.crystal_system_str() == "monoclinic" else "",
        rotations=np.array([op.rot for op in ops]) // gemmi.Op.DEN,
        translations=np.mod(np.array([op.tran for op in ops]) / gemmi.Op.DEN, 1.0),
    )


def cell_matrix(parameters: np.ndarray) -> np.ndarray:
    """Cell vectors as rows (..., 3, 3) in Å from (a, b, c, α, β, γ) in Å and degrees.

    Standard frame: a along x, b in the xy plane with positive y, c with positive z.
    """
    p = np.asarray(parameters, dtype=float)
    a, b, c = p[..., 0], p[..., 1], p[..., 2]
    ca, cb, cg = (np.where(p[..., i] == 90.0, 0.0, np.cos(np.radians(p[..., i]))) for i in (3, 4, 5))
    sg = np.sqrt(1.0 - cg * cg)
    cx, cy = cb, (ca - cb * cg) / sg
    cz = np.sqrt(np.clip(1.0 - cx * cx - cy * cy, 0.0, None))
    m = np.zeros((*p.shape[:-1], 3, 3))
    m[..., 0, 0] = a
    m[..., 1, 0], m[..., 1, 1] = b * cg, b * sg
    m[..., 2, 0], m[..., 2, 1], m[..., 2, 2] = c * cx, c * cy, c * cz
    return m


def cell_parameters(cell: np.ndarray) -> np.ndarray:
    """(a, b, c, α, β, γ) in Å and degrees, shape (..., 6), from row vectors (..., 3, 3)."""
    m = np.asarray(cell, dtype=float)
    lengths = np.linalg.norm(m, axis=-1)
    out = np.empty((*m.shape[:-2], 6))
    out[..., :3] = lengths
    for k, (i, j) in enumerate(((1, 2), (0, 2), (0, 1))):
        cosine = np.einsum("...i,...i->...", m[..., i, :], m[..., j, :]) / (lengths[..., i] * lengths[..., j])
        out[..., 3 + k] = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    return out


def repeats_for_axis(cell: np.ndarray, minimum: float) -> tuple[int, int, int]:
    """How often to repeat a cell (rows, Å) so that opposite faces are at least `minimum` apart (so axes are, too)."""
    cell = np.asarray(cell, dtype=float)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    n = np.maximum(1, np.ceil(minimum / heights - 1e-9)).astype(int)
    return int(n[0]), int(n[1]), int(n[2])
