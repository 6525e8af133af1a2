"""CGnet: a prior energy plus a bounded network on invariant features (Wang et al. 2019; Köhler et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from molflow_sim.cg.student.features import BeadGeometry, FeatureIndex
from molflow_sim.cg.student.mlp import BoundedMLP
from molflow_sim.cg.student.prior import PriorEnergy, PriorSettings
from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.errors import InputError, MolflowError, TrajectoryError, WeightsError
from molflow_sim.training.settings import YamlSettings, at_least, one_of, positive
from molflow_sim.training.weights import load_into
from molflow_sim.units import BOLTZMANN

if TYPE_CHECKING:
    from molflow_sim.cg.student.fused import FusedCGNet


@dataclass(frozen=True)
class CGNetSettings(YamlSettings):
    """Size and bounds of a CGnet.

    Attributes
    ----------
    width, depth : int
        Units of a layer, and layers with a tanh.
    lipschitz : float
        Largest spectral norm of each layer, in kT per unit of the z-scored features.
    stiff_scale : float
        Factor on the z-scored bonds, angles and distances across an angle. The prior holds these; what a flow says of
        them beyond that is mostly the roughness of its narrow densities. With a factor well below one the network can
        bend their means with the torsions but not wrinkle along them: simulations keep their energy, and the torsions
        are learned several times faster.
    precision : str
        Of the network in simulations: "double", or "single" (twice as fast; features, prior and sums stay double).
    prior : PriorSettings
    """

    width: int = 160
    depth: int = 3
    lipschitz: float = 4.0
    stiff_scale: float = 0.01
    precision: str = "double"
    prior: PriorSettings = field(default_factory=PriorSettings)

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        at_least(self, 1, "width", "depth")
        positive(self, "lipschitz")
        if not 0.0 < self.stiff_scale <= 1.0:
            raise InputError(f"stiff_scale must lie in (0, 1], got {self.stiff_scale}")
        one_of(self, precision=("double", "single"))


class CGNet(nn.Module):
    """E(x) = prior(x) + kT · MLP(z-scored features), in eV.

    Parameters
    ----------
    topology : BeadTopology
        With at least one bond.
    temperature : float
        K, of the ensemble it is fitted to.
    settings : CGNetSettings

    Raises
    ------
    MappingError
        A topology without bonds.
    """

    kind = "cgnet"
    mean: Tensor
    scale: Tensor

    def __init__(self, topology: BeadTopology, temperature: float, settings: CGNetSettings | None = None) -> None:
        super().__init__()
        self.topology, self.temperature = topology, float(temperature)
        self.settings = settings or CGNetSettings()
        self.index = FeatureIndex.from_topology(topology)
        self.geometry = BeadGeometry(self.index)
        self.prior = PriorEnergy(self.index, self.settings.prior)
        n = self.index.n_features
        self.register_buffer("mean", torch.zeros(n, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n, dtype=torch.float64))
        self.mlp = BoundedMLP(n, self.settings.width, self.settings.depth, self.settings.lipschitz)
        self._precision = self.settings.precision
        self._fused: FusedCGNet | None = None

    @property
    def kT(self) -> float:
        """Boltzmann's constant times the temperature, eV."""
        return BOLTZMANN * self.temperature

    @classmethod
    def from_data(
        cls,
        positions: np.ndarray,
        topology: BeadTopology,
        temperature: float,
        settings: CGNetSettings | None = None,
        weights: np.ndarray | None = None,
        seed: int = 0,
    ) -> Self:
        """An untrained network with the statistics and the prior of some frames.

        Parameters
        ----------
        positions : ndarray, shape (F, B, 3)
            Å.
        topology : BeadTopology
        temperature : float
            K.
        settings : CGNetSettings, optional
        weights : ndarray, shape (F,), optional
            Statistical weights of the frames.
        seed : int
            Of the weights' first values.

        Raises
        ------
        TrajectoryError
            Bonds or angles of no width, beads at one point, weights that are not positive.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = cls(topology, temperature, settings)
        x = torch.from_numpy(np.ascontiguousarray(positions, dtype=np.float64))
        w = torch.ones(len(x), dtype=torch.float64) if weights is None else torch.from_numpy(np.asarray(weights, float))
        if len(w) != len(x) or not bool(torch.isfinite(w).all()) or bool((w < 0).any()) or float(w.sum()) <= 0.0:
            raise TrajectoryError("the frames' weights must be finite, not negative, one per frame, and not all zero")
        w = w / w.sum()
        geometry = net.geometry(x)
        features = geometry.features
        if not bool(torch.isfinite(features).all()):
            raise TrajectoryError("features of the frames are not finite: two beads lie at one point")
        mean = (w[:, None] * features).sum(0)
        net.mean.copy_(mean)
        # A feature that does not vary (a rigid torsion) must not blow up what leaves its value.
        scale = 1.0 / (w[:, None] * (features - mean).square()).sum(0).sqrt().clamp_min(1e-3)
        net.scale.copy_(torch.where(torch.from_numpy(net.index.stiff), net.settings.stiff_scale * scale, scale))
        net.prior.fit(geometry, w, temperature)
        return net.fold()

    def forward(self, positions: Tensor) -> Tensor:
        """As `energy`."""
        geometry = self.geometry(positions)
        dtype = positions.dtype
        z = (geometry.features - self.mean.to(dtype)) * self.scale.to(dtype)
        return self.prior(geometry) + self.kT * self.mlp(z)

    def energy(self, positions: Tensor) -> Tensor:
        """Energies (...,) in eV of positions (..., B, 3) in Å, computed in the dtype of the positions."""
        energy: Tensor = self(positions)
        return energy

    def energy_and_forces(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies (R,) in eV and forces (R, B, 3) in eV/Å of positions (R, B, 3) in Å, by the compiled loop.

        Raises
        ------
        NonFiniteError
            Positions that are not finite, or beads at one point.
        InputError
            Positions of another shape.
        """
        fused = self._fused
        if fused is None:
            from molflow_sim.cg.student.fused import FusedCGNet

            fused = FusedCGNet(self, self._precision)
            self._fused = None if self.training else fused  # weights in training change without notice
        return fused(positions)

    def with_precision(self, precision: str) -> Self:
        """Run the network in simulations in "double" or "single" from now on, whatever the settings say.

        Raises
        ------
        InputError
            Another name.
        """
        replace(self.settings, precision=precision)  # refuses what there is not
        self._precision, self._fused = precision, None
        return self

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; compiled copies of old weights are dropped."""
        self._fused = None
        return super().train(mode)

    def fold(self) -> Self:
        """Make the weights keep the Lipschitz bound by themselves, and go to evaluation mode."""
        self.mlp.fold()
        return self.eval()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fused": None}  # compiled anew where it is needed

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and card for a model folder; the bound is folded into the weights first."""
        self.fold()
        card = {
            "kind": self.kind,
            "topology": self.topology.to_json(),
            "temperature": self.temperature,
            "settings": asdict(self.settings),
        }
        return dict(self.state_dict()), card

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> Self:
        """Rebuild from what `state` gave.

        Raises
        ------
        WeightsError
            Tensors or a card of something else.
        """
        try:
            if card["kind"] != cls.kind:
                raise WeightsError(f"this is a {card['kind']!r}, not a {cls.kind!r}")
            settings = CGNetSettings.from_dict(card["settings"])
            net = cls(BeadTopology.from_json(card["topology"]), float(card["temperature"]), settings)
            if tensors["mlp.output.weight"].dtype == torch.float64:
                net.mlp.double()
            load_into(net, tensors, "CGnet")
        except WeightsError:
            raise
        except KeyError as error:
            raise WeightsError(f"these weights are no CGnet of this version: {error.args[0]} is missing") from None
        except (TypeError, ValueError, RuntimeError, MolflowError) as error:
            raise WeightsError(f"these weights are no CGnet of this version: {str(error).splitlines()[0]}") from None
        return net.fold()
