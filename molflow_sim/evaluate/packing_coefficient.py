"""How much of a crystal its molecules fill: Kitaigorodskii's packing coefficient."""

from __future__ import annotations

from typing import Any

import numpy as np

from molflow_sim.evaluate.overlap import van_der_waals_radii

POINTS = 1000
"""Points on the sphere of each atom; volumes are then good to 0.2 %."""


def packing_coefficient(crystal: Any) -> float:
    """Volume of the molecules over that of the cell: 0.65 to 0.77 in most organic crystals.

    Volumes are those of the molecules alone, as unions of van der Waals spheres (Bondi); where molecules of the crystal
    interpenetrate, as in hydrogen bonds, the overlap counts twice. A. I. Kitaigorodskii, Molecular Crystals and
    Molecules, Academic Press, 1973.

    Parameters
    ----------
    crystal : MolecularCrystal
    """
    filled = sum(
        len(rigid.images) * molecular_volume(crystal.molecules[rigid.species].numbers, rigid.conformer)
        for rigid in crystal.asymmetric_unit
    )
    return filled / crystal.volume


def molecular_volume(numbers: np.ndarray, positions: np.ndarray) -> float:
    """Volume (Å³) of the union of van der Waals spheres.

    By the divergence theorem: a third of the integral of x · n over the part of the spheres' surfaces that lies in no
    other sphere, so the numerical error is one of surfaces, not of a grid.

    Parameters
    ----------
    numbers : ndarray (n,)
    positions : ndarray (n, 3)
        Å.
    """
    radii = van_der_waals_radii(numbers)
    positions = np.asarray(positions) - np.mean(positions, axis=0)
    k = np.arange(POINTS) + 0.5
    z, angle = 1.0 - 2.0 * k / POINTS, np.pi * (1.0 + np.sqrt(5.0)) * k  # Fibonacci's even points on a sphere
    normals = np.stack([np.sqrt(1.0 - z**2) * np.cos(angle), np.sqrt(1.0 - z**2) * np.sin(angle), z], axis=1)
    volume = 0.0
    for i, (centre, radius) in enumerate(zip(positions, radii)):
        apart = np.linalg.norm(positions - centre, axis=1)
        near = np.flatnonzero((apart < radius + radii) & (np.arange(len(radii)) != i))
        surface = centre + radius * normals
        inside = np.sum((surface[:, None] - positions[near]) ** 2, axis=-1) < radii[near] ** 2
        free = ~inside.any(axis=1)
        volume += 4.0 * np.pi * radius**2 / POINTS * np.sum(surface[free] * normals[free]) / 3.0
    return float(volume)
