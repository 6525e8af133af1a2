"""Configurations and forces drawn from the teacher: the data that a student is trained on.

Forces are −∇ of the joint energy at fixed augmentation (Köhler et al., J. Chem. Theory Comput. 19, 942 (2023), eq. 9);
over the augmentation they average to the mean force of the density of positions (eq. 10).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from molflow_sim.cg.teacher.flow import BeadFlow
from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.errors import NonFiniteError
from molflow_sim.threads import one_torch_thread
from molflow_sim.training.settings import YamlSettings, at_least
from molflow_sim.units import BOLTZMANN

_CHUNK = 4096  # evaluations with gradients at a time: some 200 MB
_POOL = 6  # configurations drawn for each that is kept
_POOL_CHUNK = 50_000


@dataclass(frozen=True)
class ForceSampleSettings(YamlSettings):
    """How samples are averaged, filtered and weighted.

    Attributes
    ----------
    n_augmentations : int
        Augmentations that each configuration's force is averaged over. 1 takes the instantaneous force (eq. 9) at the
        augmentation that was drawn with the configuration. K > 1 adds K − 1 draws from N(0, 1) and averages with the
        weights p(x, η)/N(η): an unbiased estimate of the mean force for every K (the drawn one makes it so, as in
        conditional importance sampling), with less noise.
    relative_bound : float
        Drop a sample whose mean-square force component exceeds this many times the samples' median; 0 for no bound.
    absolute_bound : float
        The same bound in (kT/nm)², as Köhler et al. give it (1.5e5 for capped alanine); 0 for none. 1 (kT/nm)² is
        0.01 (kT/Å)².
    repulsion_distance : float
        Å. Pairs three or more bonds apart that come closer are weighed down. 0 takes, for each pair, the least
        distance in the frames.
    repulsion_strength : float
        kT per Å². Weights are exp(−½ k Σ (d_min − d)²) over the pairs below d_min; 0 for equal weights.
    flatness : float
        How many times more often than they come configurations with a rare torsion are taken, at most; 1 takes them as
        they come. Forces tell a student the weight of a basin only by way of the barriers around it, where a flow puts
        few samples. Which configurations are taken does not depend on the augmentation, so the mean forces that are
        learned stay the same.
    energy_augmentations : int
        Augmentations for an importance estimate of each configuration's energy −kT ln p(x), that of the density of
        positions; 0 for none.
    """

    n_augmentations: int = 1
    relative_bound: float = 4.0
    absolute_bound: float = 0.0
    repulsion_distance: float = 0.0
    repulsion_strength: float = 100.0
    flatness: float = 30.0
    energy_augmentations: int = 4

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        at_least(self, 1, "n_augmentations", "flatness")
        at_least(self, 0, "energy_augmentations", "relative_bound", "absolute_bound")
        at_least(self, 0, "repulsion_distance", "repulsion_strength")


@dataclass(frozen=True, eq=False)
class ForceSamples:
    """Configurations with forces and weights.

    Attributes
    ----------
    positions : ndarray, shape (M, B, 3)
        Å, float64.
    forces : ndarray, shape (M, B, 3)
        eV/Å, float64; no net force and no net torque.
    weights : ndarray, shape (M,)
        Weights from the repulsion, mean 1.
    topology : BeadTopology
        The beads.
    temperature : float
        K.
    kept_fraction : float
        Share of the drawn samples within the bound on forces.
    bound : float
        That bound on the mean-square force component, (kT/nm)²; inf for none.
    energies : ndarray, shape (M,), optional
        −kT ln p(x) in eV, p in Å⁻³ᴮ⁺⁶: potential of mean force of the flow, up to a constant.
    """

    positions: np.ndarray
    forces: np.ndarray
    weights: np.ndarray
    topology: BeadTopology
    temperature: float
    kept_fraction: float
    bound: float
    energies: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def effective_sample_size(self) -> float:
        """(Σ w)² / Σ w² of the weights."""
        return float(self.weights.sum() ** 2 / (self.weights**2).sum())

    @property
    def summary(self) -> str:
        """One line: how many samples, how many kept, the effective sample size."""
        return (
            f"{len(self)} samples with forces, {100 * self.kept_fraction:.1f} % of those drawn; "
            f"effective sample size {self.effective_sample_size:.0f}"
        )


def sample_with_forces(
    flow: BeadFlow, n: int, seed: int = 0, settings: ForceSampleSettings | None = None
) -> ForceSamples:
    """Draw configurations from the flow with their forces, in float64; filter and weigh them.

    Parameters
    ----------
    flow : BeadFlow
        The teacher; not changed.
    n : int
        Configurations to draw; fewer come back, by the filter.
    seed : int
        Of the draws.
    settings : ForceSampleSettings, optional
        Averaging, filter and repulsion.

    Returns
    -------
    ForceSamples

    Raises
    ------
    NonFiniteError
        No sample is left.
    """
    settings = settings or ForceSampleSettings()
    exact = copy.deepcopy(flow).double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    positions, forces = [], []
    with one_torch_thread():
        chunk = max(_CHUNK // settings.n_augmentations, 64)
        every, augmentation = _drawn(exact, n, settings, generator)
        for drawn, eta in zip(every.split(chunk), augmentation.split(chunk)):
            positions.append(drawn)
            forces.append(mean_forces(exact, drawn, eta, settings.n_augmentations, generator))
    x, f = torch.cat(positions).numpy(), torch.cat(forces).numpy()
    kT = BOLTZMANN * flow.temperature
    square = (f * f).mean(axis=(1, 2)) * (10.0 / kT) ** 2  # (kT/nm)²
    finite = np.isfinite(square)
    bound = settings.absolute_bound or math.inf
    if settings.relative_bound and finite.any():
        bound = min(bound, settings.relative_bound * float(np.median(square[finite])))
    keep = finite & (square <= bound)
    if not keep.any():
        raise NonFiniteError(f"none of {n} samples has forces within the bound: an untrained flow, or too low a bound")
    x, f = x[keep], f[keep]
    least = flow.least_distances.double().numpy()
    weights = repulsion_weights(x, flow.topology, settings, least)
    energies = _energies(exact, x, settings.energy_augmentations, generator)
    return ForceSamples(x, f, weights, flow.topology, flow.temperature, float(keep.mean()), bound, energies)


def _energies(flow: BeadFlow, x: np.ndarray, n_augmentations: int, generator: torch.Generator) -> np.ndarray | None:
    if not n_augmentations:
        return None
    chunk = max(_POOL_CHUNK // n_augmentations, 64)
    with one_torch_thread(), torch.no_grad():
        parts = [flow.log_prob(part, n_augmentations, generator) for part in torch.from_numpy(x).split(chunk)]
    energies: np.ndarray = -BOLTZMANN * flow.temperature * torch.cat(parts).numpy()
    return energies


def _drawn(flow: BeadFlow, n: int, settings: ForceSampleSettings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw n configurations and their augmentations; rare torsions more often, see `flatness`."""
    if settings.flatness == 1.0 or flow.topology.n_beads < 4:
        return flow.sample(n, generator)
    with torch.no_grad():
        parts = [flow.sample(min(_POOL_CHUNK, _POOL * n - k), generator) for k in range(0, _POOL * n, _POOL_CHUNK)]
        x, eta = (torch.cat(part) for part in zip(*parts))
        torsions = flow.internal.to_internal(x)[2]
    share = rarity(torsions.numpy()).clip(max=settings.flatness)
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    chosen = torch.from_numpy(np.sort(rng.choice(len(x), n, replace=False, p=share / share.sum())))
    return x[chosen], eta[chosen]


def rarity(torsions: np.ndarray, bins: int = 72) -> np.ndarray:
    """How rare the rarest torsion of each configuration is: most frequent bin over its own bin, at least 1.

    Parameters
    ----------
    torsions : ndarray, shape (M, T)
        rad.
    bins : int
        Of each torsion's histogram.

    Returns
    -------
    ndarray, shape (M,)
    """
    bin_of = np.floor((torsions / (2.0 * np.pi) % 1.0) * bins).astype(int) % bins
    out = np.ones(len(torsions))
    for column in bin_of.T:
        count = np.bincount(column, minlength=bins)
        out = np.maximum(out, count.max() / count[column])
    return out


def mean_forces(
    flow: BeadFlow, x: Tensor, eta: Tensor | None, n_augmentations: int, generator: torch.Generator | None = None
) -> Tensor:
    """Forces averaged over augmentations with importance weights: kT ∇ ln Σ p(x, η)/N(η) at fixed draws.

    Parameters
    ----------
    flow : BeadFlow
        The teacher.
    x : Tensor, shape (n, B, 3)
        Å.
    eta : Tensor, shape (n, A), or None
        Augmentations drawn together with `x`; the average includes them and is then unbiased for every number of
        augmentations. None for configurations from elsewhere: consistent as the number grows.
    n_augmentations : int
        Augmentations in all; 1 with `eta` gives the instantaneous force kT ∇ ln p(x, η) (eq. 9).
    generator : torch.Generator, optional
        Source of the draws.

    Returns
    -------
    Tensor, shape (n, B, 3)
        eV/Å.
    """
    n_drawn = n_augmentations - (eta is not None) if flow.n_augmentations else 1
    every = flow.draw_augmentation((n_drawn, len(x)), generator)
    if eta is not None and flow.n_augmentations:
        every = torch.cat([eta.detach().unsqueeze(0), every])
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        bonds, angles, torsions, log_slope = flow.to_units(x)
        b, a, t = (u.expand(len(every), *u.shape) for u in (bonds, angles, torsions))
        ratios = flow.unit_log_ratio(b, a, t, every)
        (gradient,) = torch.autograd.grad((torch.logsumexp(ratios, 0) + log_slope).sum(), x)
    return BOLTZMANN * flow.temperature * gradient


def repulsion_weights(
    positions: np.ndarray, topology: BeadTopology, settings: ForceSampleSettings, least: np.ndarray
) -> np.ndarray:
    """exp(−½ k Σ (d_min − d)²) over the pairs that are closer than d_min, scaled to mean 1.

    Parameters
    ----------
    positions : ndarray, shape (M, B, 3)
        Å.
    topology : BeadTopology
        The beads; pairs at least three bonds apart count.
    settings : ForceSampleSettings
        Strength and distance.
    least : ndarray, shape (B, B)
        d_min of each pair, used where `settings.repulsion_distance` is 0.

    Returns
    -------
    ndarray, shape (M,)
    """
    i, j = np.argwhere(np.triu(topology.separations >= 3)).T
    if not len(i) or not settings.repulsion_strength:
        return np.ones(len(positions))
    limit = settings.repulsion_distance or least[i, j]
    short = np.maximum(limit - np.linalg.norm(positions[:, i] - positions[:, j], axis=-1), 0.0)
    exponent = -0.5 * settings.repulsion_strength * (short**2).sum(axis=1)
    weights = np.exp(exponent - exponent.max())
    mean: np.ndarray = weights / weights.mean()
    return mean
