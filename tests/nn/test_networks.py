"""Layers of networks over points: what they commute with, and that a point does not see other batches."""

import numpy as np
import pytest
import torch

from molflow_sim.nn.egnn import EgnnLayer
from molflow_sim.nn.radial import GaussianBasis, polynomial_envelope
from molflow_sim.nn.tfn import TfnLayer, _o3, edge_messages
from molflow_sim.testing import validate_network

N, SCALARS, VECTORS, EDGE = 7, 6, 4, 5


def pairs(n: int) -> torch.Tensor:
    return torch.nonzero(~torch.eye(n, dtype=torch.bool)).T


def each(layer, inputs):
    """A layer over batches (B, N, ...) of complete graphs, put together as one graph as models do."""
    b, n = inputs["h"].shape[:2]
    edges = torch.cat([pairs(n) + k * n for k in range(b)], 1)
    into, out = edges
    x = inputs["x"].flatten(0, 1)
    delta = x[out] - x[into]
    features = GaussianBasis(EDGE, 3.0)(delta.norm(dim=-1))
    envelope = polynomial_envelope(delta.norm(dim=-1) / 6.0)
    h = inputs["h"].flatten(0, 1)
    if isinstance(layer, EgnnLayer):
        found = layer(h, x, edges, envelope, features)
    else:
        found = layer(h, inputs["v"].flatten(0, 1), delta, edges, envelope, features)
    return dict(zip(("h", "x" if isinstance(layer, EgnnLayer) else "v"), (f.unflatten(0, (b, n)) for f in found)))


def state(kind: str) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    shapes = {"h": (3, N, SCALARS), "x": (3, N, 3), **({"v": (3, N, VECTORS, 3)} if kind == "tfn" else {})}
    return {name: torch.randn(*shape, generator=rng, dtype=torch.float64) for name, shape in shapes.items()}


def layer(kind: str):
    torch.manual_seed(0)
    made = TfnLayer(SCALARS, VECTORS, EDGE) if kind == "tfn" else EgnnLayer(SCALARS, EDGE)
    return made.double()


@pytest.mark.parametrize("kind", ["tfn", "egnn"])
def test_layers_turn_with_their_points_whatever_their_order_and_whoever_else_is_there(kind):
    made = layer(kind)
    shifted = ["x"] if kind == "egnn" else []
    validate_network(
        lambda inputs: each(made, inputs),
        state(kind),
        vectors=["x", "v"],
        shifted=shifted,
        reordered=[["h", "x", "v"]],
        reflections=kind == "egnn",
        tolerance=1e-9,
    )


def test_a_tensor_field_network_tells_hands_apart_and_an_egnn_cannot():
    for kind, blind in (("tfn", False), ("egnn", True)):
        made, inputs = layer(kind), state(kind)
        mirrored = {k: v if k == "h" else -v for k, v in inputs.items()}
        name = "x" if kind == "egnn" else "v"
        assert torch.allclose(each(made, mirrored)[name], -each(made, inputs)[name]) == blind


def channelwise_product(scalars, vectors):
    """e3nn's product that `edge_messages` is: the weights in the same order, the channels of a vector last."""
    o3 = _o3()
    node, harmonics = o3.Irreps(f"{scalars}x0e + {vectors}x1e"), o3.Irreps("0e + 1e")
    out = o3.Irreps(f"{scalars}x0e + {vectors}x0e + {scalars}x1e + {vectors}x1e + {vectors}x1e")
    paths = [(*path, "uvu", True) for path in [(0, 0, 0), (1, 1, 1), (0, 1, 2), (1, 0, 3), (1, 1, 4)]]
    return o3.TensorProduct(node, harmonics, out, paths, shared_weights=False, internal_weights=False)


def test_the_written_out_product_is_that_of_e3nn():
    rng = torch.Generator().manual_seed(2)
    s, v, y = (torch.randn(*k, generator=rng) for k in ((9, 6), (9, 4, 3), (9, 3)))
    product = channelwise_product(6, 4)
    w = torch.randn(9, product.weight_numel, generator=rng)
    expected = product(torch.cat([s, v.flatten(1)], 1), torch.cat([torch.ones(9, 1), y], 1), w)
    found = edge_messages(s, v.movedim(-1, 0), y, w)
    scalars, vectors = found[:, :10], found[:, 10:].unflatten(1, (3, 14)).movedim(1, 2)
    assert torch.allclose(expected[:, :10], scalars, atol=1e-5)
    assert torch.allclose(expected[:, 10:].unflatten(1, (14, 3)), vectors, atol=1e-5)


def test_radial_functions_are_smooth_and_end_at_the_cutoff():
    r = torch.linspace(0.0, 12.0, 400, dtype=torch.float64)
    values = GaussianBasis(16, 8.0)(r)
    assert values.shape == (400, 16) and values.max() <= 1.0
    assert np.argmax(values[np.searchsorted(r.numpy(), 1.4)].numpy()) < np.argmax(values[200].numpy())
    u = torch.tensor([0.0, 1.0, 1.5], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(polynomial_envelope(u).sum(), u)
    assert polynomial_envelope(u).tolist() == [1.0, 0.0, 0.0] and slope.abs().max() == 0.0
