"""Energies by name: what they hold, means of them, and what happens where a member cannot."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torch_sim
from crystal_examples import crystal, molecule

from molflow_sim.energies import EnsemblePotential, best_potential, models
from molflow_sim.energies.ensemble import best_parameters
from molflow_sim.energies.models import (
    BEST,
    PLAIN_BEST,
    WITHOUT_SO3LR,
    MeanEnergy,
    Value,
    energy_identity,
    energy_model,
    recipe,
    uses_sites,
)
from molflow_sim.errors import InputError, MissingDependencyError, UnsupportedElementError
from molflow_sim.forcefield import CrystalPotential, parametrize
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


@pytest.mark.parametrize(("spec", "member", "weight"), [(BEST, "fit-hf", 2 / 3), (PLAIN_BEST, "fit", 1 / 2)])
def test_best_is_a_mean_of_fit_and_so3lr_between_molecules_and_so3lr_inside(spec, member, weight):
    c = crystal("urea")
    (best,), (fit,), (net,) = of(spec, c), of(member, c), of("so3lr", c)
    mean = weight * fit.energy + (1 - weight) * net.intermolecular["so3lr"]
    assert best.energy == pytest.approx(mean + net.inside, abs=1e-9)
    assert best.parts == pytest.approx({member: fit.energy + net.inside, "so3lr": net.energy}, abs=1e-9)
    potential = EnsemblePotential([parametrize(c.molecules[0], sites=member == "fit-hf")])
    found = potential(torch_sim.initialize_state([c.to_ase()], "cpu", torch.float64))
    assert best.energy == pytest.approx(float(found["energy"]) / c.z, abs=2e-5)
    assert energy_model("best").spec == BEST and energy_model(f" {spec} ").name == "best"


def test_without_pyscf_best_has_the_charges_of_mmff94_and_says_so(monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    spec, why = recipe("best", molecule("NC=O"))
    assert spec == PLAIN_BEST and "pip install pyscf" in why
    spec, why = recipe("best", molecule("BrC"))
    assert spec == "potential" and "Br" in why and "pip install pyscf" in why
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
    assert spec == PLAIN_BEST and "25 heavy atoms" in why
    large = molecule("CCCCCCCCCCCCCCCCCCCCCCCCC")
    assert best_parameters([parametrize(large)], [large])[0].sites is None


def test_means_may_be_nested():
    nested = energy_model("mean(potential,mean(fit,so3lr))")
    assert [m.spec for m in nested.members] == ["potential", PLAIN_BEST]
    c = crystal("urea")
    one, two = of("potential", c)[0], of(PLAIN_BEST, c)[0]
    mean = (one.between + two.between + one.inside + two.inside) / 2
    assert of(nested.spec, c)[0].energy == pytest.approx(mean, abs=1e-9)


def test_without_so3lr_best_is_the_force_field_with_charges_beside_the_atoms():
    spec, why = recipe("best", molecule("BrCC=O"))
    assert spec == WITHOUT_SO3LR and "Br" in why and f"ranked by {spec}" in why
    assert recipe("mean(2*fit,potential,so3lr)", molecule("BrCC=O"))[0] == "mean(2*fit,potential)"
    assert recipe("mean(2*fit,so3lr)", molecule("BrCC=O"))[0] == "fit"
    with pytest.raises(UnsupportedElementError, match="Br"):
        recipe("so3lr", molecule("BrCC=O"))
    assert recipe("best", molecule("NC=O")) == (BEST, "")


def test_best_falls_back_with_the_install_command_where_the_wheel_is_missing(monkeypatch):
    def missing():
        raise MissingDependencyError("so3krates-torch==0.2.1")

    monkeypatch.setattr(weights, "weights_file", missing)
    spec, why = recipe("best", molecule("NC=O"))
    assert spec == WITHOUT_SO3LR and "pip install so3krates-torch" in why


def test_without_so3lr_energies_and_geometries_are_of_one_model():
    c = crystal("urea")
    (between,), (whole,) = of("fit-hf", c), of(WITHOUT_SO3LR, c)
    mmff = of("potential", c)[0].inside
    assert whole.energy == pytest.approx(between.energy + mmff, abs=1e-9) and whole.inside == mmff
    potential = best_potential([parametrize(c.molecules[0], sites=True)], WITHOUT_SO3LR)
    found = potential(torch_sim.initialize_state([c.to_ase()], "cpu", torch.float64))
    assert whole.energy == pytest.approx(float(found["energy"]) / c.z, abs=1e-9)


@pytest.mark.parametrize(
    ("spec", "needed"),
    [("best", True), ("fit-hf", True), (WITHOUT_SO3LR, True), (f"mean(fit,{BEST})", True), (PLAIN_BEST, False)],
)
def test_charges_beside_the_atoms_are_computed_for_models_that_have_them(spec, needed):
    assert uses_sites(spec) == needed and not uses_sites("mace:fit-hf.model")


@pytest.mark.skipif(find_spec("Auto3D") is None, reason="auto3d (extra aimnet2) is not installed")
def test_aimnet2_takes_part_in_the_energy_inside_the_molecules_only():
    c = crystal("urea")
    spec = "mean(2*fit-hf,so3lr,aimnet2)"
    (with_it,), (best,), (net,) = of(spec, c), of("best", c), of("so3lr", c)
    numbers, positions, owner, _ = c.unit_cell()
    alone = AIMNet2(numbers[owner == 0])(positions[owner == 0])[0]
    assert with_it.between == pytest.approx(best.between, abs=1e-9)
    assert with_it.inside == pytest.approx((net.inside + alone) / 2, abs=1e-9)
    assert set(with_it.parts) == {"fit-hf", "so3lr"}
    assert recipe(spec, molecule("BrCC=O"))[0] == "mean(2*fit-hf,aimnet2)"


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
