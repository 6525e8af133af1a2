"""Torsions of a molecule read from one conformer and put on the bonds and angles of another."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from molflow_sim.geometry.torsions import torsion_angles
from molflow_sim.models.coarsenconf.graphs import ConformerGraph


def turned(graph: ConformerGraph, positions: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """A conformer (n, 3) in Å with every torsion turned by an angle (T,) in radians; bonds and angles stay."""
    x = np.array(positions, float)
    for (_, b, c, _), side, angle in zip(graph.torsions, graph.sides, angles):
        axis = x[c] - x[b]
        rotation = Rotation.from_rotvec(angle * axis / max(float(np.linalg.norm(axis)), 1e-9)).as_matrix()
        x[side] = (x[side] - x[b]) @ rotation.T + x[b]
    return x


def with_torsions_of(graph: ConformerGraph, positions: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A conformer (n, 3) with the torsions of another one (n, 3), about its mean."""
    gap = torsion_angles(other, graph.torsions) - torsion_angles(positions, graph.torsions)
    x = turned(graph, positions, gap)
    return x - x.mean(0)
