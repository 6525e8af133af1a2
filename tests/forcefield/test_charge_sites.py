"""Charges beside the atoms: what they reproduce, and the potential that has them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch_sim
from rdkit import Chem

from molflow_sim import CrystalPotential, Molecule, parametrize
from molflow_sim.errors import InputError
from molflow_sim.forcefield.esp import equivalent_atoms, fit_charges, hf_potential, inverse_distances, shell_points
from molflow_sim.forcefield.site_potential import SitePotential
from molflow_sim.forcefield.sites import ChargeSites, charge_sites, site_weights
from molflow_sim.packing import press, random_packings
from molflow_sim.testing import validate_potential

FORMAMIDE = Molecule.from_smiles("NC=O", n_conformers=1)


def with_sites(molecule, charges=None):
    """Parameters with sites of made-up charges that sum to zero."""
    weights, classes = site_weights(molecule, molecule.conformers[0])
    if charges is None:
        charges = np.random.default_rng(3).normal(0.0, 0.2, classes.max() + 1)[classes]
    return replace(parametrize(molecule), sites=ChargeSites(weights, charges - charges.mean()))


def packed(molecule, n=3):
    packings = press(random_packings(molecule, 2 * n, seed=1), parametrize(molecule))
    return [packings.crystal(int(i)) for i in np.flatnonzero(packings.ok)[:n]]


def evaluated(potential, crystals):
    state = torch_sim.initialize_state([c.to_ase() for c in crystals], torch.device("cpu"), torch.float64)
    return potential(state)


@pytest.mark.parametrize(("smiles", "sites"), [("C", 4), ("O=C=O", 2), ("c1ccccc1", 6), ("NC=O", 4), ("CO", 5)])
def test_an_atom_has_a_site_unless_it_would_lie_on_the_atom(smiles, sites):
    molecule = Molecule.from_smiles(smiles, n_conformers=1)
    x = molecule.conformers[0]
    weights, classes = site_weights(molecule, x)
    n = molecule.n_atoms
    assert len(weights) == n + sites
    np.testing.assert_allclose(weights.sum(1), 1.0)
    np.testing.assert_array_equal(weights[:n], np.eye(n))
    np.testing.assert_array_equal(classes[:n], equivalent_atoms(molecule.rdmol))
    assert np.linalg.norm(weights[n:] @ x - x[weights[n:].argmax(1)], axis=1).min() > 0.1


def test_without_charges_beside_the_atoms_it_is_the_crystal_potential():
    parameters = parametrize(FORMAMIDE)
    weights, _ = site_weights(FORMAMIDE, FORMAMIDE.conformers[0])
    charges = np.append(parameters.charges, np.zeros(len(weights) - FORMAMIDE.n_atoms))
    crystals = packed(FORMAMIDE)
    ours = evaluated(SitePotential([replace(parameters, sites=ChargeSites(weights, charges))]), crystals)
    plain = evaluated(CrystalPotential([parameters], intramolecular=False), crystals)
    for name in ("energy", "forces", "stress"):
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-9, atol=1e-10)


def test_forces_and_stress_are_the_gradients_of_the_energy():
    validate_potential(SitePotential([with_sites(FORMAMIDE)]), packed(FORMAMIDE))


def test_two_species_in_one_batch_are_as_each_alone():
    other = Molecule.from_smiles("CO", n_conformers=1)
    a, b = with_sites(FORMAMIDE), with_sites(other)
    crystals = [packed(FORMAMIDE, 1)[0], packed(other, 1)[0]]
    together = evaluated(SitePotential([a, b]), crystals)["energy"]
    alone = [float(evaluated(SitePotential([p]), [c])["energy"]) for p, c in zip((a, b), crystals)]
    np.testing.assert_allclose(together, alone, rtol=1e-10)


def test_a_species_without_sites_is_refused():
    with pytest.raises(InputError, match="sites=True"):
        SitePotential([parametrize(FORMAMIDE)])


def test_they_come_nearer_to_the_potential_than_charges_on_atoms_in_any_order_of_the_atoms():
    pytest.importorskip("pyscf")
    molecule = Molecule.from_smiles("c1c[nH]cn1", n_conformers=1)
    x, symbols = molecule.conformers[0], list(molecule.symbols)
    points = shell_points(symbols, x)
    potential = hf_potential(symbols, x, points)

    def error(where, charges):
        made = inverse_distances(points, where) @ charges
        return np.sqrt(((made - potential) ** 2).sum() / (potential**2).sum())

    classes = equivalent_atoms(molecule.rdmol)
    on_atoms = error(x, fit_charges(inverse_distances(points, x), potential, classes, molecule.numbers > 1))
    found = charge_sites(molecule)
    assert error(found.weights @ x, found.charges) < 0.7 * on_atoms < 0.1
    order = np.random.default_rng(0).permutation(molecule.n_atoms).tolist()
    conformer = Chem.Conformer(len(x))
    conformer.SetPositions(np.array(x))
    whole = Chem.Mol(molecule.rdmol)
    whole.AddConformer(conformer)
    other = Molecule.from_rdkit(Chem.RenumberAtoms(whole, order))
    renamed = charge_sites(other)
    near = np.linalg.norm((renamed.weights @ x[order])[:, None] - found.weights @ x, axis=-1)
    np.testing.assert_allclose(near.min(1), 0.0, atol=1e-9)
    np.testing.assert_allclose(renamed.charges, found.charges[near.argmin(1)], atol=1e-12)
