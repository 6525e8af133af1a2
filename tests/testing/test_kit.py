"""The conformance kit: our generators and models pass it, and each of its checks finds what it looks for."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from crystal_flow_examples import batch_for, flow
from p1_examples import TINY, data, network, path, random_state
from refusals import refuses
from torch import nn

from molflow_sim import Molecule
from molflow_sim.generators.crystals import RandomGenerator
from molflow_sim.generators.protocol import CrystalRequest, Drawn, make_generator
from molflow_sim.models.crystal_flow import CrystalFlow
from molflow_sim.models.mol_crystal_flow import MolCrystalFlow
from molflow_sim.models.mol_crystal_flow.batch import Poses
from molflow_sim.packing import random_packings
from molflow_sim.testing import validate_generator, validate_model, validate_network
from molflow_sim.training.model import save_model


@pytest.fixture(scope="module")
def request_():
    return CrystalRequest(Molecule.from_smiles("NC=O", n_conformers=1), "P-1,P21/c,P212121")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two trained flows, as far as a generator can tell."""
    made = []
    for seed in (0, 1):
        made.append(str(tmp_path_factory.mktemp("weights")))
        save_model(made[-1], flow(seed))
    return made


@pytest.mark.parametrize(("method", "options"), [("random", {}), ("flow", {"steps": 2}), ("mixed", {"share": 0.3})])
@pytest.mark.parametrize("z_prime", [1, 2])
def test_our_generators_pass(request_, folders, method, options, z_prime):
    request_ = replace(request_, z_prime=z_prime)
    if method == "random":
        return validate_generator(RandomGenerator(), request_)
    one, other = (make_generator("crystals", method, weights=folder, **options) for folder in folders)
    validate_generator(one, request_, others=[other])


def test_mol_crystal_flow_passes(request_, tmp_path):
    folders = [tmp_path / str(seed) for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        save_model(folder, MolCrystalFlow(TINY))
    one, other = (make_generator("crystals", "mol-crystal-flow", weights=str(f), steps=3) for f in folders)
    validate_generator(one, replace(request_, space_groups="P1"), others=[other])


@dataclass(frozen=True)
class Spoiled:
    """Random packings, spoiled in one way."""

    kind: ClassVar[str] = "crystals/spoiled"
    how: str = ""
    draws: int = 1

    def sample(self, request, n, *, seed, first_index=0):
        if self.how == "refusals" and n == 0:
            n = 1
        seed = {"other seed": 0, "again": np.random.default_rng().integers(1000)}.get(self.how, seed)
        made = RandomGenerator().sample(request, n, seed=seed, first_index=0 if self.how == "pieces" else first_index)
        if self.how == "numbers":
            return replace(made, index=np.arange(n))
        if self.how == "pieces":
            return replace(made, index=first_index + np.arange(n))
        if self.how == "failures":
            return Drawn(made.index, made.systems(), ["why"] * n)
        if self.how == "company":
            made.cell[:] *= 1.0 + 1e-12 * n
        return made

    def identity(self):
        return {"how": self.how} if self.how == "identity" else {"how": self.how, "draws": self.draws}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("other seed", "same with another seed"), ("again", "asked again"), ("numbers", "numbered"),
        ("pieces", "pieces"), ("company", "pieces"), ("failures", "has a structure and the reason 'why'"),
        ("identity", "identity"), ("refusals", "no candidates is not refused"),
    ],
)  # fmt: skip
def test_a_generator_that_breaks_a_rule_is_found_out(request_, how, words):
    validate_generator(Spoiled(), request_)
    refuses(ValueError, words, validate_generator, Spoiled(how), request_)


@pytest.mark.parametrize("group", ["P 1", "P 1 21/c 1", "P 41 21 2"])
def test_the_contact_network_passes(group):
    batch = batch_for("CC(N)=O", group, 2, seed=3, z_prime=2)
    network, time = flow(0).network.double(), torch.tensor([0.2, 0.7]).double()

    def velocity(x):
        rest = {k: v for k, v in x.items() if k != "time"}
        found = network(replace(batch, **rest), x["time"], torch.zeros_like(x["time"]))
        return {"strain": found.strain, "centre": found.centre, "turn": found.turn}

    validate_network(
        velocity,
        {**vars(batch), "time": time},
        vectors=["cell", "centre", "turn"], frames=["rotation"],
        tensors=["cart_rot", "site_translation", "site_rotation", "strain"], axial=["turn"],
        shifted=["centroid"] if group == "P 1" else [],
        reordered=[["numbers", "conformer"], ["centroid", "rotation", "centre", "turn"]],
        differentiable=["cell", "centroid", "conformer"],
    )  # fmt: skip


def test_the_network_of_mol_crystal_flow_passes():
    batch, net = random_state(1, (0, 3, 4)), network()

    def velocity(x):
        poses = Poses(x["cell"], x["frac"], x["rotation"], x["chi"])
        found = net(type(batch)(batch.shapes, poses, x["species"], x["mask"]), x["time"])
        return {"v_cell": found.cell, "v_frac": found.frac, "omega": found.omega}

    p = batch.poses
    cell = 1.01 * p.cell  # 2.5 times the height of the first is 14 Å, where the reach has a kink
    validate_network(
        velocity,
        {
            "cell": cell, "frac": p.frac, "rotation": p.rotation, "chi": p.chi, "species": batch.species,
            "mask": batch.mask, "time": torch.tensor([0.1, 0.5, 0.9]).double(),
        },
        vectors=["cell", "v_cell", "omega"], frames=["rotation"], axial=["omega"], shifted=["frac"],
        reordered=[["frac", "rotation", "chi", "species", "mask", "v_frac", "omega"]],
    )  # fmt: skip


class Attraction(nn.Module):
    """Atoms that pull at each other, spoiled in one way."""

    def __init__(self, how: str = "") -> None:
        super().__init__()
        self.how = how

    def forward(self, x):
        r, kind = x["positions"], x["kinds"]
        arm = r[:, None] - r[:, :, None]
        pull = (arm * torch.exp(-arm.norm(dim=-1, keepdim=True)) * kind[:, None, :, None]).sum(2)
        if self.how == "rotation":
            pull = pull * torch.tensor([1.0, 1.0, 1.001])
        elif self.how == "reflection":
            pull = pull + 0.1 * torch.linalg.cross(pull, pull.roll(1, 1) + pull.sum(1, keepdim=True))
        elif self.how == "translation":
            pull = pull + 1e-4 * r
        elif self.how == "order":
            pull = pull * torch.linspace(1.0, 1.1, r.shape[1])[:, None]
        elif self.how == "single":
            pull = pull * (1.0 + 1e-3 * pull.norm(dim=-1).mean())
        elif self.how == "gradients":
            pull = pull.detach() + 0.0 * r
        return {"pull": pull}


@pytest.mark.parametrize("how", ["", "rotation", "reflection", "translation", "order", "single", "gradients"])
def test_a_network_that_breaks_a_symmetry_is_found_out(how):
    generator = torch.Generator().manual_seed(0)
    positions = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    inputs = {"positions": positions, "kinds": torch.rand(2, 5, generator=generator, dtype=torch.float64)}
    options = {
        "vectors": ["positions", "pull"], "shifted": ["positions"], "reordered": [["positions", "kinds", "pull"]],
        "reflections": True,
    }  # fmt: skip
    if not how:
        return validate_network(Attraction(), inputs, **options)
    refuses(ValueError, rf"^(batched = )?{how}\b", validate_network, Attraction(how), inputs, **options)


def a_batch():
    start, end = (batch_for("CC(N)=O", "P -1", 4, seed).to(dtype=torch.float32) for seed in (1, 2))
    return start, start.moved(end.cell, end.centroid, end.rotation), torch.zeros(4), torch.linspace(0.1, 0.9, 4)


def test_the_crystal_flow_passes_as_a_model():
    validate_model(flow(0), a_batch())


def test_mol_crystal_flow_passes_as_a_model():
    torch.manual_seed(0)
    validate_model(MolCrystalFlow(TINY), path(data().batch((0, 2, 4)), 1))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("loss", lambda self, batch: {"loss": torch.rand(())}, "another loss"),
        ("state", lambda self: ({k: v + 1 for k, v in self.network.state_dict().items()}, {"kind": "x"}), "kind"),
        ("from_state", classmethod(lambda cls, tensors, card: flow(1)), "does not come back"),
        ("loss", lambda self, batch: {"loss": 0.0 * self.network.force.out.weight.sum()}, "norm is 0"),
    ],
)
def test_a_model_that_breaks_a_rule_is_found_out(monkeypatch, name, value, words):
    monkeypatch.setattr(CrystalFlow, name, value)
    refuses(ValueError, words, validate_model, flow(0), a_batch())


def test_random_packings_are_candidates():
    made = random_packings(Molecule.from_smiles("O"), 3, seed=0)
    assert made.reasons == ["", "", ""] and all(system is not None for system in made.systems())
