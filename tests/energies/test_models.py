"""Energies by name: what they hold, means of them, and what happens where a member cannot."""

import numpy as np
import pytest
import torch
import torch_sim
from crystal_examples import crystal, molecule

from molflow_sim.energies import best_potential, models
from molflow_sim.energies.ensemble import best_parameters
from molflow_sim.energies.models import (
    BESTS,
    Best,
    MeanEnergy,
    Value,
    energy_identity,
    energy_model,
    recipe,
    uses_sites,
)
from molflow_sim.errors import InputError, MissingDependencyError, UnsupportedElementError
from molflow_sim.forcefield import CrystalPotential, aimnet2, parametrize
from molflow_sim.forcefield.aimnet2 import AIMNet2
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


def test_best_is_mostly_fit_between_the_molecules_and_networks_inside():
    assert Best().spec == "mean(2*fit-hf,so3lr,aimnet2)" and len(BESTS) == 6
    c = crystal("urea")
    (best,), (fit,), (net,) = of("best", c), of("fit-hf", c), of("so3lr", c)
    inside = (net.inside + _aimnet2(c)) / 2
    assert best.inside == pytest.approx(inside, abs=1e-9)
    assert best.energy == pytest.approx((2 * fit.energy + net.intermolecular["so3lr"]) / 3 + inside, abs=1e-9)
    assert set(best.parts) == {"fit-hf", "so3lr"}
    assert energy_model("best").spec == Best().spec and energy_model(f" {Best().spec} ").name == "best"


def _aimnet2(c):
    numbers, positions, owner, _ = c.unit_cell()
    return AIMNet2(numbers[owner == 0])(positions[owner == 0])[0]


@pytest.mark.parametrize("spec", BESTS)
def test_whatever_best_is_left_with_energy_and_potential_agree(spec):
    c = crystal("urea")
    potential = best_potential([parametrize(c.molecules[0], sites=True)], spec)
    found = potential(torch_sim.initialize_state([c.to_ase()], "cpu", torch.float64))
    (value,) = of(spec, c)
    assert value.energy == pytest.approx(float(found["energy"]) / c.z, abs=5e-5)
    assert value.inside == pytest.approx(float(found["intramolecular_energy"]) / c.z, abs=5e-5)


def test_without_pyscf_best_has_the_charges_of_mmff94_and_says_so(monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    spec, why = recipe("best", molecule("NC=O"))
    assert spec == "mean(fit,so3lr,aimnet2)" and "pip install pyscf" in why
    spec, why = recipe("best", molecule("BrC"))
    assert spec == "mean(fit,aimnet2)" and "Br" in why and "pip install pyscf" in why
    with pytest.raises(MissingDependencyError, match="pyscf"):
        recipe("fit-hf", molecule("NC=O"))


@pytest.mark.parametrize(
    "spec",
    [
        "mean(fit)",
        "mean()",
        "mean(fit,fit)",
        "mean(fit,2*fit)",
        "mean(0*fit,so3lr)",
        "mean(fit,nothing)",
        "mean(fit",
        "bset",
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(spec):
    with pytest.raises(InputError, match=r"--energy|unknown energy model"):
        energy_model(spec)


def test_molecules_too_large_for_hartree_fock_are_ranked_without_and_it_is_said():
    spec, why = recipe("best", molecule("CCCCCCCCCCCCCCCCCCCCCCCCC"))
    assert spec == "mean(fit,so3lr,aimnet2)" and "25 heavy atoms" in why
    large = molecule("CCCCCCCCCCCCCCCCCCCCCCCCC")
    assert best_parameters([parametrize(large)], [large])[0].sites is None


def test_means_may_be_nested():
    nested = energy_model("mean(potential,mean(fit,so3lr))")
    assert [m.spec for m in nested.members] == ["potential", "mean(fit,so3lr)"]
    c = crystal("urea")
    one, two = of("potential", c)[0], of("mean(fit,so3lr)", c)[0]
    mean = (one.between + two.between + one.inside + two.inside) / 2
    assert of(nested.spec, c)[0].energy == pytest.approx(mean, abs=1e-9)


def test_a_network_that_does_not_know_an_element_is_left_out():
    spec, why = recipe("best", molecule("BrCC=O"))
    assert spec == "mean(fit-hf,aimnet2)" and "Br" in why and f"ranked by {spec}" in why
    assert recipe("mean(2*fit,potential,so3lr)", molecule("BrCC=O"))[0] == "mean(2*fit,potential)"
    assert recipe("mean(2*fit,so3lr)", molecule("BrCC=O"))[0] == "fit"
    with pytest.raises(UnsupportedElementError, match="Br"):
        recipe("so3lr", molecule("BrCC=O"))
    assert recipe("best", molecule("NC=O")) == (Best().spec, "")


def test_a_wheel_that_is_missing_is_named_with_its_command_and_without_both_the_force_field_ranks(monkeypatch):
    def missing(name):
        def file():
            raise MissingDependencyError(name)

        return file

    monkeypatch.setattr(weights, "weights_file", missing("so3krates-torch==0.2.1"))
    spec, why = recipe("best", molecule("NC=O"))
    assert spec == "mean(fit-hf,aimnet2)" and "pip install so3krates-torch" in why
    monkeypatch.setattr(aimnet2, "weights_file", missing("auto3d==2.3.1"))
    spec, why = recipe("best", molecule("NC=O"))
    assert spec == "potential" and "pip install auto3d" in why and why.endswith("ranked by potential")
    parameters = [parametrize(crystal("urea").molecules[0])]
    assert type(best_potential(parameters)) is CrystalPotential


@pytest.mark.parametrize(
    ("spec", "needed"),
    [("best", True), ("fit-hf", True), (f"mean(fit,{Best().spec})", True), ("mean(fit,so3lr)", False)],
)
def test_charges_beside_the_atoms_are_computed_for_models_that_have_them(spec, needed):
    assert uses_sites(spec) == needed and not uses_sites("mace:fit-hf.model")


@pytest.mark.parametrize("spec", ["aimnet2", "mean(gfn2-xtb,aimnet2)", "mean(so3lr,mean(aimnet2,gfn2-xtb))"])
def test_aimnet2_needs_another_model_between_the_molecules(spec):
    with pytest.raises(InputError, match="inside molecules"):
        recipe(spec, molecule("NC=O"))


class Fixed:
    """A model that gives what it is told."""

    inside_only = False

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
    mean = MeanEnergy("mean(one,two)", "mean", (Fixed("one", *a), Fixed("two", *b)), (1, 1))
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
