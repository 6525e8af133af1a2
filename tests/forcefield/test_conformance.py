"""The conformance kit passes the crystal potential and catches models that break one rule each."""

import pytest
import torch
from crystal_examples import crystal
from refusals import refuses
from torch_sim.models.interface import ModelInterface

from molflow_sim.forcefield.potential import CrystalPotential
from molflow_sim.testing.potential import validate_potential

EXAMPLES = [crystal("acetonitrile"), crystal("glycolic")]


@pytest.mark.parametrize("backend", ["compiled", "torch"])
@pytest.mark.parametrize("cutoff", [8.0, 15.0])
def test_the_crystal_potential_conforms(backend, cutoff):
    names = ["acetonitrile", "urea", "aspirin"] if cutoff > 10.0 and backend == "compiled" else ["acetonitrile", "urea"]
    crystals = [crystal(n) for n in names]
    validate_potential(CrystalPotential.from_crystals(crystals, backend=backend, cutoff=cutoff), crystals)


def test_the_crystal_potential_conforms_in_float32():
    model = CrystalPotential.from_crystals(EXAMPLES, cutoff=8.0, dtype=torch.float32)
    validate_potential(model, EXAMPLES)


class Spoiled(ModelInterface):
    """The crystal potential with a fault put in."""

    def __init__(self, spoil):
        super().__init__()
        self.model = CrystalPotential.from_crystals(EXAMPLES, cutoff=8.0)
        self._device, self._dtype = self.model.device, self.model.dtype
        self._compute_stress = self._compute_forces = True
        self.spoil = spoil

    def forward(self, state, **_):
        out = self.model(state)
        self.spoil(out, state)
        return out


def scaled(name, factor):
    def spoil(out, state):
        out[name] = out[name] * factor

    return spoil


def added(extra):
    def spoil(out, state):
        out["energy"] = out["energy"] + 1e-3 * extra(state)

    return spoil


def attached(out, state):
    out["energy"] = out["energy"].requires_grad_(True)


def moves_atoms(out, state):
    state.positions += 0.1


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (scaled("forces", 1.00001), "forces = -dE/dr"),
        (scaled("stress", -1.0), "stress = dE/dε/V"),
        (scaled("stress", 1.00001), "stress = dE/dε/V"),
        (added(lambda state: state.positions.pow(2).sum()), "batched = single|lattice shift of atoms"),
        (added(lambda state: state.volume * state.cell[:, 0, 0]), "rotation"),
        (added(lambda state: torch.bincount(state.system_idx) ** 2), "supercell"),
        (added(lambda state: state.n_systems - 1), "batched = single"),
        (attached, "detached outputs"),
        (moves_atoms, "unchanged inputs"),
        (lambda out, state: out.pop("stress"), "keys: stress"),
        (scaled("energy", torch.ones(3, 1, dtype=torch.float64)), "shapes: energy"),
        (scaled("energy", float("nan")), "finite: energy"),
    ],
)
def test_a_model_with_one_fault_is_refused_with_the_name_of_the_check(spoil, check):
    refuses(ValueError, check, validate_potential, Spoiled(spoil), EXAMPLES)
