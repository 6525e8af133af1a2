"""What a molecule looks like: an E(n)-equivariant graph network over its atoms, pooled by attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from molflow_sim.models.mol_crystal_flow.batch import Shapes
from molflow_sim.nn.egnn import EgnnLayer
from molflow_sim.nn.radial import polynomial_envelope

MAX_NUMBER = 100
"""Atomic numbers known to the embedding."""


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
        others = ~torch.eye(r.shape[-1], dtype=torch.bool, device=r.device)
        near = (r < 1.0) & atom.unsqueeze(1) & atom.unsqueeze(2) & others
        shape, into, out = near.nonzero(as_tuple=True)
        edges = torch.stack([into, out]) + shape * r.shape[-1]
        envelope = polynomial_envelope(r[near])
        h = self.embedding(shapes.numbers.clamp(0, MAX_NUMBER)).flatten(0, 1)
        moving = x.flatten(0, 1)
        for layer in self.layers:
            h, moving = layer(h, moving, edges, envelope)
        h = h.unflatten(0, atom.shape)
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
