"""The mean of force field and network as one potential: true derivatives, whole molecules, symmetry."""

import numpy as np
import pytest
import torch
import torch_sim
from crystal_examples import crystal
from special_positions import special

from molflow_sim.energies import EnsemblePotential
from molflow_sim.energies.models import BESTS
from molflow_sim.errors import InputError, UnsupportedElementError
from molflow_sim.forcefield import CrystalPotential, parametrize
from molflow_sim.forcefield.aimnet2 import AIMNet2
from molflow_sim.relax.flexible import relax_flexible
from molflow_sim.relax.symmetry import atom_permutations
from molflow_sim.so3lr.potential import SO3LR, Orbits
from molflow_sim.systems.molecule import Molecule
from molflow_sim.testing import validate_potential


def potential_of(*crystals, exact=True) -> EnsemblePotential:
    return made("mean(fit,so3lr,aimnet2)", crystals, exact)


def made(spec, crystals, exact=True) -> EnsemblePotential:
    parameters = [parametrize(c.molecules[0], sites="fit-hf" in spec) for c in crystals]
    potential = EnsemblePotential(parameters, spec)
    if exact and potential.so3lr is not None:
        potential.so3lr = SO3LR(dtype="float64")
    return potential


@pytest.mark.parametrize("spec", BESTS)
def test_it_passes_the_conformance_kit_for_potentials(spec):
    crystals = crystal("formamide"), crystal("urea")
    rounded = {"tolerance": 1e-5, "derivative_tolerance": 5e-4, "step": 5e-3}  # AIMNet2 rounds positions
    validate_potential(made(spec, crystals), crystals, **(rounded if "aimnet2" in spec else {}))


def test_the_energy_is_the_mean_between_molecules_and_that_of_the_networks_inside():
    c = crystal("formamide")
    numbers, positions, molecule, _ = c.unit_cell()
    state = torch_sim.initialize_state([c.to_ase()], "cpu", torch.float64)
    found = potential_of(c)(state)
    net = SO3LR(dtype="float64")
    alone = sum(net.evaluate([numbers[molecule == m]], [positions[molecule == m]])[0][0] for m in range(c.z))
    whole = net.evaluate([numbers], [positions], [c.cell])[0][0]
    zero = net.weights.shift[numbers - 1].sum()
    fit = CrystalPotential([parametrize(c.molecules[0])])(state)["intermolecular_energy"]
    other = sum(AIMNet2(numbers[molecule == m])(positions[molecule == m])[0] for m in range(c.z))
    assert float(found["intramolecular_energy"]) == pytest.approx((alone - zero + other) / 2, abs=1e-6)
    assert float(found["intermolecular_energy"]) == pytest.approx(0.5 * (float(fit) + whole - alone), abs=1e-7)


@pytest.mark.parametrize("c", [crystal("glycolic"), special("inversion"), special("mirror")], ids=str)
def test_with_the_symmetry_announced_the_results_are_those_without(c):
    potential = potential_of(c)
    state = torch_sim.initialize_state([c.to_ase()], "cpu", torch.float64)
    without = potential(state)
    potential.symmetric([Orbits.from_permutations(atom_permutations(c), c.space_group.rotations)])
    with_it = potential(state)
    for name in without:
        assert with_it[name].numpy() == pytest.approx(without[name].numpy(), abs=2e-5)


def test_a_relaxation_ends_where_forces_and_stress_vanish_and_keeps_the_space_group():
    c = crystal("urea")
    potential = potential_of(c, exact=False)
    result = relax_flexible([c], potential)[0]
    assert result.converged, result.reason
    assert result.crystal.space_group.name == c.space_group.name
    fresh = potential_of(c)
    out = fresh(torch_sim.initialize_state([result.crystal.to_ase()], "cpu", torch.float64))
    assert float(out["forces"].norm(dim=1).max()) < 0.011
    assert np.isclose(float(out["energy"]) / c.z, result.energy, atol=1e-5)


def test_a_molecule_that_the_network_does_not_know_is_refused():
    with pytest.raises(UnsupportedElementError, match="Br"):
        EnsemblePotential([parametrize(Molecule.from_smiles("BrC"))], "mean(fit,so3lr,aimnet2)")


def test_without_so3lr_fit_holds_the_molecules_together_and_aimnet2_in_shape():
    c = crystal("formamide")
    state = torch_sim.initialize_state([c.to_ase()], "cpu", torch.float64)
    found = made("mean(fit,aimnet2)", [c])(state)
    fit = CrystalPotential([parametrize(c.molecules[0])])(state)["intermolecular_energy"]
    assert float(found["intermolecular_energy"]) == pytest.approx(float(fit), abs=1e-6)


def test_a_mean_that_is_none_of_bests_has_no_potential():
    with pytest.raises(InputError, match=r"no potential belongs to 'mean\(fit,potential\)'"):
        EnsemblePotential([parametrize(crystal("urea").molecules[0])], "mean(fit,potential)")
