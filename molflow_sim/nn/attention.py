"""Attention in one direction: what one set of points reads from another of the same structure."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class DirectedAttention(nn.Module):
    """Receivers read senders by learned invariant weights; senders are not told of it.

    A sender that says nothing is always there, so that a receiver with no one to read reads that.

    Parameters
    ----------
    width : int
        Features of a point.
    heads : int
        Divides `width`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)

    def forward(self, receivers: Tensor, senders: Tensor, allowed: Tensor) -> Tensor:
        """What is read (S, r, width).

        Parameters
        ----------
        receivers : Tensor, shape (S, r, width)
        senders : Tensor, shape (S, s, width)
        allowed : Tensor of bool, shape (S, r, s)
            Who may read whom.
        """
        nobody = senders.new_zeros(len(senders), 1, senders.shape[-1])
        senders = torch.cat([senders, nobody], 1)
        open_to_all = allowed.new_ones(*allowed.shape[:-1], 1)
        mask = torch.cat([allowed, open_to_all], -1).unsqueeze(1)
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, receivers), (self.key, senders), (self.value, senders))
        )
        return scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(-2)
