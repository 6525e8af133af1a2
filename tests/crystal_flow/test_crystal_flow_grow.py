"""Growing a network: more scalars and layers, the same velocities, and copies that training can tell apart."""

import pytest
import torch
from crystal_flow_examples import batch_for
from refusals import refuses

from molflow_sim.errors import InputError
from molflow_sim.models.crystal_flow.grow import grown
from molflow_sim.models.crystal_flow.network import ContactNetwork, ContactSettings

SMALL = ContactSettings(width=8, radial=6, inner_layers=1, outer_layers=1)


@pytest.fixture(scope="module")
def network() -> ContactNetwork:
    torch.manual_seed(3)
    made = ContactNetwork(SMALL).double()
    torch.nn.init.normal_(made.force.out.weight, std=0.5)
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return made


def velocities(network: ContactNetwork) -> tuple[torch.Tensor, ...]:
    batch = batch_for("NC(=O)c1ccccc1O", "P21/c", 3, 1)
    return tuple(network.double()(batch, torch.tensor([0.1, 0.5, 0.9]).double(), torch.zeros(3).double()))


@pytest.mark.parametrize(
    "wanted",
    [
        ContactSettings(width=16, radial=6, inner_layers=1, outer_layers=1),
        ContactSettings(width=24, radial=6, inner_layers=2, outer_layers=3),
        ContactSettings(width=8, radial=6, inner_layers=1, outer_layers=2),
    ],
)
def test_a_grown_network_gives_the_same_velocities(network, wanted) -> None:
    larger = grown(network, wanted, seed=1)
    assert (larger.settings.width, larger.settings.outer_layers) == (wanted.width, wanted.outer_layers)
    for was, now in zip(velocities(network), velocities(larger)):
        assert float(was.detach().abs().max()) > 1e-3
        # Copies pass through a network made in float32.
        torch.testing.assert_close(now, was, rtol=1e-4, atol=1e-5)


def test_training_tells_the_copies_apart(network) -> None:
    larger = grown(network, ContactSettings(width=16, radial=6, inner_layers=1, outer_layers=1))
    sum(v.square().sum() for v in velocities(larger)).backward()
    send = larger.outer[0].send.weight.grad
    first, second = send.chunk(2, 0)
    assert float((first - second).abs().max()) > 0.05 * float(send.abs().max())


def test_smaller_sizes_and_other_cutoffs_are_not_taken_over_and_no_multiples_refused(network) -> None:
    same = grown(network, ContactSettings(width=4, radial=30, inner_layers=1, outer_layers=1, outer_cutoff=9.0))
    assert same.settings == network.settings
    for name, value in network.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name].double(), value, rtol=1e-6, atol=1e-7)
    refuses(InputError, "multiples", grown, network, ContactSettings(width=12))
