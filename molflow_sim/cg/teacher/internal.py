"""Bonds, angles and torsions of a tree of beads, and back, with the exact volume change.

A bead is placed by its distance to its parent, the angle to the parent's own parent and a torsion: proper (along the
bonds) for a parent's first child, and for its further children the turn about the same axis away from the first
child, so that the handedness of a branch is one torsion. Linear chains get the usual bonds, angles and dihedrals.
Each placement is a spherical coordinate system, so that |∂x/∂q| = Π b² · Π sin θ over B−1 bonds and B−2 angles
(Noé, Olsson, Köhler and Wu, Science 365, eaaw1147 (2019), supplement; six rigid degrees of freedom set aside).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.errors import NonFiniteError
from molflow_sim.geometry.torsions import dihedral_angle


class InternalCoordinates:
    """Internal coordinates of a tree of bonded beads.

    Parameters
    ----------
    topology : BeadTopology
        A tree of B ≥ 2 beads, branches included.

    Attributes
    ----------
    order : ndarray, shape (B,)
        Beads in the order of placement, from the lowest-numbered end of the tree.
    bonds, angles, torsions : ndarray of int, shapes (B−1, 2), (B−2, 3), (B−3, 4)
        Beads of each coordinate, the placed bead last. For a linear chain 0-1-2-3-…: (0, 1), (0, 1, 2), (0, 1, 2, 3), …
    is_improper : ndarray of bool, shape (B−3,)
        True for torsions (s, g, p, k) between two children s, k of p about the axis g-p.

    Raises
    ------
    MappingError
        The beads do not form one tree.
    """

    def __init__(self, topology: BeadTopology) -> None:
        topology.require_tree()
        self.topology = topology
        self.n_beads = topology.n_beads
        self.order, parent = _placement_order(topology)
        self._parent = parent
        first_child: dict[int, int] = {}
        bonds, angles, torsions, improper = [], [], [], []
        for k in self.order.tolist():
            p = parent[k]
            if p < 0:
                continue
            bonds.append((p, k))
            g = parent[p]
            if g >= 0:
                angles.append((g, p, k))
                if p in first_child:
                    torsions.append((first_child[p], g, p, k))
                    improper.append(True)
                elif parent[g] >= 0:
                    torsions.append((parent[g], g, p, k))
                    improper.append(False)
            first_child.setdefault(p, k)
        self.bonds = np.array(bonds, dtype=np.int64).reshape(-1, 2)
        self.angles = np.array(angles, dtype=np.int64).reshape(-1, 3)
        self.torsions = np.array(torsions, dtype=np.int64).reshape(-1, 4)
        self.is_improper = np.array(improper, dtype=bool)
        self._first_child = first_child

    @property
    def n_bonds(self) -> int:
        """B − 1."""
        return len(self.bonds)

    @property
    def n_angles(self) -> int:
        """B − 2 (0 for a pair)."""
        return len(self.angles)

    @property
    def n_torsions(self) -> int:
        """B − 3 (0 for up to three beads)."""
        return len(self.torsions)

    def to_internal(self, x: Tensor, check: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cartesian to internal coordinates.

        Parameters
        ----------
        x : Tensor, shape (..., B, 3)
            Positions in Å.
        check : bool
            Look for degenerate frames (reads values, so switch it off inside `torch.func` transforms). Without it
            such a frame gives a log-determinant of −∞ and gradients that mean nothing.

        Returns
        -------
        bonds, angles, torsions : Tensor, shapes (..., B−1), (..., B−2), (..., B−3)
            Å; radians in (0, π); radians in [−π, π], IUPAC's sign.
        log_det : Tensor, shape (...)
            ln |∂x/∂(bonds, angles, torsions)|, rigid motion set aside: Σ 2 ln b + Σ ln sin θ.

        Raises
        ------
        NonFiniteError
            Two bonded beads at one point or three beads in a line (to rounding), or NaN: the torsions are undefined.
            The message names the first such frame and its beads.
        """
        bonds = (x[..., self.bonds[:, 1], :] - x[..., self.bonds[:, 0], :]).norm(dim=-1)
        a = x[..., self.angles[:, 0], :] - x[..., self.angles[:, 1], :]
        b = x[..., self.angles[:, 2], :] - x[..., self.angles[:, 1], :]
        cross, dot = torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(dim=-1)
        angles = torch.atan2(cross, dot)
        sines = cross / (a.norm(dim=-1) * b.norm(dim=-1))
        if check:
            self._check(bonds, sines)
        torsions = dihedral_angle(*(x[..., self.torsions[:, n], :] for n in range(4)))
        return bonds, angles, torsions, 2.0 * bonds.log().sum(dim=-1) + sines.log().sum(dim=-1)

    def to_cartesian(
        self, bonds: Tensor, angles: Tensor, torsions: Tensor, check: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Internal to Cartesian coordinates; the first bead lies at the origin and the second on the x axis.

        No cross product is taken: each bead carries its local frame on, so that positions stay exact at any angle.

        Parameters
        ----------
        bonds, angles, torsions : Tensor, shapes (..., B−1), (..., B−2), (..., B−3)
            Å, radians, radians.
        check : bool
            As in `to_internal`.

        Returns
        -------
        x : Tensor, shape (..., B, 3)
            Positions in Å, in the topology's order.
        log_det : Tensor, shape (...)
            ln |∂x/∂(bonds, angles, torsions)| as in `to_internal`: the same value for the same frame.

        Raises
        ------
        NonFiniteError
            A bond that is not positive, an angle outside (0, π), or NaN.
        """
        cosines, sines = angles.cos(), angles.sin()
        if check:
            outside = (angles <= 0) | (angles >= math.pi)
            self._check(bonds, torch.where(outside, torch.zeros_like(sines), sines))
        zero, one = torch.zeros_like(bonds[..., 0]), torch.ones_like(bonds[..., 0])
        axes = [torch.stack(row, dim=-1) for row in ((one, zero, zero), (zero, one, zero), (zero, zero, one))]
        root, second = int(self.order[0]), int(self.order[1])
        placed: dict[int, Tensor] = {root: torch.zeros_like(axes[0])}
        placed[second] = placed[root] + bonds[..., 0, None] * axes[0]
        # Frame of a bead p with parent g and grandparent h: e1 = g→p; e2 the part of g→h across e1; e3 = e1 × e2.
        frames: dict[int, tuple[Tensor, Tensor, Tensor]] = {second: (axes[0], axes[1], axes[2])}
        turns: dict[int, Tensor] = {}
        n_torsion = 0
        for n, k in enumerate(self.order[2:].tolist()):
            p = self._parent[k]
            e1, e2, e3 = frames[p]
            if n == 0:
                turn = zero
            else:
                turn = torsions[..., n_torsion]
                if self.is_improper[n_torsion]:
                    turn = turn + turns[self._first_child[p]]
                n_torsion += 1
            turns[k] = turn
            c, s = cosines[..., n, None], sines[..., n, None]
            ct, st = turn.cos()[..., None], turn.sin()[..., None]
            across = ct * e2 + st * e3
            along = s * across - c * e1
            placed[k] = placed[p] + bonds[..., n + 1, None] * along
            frames[k] = (along, -s * e1 - c * across, ct * e3 - st * e2)
        x = torch.stack([placed[i] for i in range(self.n_beads)], dim=-2)
        return x, 2.0 * bonds.log().sum(dim=-1) + sines.log().sum(dim=-1)

    def _check(self, bonds: Tensor, sines: Tensor) -> None:
        limit = 16.0 * torch.finfo(bonds.dtype).eps
        for values, members, what in (
            (bonds, self.bonds, "at one point"),
            (sines, self.angles, "in a line: the torsions about them are undefined"),
        ):
            bad = ~((values > limit) & torch.isfinite(values))
            if bad.any():
                index = bad.reshape(-1, values.shape[-1]).nonzero()[0].tolist()
                labels = ", ".join(self.topology.label(int(i)) for i in members[index[1]])
                raise NonFiniteError(f"frame {index[0]}: beads {labels} lie {what} (or a coordinate is not finite)")


def _placement_order(topology: BeadTopology) -> tuple[np.ndarray, list[int]]:
    """Order of placement (depth first from the lowest-numbered end, longest branch first) and parents (−1: root)."""
    n = topology.n_beads
    around = topology.neighbours
    root = next((i for i in range(n) if len(around[i]) == 1), 0)
    parent = [-1] * n
    visited = [root]
    for i in visited:
        for j in around[i]:
            if j != parent[i]:
                parent[j] = i
                visited.append(j)
    depth = [0] * n  # bonds to the farthest bead below
    for i in reversed(visited):
        if parent[i] >= 0:
            depth[parent[i]] = max(depth[parent[i]], depth[i] + 1)
    order, stack = [], [root]
    while stack:
        i = stack.pop()
        order.append(i)
        children = [j for j in around[i] if j != parent[i]]
        stack += sorted(children, key=lambda j: (-depth[j], j), reverse=True)
    return np.array(order, dtype=np.int64), parent
