"""Molecules that lie in one another come apart, and loose ones together, whatever the force field thinks of it."""

import numpy as np
import pytest

from molflow_sim import Molecule
from molflow_sim.evaluate import heavy_atom_overlap
from molflow_sim.evaluate.overlap import CLASH_OVERLAP
from molflow_sim.flow.placing import sphere_radius
from molflow_sim.forcefield import parametrize
from molflow_sim.packing.clusters import random_cluster
from molflow_sim.relax.parting import SoftOverlap, parted
from molflow_sim.systems.cluster import MolecularCluster
from molflow_sim.units import AMU_PER_A3


@pytest.fixture(scope="module")
def hexane():
    return Molecule.from_smiles("CCCCCC", n_conformers=1)


def crossed(molecule: Molecule) -> MolecularCluster:
    """Two molecules across one another, their middles 0.8 Å apart."""
    x = molecule.conformers[0] - molecule.conformers[0].mean(0)
    _, _, axes = np.linalg.svd(x)
    along, up = axes[0], axes[2]
    turn = np.stack([np.cross(up, along), along, up]).T @ np.stack([along, -np.cross(up, along), up])
    return MolecularCluster((molecule,), np.zeros(2, int), np.concatenate([x, x @ turn.T + 0.8 * up]))


def test_forces_are_the_slope_of_the_energy(hexane):
    water = Molecule.from_smiles("O", n_conformers=1)
    loose = random_cluster([hexane, water], [2, 2], density=0.4, tolerance=1.0, seed=3)
    rng = np.random.default_rng(0)
    x = 0.8 * loose.positions + 0.05 * rng.normal(size=loose.positions.shape)
    soft = SoftOverlap(loose, [parametrize(hexane), parametrize(water)], radius=4.0)
    _, forces = soft(x)
    step = 1e-5
    for atom, axis in rng.integers([0, 0], [len(x), 3], size=(20, 2)):
        energies = []
        for sign in (1, -1):
            moved = x.copy()
            moved[atom, axis] += sign * step
            energies.append(soft(moved)[0])
        assert -(energies[0] - energies[1]) / (2 * step) == pytest.approx(forces[atom, axis], rel=1e-4, abs=1e-4)


def test_pairs_that_come_near_later_are_seen(hexane):
    loose = random_cluster([hexane], [2], density=0.01, seed=0)
    soft = SoftOverlap(loose, [parametrize(hexane)])
    alone = soft(loose.positions)[0]
    close = crossed(hexane).positions
    assert soft(close)[0] > alone + 1.0
    assert soft(close)[0] == pytest.approx(SoftOverlap(loose, [parametrize(hexane)])(close)[0])


def test_molecules_that_lie_in_one_another_are_parted(hexane):
    cluster = crossed(hexane)
    assert heavy_atom_overlap(cluster) > 1.5
    assert heavy_atom_overlap(parted(cluster, [parametrize(hexane)])) < 0.4


def test_loose_molecules_are_drawn_into_a_sphere_and_keep_their_shape(hexane):
    loose = random_cluster([hexane], [12], density=0.05, seed=1)
    volume = AMU_PER_A3 * float(loose.masses.sum()) / 0.4
    drawn = parted(loose, [parametrize(hexane)], radius=sphere_radius(volume), rigid=True)
    assert np.linalg.norm(loose.positions, axis=1).max() > sphere_radius(volume) + 3.0
    assert np.linalg.norm(drawn.positions, axis=1).max() < sphere_radius(volume) + 0.3
    assert heavy_atom_overlap(drawn) < CLASH_OVERLAP
    lengths = [np.linalg.norm(c.positions[c.bonds[:, 0]] - c.positions[c.bonds[:, 1]], axis=1) for c in (loose, drawn)]
    assert np.abs(lengths[0] - lengths[1]).max() < 0.05
