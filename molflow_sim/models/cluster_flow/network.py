"""PaiNN on atoms, and between each two rounds on the centres of molecules, which see each other from afar."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from molflow_sim.models.cluster_flow.batch import ClusterBatch, near_pairs
from molflow_sim.models.cluster_flow.settings import ClusterFlowSettings
from molflow_sim.nn.egnn import gathered
from molflow_sim.nn.mlp import mlp
from molflow_sim.nn.painn import PaiNNLayer
from molflow_sim.nn.radial import GaussianBasis, polynomial_envelope

MAX_NUMBER = 100
"""Atomic numbers below it have an embedding."""


class ClusterNetwork(nn.Module):
    """Vectors (n, 3) of atoms, equivariant to rotations and reflections, blind to translations and order.

    Parameters
    ----------
    settings : ClusterFlowSettings
        ``rigid`` projects the vectors on rigid motions of the molecules; ``ve`` and ``vp``, which begin with noise, see
        the loose molecules besides.
    """

    rates: Tensor

    def __init__(self, settings: ClusterFlowSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.rigid, self.noisy = s.variant == "rigid", s.variant in ("ve", "vp")
        self.embed = nn.Embedding(MAX_NUMBER, s.width)
        self.clock = mlp(8, s.width, s.width)
        self.began = nn.Linear(1, s.width, bias=False)
        self.basis = GaussianBasis(s.radial, s.cutoff)
        self.far_basis = GaussianBasis(s.radial, s.centre_cutoff)
        self.atoms = nn.ModuleList([PaiNNLayer(s.width, 2 * s.radial, 24.0) for _ in range(s.layers)])
        self.centres = nn.ModuleList([PaiNNLayer(s.width, s.radial, 16.0) for _ in range(s.layers)])
        self.down = nn.ModuleList([nn.Linear(s.width, s.width) for _ in range(s.layers)])
        self.down_vector = nn.ModuleList([nn.Linear(s.width, s.width, bias=False) for _ in range(s.layers)])
        self.norm = nn.LayerNorm(s.width)
        self.gate = mlp(s.width, s.width, s.width)
        self.register_buffer("rates", torch.arange(1, 5) * torch.pi, persistent=False)

    def forward(self, batch: ClusterBatch) -> Tensor:
        """Velocities (n, 3) of the atoms in Å per unit time."""
        x, molecule = batch.position, batch.molecule
        m = len(batch.cluster)
        size = torch.bincount(molecule, minlength=m).to(x.dtype).unsqueeze(-1)
        centre = gathered(x, molecule, m) / size
        near, far = (
            _edges(x, batch.owner, self.settings.cutoff),
            _edges(centre, batch.cluster, self.settings.centre_cutoff),
        )
        inside = (molecule[near[0][0]] == molecule[near[0][1]]).to(x.dtype).unsqueeze(-1)
        basis = self.basis(near[1])
        near_features = torch.cat([basis * inside, basis * (1.0 - inside)], -1)
        far_features = self.far_basis(far[1])
        near_weight = polynomial_envelope(near[1] / self.settings.cutoff)
        far_weight = polynomial_envelope(far[1] / self.settings.centre_cutoff)
        t = batch.time.unsqueeze(-1) * self.rates.to(x)
        clock = self.clock(torch.cat([torch.sin(t), torch.cos(t)], -1))
        s = self.embed(batch.numbers) + clock[batch.owner]
        v = x.new_zeros(*x.shape, s.shape[-1])
        if self.noisy:
            v = v + self.began((x - batch.start).unsqueeze(-1) / self.settings.cutoff)
        layers = zip(self.atoms, self.centres, self.down, self.down_vector)
        for atoms, centres, down, down_vector in layers:
            s, v = atoms(s, v, near[0], near_features, near_weight, near[2])
            pooled = gathered(s, molecule, m) / size, gathered(v, molecule, m) / size.unsqueeze(-1)
            far_s, far_v = centres(*pooled, far[0], far_features, far_weight, far[2])
            s, v = s + down(far_s)[molecule], v + down_vector(far_v)[molecule]
        out = (v * self.gate(self.norm(s)).unsqueeze(1)).sum(-1)
        return rigid_motion(out, x - centre[molecule], molecule, m) if self.rigid else out


def rigid_motion(vectors: Tensor, arm: Tensor, molecule: Tensor, m: int) -> Tensor:
    """The rigid motions (n, 3) of molecules that are closest to their atoms' vectors.

    The sum of the vectors of a molecule is its force, that of arm × vector its torque; divided by number of atoms and
    by the (geometric) tensor of inertia they give a velocity and an angular velocity.

    Parameters
    ----------
    vectors : Tensor (n, 3)
    arm : Tensor (n, 3)
        From the centre of the molecule, Å.
    molecule : Tensor of long (n,)
    m : int
        Molecules.
    """
    size = torch.bincount(molecule, minlength=m).to(arm.dtype).unsqueeze(-1)
    mean = gathered(vectors, molecule, m) / size
    torque = gathered(torch.linalg.cross(arm, vectors), molecule, m)
    eye = torch.eye(3, dtype=arm.dtype, device=arm.device)
    squares = (arm * arm).sum(-1)[:, None, None] * eye - arm.unsqueeze(-1) * arm.unsqueeze(-2)
    # 0.01 Å²: a linear molecule does not turn about its axis, and a lone atom not at all
    inertia = gathered(squares, molecule, m) + 0.01 * eye
    omega = torch.linalg.solve(inertia, torque)
    return mean[molecule] + torch.linalg.cross(omega[molecule], arm)


def _edges(x: Tensor, group: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (2, E), their lengths (E,) and unit vectors (E, 3) from senders to receivers."""
    pairs = near_pairs(x, group, cutoff)
    delta = x[pairs[0]] - x[pairs[1]]
    length = torch.linalg.vector_norm(delta, dim=-1).clamp_min(1e-6)
    return pairs, length, delta / length.unsqueeze(-1)
