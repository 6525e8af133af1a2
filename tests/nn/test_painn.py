"""PaiNN: equivariant to rotations and reflections, and smooth where an edge appears."""

import torch

from molflow_sim.nn.painn import PaiNNLayer
from molflow_sim.nn.radial import GaussianBasis, polynomial_envelope
from molflow_sim.testing import validate_network

N, WIDTH, CUTOFF = 6, 8, 3.0
EDGES = torch.tensor([(i, j) for i in range(N) for j in range(N) if i != j]).T


def network():
    torch.manual_seed(0)
    layers = torch.nn.ModuleList([PaiNNLayer(WIDTH, 5) for _ in range(2)]).double()
    basis = GaussianBasis(5, CUTOFF)

    def one(x, s, v):
        delta = x[EDGES[0]] - x[EDGES[1]]
        r = delta.norm(dim=-1)
        for layer in layers:
            s, v = layer(s, v, EDGES, basis(r), polynomial_envelope(r / CUTOFF), delta / r[:, None])
        return s, v

    def function(inputs):
        # vectors stand before their channels inside; the kit wants them last
        rows = [one(x, s, v.mT) for x, s, v in zip(inputs["x"], inputs["s"], inputs["v"])]
        return {"s": torch.stack([s for s, _ in rows]), "v": torch.stack([v.mT for _, v in rows])}

    return function


def test_scalars_stay_and_vectors_turn_with_the_points():
    torch.manual_seed(1)
    inputs = {
        "x": 1.5 * torch.randn(2, N, 3, dtype=torch.float64),
        "s": torch.randn(2, N, WIDTH, dtype=torch.float64),
        "v": torch.randn(2, N, WIDTH, 3, dtype=torch.float64),
    }
    validate_network(
        network(), inputs, vectors=("x", "v"), shifted=("x",), reordered=(("x", "s", "v"),), reflections=True,
        differentiable=("v", "s"),
    )  # fmt: skip


def test_vectors_appear_where_there_were_none_and_an_edge_appears_smoothly():
    x = torch.zeros(2, N, 3, dtype=torch.float64)
    x[:, :, 0] = 10.0 * torch.arange(N)
    x[1, 1, 0] = CUTOFF - 1e-6
    inputs = {"x": x, "s": torch.ones(2, N, WIDTH).double(), "v": torch.zeros(2, N, WIDTH, 3).double()}
    out = network()(inputs)
    assert out["v"][0].abs().max() == 0.0, "nobody is near"
    assert 0.0 < out["v"][1, 0].abs().max() < 1e-6
    x[1, 1, 0] = 1.0
    assert network()(inputs)["v"][1, 0].abs().max() > 1e-3
