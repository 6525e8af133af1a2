"""Energies by name: what they hold, means of them, and what happens where a member cannot."""

import numpy as np
import pytest
import torch
import torch_sim
from crystal_examples import crystal, molecule

from molflow_sim.energies import EnsemblePotential, models
from molflow_sim.energies.models import BEST, MeanEnergy, Value, energy_identity, energy_model, recipe
from molflow_sim.errors import InputError, MissingDependencyError, UnsupportedElementError
from molflow_sim.forcefield import CrystalPotential, parametrize
from molflow_sim.so3lr import weights
from molflow_sim.so3lr.potential import SO3LR
from molflow_sim.units import KJ_PER_MOL


def of(spec: str, *crystals) -> list[Value]:
    return energy_model(spec).evaluate(list(crystals), parametrize(crystals[0].molecules[0]))


def test_fit_is_the_force_field_between_molecules_and_potential_all_of_it():
    c = crystal("formamide")
    found = CrystalPotential([parametrize(c.molecules[0])])(
        torch_sim.initialize_state([c.to_ase()], "cpu", torch.float64)
    )
    assert of("fit", c)[0].energy == pytest.approx(float(found["intermolecular_energy"]) / c.z, abs=1e-9)
    assert of("potential", c)[0].energy == pytest.approx(float(found["energy"]) / c.z, abs=1e-9)


def test_so3lr_is_the_network_per_molecule_and_tells_what_is_between_molecules():
    a, b = crystal("formamide"), crystal("formamide", 1.04)
    first, second = of("so3lr", a, b)
    net = SO3LR()
    energies, inside = [], []
    for c in (a, b):
        numbers, positions, m, _ = c.unit_cell()
        energies.append(net.evaluate([numbers], [positions], [c.cell])[0][0] / c.z)
        inside.append(net.evaluate([numbers[m == 0]], [positions[m == 0]])[0][0])
    assert second.energy - first.energy == pytest.approx(energies[1] - energies[0], abs=2e-5)
    assert first.intermolecular["so3lr"] == pytest.approx(energies[0] - inside[0], abs=2e-5)


def test_best_is_the_mean_of_fit_and_so3lr_between_molecules_and_so3lr_inside():
    c = crystal("urea")
    (best,), (fit,), (net,) = of("best", c), of("fit", c), of("so3lr", c)
    assert best.energy == pytest.approx((fit.energy + net.intermolecular["so3lr"]) / 2 + net.inside, abs=1e-9)
    assert best.parts == pytest.approx({"fit": fit.energy + net.inside, "so3lr": net.energy}, abs=1e-9)
    potential = EnsemblePotential([parametrize(c.molecules[0])])
    found = potential(torch_sim.initialize_state([c.to_ase()], "cpu", torch.float64))
    assert best.energy == pytest.approx(float(found["energy"]) / c.z, abs=2e-5)
    assert energy_model("best").spec == BEST == energy_model(" mean(fit,so3lr) ").spec


@pytest.mark.parametrize("spec", ["mean(fit)", "mean()", "mean(fit,fit)", "mean(fit,nothing)", "mean(fit", "bset"])
def test_a_spec_that_makes_no_sense_is_refused(spec):
    with pytest.raises(InputError, match=r"--energy|unknown energy model"):
        energy_model(spec)


def test_means_may_be_nested():
    assert [m.spec for m in energy_model("mean(potential,mean(fit,so3lr))").members] == ["potential", BEST]


def test_best_falls_back_to_the_potential_for_elements_that_so3lr_does_not_know():
    spec, why = recipe("best", molecule("BrCC=O"))
    assert spec == "potential" and "Br" in why and "ranked by potential" in why
    assert recipe("mean(fit,potential,so3lr)", molecule("BrCC=O"))[0] == "mean(fit,potential)"
    with pytest.raises(UnsupportedElementError, match="Br"):
        recipe("so3lr", molecule("BrCC=O"))
    assert recipe("best", molecule("NC=O")) == (BEST, "")


def test_best_falls_back_with_the_install_command_where_the_wheel_is_missing(monkeypatch):
    def missing():
        raise MissingDependencyError("so3krates-torch==0.2.1")

    monkeypatch.setattr(weights, "weights_file", missing)
    spec, why = recipe("best", molecule("NC=O"))
    assert spec == "potential" and "pip install" in why


class Fixed:
    """A model that gives what it is told."""

    def __init__(self, spec: str, energy: float, inter: float, reason: str = ""):
        self.spec = self.name = spec
        self.value = Value(energy, {spec: energy}, {spec: inter}, energy - inter, reason)

    def check(self, molecule): ...

    def evaluate(self, crystals, parameters):
        return [self.value] * len(crystals)


@pytest.mark.parametrize(
    "a, b, words",
    [
        ((-1.0, -1.0), (-40.0, -1.2), ""),
        ((-0.3, -0.28), (-20.0, 4.55), "differ by 466 kJ/mol"),
        ((float("nan"), -1.0, "collapsed"), (-1.0, -1.0), "one: collapsed"),
    ],
)
def test_members_that_disagree_beyond_physics_or_fail_give_no_mean_and_say_why(a, b, words):
    mean = MeanEnergy("mean(one,two)", "mean", (Fixed("one", *a), Fixed("two", *b)))
    (value,) = mean.evaluate([None], None)
    assert (words in value.reason) and np.isfinite(value.energy) == (not words)
    assert models.DISAGREEMENT[0] == pytest.approx(40 * KJ_PER_MOL)


def test_the_identity_of_best_holds_the_weights():
    assert weights.SHA256 in energy_identity("best") and energy_identity("fit") == ""


def test_a_model_whose_file_has_changed_is_made_again(monkeypatch):
    made, origin = [], iter(("one", "one", "another"))
    monkeypatch.setattr(models.foreign, "energy_identity", lambda spec: next(origin))
    monkeypatch.setattr(models.foreign, "energy_model", lambda spec: made.append(spec) or Fixed(spec, -1.0, -1.0))
    for _ in range(3):
        energy_model("mace:model.pt")
    assert made == ["mace:model.pt"] * 2
