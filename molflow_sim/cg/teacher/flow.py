"""The teacher: a normalizing flow over the internal coordinates of a coarse-grained molecule.

Bonds, angles and torsions of a tree of beads are mapped to the unit cube by smooth, exactly invertible steps, together
with a few augmented Gaussian coordinates η (Köhler et al., J. Chem. Theory Comput. 19, 942 (2023)). From the data on:

1. bonds and angles through the cumulative function of a normal distribution cut off at zero length and at straight or
   folded angles, η through that of the standard normal, torsions as turns of a circle;
2. the bonds, given angles and torsions, and the angles, given torsions, each in two alternating sets;
3. the torsions in two alternating sets and η, each given the other two, as often as there are blocks.

All maps of steps 2 and 3 are mixtures of smooth ramps (`molflow_sim.flow.smooth`), so the energy −kT ln p has
continuous derivatives of every order, across ±π too. The density is that of Cartesian positions with rigid motion set
aside: p(x) = p(q) / |∂x/∂q|. Angles enter as −cos θ, which takes the factor sin θ out of |∂x/∂q|.

Where nothing was ever seen: a bond or angle beyond the data keeps a finite, harmonic energy (that of the normal
distribution of step 1), with continuous forces, up to a bond of no length or an angle of 0 or π. The flow knows no
excluded volume: beads far along the chain may overlap, which `repulsion` weighs down afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from molflow_sim.cg.frames import BeadFrames
from molflow_sim.cg.teacher.internal import InternalCoordinates
from molflow_sim.cg.teacher.sets import CoordinateSet
from molflow_sim.cg.teacher.settings import TeacherSettings
from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.errors import InputError, TrajectoryError, WeightsError
from molflow_sim.flow.smooth import TruncatedNormalCDF
from molflow_sim.training.weights import load_into
from molflow_sim.units import BOLTZMANN

KIND = "molflow-cg-teacher"
_CHUNK = 20_000  # frames at a time where nothing is trained: some 100 MB


class BeadFlow(nn.Module):
    """Normalizing flow over the positions of B beads and A augmented coordinates.

    Build it by `from_frames` (untrained), `fit_teacher` (trained) or `from_state` (saved).

    Parameters
    ----------
    topology : BeadTopology
        A tree of B ≥ 3 beads.
    settings : TeacherSettings
        Architecture.
    temperature : float
        K, of the frames it describes.
    statistics : dict of str to Tensor
        Means and standard deviations of the data: "bond_mean", "bond_scale" (Å, shape (B−1,)), "angle_mean",
        "angle_scale" (of −cos θ, shape (B−2,)); "least_distances" (Å, shape (B, B)), for the repulsion.
    seed : int
        Of the initial weights.

    Raises
    ------
    MappingError
        The beads do not form one tree.
    """

    bond_mean: Tensor
    bond_scale: Tensor
    angle_mean: Tensor
    angle_scale: Tensor
    least_distances: Tensor

    def __init__(
        self,
        topology: BeadTopology,
        settings: TeacherSettings,
        temperature: float,
        statistics: dict[str, Tensor],
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.internal = InternalCoordinates(topology)
        self.settings = settings
        self._sizes = {
            "bonds": self.internal.n_bonds,
            "angles": self.internal.n_angles,
            "torsions": self.internal.n_torsions,
            "augmented": settings.n_augmentations,
        }
        self.temperature = float(temperature)
        for name in ("bond_mean", "bond_scale", "angle_mean", "angle_scale", "least_distances"):
            self.register_buffer(name, statistics[name].detach().clone())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.sets = nn.ModuleList(self._make_sets())

    def _parts(self) -> list[CoordinateSet]:
        return cast("list[CoordinateSet]", list(self.sets))

    @property
    def topology(self) -> BeadTopology:
        """The beads."""
        return self.internal.topology

    @property
    def n_augmentations(self) -> int:
        """Augmented coordinates, A."""
        return self.settings.n_augmentations

    def _make_sets(self) -> Iterator[CoordinateSet]:
        """Sets of coordinates in the order of the density's side."""
        n, everything, halves = self._sizes, slice(None), (slice(0, None, 2), slice(1, None, 2))
        torsions = [("torsions", everything)]
        augmented = [("augmented", everything)] if n["augmented"] else []
        for kind, given in (("bonds", [*torsions, ("angles", everything)]), ("angles", torsions)):
            if n[kind] > 1:
                yield CoordinateSet(kind, halves[1], [*given, (kind, halves[0])], n, self.settings)
            yield CoordinateSet(kind, halves[0], given, n, self.settings)
        for _ in range(self.settings.n_blocks if n["torsions"] else 0):
            for half in (1, 0) if n["torsions"] > 1 else (0,):
                others = [("torsions", halves[1 - half])] if n["torsions"] > 1 else []
                yield CoordinateSet("torsions", halves[half], others + augmented, n, self.settings)
            if augmented:
                yield CoordinateSet("augmented", everything, torsions, n, self.settings)

    # --- from positions to the unit cube -----------------------------------------------------------------------

    def _ends(self) -> tuple[TruncatedNormalCDF, TruncatedNormalCDF]:
        """Step 1 for bonds and for −cos θ."""
        return (
            TruncatedNormalCDF(self.bond_mean, self.bond_scale, 0.0, math.inf),
            TruncatedNormalCDF(self.angle_mean, self.angle_scale, -1.0, 1.0),
        )

    def to_units(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Step 1: positions to unit coordinates, which training needs only once per frame.

        Parameters
        ----------
        x : Tensor, shape (..., B, 3)
            Å.

        Returns
        -------
        bonds, angles, torsions : Tensor, shapes (..., B−1), (..., B−2), (..., B−3)
            In units of the interval or circle.
        log_slope : Tensor, shape (...)
            ln |∂units/∂x|, rigid motion set aside.
        """
        lengths, angles, torsions, _ = self.internal.to_internal(x, check=False)
        bond_map, angle_map = self._ends()
        bonds, bond_slope = bond_map.call_and_ladj(lengths)
        cosines, cosine_slope = angle_map.call_and_ladj(-angles.cos())
        log_slope = (bond_slope - 2.0 * lengths.log()).sum(-1) + cosine_slope.sum(-1)
        log_slope = log_slope - self.internal.n_torsions * math.log(2.0 * math.pi)
        return bonds, cosines, torsions / (2.0 * math.pi) + 0.5, log_slope

    def unit_log_ratio(self, bonds: Tensor, angles: Tensor, torsions: Tensor, eta: Tensor) -> Tensor:
        """ln p(units, η)/N(η), shape (...): what training raises on average (eq. 7, less a constant).

        Parameters
        ----------
        bonds, angles, torsions : Tensor
            From `to_units`.
        eta : Tensor, shape (..., A)
            Augmented coordinates.
        """
        units = {"bonds": bonds, "angles": angles, "torsions": torsions, "augmented": torch.special.ndtr(eta)}
        total = bonds.new_zeros(bonds.shape[:-1])
        for part in self._parts():
            value, log_slope = part.transform(units).call_and_ladj(part.take(units))
            part.put(units, value)
            total = total + log_slope.sum(-1)
        return total

    def joint_log_prob(self, x: Tensor, eta: Tensor) -> Tensor:
        """ln p(x, η), the joint log-density of positions (rigid motion set aside) and augmented coordinates.

        Parameters
        ----------
        x : Tensor, shape (..., B, 3)
            Å, of the flow's dtype.
        eta : Tensor, shape (..., A)
            Augmented coordinates.

        Returns
        -------
        Tensor, shape (...)
            Of a density in Å^−(3B−6). −∞ or NaN for bonded beads at one point or three in a line.
        """
        bonds, angles, torsions, log_slope = self.to_units(x)
        normal = -0.5 * (eta * eta + math.log(2.0 * math.pi)).sum(-1)
        return self.unit_log_ratio(bonds, angles, torsions, eta) + log_slope + normal

    def energy(self, x: Tensor, eta: Tensor) -> Tensor:
        """−kT ln p(x, η) in eV at fixed η (eq. 8 in units of energy), shape (...).

        Parameters
        ----------
        x, eta : Tensor, shapes (..., B, 3), (..., A)
            As in `joint_log_prob`.
        """
        return -BOLTZMANN * self.temperature * self.joint_log_prob(x, eta)

    def log_prob(self, x: Tensor, n_augmentations: int = 32, generator: torch.Generator | None = None) -> Tensor:
        """ln p(x), the log-density of positions: an importance estimate, exact without augmented coordinates.

        Parameters
        ----------
        x : Tensor, shape (..., B, 3)
            Å.
        n_augmentations : int
            Draws of η per configuration.
        generator : torch.Generator, optional
            Source of the draws.

        Returns
        -------
        Tensor, shape (...)
        """
        bonds, angles, torsions, log_slope = self.to_units(x)
        if not self.n_augmentations:
            n_augmentations = 1
        eta = self.draw_augmentation((n_augmentations, *x.shape[:-2]), generator)
        b, a, t = (u.expand(n_augmentations, *u.shape) for u in (bonds, angles, torsions))
        ratios = self.unit_log_ratio(b, a, t, eta)
        return torch.logsumexp(ratios, 0) - math.log(n_augmentations) + log_slope

    def draw_augmentation(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Standard normal η of shape (*shape, A), of the flow's dtype."""
        like = self.bond_mean
        device = like.device if generator is None else generator.device
        eta = torch.randn(*shape, self.n_augmentations, generator=generator, dtype=like.dtype, device=device)
        return eta.to(like.device)

    # --- from the unit cube to positions -----------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Independent draws from the joint density.

        Parameters
        ----------
        n : int
            How many.
        generator : torch.Generator, optional
            Source of the draws.

        Returns
        -------
        x : Tensor, shape (n, B, 3)
            Å, the first bead at the origin.
        eta : Tensor, shape (n, A)
        """
        parts = [self._sample(min(_CHUNK, n - start), generator) for start in range(0, max(n, 1), _CHUNK)]
        return torch.cat([x for x, _ in parts]), torch.cat([eta for _, eta in parts])

    def _sample(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        like = self.bond_mean
        device = like.device if generator is None else generator.device
        units = {
            kind: torch.rand(n, size, generator=generator, dtype=like.dtype, device=device).to(like.device)
            for kind, size in self._sizes.items()
        }
        for part in reversed(self._parts()):
            part.put(units, part.transform(units).inv(part.take(units)))
        bond_map, angle_map = self._ends()
        angles = (-angle_map.inv(units["angles"])).acos()
        torsions = (units["torsions"] - 0.5) * (2.0 * math.pi)
        x, _ = self.internal.to_cartesian(bond_map.inv(units["bonds"]), angles, torsions, check=False)
        return x, open_normal(units["augmented"])

    # --- making and keeping ------------------------------------------------------------------------------------

    @classmethod
    def from_frames(cls, frames: BeadFrames, settings: TeacherSettings | None = None, seed: int = 0) -> Self:
        """An untrained flow with the data's means and standard deviations.

        Parameters
        ----------
        frames : BeadFrames
            Checked here (`BeadFrames.validate`).
        settings : TeacherSettings, optional
            Architecture.
        seed : int
            Of the initial weights.

        Raises
        ------
        TrajectoryError
            Too few frames, frames that are not finite, broken molecules, fewer than three beads.
        MappingError
            The beads do not form one tree.
        """
        settings = settings or TeacherSettings()
        frames.validate(settings.min_frames)
        if frames.topology.n_beads < 3:
            raise TrajectoryError(f"{frames.topology.n_beads} beads: the flow needs at least three")
        internal = InternalCoordinates(frames.topology)
        x = np.asarray(frames.positions, dtype=np.float64)
        bonds, angles, _, _ = internal.to_internal(torch.from_numpy(x))
        cosines = -angles.cos()
        least = [np.linalg.norm(x - x[:, [i]], axis=-1).min(axis=0) for i in range(frames.topology.n_beads)]
        statistics = {
            "least_distances": torch.from_numpy(np.stack(least)),
            "bond_mean": bonds.mean(0),
            "angle_mean": cosines.mean(0),
            # A bond that a constraint keeps fixed still gets a width, or its density could not be written down.
            "bond_scale": settings.tail_scale * bonds.std(0).clamp_min(1e-3),
            "angle_scale": settings.tail_scale * cosines.std(0).clamp_min(1e-3),
        }
        return cls(frames.topology, settings, frames.temperature, {k: v.float() for k, v in statistics.items()}, seed)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and a JSON-able card, for `molflow_sim.training.weights.save_weights` under the name "teacher"."""
        card = {
            "kind": KIND,
            "topology": self.topology.to_json(),
            "temperature": self.temperature,
            "settings": asdict(self.settings),
        }
        return {name: value.detach().clone() for name, value in self.state_dict().items()}, card

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], card: dict[str, Any]) -> Self:
        """The flow that `state` described.

        Raises
        ------
        WeightsError
            A card of another kind, or tensors that do not fit it.
        """
        if card.get("kind") != KIND:
            raise WeightsError(f"these are weights of kind {card.get('kind')!r}, not of a coarse-graining flow")
        try:
            settings = TeacherSettings.from_dict(card["settings"], "the flow's card")
            topology = BeadTopology.from_json(card["topology"])
            flow = cls(topology, settings, card["temperature"], tensors).to(tensors["bond_mean"].dtype)
        except KeyError as error:
            raise WeightsError(
                f"the flow's tensors or card do not fit this version: {error.args[0]} is missing; fit it again"
            ) from None
        except (TypeError, ValueError, RuntimeError, InputError) as error:
            reason = str(error).splitlines()[0]
            raise WeightsError(f"the flow's tensors and card do not fit: {reason}; fit it again") from None
        load_into(flow, tensors, "flow")
        return flow.eval()


def open_normal(units: Tensor) -> Tensor:
    """Standard normal numbers of uniform ones; the ends, which rounding can reach, are moved inside."""
    tiny = torch.finfo(units.dtype).eps
    return torch.special.ndtri(units.clamp(tiny, 1.0 - tiny))
