"""The network over molecules: a periodic graph in which every molecule of the cell talks to every other.

After DiffCSP (Jiao et al., NeurIPS 2023): messages between all pairs (a molecule and itself included) with Fourier
features of the fractional differences and the lattice's metric L Lᵀ. These and the relative rotations RᵢᵀRⱼ are the
same when all molecules turn together against the cell, so that they cannot tell such crystals apart. Two features
can: the lattice seen from each molecule, Rᵢᵀ Lᵀ, and the directions to the neighbours' images seen from it.

Everything is expressed in the frames of the molecules or of the lattice: velocities turn with the crystal, do not
depend on χ within one hand, on the origin, or on the order of the molecules.
"""

from __future__ import annotations

import math
from itertools import product

import roma
import torch
from torch import Tensor, nn

from molflow_sim.flow.manifolds import to_space, wrap
from molflow_sim.models.mol_crystal_flow.batch import P1Batch, Poses, standard_frame
from molflow_sim.models.mol_crystal_flow.embedder import MoleculeEmbedder
from molflow_sim.models.mol_crystal_flow.features import N_FEATURES
from molflow_sim.models.mol_crystal_flow.interpolants import Velocities, without_mean
from molflow_sim.models.mol_crystal_flow.settings import P1Settings
from molflow_sim.nn.mlp import mlp

Embedding = tuple[Tensor, Tensor, Tensor]


class MessageLayer(nn.Module):
    """Messages between all pairs of a crystal's molecules."""

    def __init__(self, width: int, edge_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.receiver = nn.Linear(width, width, bias=False)
        self.sender = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(edge_width, width)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.update = mlp(2 * width, width, width)

    def forward(self, h: Tensor, edges: Tensor, pairs: Tensor) -> Tensor:
        """Features (B, M, width), edges (B, M, M, edge_width), pairs (B, M, M) of 1 and 0."""
        z = self.norm(h)
        message = self.message(self.receiver(z).unsqueeze(2) + self.sender(z).unsqueeze(1) + self.edge(edges))
        count = pairs.sum(2).clamp_min(1.0).unsqueeze(-1)
        mean = (message * pairs.unsqueeze(-1)).sum(2) / count
        return h + self.update(torch.cat([z, mean], -1))


class P1Network(nn.Module):
    """Velocities of cell, centroids and orientations."""

    def __init__(self, settings: P1Settings) -> None:
        super().__init__()
        s = self.settings = settings
        self.embedder = MoleculeEmbedder(s.embedder_layers, s.embedder_width, s.embedder_cutoff, s.body_tensors)
        body = s.embedder_width + N_FEATURES + 9 * s.body_tensors + 2
        self.node = mlp(body + s.time_width + 9 + 7, s.width, s.width)
        edge = 6 * s.frequencies + 6 + 3 + 9 + 6 * s.radial
        self.layers = nn.ModuleList(MessageLayer(s.width, edge) for _ in range(s.layers))
        self.norm = nn.LayerNorm(s.width)
        self.centroid = nn.Sequential(nn.Linear(s.width, s.width), nn.SiLU(), nn.Linear(s.width, 3, bias=False))
        self.rotation = nn.Sequential(nn.Linear(s.width, s.width), nn.SiLU(), nn.Linear(s.width, 3, bias=False))
        self.lattice = nn.Sequential(nn.Linear(s.width, s.width), nn.SiLU(), nn.Linear(s.width, 6, bias=False))

    def forward(self, batch: P1Batch, t: Tensor, embedding: Embedding | None = None) -> Velocities:
        """Velocities at times t (B,).

        Parameters
        ----------
        batch : P1Batch
            Any χ, any Cartesian frame.
        t : Tensor, shape (B,)
        embedding : tuple of Tensor, optional
            What `embedder` gave for ``batch.shapes``, to use it again.
        """
        # Geometry keeps its precision where autocast lowers that of the layers.
        with torch.autocast(t.device.type, enabled=False):
            poses = batch.poses.standard()
            mask = batch.mask.to(t.dtype)
            scale = batch.volume.clamp_min(1.0).pow(1.0 / 3.0)
            known = self._known(batch, poses, t, scale)
            edges = self._edges(poses, scale)
        h = self.node(torch.cat([known, self._bodies(batch, poses.hand, embedding).to(t.dtype)], -1))
        pairs = mask.unsqueeze(1) * mask.unsqueeze(2)
        for layer in self.layers:
            h = layer(h, edges, pairs)
        h = self.norm(h)
        pooled = (h * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp_min(1.0)
        frac, omega, cell = (x.to(t.dtype) for x in (self.centroid(h), self.rotation(h), self.lattice(pooled)))
        with torch.autocast(t.device.type, enabled=False):
            # Back from the standard frame to the one that was given.
            _, turn = standard_frame(batch.poses.cell)
            omega = (to_space(poses.rotation, omega) * mask.unsqueeze(-1)) @ turn
            return Velocities(
                _lower_triangular(cell) * scale[:, None, None] @ turn, without_mean(frac, batch.mask), omega
            )

    def _known(self, batch: P1Batch, poses: Poses, t: Tensor, scale: Tensor) -> Tensor:
        """What is known of every molecule without looking at its atoms (B, M, ...)."""
        fill = torch.log(torch.linalg.det(poses.cell).abs().clamp_min(1e-6) / scale**3)
        crystal = torch.cat(
            [_fourier_time(t, self.settings.time_width), _metric(poses.cell, scale), fill.unsqueeze(-1)], -1
        )
        seen = (poses.cell.unsqueeze(1) / scale[:, None, None, None]) @ poses.rotation  # rows: Rᵀ a, Rᵀ b, Rᵀ c
        own = batch.shapes.volume[batch.species] / 200.0
        crystal = crystal.unsqueeze(1).expand(-1, own.shape[1], -1)
        invariants = batch.shapes.invariants[batch.species]
        return torch.cat([crystal, seen.flatten(-2), poses.hand.unsqueeze(-1), own.unsqueeze(-1), invariants], -1)

    def _bodies(self, batch: P1Batch, hand: Tensor, embedding: Embedding | None) -> Tensor:
        """What the embedder says of every molecule (B, M, ...), mirrored where the molecule is."""
        features, vectors, quadrupoles = self.embedder(batch.shapes) if embedding is None else embedding
        parts = [features[batch.species]]
        if self.settings.body_tensors:
            flip = torch.stack([torch.ones_like(hand), torch.ones_like(hand), hand], -1).unsqueeze(-2)
            q = quadrupoles[batch.species] * flip.unsqueeze(-1) * flip.unsqueeze(-2)
            rows, columns = torch.tril_indices(3, 3)
            parts += [(vectors[batch.species] * flip).flatten(-2), q[..., rows, columns].flatten(-2)]
        return torch.cat(parts, -1)

    def _edges(self, poses: Poses, scale: Tensor) -> Tensor:
        """Features (B, M, M, edge_width) of what molecule i sees of molecule j."""
        s = self.settings
        m = poses.frac.shape[1]
        delta = wrap(poses.frac.unsqueeze(1) - poses.frac.unsqueeze(2))  # from i to j
        k = 2.0 * math.pi * torch.arange(1, s.frequencies + 1, dtype=delta.dtype, device=delta.device)
        phase = (delta.unsqueeze(-1) * k).flatten(-2)
        relative = poses.rotation.transpose(-1, -2).unsqueeze(2) @ poses.rotation.unsqueeze(1)
        metric = _metric(poses.cell, scale)[:, None, None].expand(-1, m, m, -1)
        turn = roma.rotmat_to_rotvec(relative) / math.pi
        parts = [torch.sin(phase), torch.cos(phase), metric, turn, relative.flatten(-2)]
        if s.radial:
            parts.append(self._directions(poses, delta, relative))
        return torch.cat(parts, -1)

    def _directions(self, poses: Poses, delta: Tensor, relative: Tensor) -> Tensor:
        """Sums over images of unit vectors from i to j, weighted by functions of the distance (B, M, M, 6 radial).

        Seen from i and from j; the weights vanish smoothly at the cutoff, so that the sums are periodic and smooth.
        """
        s = self.settings
        span = range(-s.images, s.images + 1)
        shifts = torch.tensor(list(product(span, repeat=3)), dtype=delta.dtype, device=delta.device)
        vectors = (delta.unsqueeze(-2) + shifts) @ poses.cell[:, None, None]
        r = torch.linalg.vector_norm(vectors, dim=-1)
        centres = torch.linspace(2.0, s.image_cutoff - 1.0, s.radial, dtype=r.dtype, device=r.device)
        spacing = (s.image_cutoff - 3.0) / max(1, s.radial - 1)
        shape = torch.exp(-(((r.unsqueeze(-1) - centres) / spacing) ** 2))
        # In thin cells the images looked at end before the cutoff: a shorter reach keeps the sums periodic.
        a, b, c = poses.cell.unbind(-2)
        faces = torch.stack([torch.linalg.cross(*pair) for pair in ((b, c), (c, a), (a, b))], -2)
        heights = torch.linalg.det(poses.cell).abs().unsqueeze(-1) / faces.norm(dim=-1).clamp_min(1e-6)
        limit = ((s.images + 0.5) * heights.amin(-1)).clamp_max(s.image_cutoff)[:, None, None, None]
        reach = (1.0 - (r / limit).clamp_max(1.0) ** 2) ** 2
        # Directions lose their meaning at zero distance, where a molecule meets itself.
        weight = (reach * (1.0 - torch.exp(-(r**2)))).unsqueeze(-1) * shape / r.clamp_min(1e-3).unsqueeze(-1)
        summed = torch.einsum("bijsk,bijsx->bijkx", weight, vectors)
        from_i = summed @ poses.rotation.unsqueeze(2)
        from_j = from_i @ relative
        return torch.cat([from_i, from_j], -1).flatten(-2)


def _metric(cell: Tensor, scale: Tensor) -> Tensor:
    """L Lᵀ (B, 6), lower triangle, in units of `scale`²."""
    g = cell @ cell.transpose(-1, -2) / (scale**2)[:, None, None]
    rows, columns = torch.tril_indices(3, 3)
    return g[:, rows, columns]


def _lower_triangular(values: Tensor) -> Tensor:
    """(B, 6) as the lower triangles of (B, 3, 3)."""
    a, b, c, d, e, f = values.unbind(-1)
    zero = torch.zeros_like(a)
    rows = [torch.stack(r, -1) for r in ((a, zero, zero), (b, c, zero), (d, e, f))]
    return torch.stack(rows, -2)


def _fourier_time(t: Tensor, width: int) -> Tensor:
    """Sines and cosines (B, width) of the time."""
    half = width // 2
    k = torch.exp(torch.linspace(0.0, math.log(100.0), half, dtype=t.dtype, device=t.device))
    phase = t.unsqueeze(-1) * k
    parts = [torch.sin(phase), torch.cos(phase)]
    if width % 2:
        parts.append(t.unsqueeze(-1))
    return torch.cat(parts, -1)
