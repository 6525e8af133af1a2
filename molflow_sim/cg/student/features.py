"""Invariant features of a bead molecule: distances, cosines of angles, sines and cosines of torsions.

All are unchanged by rotation and translation; the sines change sign in the mirror image, so that handedness is seen
(Wang et al., ACS Cent. Sci. 2019, 5, 755, section "CGnet"; there the torsions enter as sine and cosine as well).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.errors import MappingError

COLLINEAR = 0.1
"""Sine of an angle below which a torsion across it fades out: the torsion is undefined for three beads in a line."""


@dataclass(frozen=True)
class FeatureIndex:
    """Which beads make which feature; vectors are rows of `pairs` (from the lower to the higher bead) with a sign.

    Attributes
    ----------
    pairs : ndarray of int, shape (np, 2)
        All pairs i < j.
    bonds : ndarray of int, shape (nb,)
        Rows of `pairs` that are bonds.
    angles, angle_signs : ndarray, shape (na, 2)
        Rows of the two vectors that leave the middle bead, and their signs.
    torsions, torsion_signs : ndarray, shape (nt, 3)
        Rows of the three vectors along i-j-k-l, and their signs. Dihedrals along bonds and, at branches, the impropers.
    separation : ndarray of int, shape (np,)
        Bonds between the two beads along the shortest way (a large number where there is none).
    """

    pairs: np.ndarray
    bonds: np.ndarray
    angles: np.ndarray
    angle_signs: np.ndarray
    torsions: np.ndarray
    torsion_signs: np.ndarray
    separation: np.ndarray

    @classmethod
    def from_topology(cls, topology: BeadTopology) -> FeatureIndex:
        """All features of a molecule.

        Raises
        ------
        MappingError
            Fewer than two beads, or no bond.
        """
        n = topology.n_beads
        if n < 2 or not len(topology.bonds):
            raise MappingError(
                f"a force field needs at least two bonded beads, got {n} with {len(topology.bonds)} bonds"
            )
        pairs = np.array([(i, j) for i in range(n) for j in range(i + 1, n)], dtype=np.int64)
        row = {(int(i), int(j)): k for k, (i, j) in enumerate(pairs)}

        def vectors(ways: list[list[tuple[int, int]]], width: int) -> tuple[np.ndarray, np.ndarray]:
            rows = [[row[min(a, b), max(a, b)] for a, b in way] for way in ways]
            signs = [[1.0 if a < b else -1.0 for a, b in way] for way in ways]
            return np.array(rows, np.int64).reshape(-1, width), np.array(signs, np.float64).reshape(-1, width)

        angles, angle_signs = vectors([[(j, i), (j, k)] for i, j, k in topology.angles.tolist()], 2)
        four = topology.dihedrals.tolist() + topology.impropers.tolist()
        torsions, torsion_signs = vectors([[(i, j), (j, k), (k, l)] for i, j, k, l in four], 3)
        apart = np.nan_to_num(topology.separations, posinf=1e6).astype(np.int64)
        return cls(
            pairs,
            np.array([row[int(i), int(j)] for i, j in topology.bonds], np.int64),
            angles, angle_signs, torsions, torsion_signs,
            apart[pairs[:, 0], pairs[:, 1]],
        )  # fmt: skip

    @property
    def stiff(self) -> np.ndarray:
        """Whether each feature is a bond, an angle or the distance across one, shape (nf,)."""
        near = np.concatenate([self.separation <= 2, np.ones(len(self.angles), bool)])
        return np.concatenate([near, np.zeros(2 * len(self.torsions), bool)])

    @property
    def n_features(self) -> int:
        """Number of features: pairs, angles, and two for each torsion."""
        return len(self.pairs) + len(self.angles) + 2 * len(self.torsions)


class Geometry(NamedTuple):
    """What features and prior are made of; leading dimensions as of the positions.

    Attributes
    ----------
    distances : Tensor, shape (..., np)
        Å.
    cosines, sines : Tensor, shape (..., na)
        Of the angles; sines are positive.
    torsion_sines, torsion_cosines : Tensor, shape (..., nt)
    """

    distances: Tensor
    cosines: Tensor
    sines: Tensor
    torsion_sines: Tensor
    torsion_cosines: Tensor

    @property
    def features(self) -> Tensor:
        """Distances, cosines, torsion sines, torsion cosines, shape (..., nf)."""
        return torch.cat([self.distances, self.cosines, self.torsion_sines, self.torsion_cosines], dim=-1)


class BeadGeometry(nn.Module):
    """Distances, angles and torsions of positions (..., B, 3), differentiable as often as wanted.

    Torsion sines and cosines are those of the dihedral (IUPAC's sign), times a factor that is near one in ordinary
    geometries and falls smoothly to zero where three of the beads come into a line, so that forces stay bounded there.

    Parameters
    ----------
    index : FeatureIndex
    """

    pairs: Tensor
    angles: Tensor
    torsions: Tensor
    angle_sign: Tensor
    sine_sign: Tensor
    cosine_sign: Tensor

    def __init__(self, index: FeatureIndex) -> None:
        super().__init__()
        self.index = index
        for name, value in (("pairs", index.pairs), ("angles", index.angles), ("torsions", index.torsions)):
            self.register_buffer(name, torch.from_numpy(value.copy()), persistent=False)
        self.register_buffer("angle_sign", torch.from_numpy(index.angle_signs.prod(1)), persistent=False)
        # Both products below are even or odd in each vector, so that one sign per torsion is enough.
        s = index.torsion_signs
        self.register_buffer("sine_sign", torch.from_numpy(s.prod(1)), persistent=False)
        self.register_buffer("cosine_sign", torch.from_numpy(s[:, 0] * s[:, 2]), persistent=False)

    def forward(self, positions: Tensor) -> Geometry:
        """Geometry of positions in Å, shape (..., B, 3)."""
        dtype = positions.dtype
        vectors = positions[..., self.pairs[:, 1], :] - positions[..., self.pairs[:, 0], :]
        distances = vectors.square().sum(-1).sqrt()
        unit = vectors / distances.unsqueeze(-1)
        a, b = unit[..., self.angles[:, 0], :], unit[..., self.angles[:, 1], :]
        cosines = (a * b).sum(-1) * self.angle_sign.to(dtype)
        sines = (torch.linalg.cross(a, b, dim=-1).square().sum(-1) + 1e-24).sqrt()
        u, v, w = (unit[..., self.torsions[:, k], :] for k in range(3))
        m, n = torch.linalg.cross(u, v, dim=-1), torch.linalg.cross(v, w, dim=-1)
        soft = COLLINEAR**2
        scale = ((m.square().sum(-1) + soft) * (n.square().sum(-1) + soft)).rsqrt()
        torsion_sines = (u * n).sum(-1) * scale * self.sine_sign.to(dtype)
        torsion_cosines = (m * n).sum(-1) * scale * self.cosine_sign.to(dtype)
        return Geometry(distances, cosines, sines, torsion_sines, torsion_cosines)


def features_and_jacobian(geometry: BeadGeometry, positions: Tensor, chunk: int = 1024) -> tuple[Tensor, Tensor]:
    """Features and their derivatives by the positions.

    Parameters
    ----------
    geometry : BeadGeometry
    positions : Tensor, shape (F, B, 3)
        Å.
    chunk : int
        Frames at a time.

    Returns
    -------
    features : Tensor, shape (F, nf)
    jacobian : Tensor, shape (F, nf, 3 B)
        1/Å (Å/Å for distances).
    """

    def one(x: Tensor) -> tuple[Tensor, Tensor]:
        f = geometry(x).features
        return f, f

    derivative = torch.func.vmap(torch.func.jacfwd(one, has_aux=True))
    values, jacobians = [], []
    with torch.no_grad():
        for part in positions.split(chunk):
            jacobian, value = derivative(part)
            values.append(value)
            jacobians.append(jacobian.flatten(-2))
    return torch.cat(values), torch.cat(jacobians)
