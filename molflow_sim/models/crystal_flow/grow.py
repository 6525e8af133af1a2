"""A larger network that computes what a trained smaller one does, to go on training from."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from molflow_sim.errors import InputError
from molflow_sim.models.crystal_flow.network import ContactNetwork, ContactSettings

NOT_WIDENED_INPUTS = ("filter", "fade", "context.0")
"""Linear layers that read distances or the crystal's context, not atoms' scalars."""


def grown(network: ContactNetwork, wanted: ContactSettings, seed: int = 0) -> ContactNetwork:
    """The network with more scalars and more rounds of messages, and the same output.

    Every scalar is copied, and what reads it is shared out among the copies in unequal parts, so that training makes
    them differ; layer normalisation does not see copies. A new round begins by adding nothing. (The first is the
    widening of Chen, Goodfellow & Shlens, 2016, section 2.3, with random instead of equal parts.)

    Parameters
    ----------
    network : ContactNetwork
    wanted : ContactSettings
        Width and numbers of layers are taken from here where they exceed the network's; cutoffs and radial functions
        stay those of the network.
    seed : int
        Of the parts and of the new rounds.

    Returns
    -------
    ContactNetwork
        With weights of its own; of the network's size if nothing more is wanted.

    Raises
    ------
    InputError
        If the wanted width exceeds the network's and is not a multiple of it.
    """
    old = network.settings
    width = max(old.width, wanted.width)
    if width % old.width:
        raise InputError(f"a network of width {old.width} can be grown to multiples of it, not to {wanted.width}")
    settings = replace(
        old,
        width=width,
        inner_layers=max(old.inner_layers, wanted.inner_layers),
        outer_layers=max(old.outer_layers, wanted.outer_layers),
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = ContactNetwork(settings)
    source = dict(network.named_modules())
    for name, module in new.named_modules():
        with torch.no_grad():
            if name in source:
                _copy(name, source[name], module, width // old.width, generator)
            elif name.endswith("update.2") or name.startswith("pool."):
                nn.init.zeros_(module.weight)  # type: ignore[arg-type]
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return new


def _copy(name: str, old: nn.Module, new: nn.Module, copies: int, generator: torch.Generator) -> None:
    if isinstance(old, nn.Embedding) and isinstance(new, nn.Embedding):
        new.weight.copy_(old.weight.tile(1, copies))
    elif isinstance(old, nn.LayerNorm) and isinstance(new, nn.LayerNorm):
        new.weight.copy_(old.weight.tile(copies))
        new.bias.copy_(old.bias.tile(copies))
    elif isinstance(old, nn.Linear) and isinstance(new, nn.Linear):
        rows = 1 if name == "force.out" else copies
        weight = old.weight.tile(rows, 1)
        if not name.endswith(NOT_WIDENED_INPUTS):
            # An update reads an atom's own scalars and then what it was sent: two blocks of copies.
            blocks = weight.chunk(2, 1) if name.endswith("update.0") else (weight,)
            weight = torch.cat([_shared_out(block, copies, generator) for block in blocks], 1)
        new.weight.copy_(weight)
        if old.bias is not None:
            new.bias.copy_(old.bias.tile(rows))


def _shared_out(weight: Tensor, copies: int, generator: torch.Generator) -> Tensor:
    """Weights (out, copies · in) whose parts for the copies of an input add up to `weight` (out, in)."""
    part = torch.rand(copies, *weight.shape, generator=generator) + 0.5
    return torch.cat(list(weight * part / part.sum(0)), 1)
