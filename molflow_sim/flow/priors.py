"""Where structures start: log-normal cell lengths, angles uniform in 60-120°, Haar rotations; points with springs."""

from __future__ import annotations

import numpy as np

from molflow_sim.symmetry.spacegroup import cell_matrix

ANGLE_TRIES = 4
"""Triples of cell angles drawn; the first that makes a cell of sensible height is taken (all but one in 800 do)."""
FLATTEST = 0.4
"""Least volume of a cell with edges of 1 and the drawn angles."""


def rotations(u: np.ndarray) -> np.ndarray:
    """Haar-distributed rotation matrices (..., 3, 3) from numbers (..., 3) uniform in (0, 1).

    K. Shoemake, Graphics Gems III, 124 (1992).
    """
    long, short = np.sqrt(1.0 - u[..., 0]), np.sqrt(u[..., 0])
    a, b = 2.0 * np.pi * u[..., 1], 2.0 * np.pi * u[..., 2]
    w, x, y, z = short * np.cos(b), long * np.sin(a), long * np.cos(a), short * np.sin(b)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(r, -1) for r in rows], -2)


def sensible_angles(u: np.ndarray) -> np.ndarray:
    """Cell angles (n, 3), uniform in 60-120° among those that make a cell of sensible height.

    From numbers (n, tries, 3) uniform in (0, 1): the first try that does.
    """
    angles = 60.0 + 60.0 * u
    a, b, c = np.moveaxis(np.cos(np.radians(angles)), -1, 0)
    sensible = 1.0 - a * a - b * b - c * c + 2.0 * a * b * c > FLATTEST**2  # the squared volume for lengths of 1
    return np.take_along_axis(angles, sensible.argmax(1)[:, None, None], 1)[:, 0]


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
    angles = sensible_angles(rng.random((n, ANGLE_TRIES, 3)))
    cells: np.ndarray = cell_matrix(np.concatenate([lengths, angles], 1))
    if volume is not None:
        wanted = volume * np.exp(volume_std * rng.normal(size=n))
        cells = cells * np.cbrt(wanted / np.linalg.det(cells))[:, None, None]
    return cells


class PointPrior:
    """Where points start: independent around anchors, or held together by springs along bonds ("harmonic").

    The energy E(x) = ½ Σ_bonds k |x_i − x_j|² + ½ Σ_i |x_i − a_i|² / σ² has the Boltzmann distribution
    N(J⁻¹ a / σ², J⁻¹) in each coordinate, with J = k L + 1/σ² and the Laplacian L of the bonds (Jing et al. 2023; Stärk
    et al. 2024). With k = 0 it is N(a, σ²). k = 3 / b² gives bonds of a tree a root mean square length of b.
    Molecules are not bonded to one another: the centre of each has the spread σ/√n about the mean of its n anchors, so
    that without anchors σ must be about the cluster's radius times √n.

    Parameters
    ----------
    n : int
        Points.
    bonds : ndarray of int, shape (nb, 2)
    sigma : float
        Å, of every coordinate of a point about its anchor.
    bond_length : float
        b in Å; 0 for no springs.
    """

    def __init__(self, n: int, bonds: np.ndarray, sigma: float, bond_length: float = 0.0) -> None:
        self.n, self.springs = n, bond_length > 0.0 and len(bonds) > 0
        self.sigma = sigma
        self.variance = np.full(n, sigma**2)
        if self.springs:
            i, j = np.asarray(bonds).T
            precision = np.eye(n) / sigma**2
            k = 3.0 / bond_length**2
            np.add.at(precision, (np.r_[i, j], np.r_[i, j]), k)
            np.add.at(precision, (np.r_[i, j], np.r_[j, i]), -k)
            values, vectors = np.linalg.eigh(precision)
            self._root = vectors / np.sqrt(values)
            self._pull = (vectors / values) @ vectors.T / sigma**2
            self.variance = (self._root**2).sum(1)

    def mean(self, anchors: np.ndarray) -> np.ndarray:
        """The distribution's mean (..., n, 3) for anchors (..., n, 3) in Å."""
        return self._pull @ anchors if self.springs else anchors

    def noise(self, rng: np.random.Generator, size: tuple[int, ...] = ()) -> np.ndarray:
        """Deviations (*size, n, 3) in Å from the mean."""
        z = rng.normal(size=(*size, self.n, 3))
        return self._root @ z if self.springs else self.sigma * z
