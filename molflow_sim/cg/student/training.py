"""Training of the student: by the flow's forces, by the reference's forces, or by the density alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from molflow_sim.cg.student.cgnet import CGNet, CGNetSettings
from molflow_sim.cg.student.features import features_and_jacobian
from molflow_sim.cg.student.langevin import Langevin
from molflow_sim.cg.teacher.forces import ForceSamples, ForceSampleSettings
from molflow_sim.errors import InputError, NonFiniteError, TrainingError
from molflow_sim.training import TensorBatches, TrainSettings, train
from molflow_sim.training.settings import YamlSettings, at_least

if TYPE_CHECKING:
    from molflow_sim.cg.frames import BeadFrames

METHODS = ("flow-forces", "force-matching", "density")
"""What a student may learn from: the flow's forces, the trajectory's forces, or the frames alone."""

_MEMORY = 2**30
"""Bytes of stored Jacobians; above, their products are computed anew in every step."""

_NEGLIGIBLE = 1e-6
"""Samples with less than this share of the mean weight do not count."""

_MOST_HELD = 8192
"""Held-out samples are looked at in one batch."""


@dataclass(frozen=True)
class DistillSettings(YamlSettings):
    """What a student is and how the samples that it learns from are made.

    Attributes
    ----------
    force_field : CGNetSettings
        Size, bounds and prior of the network.
    sampling : ForceSampleSettings
        How configurations drawn from the flow are chosen, averaged and filtered ("flow-forces" only).
    energy_weight : float
        Weight of the energies of these configurations beside their forces; 0 for forces alone ("flow-forces" only).
    """

    force_field: CGNetSettings = field(default_factory=CGNetSettings)
    sampling: ForceSampleSettings = field(default_factory=ForceSampleSettings)
    energy_weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        at_least(self, 0, "energy_weight")


def student_train_settings(n: int, method: str = "flow-forces") -> TrainSettings:
    """How a student is trained by default, for `n` samples or frames.

    Fifty epochs as in Köhler et al., within bounds: fewer steps would leave small sets unfitted.
    """
    if method == "density":
        return TrainSettings(max_steps=1500, batch_size=512, warmup_steps=50, ema_decay=0.99, device="cpu")
    steps = int(np.clip(50 * n / 256, 2000, 40_000))
    return TrainSettings(
        max_steps=steps, batch_size=256, warmup_steps=200, ema_decay=0.995, validate_every=max(50, steps // 40),
        device="cpu",
    )  # fmt: skip


def fit_student(
    data: ForceSamples | BeadFrames,
    method: str = "flow-forces",
    settings: CGNetSettings | None = None,
    train_settings: TrainSettings | None = None,
    folder: str | Path | None = None,
    *,
    energy_weight: float = 1.0,
    validation_fraction: float = 0.1,
    progress: bool = True,
) -> CGNet:
    """Fit a CGnet.

    Parameters
    ----------
    data : ForceSamples or BeadFrames
        Anything with positions (F, B, 3) in Å, topology, temperature and, but for "density", forces in eV/Å; weights
        (F,) and energies (F,) in eV are used where there are any.
    method : str
        "flow-forces": the samples and instantaneous forces of a flow (Köhler et al. 2023, eq. 11). "force-matching":
        mapped forces of the reference (eq. 3). Both minimise the mean square deviation of the forces. "density": the
        likelihood of the frames alone (eq. 4), whose gradient compares the frames with replicas of the model's own,
        advanced by Langevin dynamics between the steps.
    settings : CGNetSettings, optional
    train_settings : TrainSettings, optional
        Default: `student_train_settings`.
    folder : path, optional
        Checkpoints and metrics; a killed training is resumed from here ("density" starts its replicas anew).
    energy_weight : float
        Where the data have energies (a flow's density of positions), the variance of their difference to the force
        field's is added with this weight, each term in units of what the prior alone leaves; 0 for forces alone. Forces
        fix the weight of a basin only by way of its barriers, energies do it directly.
    validation_fraction : float
        Share of the data that is held out: the weights kept are those (averaged ones) that do best on it, since
        noisy forces are soon learned by heart.
    progress : bool
        A line now and then on stderr.

    Returns
    -------
    CGNet
        In evaluation mode, with the Lipschitz bound folded in.

    Raises
    ------
    InputError
        An unknown method, or forces missing.
    TrajectoryError
        Data without width, or of wrong weights.
    TrainingError
        Too little data, or a loss that is not finite.
    NonFiniteError
        Forces that are not finite.
    """
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if len(data.positions) < 20:
        raise TrainingError(f"{len(data.positions)} samples are too few to fit a force field to")
    plan = train_settings or student_train_settings(len(data.positions), method)
    positions = np.asarray(data.positions, dtype=np.float64)
    weights = getattr(data, "weights", None)
    weights = np.ones(len(positions)) if weights is None else np.asarray(weights, dtype=np.float64)
    net = CGNet.from_data(positions, data.topology, data.temperature, settings, weights, plan.seed)
    # Samples of a flow are drawn again by whoever goes on, and not everywhere to the last bit.
    told = [len(positions), *(f"{np.std(x):.4g}" for x in (positions, getattr(data, "forces", None)) if x is not None)]
    identity = {
        "method": method, "settings": asdict(net.settings), "data": getattr(data, "fingerprint", told),
        "energy weight": energy_weight, "held out": validation_fraction,
    }  # fmt: skip
    if method == "density":
        density = _Density(net, positions, weights, plan)
        net.train()
        train(net.mlp, density, TensorBatches([density.inputs, density.weights], plan.batch_size, plan.seed), plan,
              folder, identity=identity, progress=progress)  # fmt: skip
        return net.fold()
    if data.forces is None:
        raise InputError(f"{method} needs forces, and the data hold none")
    forces = np.asarray(data.forces, dtype=np.float64)
    if not np.isfinite(forces).all():
        raise NonFiniteError("forces of the data are not finite")
    order = np.random.default_rng(plan.seed).permutation(len(positions))
    held = min(max(1, round(validation_fraction * len(order))), _MOST_HELD)
    energies = getattr(data, "energies", None) if energy_weight > 0.0 else None
    if energies is not None and not np.isfinite(energies).all():
        raise NonFiniteError("energies of the data are not finite")
    matching = _ForceMatching(net, positions, forces, weights, energies, energy_weight)
    net.mlp.train()
    train(
        net.mlp, matching, matching.batches(order[held:], plan.batch_size, plan.seed), replace(plan, keep_best=True),
        folder, validation=matching.batches(order[:held], held, 0), validation_batches=1,
        identity=identity, progress=progress,
    )  # fmt: skip
    return net.fold()


class _ForceMatching:
    """Mean square deviation of forces, in units of that of the prior alone; called with the MLP and a batch.

    Features and their Jacobian J are fixed for fixed frames, and the force of the network is -Jᵀ dy/dz: with J stored,
    a step needs the network's gradient alone. Sets too large for that have Jᵀ applied by differentiation. Energies, if
    there are any, add the variance of their difference, in units of that of the prior alone.
    """

    def __init__(
        self,
        net: CGNet,
        positions: np.ndarray,
        forces: np.ndarray,
        weights: np.ndarray,
        energies: np.ndarray | None = None,
        energy_weight: float = 1.0,
    ) -> None:
        x = torch.from_numpy(positions)
        self.geometry, self.mean, self.scale = net.geometry, net.mean, net.scale
        prior_energies, prior_forces = _prior(net, x)
        rest = torch.from_numpy(forces) - prior_forces
        share = torch.from_numpy(weights / weights.mean())
        # Overlapping beads have forces of the prior beyond all bounds and a weight of next to nothing: left in the
        # unit, they would shrink the loss until no gradient is left, and 0 · ∞ is not a number.
        rest[share < _NEGLIGIBLE] = 0.0
        self.unit = float((share * rest.square().mean((1, 2))).mean())
        self.kT = net.kT
        target, w = (rest / net.kT).flatten(1).float(), share.float()
        self.energy_weight = 0.0 if energies is None else energy_weight
        height = torch.zeros(len(x), dtype=torch.float64)
        if energies is not None:
            height = (torch.from_numpy(energies) - prior_energies) / net.kT
            height[share < _NEGLIGIBLE] = 0.0
            height -= (share * height).mean() / share.mean()
        self.energy_unit = float((share * height.square()).mean()) or 1.0
        n_features = net.index.n_features
        self.stored = len(x) * n_features * target.shape[1] * 4 <= _MEMORY
        self.tensors: Sequence[Tensor]
        if self.stored:
            size = max(1, 4_000_000 // (n_features * target.shape[1]))
            parts = [features_and_jacobian(net.geometry, part, size) for part in x.split(size)]
            z = torch.cat([((f - net.mean) * net.scale).float() for f, _ in parts])
            jacobian = torch.cat([(j * net.scale[:, None]).float() for _, j in parts])
            self.tensors = (target, w, height.float(), z, jacobian)
        else:
            self.tensors = (target, w, height.float(), x)

    def batches(self, rows: np.ndarray, size: int, seed: int) -> TensorBatches:
        """Batches of some of the data."""
        index = torch.from_numpy(rows)
        return TensorBatches([t[index] for t in self.tensors], size, seed)

    def __call__(self, mlp: nn.Module, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        target, w, height = batch[:3]
        dtype = next(mlp.parameters()).dtype
        if self.stored:
            z, jacobian = batch[3:]
            y, slope = mlp.with_gradient(z.to(dtype))  # type: ignore[operator]
            forces = -torch.bmm(slope.unsqueeze(1), jacobian.to(dtype)).squeeze(1)
        else:
            with torch.enable_grad():
                x = batch[3].clone().requires_grad_(True)
                mean, scale = self.mean.to(x), self.scale.to(x)
                z = (self.geometry.to(x.device)(x).features - mean) * scale
                y, slope = mlp.with_gradient(z.detach().to(dtype))  # type: ignore[operator]
                (pull,) = torch.autograd.grad(z, x, slope.to(x.dtype), create_graph=True)
            forces = -pull.flatten(1).to(dtype)
        error = (w * (forces - target).square().mean(1)).mean() * self.kT**2 / self.unit
        if not self.energy_weight:
            return {"loss": error}
        off = y - height
        off = off - (w * off).sum() / w.sum()  # the zero of energy is free
        spread = (w * off.square()).mean() / self.energy_unit
        return {"loss": error + self.energy_weight * spread, "forces": error, "energies": spread}


def _prior(net: CGNet, x: Tensor) -> tuple[Tensor, Tensor]:
    """Energies and forces of the prior."""
    parts = []
    for part in x.split(4096):
        part = part.clone().requires_grad_(True)
        energies = net.prior(net.geometry(part))
        (gradient,) = torch.autograd.grad(energies.sum(), part)
        parts.append((energies.detach(), -gradient))
    energies, forces = (torch.cat(x) for x in zip(*parts))
    return energies, forces


class _Density:
    """⟨y⟩ over the frames minus ⟨y⟩ over replicas of the model: the gradient of the mean negative log likelihood."""

    REPLICAS = 512
    STEPS = 20

    def __init__(self, net: CGNet, positions: np.ndarray, weights: np.ndarray, plan: TrainSettings) -> None:
        self.net = net
        self.weights = torch.from_numpy(weights / weights.mean()).float()
        self.inputs = self._features(positions)
        rng = np.random.default_rng(plan.seed)
        start = positions[rng.choice(len(positions), self.REPLICAS, p=weights / weights.sum())]
        # Five times the usual friction is still light, and forgets the start sooner.
        self.replicas = Langevin(
            net.energy_and_forces, start, net.topology.masses, net.temperature, friction=5e-3, seed=plan.seed
        )

    def _features(self, positions: np.ndarray) -> Tensor:
        with torch.no_grad():
            features = self.net.geometry(torch.from_numpy(positions)).features
            return ((features - self.net.mean) * self.net.scale).float()

    def __call__(self, mlp: nn.Module, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        from molflow_sim.cg.student.fused import FusedCGNet

        z, w = batch
        if mlp.training:
            self.replicas.energy_and_forces = FusedCGNet(self.net)
            self.replicas.run(self.STEPS)
        own = self._features(self.replicas.positions).to(z.device)
        y = mlp(torch.cat([z, own]))
        data, model = (w * y[: len(z)]).sum() / w.sum(), y[len(z) :].mean()
        # The difference alone leaves the zero of energy free to drift.
        return {"loss": data - model + 1e-4 * (data + model).square(), "data": data, "model": model}
