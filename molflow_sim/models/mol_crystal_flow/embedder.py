"""What a molecule looks like: an E(n)-equivariant graph network over its atoms, pooled by attention.

Source: Satorras, Hoogeboom, Welling, "E(n) equivariant graph neural networks" (2021), eqs. 3-6, with a smooth cutoff.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from molflow_sim.models.mol_crystal_flow.batch import Shapes

MAX_NUMBER = 100
"""Atomic numbers known to the embedding."""


class EgnnLayer(nn.Module):
    """One round of messages between atoms closer than a cutoff, moving features and coordinates."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The messages' first layer, written as a sum: most of its work is then done once an atom, not once a pair.
        self.receiver = nn.Linear(width, width)
        self.sender = nn.Linear(width, width, bias=False)
        self.squared = nn.Linear(1, width, bias=False)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.gate = nn.Linear(width, 1)
        self.shift = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1, bias=False))
        self.update = mlp(2 * width, width, width)

    def forward(self, h: Tensor, x: Tensor, envelope: Tensor) -> tuple[Tensor, Tensor]:
        """Features (U, N, width), coordinates (U, N, 3) in units of the cutoff, envelope (U, N, N)."""
        delta = x.unsqueeze(2) - x.unsqueeze(1)
        squared = delta.pow(2).sum(-1, keepdim=True)
        message = self.message(self.receiver(h).unsqueeze(2) + self.sender(h).unsqueeze(1) + self.squared(squared))
        message = message * torch.sigmoid(self.gate(message)) * envelope.unsqueeze(-1)
        step = (delta * torch.tanh(self.shift(message)) * envelope.unsqueeze(-1)).sum(2)
        neighbours = envelope.sum(2, keepdim=True).clamp_min(1.0)
        h = h + self.update(torch.cat([h, message.sum(2) / neighbours.sqrt()], -1))
        return h, x + step / neighbours


class MoleculeEmbedder(nn.Module):
    """Invariant features of rigid shapes, and optionally vectors and quadrupoles in the body frame.

    Parameters
    ----------
    layers, width : int
    cutoff : float
        Å.
    tensors : int
        How many body vectors and quadrupoles; 0 for none.
    """

    def __init__(self, layers: int = 6, width: int = 64, cutoff: float = 6.0, tensors: int = 0) -> None:
        super().__init__()
        self.cutoff, self.tensors, self.width = cutoff, tensors, width
        self.embedding = nn.Embedding(MAX_NUMBER + 1, width, padding_idx=0)
        self.layers = nn.ModuleList(EgnnLayer(width) for _ in range(layers))
        self.attention = nn.Linear(width, 1)
        self.value = nn.Linear(width, width)
        self.moments = nn.Linear(width, 2 * tensors) if tensors else None

    def forward(self, shapes: Shapes) -> tuple[Tensor, Tensor, Tensor]:
        """Embed the U shapes.

        Returns
        -------
        features : Tensor, shape (U, width)
            The same for a shape in any frame and for its mirror image.
        vectors : Tensor, shape (U, tensors, 3)
            Turn (and are reflected) with the shape.
        quadrupoles : Tensor, shape (U, tensors, 3, 3)
            Symmetric; as vectors.
        """
        atom = shapes.numbers > 0
        mask = atom.to(shapes.positions.dtype)
        x = shapes.positions / self.cutoff
        r = torch.linalg.vector_norm(x.unsqueeze(2) - x.unsqueeze(1), dim=-1)
        inside = (1.0 - r.clamp_max(1.0) ** 2) ** 2
        others = 1.0 - torch.eye(r.shape[-1], dtype=r.dtype, device=r.device)
        envelope = inside * others * mask.unsqueeze(1) * mask.unsqueeze(2)
        h = self.embedding(shapes.numbers.clamp(0, MAX_NUMBER))
        moving = x
        for layer in self.layers:
            h, moving = layer(h, moving, envelope)
        score = self.attention(h).squeeze(-1).masked_fill(~atom, -torch.inf)
        share = torch.softmax(score, -1).unsqueeze(-1)
        features = (share * self.value(h)).sum(1)
        if self.moments is None:
            empty = x.new_zeros(len(x), 0, 3)
            return features, empty, x.new_zeros(len(x), 0, 3, 3)
        weight = self.moments(h) * mask.unsqueeze(-1) / mask.sum(1).sqrt()[:, None, None]
        first, second = weight.chunk(2, -1)
        vectors = torch.einsum("unk,uni->uki", first, x)
        quadrupoles = torch.einsum("unk,uni,unj->ukij", second, x, x)
        return features, vectors, quadrupoles


def mlp(inside: int, hidden: int, out: int) -> nn.Sequential:
    """Two linear layers with SiLU between."""
    return nn.Sequential(nn.Linear(inside, hidden), nn.SiLU(), nn.Linear(hidden, out))
