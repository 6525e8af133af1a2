"""The weights of SO3LR, read from the wheel that carries them without importing it.

SO3LR: A. Kabylda, J. T. Frank, S. Suárez-Dou, A. Khabibrakhmanov, L. Medrano Sandonas, O. T. Unke, S. Chmiela,
K.-R. Müller, A. Tkatchenko, "Molecular simulations with a pretrained neural network and universal pairwise force
fields", J. Am. Chem. Soc. 147, 33723 (2025). The wheel so3krates-torch (MIT) holds them as a pickled torch module.
Its SHA-256 is pinned, and the unpickler builds nothing but tensors: classes of the module become empty shells.
"""

from __future__ import annotations

import collections
import io
import pickle
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from molflow_sim.errors import WeightsError
from molflow_sim.wheels import file_of, read_pinned

WHEEL, PACKAGE = "so3krates-torch==0.2.1", "so3krates_torch"
FILE = "pretrained/so3lr/so3lr.model"
SHA256 = "b5145564911ff983ed076ccb2bca5ce63454b74c9c8291092695463f1e6732be"
"""Of the file in so3krates-torch 0.2.1; another file is another potential and is refused."""

ELEMENTS = (1, 6, 7, 8, 9, 15, 16, 17)
"""Atomic numbers SO3LR was trained on."""

_SHELLS = ("so3krates_torch.", "torch.nn.modules.")
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "FloatStorage"): torch.FloatStorage,
    ("torch", "LongStorage"): torch.LongStorage,
    ("torch", "BoolStorage"): torch.BoolStorage,
    ("torch", "float32"): torch.float32,
    ("torch", "device"): torch.device,
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
}


class _Shell:
    """Stands for a module of the file: keeps its state, runs nothing."""

    def __init__(self, *_: Any) -> None: ...


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module.startswith(_SHELLS):
            return _Shell
        raise WeightsError(f"the weights of SO3LR ask for {module}.{name}, which is not on the list of what may load")


def weights_file() -> Path:
    """Where the wheel keeps the weights (MissingDependencyError without it)."""
    return file_of(PACKAGE, FILE, WHEEL)


def read_state(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of the pickled module by its name in the module tree.

    Raises
    ------
    WeightsError
        The file is missing, is not the one pinned, or asks for something that may not load.
    """
    data = read_pinned(path, SHA256, WHEEL)
    module = SimpleNamespace(Unpickler=_Unpickler, load=pickle.load, __name__="molflow_sim.so3lr.weights")
    root = torch.load(io.BytesIO(data), map_location="cpu", pickle_module=module, weights_only=False)
    state: dict[str, np.ndarray] = {}
    _collect(root, "", state)
    return state


def _collect(shell: Any, prefix: str, state: dict[str, np.ndarray]) -> None:
    values = vars(shell)
    for kind in ("_parameters", "_buffers"):
        for name, tensor in values.get(kind, {}).items():
            if tensor is not None:
                state[prefix + name] = tensor.detach().numpy()
    for name, child in values.get("_modules", {}).items():
        if child is not None:
            _collect(child, f"{prefix}{name}.", state)


@dataclass(frozen=True)
class Weights:
    """Weights of the network, laid out for the compiled loops; L = 3 layers, F = 128 features, 4 degrees.

    Attributes
    ----------
    embedding : (118, F) array
    layers : tuple of arrays
        Queries, keys and values (L, F, 5F); the equivariant filter's two linear maps (L, 4, 64), (L, 64), (L, 2, 32,
        F); layer norms (L, 4, F); residual MLP (L, 2, F, F), (L, 2, F); interaction (L, F+4, F+4), (L, F+4).
    table : (L, K, 2, 2F) array
        Values and derivatives of the radial filters on `knots`.
    knots : (K,) array
        Distances, Å, evenly spaced.
    heads : tuple of arrays
        Output networks of energy, charge and Hirshfeld ratio.
    shift, scale, charge, ratio : (118,) arrays
        Per element: atomic energy in eV, its scale, charge in e, Hirshfeld ratio.
    query : (118, 64) array
        Per element, of the Hirshfeld head.
    zbl : (10,) array
        a1..a4, c1..c4 (normalised), p, d.
    """

    embedding: np.ndarray
    layers: tuple[np.ndarray, ...]
    table: np.ndarray
    knots: np.ndarray
    heads: tuple[np.ndarray, ...]
    shift: np.ndarray
    scale: np.ndarray
    charge: np.ndarray
    ratio: np.ndarray
    query: np.ndarray
    zbl: np.ndarray


CUTOFF = 4.5
"""Of the network, Å."""
NEIGHBOURS = 13.168995780096482
"""Average number of neighbours that normalises attention."""
FIRST_KNOT, N_KNOTS = 0.2, 1025
"""The table of radial filters: cubic Hermite pieces of 4.2 mÅ; nearer pairs get the filter of the first knot."""


@lru_cache(maxsize=2)
def load_weights(dtype: str = "float32") -> Weights:
    """The weights in `dtype`, made ready once.

    Raises
    ------
    MissingDependencyError
        The wheel is not installed.
    WeightsError
        See `read_state`.
    """
    state = {name: value.astype(np.float64) for name, value in read_state(weights_file()).items()}
    layers = [_layer(state, f"euclidean_transformers.{t}.", t == 0) for t in range(3)]
    stacked = tuple(np.ascontiguousarray(np.stack(parts).astype(dtype)) for parts in zip(*(a for a, _ in layers)))
    knots, table = _tables(state, [filters for _, filters in layers])
    block = "atomic_energy_output_block."
    charge, hirshfeld = "partial_charges_output_block.", "hirshfeld_output_block."
    heads = [
        state[block + "layers.0.weight"].T, state[block + "layers.0.bias"],
        state[block + "final_layer.weight"][0], state[block + "final_layer.bias"],
        state[charge + "transform_inv_features.0.weight"].T, state[charge + "transform_inv_features.0.bias"],
        state[charge + "transform_inv_features.2.weight"][0], state[charge + "transform_inv_features.2.bias"],
        state[hirshfeld + "transform_features.0.weight"].T, state[hirshfeld + "transform_features.0.bias"],
        state[hirshfeld + "transform_features.2.weight"].T, state[hirshfeld + "transform_features.2.bias"],
    ]  # fmt: skip
    positive = {n: float(np.logaddexp(0.0, state[f"zbl_repulsion.{n}_raw"][0])) for n in _ZBL}
    c = np.array([positive[f"c{i}"] for i in range(1, 5)])
    zbl = np.concatenate([[positive[f"a{i}"] for i in range(1, 5)], c / c.sum(), [positive["p"], positive["d"]]])
    # The elements of the embeddings count from 1, those of the two heads from 0.
    return Weights(
        embedding=np.ascontiguousarray((state["inv_feature_embedding.embedding.weight"].T / 3**0.5).astype(dtype)),
        layers=stacked,
        table=table.astype(dtype),
        knots=knots,
        heads=tuple(np.ascontiguousarray(a.astype(dtype)) for a in heads),
        shift=state[block + "energy_shifts"],
        scale=state[block + "energy_scales.weight"][0],
        charge=state[charge + "atomic_embedding.weight"][:, 0],
        ratio=state[hirshfeld + "v_shift_embedding.weight"][:, 0],
        query=np.ascontiguousarray((state[hirshfeld + "q_embedding.weight"] / 8.0).astype(dtype)),
        zbl=zbl,
    )


_ZBL = ("a1", "a2", "a3", "a4", "c1", "c2", "c3", "c4", "p", "d")


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1.0 + np.exp(-x))


def _blocks(w: np.ndarray) -> np.ndarray:
    """Four (32, 32) blocks as one block-diagonal matrix."""
    out = np.zeros((128, 128))
    for h in range(4):
        out[32 * h : 32 * h + 32, 32 * h : 32 * h + 32] = w[h]
    return out


def _layer(state: dict[str, np.ndarray], at: str, first: bool) -> tuple[list[np.ndarray], list[Any]]:
    """Arrays of one layer, and what its radial filters are made of."""
    block = at + "euclidean_attention_block."
    order = ("W_q_inv", "W_k_inv", "W_v_inv", "W_q_ev", "W_k_ev")
    scales = (1 / NEIGHBOURS, 1.0, 1.0, 1 / NEIGHBOURS, 1.0)
    qkv = np.concatenate([_blocks(state[block + name]) * s for name, s in zip(order, scales)], axis=1)
    nets = [at + "filter_net_inv.", at + "filter_net_ev."]
    w1 = np.concatenate([state[n + "mlp_ev.0.weight"].T for n in nets], axis=1)
    b1 = np.concatenate([state[n + "mlp_ev.0.bias"] for n in nets])
    w2 = np.stack([state[n + "mlp_ev.mlp_ev_layer_1.0.weight"].T for n in nets])
    radial = []
    for k, n in enumerate(nets):
        offset = state[n + "mlp_ev.mlp_ev_layer_1.0.bias"] + state[n + "mlp_rbf.mlp_rbf_layer_1.0.bias"]
        if first:  # no equivariant features yet: their part of the filter is a constant
            offset = offset + _silu(b1[32 * k : 32 * k + 32]) @ w2[k]
        last = state[n + "mlp_rbf.mlp_rbf_layer_1.0.weight"].T
        radial.append((state[n + "mlp_rbf.0.weight"].T, state[n + "mlp_rbf.0.bias"], last, offset))
    norms = np.stack([state[f"{at}layer_norm_inv_{i}.{p}"] for i in (1, 2) for p in ("weight", "bias")])
    mlp = np.stack([state[f"{at}mlp_1.{i}.weight"].T for i in (1, 3)])
    mlp_bias = np.stack([state[f"{at}mlp_1.{i}.bias"] for i in (1, 3)])
    mix = state[at + "interaction_block.linear_layer.weight"].T
    mix_bias = state[at + "interaction_block.linear_layer.bias"]
    return [qkv, w1, b1, w2, norms, mlp, mlp_bias, mix, mix_bias], radial


def _tables(state: dict[str, np.ndarray], radial: list[list[Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Radial filters and their derivatives on the knots: Bernstein basis of exp(-γ r), then a two-layer MLP."""
    r = np.linspace(FIRST_KNOT, CUTOFF, N_KNOTS)
    basis = "radial_embedding.radial_basis_fn."
    gamma, k, b = float(state[basis + "gamma"]), state[basis + "k"], state[basis + "b"]
    back = state[basis + "k_rev"]
    x = np.exp(-gamma * r)[:, None]
    value = np.exp(b + k * np.log(x) + back * np.log1p(-x))
    slope = value * (-gamma * k + back * gamma * x / (1.0 - x))
    layers = []
    for nets in radial:
        values, slopes = [], []
        for w1, b1, w2, offset in nets:
            z, dz = value @ w1 + b1, slope @ w1
            s = 1.0 / (1.0 + np.exp(-z))
            values.append((z * s) @ w2 + offset)
            slopes.append((dz * (s * (1.0 + z * (1.0 - s)))) @ w2)
        layers.append(np.stack([np.concatenate(values, 1), np.concatenate(slopes, 1)], axis=1))
    return r, np.stack(layers)
