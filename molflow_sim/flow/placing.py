"""Rigid bodies put at random places where they are free, in a sphere or in a periodic cube."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from molflow_sim.flow.priors import rotations

ATTEMPTS = 500
"""Random places tried for a body before all start again."""
RESTARTS = 10
"""Times that all start again."""
_NEAR = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)


def sphere_radius(volume: float) -> float:
    """Å, of a sphere of a volume in Å³."""
    return float((0.75 * volume / np.pi) ** (1 / 3))


def scattered(
    bodies: Sequence[np.ndarray],
    volume: float,
    rng: np.random.Generator,
    *,
    periodic: bool = False,
    tolerance: float = 2.0,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Places and orientations of bodies whose atoms are apart; None where no free place was found.

    Parameters
    ----------
    bodies : sequence of ndarray (N, 3)
        Å, about their centres. The largest are placed first.
    volume : float
        Å³ of the sphere about the origin, or of the periodic cube, in which the centres lie.
    rng : numpy Generator
    periodic : bool
    tolerance : float
        Å; atoms of different bodies, and of a body's images, are at least this far apart.

    Returns
    -------
    centres : ndarray (n, 3)
    turns : ndarray (n, 3, 3)
        Body k stands at ``bodies[k] @ turns[k].T + centres[k]``.
    """
    edge, radius = volume ** (1 / 3), sphere_radius(volume)
    order = np.argsort([-len(b) for b in bodies], kind="stable")
    centres, turns = np.empty((len(bodies), 3)), np.empty((len(bodies), 3, 3))
    for _ in range(RESTARTS):
        placed = _Placed(len(bodies), tolerance, edge if periodic else None)
        for k in order:
            for _ in range(ATTEMPTS):
                turn = rotations(rng.random(3))
                centre = edge * rng.random(3) if periodic else radius * _in_sphere(rng)
                if placed.add(bodies[k] @ turn.T + centre):
                    centres[k], turns[k] = centre, turn
                    break
            else:
                break
        if len(placed.trees) == len(bodies):
            return centres, turns
    return None


def _in_sphere(rng: np.random.Generator) -> np.ndarray:
    direction = rng.normal(size=3)
    return np.asarray(direction / np.linalg.norm(direction) * rng.random() ** (1 / 3))


class _Placed:
    """Bodies that are placed already, and whether another finds room; `edge` of the periodic cube, or None."""

    def __init__(self, most: int, tolerance: float, edge: float | None) -> None:
        self.tolerance, self.edge = tolerance, edge
        self.trees: list[cKDTree] = []
        self._middles, self._reach = np.empty((most, 3)), np.empty(most)

    def add(self, x: np.ndarray) -> bool:
        """Take in a body of atoms x (N, 3) if they are away from the others, and from their own images."""
        n, middle = len(self.trees), x.mean(0)
        own = float(np.linalg.norm(x - middle, axis=1).max())
        if self.edge is not None and 2.0 * own + self.tolerance > self.edge:
            tree = cKDTree(x)
            if any(self._close(tree, x + self.edge * shift) for shift in _NEAR if shift.any()):
                return False
        gap, far = middle - self._middles[:n], own + self._reach[:n] + self.tolerance
        if self.edge is not None:
            gap -= self.edge * np.rint(gap / self.edge)
        near = np.linalg.norm(gap, axis=1) <= far
        if self.edge is not None:
            near |= np.abs(gap).max(1, initial=0.0) + far >= self.edge
            x = np.mod(x, self.edge)
            x[x >= self.edge] = 0.0  # what rounding makes of the smallest negative numbers
        if any(self._close(self.trees[k], x) for k in np.flatnonzero(near)):
            return False
        self.trees.append(cKDTree(x, boxsize=self.edge))
        self._middles[n], self._reach[n] = middle, own
        return True

    def _close(self, tree: cKDTree, x: np.ndarray) -> bool:
        return bool(np.isfinite(tree.query(x, distance_upper_bound=self.tolerance)[0]).any())
