"""A CGnet with its forces written out in few torch operations, for export as TorchScript.

For a handful of beads the time of a step is the number of operations, not their size. The module as it is trained takes
some two hundred, and autograd as many again. Here every oriented vector comes from one product with a constant matrix,
all forces go back through its transpose, constants are folded together, and nothing is recorded for differentiation.
The functions are those of `molflow_sim.cg.student.features`, `prior` and `mlp`; tests hold them together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from molflow_sim.cg.student.features import COLLINEAR, FeatureIndex

if TYPE_CHECKING:
    from molflow_sim.cg.student.cgnet import CGNet


class ScriptedCGNet(nn.Module):
    """Energy and forces of a CGnet for a fixed number of molecules, without autograd; to be traced.

    Parameters
    ----------
    model : CGNet
        Its weights are copied with the Lipschitz bound folded in.
    replicas : int
        Copies of the molecule, R.
    precision : str
        "double" or "single", of the network alone: features, prior and sums are always double.
    length : float
        Å in the positions' unit of length.
    energy : float
        eV in the energy's unit.

    Notes
    -----
    Arrays have the shape (rows, R). With unit vectors u, v, w along a torsion, x = u·v, y = v·w, z = w·u and
    t = (u × v)·w, its sine and cosine are t s and (x y - z) s with s = [(1 + c - x²)(1 + c - y²)]^(-1/2), where c fades
    them out across collinear beads. Each of the three vectors is there three times, once for every place it takes in
    (u, v, w), (v, w, u) and (w, u, v): one cross product then gives t and its three derivatives.
    """

    oriented: Tensor
    back: Tensor
    one: Tensor
    harmonic: Tensor
    centre: Tensor
    sigma: Tensor
    shift: Tensor
    scale: Tensor
    output: Tensor

    def __init__(self, model: CGNet, replicas: int, precision: str, length: float = 1.0, energy: float = 1.0) -> None:
        super().__init__()
        index, prior = model.index, model.prior
        self.replicas, self.n_beads = replicas, model.topology.n_beads
        self.pairs, self.angles, self.torsions = len(index.pairs), len(index.angles), len(index.torsions)
        self.exponent = prior.settings.exponent
        self.double_network = precision == "double"
        was_training = model.training
        with torch.no_grad():
            *hidden, (w_out, b_out) = [(w.cpu(), b.cpu()) for w, b in model.eval().mlp.effective(torch.float64)]
            self._constants(model, oriented_vectors(index, self.n_beads), length, energy)
            scale, mean = model.scale.cpu(), model.mean.cpu()
            if self.double_network:
                weight, bias = hidden[0]
                hidden[0] = (weight * scale, bias - weight @ (scale * mean))
            self._keep("scale", scale[:, None])
            self._keep("shift", -(scale * mean)[:, None])
            dtype = torch.float64 if self.double_network else torch.float32
            self.depth = len(hidden)
            for n, (weight, bias) in enumerate(hidden):
                self._keep(f"weight_{n}", weight, dtype)
                self._keep(f"back_{n}", weight.T, dtype)
                self._keep(f"bias_{n}", bias if replicas == 1 else bias[:, None], dtype)
            self._keep("output", w_out[0] * model.kT / energy, dtype)
            self.offset = float(b_out) * model.kT / energy * replicas
        model.train(was_training)

    def _keep(self, name: str, value: Tensor, dtype: torch.dtype = torch.float64) -> None:
        self.register_buffer(name, value.detach().to("cpu", dtype).clone(memory_format=torch.contiguous_format))

    def _constants(self, model: CGNet, oriented: np.ndarray, length: float, energy: float) -> None:
        prior = model.prior
        self._keep("oriented", length * torch.from_numpy(oriented))
        self._keep("back", -length * torch.from_numpy(oriented).T)
        # One minus squares of dot products; those of the torsions' outer vectors are not used and must stay positive.
        one = torch.ones(self.angles + 3 * self.torsions, 1, dtype=torch.float64)
        one[self.angles :] += COLLINEAR**2
        one[self.angles + 2 * self.torsions :] = 2.0
        self._keep("one", one)
        # Bends are counted from the right angle: ½π - θ = arctan(cos θ / sin θ).
        harmonic = torch.zeros(2, self.pairs + self.angles, dtype=torch.float64)
        harmonic[:, prior.bonds.cpu()] = torch.stack([prior.bond_k, prior.bond_r]).cpu()
        harmonic[:, self.pairs :] = torch.stack([prior.angle_k, 0.5 * math.pi - prior.angle_theta]).cpu()
        self._keep("harmonic", harmonic[0, :, None] / energy)
        self._keep("centre", harmonic[1, :, None])
        sigma = torch.zeros(self.pairs, 1, dtype=torch.float64)
        sigma[prior.repelling.cpu(), 0] = (prior.sigma * (prior.strength / energy) ** (1.0 / self.exponent)).cpu()
        self._keep("sigma", sigma)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Total energy, a scalar, and forces, both float64, of positions of shape (R × B, 3)."""
        copies, n_beads, angles, torsions = self.replicas, self.n_beads, self.angles, self.torsions
        x = positions.to(torch.float64)
        if copies > 1:
            x = x.view(copies, n_beads, 3).transpose(0, 1).reshape(n_beads, 3 * copies)
        dots = angles + 3 * torsions
        rows = self.pairs + 2 * dots + 3 * torsions
        # No size is left to be inferred: the compiler of torch 2.9 gets that wrong at times.
        vectors = torch.mm(self.oriented, x).view(rows, copies, 3)
        distance = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        unit = vectors / distance
        direction, rest = unit.split([self.pairs, rows - self.pairs])
        left, right, third = rest.split([dots, dots, 3 * torsions])
        length, length_rest = distance.split([self.pairs, rows - self.pairs])
        length = length.squeeze(-1)

        dot = (left * right).sum(-1)
        normal = torch.linalg.cross(left[angles:], right[angles:], dim=-1)
        triple = (normal[:torsions] * third[:torsions]).sum(-1)
        square = torch.addcmul(self.one, dot, dot, value=-1.0).clamp_min(1e-24)
        root = square.rsqrt()
        cosine, inner, outer = dot.split([angles, 2 * torsions, torsions])
        root_angle, root_first, root_second, _ = root.split([angles, torsions, torsions, torsions])
        first, second = inner.split([torsions, torsions])
        s = root_first * root_second
        torsion_sine, torsion_cosine = triple * s, (first * second - outer) * s
        features = torch.cat([length, cosine, torsion_sine, torsion_cosine])

        off = torch.cat([length, torch.atan(cosine * root_angle)]) - self.centre
        pull = self.harmonic * off
        repulsion = (self.sigma / length).pow(self.exponent)
        pull_bond, pull_angle = pull.split([self.pairs, angles])
        by_length = torch.addcdiv(pull_bond, repulsion, length, value=-float(self.exponent))

        network, slope = self._network(features)
        prior = torch.add(repulsion.sum(), (pull * off).sum(), alpha=0.5)
        energy = prior + network + self.offset

        slope_length, slope_cosine, by_sine, by_cosine = slope.split([self.pairs, angles, torsions, torsions])
        whole = by_sine * torsion_sine + by_cosine * torsion_cosine
        p = by_cosine * s
        by_dot = torch.cat([
            torch.addcmul(slope_cosine, pull_angle, root_angle),
            torch.addcmul(p * second, whole, first * root_first * root_first),
            torch.addcmul(p * first, whole, second * root_second * root_second),
            -p,
        ]).unsqueeze(-1)  # fmt: skip
        by_triple = (by_sine * s).view(1, torsions, copies, 1) * normal.view(3, torsions, copies, 3)
        by_unit = torch.cat([by_dot * right, by_dot * left, by_triple.view(3 * torsions, copies, 3)])
        along = (by_unit * rest).sum(-1, keepdim=True)
        across = torch.addcmul(by_unit, along, rest, value=-1.0) / length_rest
        radial = (slope_length + by_length).unsqueeze(-1) * direction
        forces = torch.mm(self.back, torch.cat([radial, across]).view(rows, 3 * copies))
        if copies > 1:
            forces = forces.view(n_beads, copies, 3).transpose(0, 1).reshape(copies * n_beads, 3)
        return energy, forces

    def _network(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the network's energies without the last bias, and the derivatives by the features (nf, R)."""
        z = features
        if not self.double_network:
            z = torch.addcmul(self.shift, z, self.scale).to(torch.float32)
        product: Callable[..., Tensor] = torch.addmm
        if self.replicas == 1:
            z, product = z.squeeze(-1), torch.addmv
        w, back, b = ([getattr(self, f"{kind}_{n}") for n in range(self.depth)] for kind in ("weight", "back", "bias"))
        images = [torch.tanh(product(b[0], w[0], z))]
        h = images[0]
        for n in range(1, self.depth):
            images.append(torch.tanh(product(b[n], w[n], h)))
            h = h + images[n]
        if self.replicas == 1:
            energy, g = torch.dot(self.output, h), self.output
        else:
            energy, g = torch.mv(h.T, self.output), self.output.unsqueeze(-1).expand_as(h)
        for n in range(self.depth - 1, 0, -1):
            g = product(g, back[n], torch.ops.aten.tanh_backward(g, images[n]))
        g = torch.ops.aten.tanh_backward(g, images[0])
        slope = torch.mv(back[0], g).unsqueeze(-1) if self.replicas == 1 else torch.mm(back[0], g)
        if not self.double_network:
            energy, slope = energy.to(torch.float64), slope * self.scale
        return energy if self.replicas == 1 else energy.sum(), slope


class _Wrapped(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class EnergyAndForces(_Wrapped):
    """A traced module of energy and forces run without recording; to be scripted.

    TorchForce asks for gradients by the positions even where it will not use them, and the compiler of TorchScript
    would then prepare the derivative of everything, whatever was detached while tracing.
    """

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Energy and forces."""
        with torch.no_grad():
            energy, forces = self.module(positions)
        return energy, forces


class EnergyOf(_Wrapped):
    """The energy alone, whose gradient is the given forces: one step of autograd instead of hundreds; to be scripted.

    Second derivatives are not there; asking autograd for them is an error, not a zero.
    """

    def forward(self, positions: Tensor) -> Tensor:
        """Energy, a scalar."""
        with torch.no_grad():
            energy, forces = self.module(positions)
            here = positions.clone()
        # The difference is zero and has the right slope.
        return energy + ((here - positions) * forces).sum()


def oriented_vectors(index: FeatureIndex, n_beads: int) -> np.ndarray:
    """Matrix that takes positions to all pairs' vectors and to those of angles and torsions, shape (rows, B).

    Rows: the pairs; for the angles and for (u, v, w) of each torsion the first vector of each dot product; the second;
    and for the torsions w, u, v once more.
    """
    vector = np.zeros((len(index.pairs), n_beads))
    rows = np.arange(len(index.pairs))
    vector[rows, index.pairs[:, 0]], vector[rows, index.pairs[:, 1]] = -1.0, 1.0
    a, b = (index.angle_signs[:, k, None] * vector[index.angles[:, k]] for k in range(2))
    u, v, w = (index.torsion_signs[:, k, None] * vector[index.torsions[:, k]] for k in range(3))
    return np.concatenate([vector, a, u, v, w, b, v, w, u, w, u, v])
