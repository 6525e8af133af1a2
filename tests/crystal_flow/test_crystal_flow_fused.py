"""The compiled training step is the torch one: the same loss, and the same gradient of every weight."""

import numpy as np
import pytest
import torch
from crystal_flow_examples import flow, packed
from processes import threads

from molflow_sim.models.crystal_flow import ContactNetwork, CrystalBatch
from molflow_sim.models.crystal_flow.compiled_gradients import messages_gradient
from molflow_sim.models.crystal_flow.compiled_graph import contacts
from molflow_sim.models.crystal_flow.velocity import compiles, fused_velocity


def gradients(network: ContactNetwork, batch: CrystalBatch, fused: bool) -> dict[str, torch.Tensor]:
    network.zero_grad()
    time, excess = torch.linspace(0.05, 0.95, len(batch)), torch.linspace(0.0, 0.5, len(batch))
    velocity = (fused_velocity if fused else ContactNetwork.__call__)(network, batch, time, excess)
    generator = torch.Generator().manual_seed(1)
    sum((v * torch.randn(v.shape, generator=generator)).sum() for v in velocity).backward()
    return {name: p.grad.clone() for name, p in network.named_parameters()}


@pytest.mark.parametrize("z_prime", [1, 2])
@pytest.mark.parametrize("smiles", ["CC(N)=O", "CC(=O)Oc1ccccc1C(=O)O", "c1ccccc1"])
def test_gradients_of_all_weights_agree_with_torch(smiles, z_prime) -> None:
    network = flow(2).network
    batch = packed(smiles, 6, 3, z_prime=z_prime)
    assert compiles(network, batch)
    expected, found = gradients(network, batch, False), gradients(network, batch, True)
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm()) <= 3e-3 * float(gradient.norm()), name
    moved = [name for name, gradient in expected.items() if float(gradient.norm()) > 0.0]
    assert {name.split(".")[0] for name in moved} == {"embed", "inner", "context", "outer", "pool", "force"}


def test_threads_add_up_to_the_same_gradients() -> None:
    batch = packed("CC(N)=O", 9, 5)
    pairs = contacts(batch, 6.0)
    rng = np.random.default_rng(0)
    atoms = batch.centroid.shape[1] * batch.numbers.numel()
    table = rng.normal(size=(65, 8)).astype(np.float32)
    sent, grad = rng.normal(size=(2, atoms, 8)).astype(np.float32)
    results = []
    for n in (1, 3, 3):
        with threads(n):
            results.append(messages_gradient(pairs, 6.0, table, sent, grad, len(batch)))
    for one, three, again in zip(*results):
        np.testing.assert_allclose(three, one, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(again, three)


def test_other_types_go_through_torch() -> None:
    network = flow(0).network
    batch = packed("CC(N)=O", 2, 0)
    assert not compiles(network.double(), batch) and not compiles(torch.nn.Linear(2, 2), batch)
