"""Half neighbour list between small groups of atoms and single image atoms, for any cell.

Molecules are cut into groups of a few bonded atoms. Group I lists the image atoms j (home atom plus lattice
translation) that lie within `reach` of any atom of I; every pair of different molecules, or of a molecule and its own
periodic image, is listed once. All images are summed, so the reach may exceed the cell many times over.

General lists hold every pair of atoms and those inside molecules, too: at a reach of 16 Å vesin's takes 10 to 30 times
as long and is four times as large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numba as nb
import numpy as np

GROUP_SIZE = 8
"""Most atoms in a group."""


def split_into_groups(n_atoms: int, bonds: np.ndarray) -> list[np.ndarray]:
    """Cut a molecule into groups of at most `GROUP_SIZE` atoms that are close along the bonds.

    Recursive bisection at the median of the Fiedler vector of the bond graph.

    Parameters
    ----------
    n_atoms : int
        Atoms of the molecule.
    bonds : (nb, 2) array of int
        Bonded atoms.

    Returns
    -------
    list of int arrays
        Atom indices of each group; every atom is in exactly one.
    """
    laplacian = np.zeros((n_atoms, n_atoms))
    for i, j in np.asarray(bonds, dtype=int).reshape(-1, 2):
        laplacian[[i, j], [j, i]] -= 1.0
        laplacian[[i, j], [i, j]] += 1.0
    todo, done = [np.arange(n_atoms)], []
    while todo:
        part = todo.pop()
        if len(part) <= GROUP_SIZE:
            done.append(np.sort(part))
            continue
        fiedler = np.linalg.eigh(laplacian[np.ix_(part, part)])[1][:, 1]
        # rounding makes the order of atoms equivalent by symmetry depend on their index, not on noise
        order = np.argsort(np.round(fiedler, 9), kind="stable")
        half = len(part) // 2
        todo += [part[order[half:]], part[order[:half]]]
    return done


@dataclass(eq=False)
class NeighbourList:
    """Entries of all groups of a batch; group I owns ``start[I] : start[I] + count[I]``.

    Attributes
    ----------
    start, count : (NG,) int64 arrays
        Slice of each group.
    atom : (capacity,) int32 array
        Image atom's index (in group order, whole batch).
    shift : (capacity, 3) int16 array
        Its lattice translation.
    """

    start: np.ndarray
    count: np.ndarray
    atom: np.ndarray
    shift: np.ndarray
    offset: np.ndarray  # (S + 1,) room reserved for each system

    @classmethod
    def empty(cls, cells: np.ndarray, group_start: np.ndarray, system_group: np.ndarray, reach: float) -> NeighbourList:
        """No entries yet, and room for about as many as a batch has within `reach` Å."""
        per_atom = np.diff(group_start[system_group]) / np.abs(np.linalg.det(cells)) * (4.0 / 3.0 * np.pi)
        room = (0.6 * (per_atom * (reach + 2.5) ** 3) * np.diff(system_group)).astype(np.int64) + 64
        offset = np.concatenate([[0], np.cumsum(room)])
        n = len(group_start) - 1
        atom, shift = np.empty(offset[-1], np.int32), np.empty((offset[-1], 3), np.int16)
        return cls(np.zeros(n, np.int64), np.zeros(n, np.int64), atom, shift, offset)

    def make_room(self, system: int, next_group: int) -> None:
        """Double the room of one system, whose last group comes before `next_group`."""
        end, more = self.offset[system + 1], self.offset[system + 1] - self.offset[system]
        self.atom = np.insert(self.atom, end, np.zeros(more, self.atom.dtype))
        self.shift = np.insert(self.shift, end, np.zeros((more, 3), self.shift.dtype), axis=0)
        self.start[next_group:] += more
        self.offset[system + 1 :] += more


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _fill(positions, cell, group_start, group_molecule, first, last, reach, start, count, atom, shift, at, limit):
    """List groups first..last of one system from entry `at` on; returns the end, or -1 when there is no room."""
    n_groups = last - first
    centre = np.zeros((n_groups, 3))
    radius = np.zeros(n_groups)
    for g in range(n_groups):
        lo, hi = group_start[first + g], group_start[first + g + 1]
        for a in range(lo, hi):
            for d in range(3):
                centre[g, d] += positions[a, d] / (hi - lo)
        for a in range(lo, hi):
            s = 0.0
            for d in range(3):
                s += (positions[a, d] - centre[g, d]) ** 2
            radius[g] = max(radius[g], math.sqrt(s))
    inverse = np.linalg.inv(cell)
    width = np.empty(3)  # 1 / distance between lattice planes
    for k in range(3):
        width[k] = math.sqrt(inverse[0, k] ** 2 + inverse[1, k] ** 2 + inverse[2, k] ** 2)
    reach2 = reach * reach
    f = np.empty(3)
    lo_n = np.empty(3, np.int64)
    hi_n = np.empty(3, np.int64)
    for i in range(n_groups):
        start[first + i] = at
        i_lo, i_hi = group_start[first + i], group_start[first + i + 1]
        for j in range(i, n_groups):
            j_lo, j_hi = group_start[first + j], group_start[first + j + 1]
            far = reach + radius[i] + radius[j]
            dx = centre[j, 0] - centre[i, 0]
            dy = centre[j, 1] - centre[i, 1]
            dz = centre[j, 2] - centre[i, 2]
            for k in range(3):
                f[k] = dx * inverse[0, k] + dy * inverse[1, k] + dz * inverse[2, k]
                lo_n[k] = math.ceil(-f[k] - far * width[k])
                hi_n[k] = math.floor(-f[k] + far * width[k])
            if i == j:
                lo_n[0] = max(lo_n[0], 0)
            for n0 in range(lo_n[0], hi_n[0] + 1):
                for n1 in range(lo_n[1], hi_n[1] + 1):
                    for n2 in range(lo_n[2], hi_n[2] + 1):
                        if n0 == 0 and n1 == 0 and n2 == 0:
                            if group_molecule[first + i] == group_molecule[first + j]:
                                continue
                        elif i == j and n0 == 0 and (n1 < 0 or (n1 == 0 and n2 < 0)):
                            continue  # the opposite translation stands for the same pairs
                        sx = n0 * cell[0, 0] + n1 * cell[1, 0] + n2 * cell[2, 0]
                        sy = n0 * cell[0, 1] + n1 * cell[1, 1] + n2 * cell[2, 1]
                        sz = n0 * cell[0, 2] + n1 * cell[1, 2] + n2 * cell[2, 2]
                        if (dx + sx) ** 2 + (dy + sy) ** 2 + (dz + sz) ** 2 >= far * far:
                            continue
                        for b in range(j_lo, j_hi):
                            px = positions[b, 0] + sx
                            py = positions[b, 1] + sy
                            pz = positions[b, 2] + sz
                            near = False
                            for a in range(i_lo, i_hi):
                                r2 = (
                                    (px - positions[a, 0]) ** 2
                                    + (py - positions[a, 1]) ** 2
                                    + (pz - positions[a, 2]) ** 2
                                )
                                if r2 < reach2:
                                    near = True
                                    break
                            if near:
                                if at == limit:
                                    return -1
                                atom[at] = b
                                shift[at, 0] = n0
                                shift[at, 1] = n1
                                shift[at, 2] = n2
                                at += 1
        count[first + i] = at - start[first + i]
    return at


class VerletList:
    """Neighbour list with a skin, rebuilt system by system when atoms may have come within the cutoff unlisted.

    A homogeneous strain and a common translation cost no skin: with old positions x, new ones x', F = h⁻¹h' and
    u = x' - xF about its mean, an unlisted pair is at least σ_min(F)(cutoff + skin) - 2 max|u| apart. The list is a
    superset of the pairs within the cutoff at any time, so results do not depend on when it was built.

    Parameters
    ----------
    cutoff, skin : float
        Å.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        self.cutoff = cutoff
        self.skin = skin
        self.n_built = 0
        """Systems listed so far (for tests and profiles)."""
        self._list: NeighbourList | None = None
        self._positions = self._cells = np.empty(0)

    def forget(self) -> None:
        """Drop the list: the batch has changed."""
        self._list = None

    def keep(self, systems: Sequence[int], group_start: np.ndarray, system_group: np.ndarray) -> None:
        """Go on with some systems of the batch (the old layout is given): their lists are not made anew."""
        if self._list is None:
            return
        old, atom = self._list, group_start[system_group]
        rows = [slice(atom[s], atom[s + 1]) for s in systems]
        groups = [slice(system_group[s], system_group[s + 1]) for s in systems]
        room = [slice(old.offset[s], old.offset[s + 1]) for s in systems]
        offset = np.concatenate([[0], np.cumsum([r.stop - r.start for r in room])])
        first = np.concatenate([[0], np.cumsum([r.stop - r.start for r in rows])])
        self._list = NeighbourList(
            np.concatenate([old.start[g] - r.start + at for g, r, at in zip(groups, room, offset)]),
            np.concatenate([old.count[g] for g in groups]),
            np.concatenate([old.atom[r] - np.int32(a.start - at) for r, a, at in zip(room, rows, first)]),
            np.concatenate([old.shift[r] for r in room]),
            offset,
        )
        self._positions = np.concatenate([self._positions[a] for a in rows])
        self._cells = self._cells[list(systems)]

    def update(
        self,
        positions: np.ndarray,
        cells: np.ndarray,
        group_start: np.ndarray,
        group_molecule: np.ndarray,
        system_group: np.ndarray,
        skip: np.ndarray,
    ) -> tuple[NeighbourList, bool]:
        """Return a list valid for these positions, and whether any of it is new.

        Parameters
        ----------
        positions : (n, 3) array
            Atoms of whole molecules in group order, Å.
        cells : (S, 3, 3) array
            Cell rows, Å.
        group_start : (NG + 1,) int array
            First atom of each group.
        group_molecule : (NG,) int array
            Molecule that each group belongs to.
        system_group : (S + 1,) int array
            First group of each system. The layout must be that of the last call unless `forget` was called.
        skip : (S,) bool array
            Systems that get no entries (their geometry is not finite).
        """
        reach = self.cutoff + self.skin
        if self._list is None:
            stale = np.ones(len(cells), dtype=bool)
            self._positions, self._cells = np.array(positions), np.array(cells)
            self._list = NeighbourList.empty(cells, group_start, system_group, reach)
        else:
            stale = self._stale(positions, cells, group_start[system_group])
        entries, which = self._list, np.flatnonzero(stale & ~skip)
        self.n_built += len(which)
        for s in which.tolist():
            while _fill(
                positions, cells[s], group_start, group_molecule, system_group[s], system_group[s + 1], reach,
                entries.start, entries.count, entries.atom, entries.shift, entries.offset[s], entries.offset[s + 1],
            ) < 0:  # fmt: skip
                entries.make_room(s, system_group[s + 1])
            lo, hi = group_start[system_group[s]], group_start[system_group[s + 1]]
            self._positions[lo:hi], self._cells[s] = positions[lo:hi], cells[s]
        for s in np.flatnonzero(skip).tolist():
            self._list.count[system_group[s] : system_group[s + 1]] = 0
            self._cells[s] = np.nan  # stale from now on
        return self._list, bool(len(which)) or bool(skip.any())

    def _stale(self, positions: np.ndarray, cells: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Systems whose list may miss a pair."""
        out = np.ones(len(cells), dtype=bool)
        good = np.isfinite(self._cells).all(axis=(1, 2)) & np.isfinite(cells).all(axis=(1, 2))
        strain = np.linalg.inv(np.where(good[:, None, None], self._cells, np.eye(3))) @ cells
        size = np.diff(first)
        moved = positions - np.einsum("ni,nij->nj", self._positions, np.repeat(strain, size, axis=0))
        moved -= np.repeat(np.add.reduceat(moved, first[:-1]) / size[:, None], size, axis=0)
        furthest = np.sqrt(np.maximum.reduceat((moved * moved).sum(axis=1), first[:-1]))
        shrink = np.linalg.svd(np.where(good[:, None, None], strain, np.eye(3)), compute_uv=False)[:, -1]
        out[good] = (shrink * (self.cutoff + self.skin) - 2.0 * furthest < self.cutoff)[good]
        return out
