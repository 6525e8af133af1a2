"""Prior energy of a coarse-grained force field: stiff terms that hold the molecule together where there is no data.

Harmonic bonds and angles whose width is that of the data, and repulsion between beads that no bond or angle holds
(Wang et al., ACS Cent. Sci. 2019, 5, 755; Köhler et al., J. Chem. Theory Comput. 2023, 19, 942).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from molflow_sim.cg.student.features import FeatureIndex, Geometry
from molflow_sim.errors import InputError, TrajectoryError
from molflow_sim.training.settings import YamlSettings, at_least
from molflow_sim.units import BOLTZMANN

RIGID = 1e-3
"""Standard deviation (Å or rad) below which a bond or an angle counts as constrained."""


@dataclass(frozen=True)
class PriorSettings(YamlSettings):
    """How the prior is taken from data.

    Attributes
    ----------
    min_separation : int
        Fewest bonds between two beads that repel each other; 3 leaves out what bonds and angles hold.
    exponent : int
        Of the repulsion kT (σ/r)^n.
    quantile : float
        σ of a pair is this quantile of its distance in the data: there the repulsion is one kT.
    """

    min_separation: int = 3
    exponent: int = 6
    quantile: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        at_least(self, 2, "min_separation")
        at_least(self, 1, "exponent")
        if not 0.0 <= self.quantile < 0.5:
            raise InputError(f"quantile must lie in [0, 0.5), got {self.quantile}")


class PriorEnergy(nn.Module):
    """½ k (r - r₀)² per bond, ½ k (θ - θ₀)² per angle, kT (σ/r)^n per distant pair; k = kT/variance.

    Parameters
    ----------
    index : FeatureIndex
    settings : PriorSettings

    Notes
    -----
    The buffers (float64, all saved): ``bond_k`` (nb,) eV/Å², ``bond_r`` (nb,) Å, ``angle_k`` (na,) eV/rad²,
    ``angle_theta`` (na,) rad, ``sigma`` (nr,) Å, ``strength`` () eV. They are zero until `fit`.
    """

    bonds: Tensor
    repelling: Tensor
    bond_k: Tensor
    bond_r: Tensor
    angle_k: Tensor
    angle_theta: Tensor
    sigma: Tensor
    strength: Tensor

    def __init__(self, index: FeatureIndex, settings: PriorSettings) -> None:
        super().__init__()
        self.settings = settings
        far = np.flatnonzero(index.separation >= settings.min_separation)
        self.register_buffer("bonds", torch.from_numpy(index.bonds.copy()), persistent=False)
        self.register_buffer("repelling", torch.from_numpy(far), persistent=False)
        sizes = {"bond_k": len(index.bonds), "bond_r": len(index.bonds), "angle_k": len(index.angles)}
        sizes |= {"angle_theta": len(index.angles), "sigma": len(far)}
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))
        self.register_buffer("strength", torch.zeros((), dtype=torch.float64))

    def fit(self, geometry: Geometry, weights: Tensor, temperature: float) -> None:
        """Set every constant from the data.

        Parameters
        ----------
        geometry : Geometry
            Of the frames, float64, leading dimension F.
        weights : Tensor, shape (F,)
            Statistical weights that sum to one.
        temperature : float
            K.

        Raises
        ------
        TrajectoryError
            A bond or an angle that never changes: there is no width to take.
        """
        kT = BOLTZMANN * temperature
        self.strength.fill_(kT)
        angles = torch.atan2(geometry.sines, geometry.cosines)
        for what, value, k, centre in (
            ("bond", geometry.distances[:, self.bonds], self.bond_k, self.bond_r),
            ("angle", angles, self.angle_k, self.angle_theta),
        ):
            mean = (weights[:, None] * value).sum(0)
            variance = (weights[:, None] * (value - mean).square()).sum(0)
            if bool((variance < RIGID**2).any()):
                bad = int((variance < RIGID**2).nonzero()[0])
                raise TrajectoryError(
                    f"{what} {bad} hardly changes over the frames: a constrained coordinate has no width to take"
                )
            centre.copy_(mean)
            k.copy_(kT / variance)
        for n, pair in enumerate(self.repelling.tolist()):
            self.sigma[n] = _quantile(geometry.distances[:, pair], weights, self.settings.quantile)

    def forward(self, geometry: Geometry) -> Tensor:
        """Energy in eV, shape (...)."""
        dtype = geometry.distances.dtype
        stretch = geometry.distances[..., self.bonds] - self.bond_r.to(dtype)
        bend = torch.atan2(geometry.sines, geometry.cosines) - self.angle_theta.to(dtype)
        ratio = self.sigma.to(dtype) / geometry.distances[..., self.repelling]
        return (
            0.5 * (self.bond_k.to(dtype) * stretch.square()).sum(-1)
            + 0.5 * (self.angle_k.to(dtype) * bend.square()).sum(-1)
            + self.strength.to(dtype) * ratio.pow(self.settings.exponent).sum(-1)
        )


def _quantile(values: Tensor, weights: Tensor, fraction: float) -> Tensor:
    order = torch.argsort(values)
    place = torch.searchsorted(weights[order].cumsum(0), torch.tensor(fraction, dtype=weights.dtype))
    return values[order[min(int(place), len(values) - 1)]]
