"""Where flows of crystals start: log-normal cell lengths, angles uniform in 60-120°, Haar rotations."""

from __future__ import annotations

import numpy as np

from molflow_sim.symmetry.spacegroup import cell_matrix

ANGLES = (60.0, 120.0)
"""Degrees."""
FLATTEST = 0.4
"""Least volume of the unit parallelepiped with the drawn angles; flatter ones are drawn again."""


def haar(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Rotations (*shape, 3, 3) distributed uniformly (Haar), from normalised Gaussian quaternions."""
    w, x, y, z = np.moveaxis((q := rng.normal(size=(*shape, 4))) / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(r, -1) for r in rows], -2)


def random_angles(rng: np.random.Generator, n: int) -> np.ndarray:
    """Cell angles (n, 3) in degrees, uniform in 60-120° among those that make a cell of sensible height."""
    angles = rng.uniform(*ANGLES, size=(n, 3))
    for _ in range(50):
        flat = ~(np.linalg.det(cell_matrix(np.concatenate([np.ones((n, 3)), angles], 1))) > FLATTEST)
        if not flat.any():
            break
        angles[flat] = rng.uniform(*ANGLES, size=(int(flat.sum()), 3))
    return angles


def log_normal_cells(
    rng: np.random.Generator,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    n: int,
    volume: np.ndarray | None = None,
    volume_std: float = 0.0,
) -> np.ndarray:
    """Random cells (n, 3, 3), rows in Å in the standard frame (a along x, b in the xy plane).

    Parameters
    ----------
    rng : numpy Generator
    mean, std : tuple of 3 floats
        Of the logarithms of the lengths.
    n : int
    volume : ndarray, shape (n,), optional
        Å³; the lengths then set the shape only, and the cells are scaled to these volumes with a spread.
    volume_std : float
        Standard deviation of the logarithm of that spread.
    """
    lengths = np.exp(np.asarray(mean) + np.asarray(std) * rng.normal(size=(n, 3)))
    cells: np.ndarray = cell_matrix(np.concatenate([lengths, random_angles(rng, n)], 1))
    if volume is not None:
        wanted = volume * np.exp(volume_std * rng.normal(size=n))
        cells = cells * np.cbrt(wanted / np.linalg.det(cells))[:, None, None]
    return cells
