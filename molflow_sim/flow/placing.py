"""Rigid bodies put at random places where they are free, in a sphere or in a periodic cube."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
        placed: list[np.ndarray] = []
        for k in order:
            for _ in range(ATTEMPTS):
                turn = rotations(rng.random(3))
                centre = edge * rng.random(3) if periodic else radius * _in_sphere(rng)
                x = bodies[k] @ turn.T + centre
                if _free(x, placed, tolerance, edge if periodic else None):
                    placed.append(x)
                    centres[k], turns[k] = centre, turn
                    break
            else:
                break
        if len(placed) == len(bodies):
            return centres, turns
    return None


def _in_sphere(rng: np.random.Generator) -> np.ndarray:
    direction = rng.normal(size=3)
    return np.asarray(direction / np.linalg.norm(direction) * rng.random() ** (1 / 3))


def _free(x: np.ndarray, others: list[np.ndarray], tolerance: float, edge: float | None) -> bool:
    """Whether the atoms x (N, 3) are away from the other bodies, and from their own images."""
    own = np.linalg.norm(x - x.mean(0), axis=1).max()
    if edge is not None and 2.0 * own + tolerance > edge:
        images = [x + edge * shift for shift in _NEAR if shift.any()]
        if any(_closest(x, image, None) < tolerance for image in images):
            return False
    for other in others:
        centre = other.mean(0)
        gap = x.mean(0) - centre
        if edge is not None:
            gap -= edge * np.rint(gap / edge)
        far = own + np.linalg.norm(other - centre, axis=1).max() + tolerance
        if np.linalg.norm(gap) > far and (edge is None or np.abs(gap).max() + far < edge):
            continue
        if _closest(x, other, edge) < tolerance:
            return False
    return True


def _closest(x: np.ndarray, y: np.ndarray, edge: float | None) -> float:
    delta = x[:, None] - y
    if edge is not None:
        delta -= edge * np.rint(delta / edge)
    return float(np.sqrt(np.einsum("ijk,ijk->ij", delta, delta).min()))
