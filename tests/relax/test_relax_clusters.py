"""Relaxed clusters: minima of the potential, the same whatever else is relaxed, failures with a reason."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from molflow_sim import CrystalPotential, MolecularCluster, Molecule, parametrize
from molflow_sim.packing.clusters import random_cluster
from molflow_sim.relax.clusters import Evaluations, RigidBodies, relax_cluster

MOLECULES = [Molecule.from_smiles("CC(N)=O", n_conformers=1), Molecule.from_smiles("O")]
POTENTIAL = CrystalPotential([parametrize(m) for m in MOLECULES])


@pytest.mark.parametrize("periodic", [False, True], ids=["open", "box"])
def test_a_loose_cluster_ends_at_a_minimum_well_below_its_start(periodic):
    start = random_cluster(MOLECULES, (3, 2), density=0.4, periodic=periodic, seed=1)
    before = Evaluations(start, POTENTIAL)(start.positions)[0] / 5
    done = relax_cluster(start, POTENTIAL, fmax=0.02)
    assert done.converged and not done.reason and done.max_force <= 0.02 and done.energy < before - 0.2
    energy, forces = Evaluations(done.cluster, POTENTIAL)(done.cluster.positions)
    assert energy / 5 == pytest.approx(done.energy) and np.linalg.norm(forces, axis=1).max() <= 0.02
    again = relax_cluster(done.cluster, POTENTIAL, fmax=0.021)
    assert again.energy == pytest.approx(done.energy, abs=3e-3) and again.n_steps < 40
    assert np.array_equal(done.cluster.order, start.order) and (done.cluster.cell is None) != periodic


def test_the_result_does_not_depend_on_what_was_relaxed_before():
    one, other = (random_cluster(MOLECULES, (2, 1), seed=k) for k in (1, 2))
    first = relax_cluster(one, POTENTIAL).cluster.positions
    relax_cluster(other, POTENTIAL)
    assert np.array_equal(relax_cluster(one, POTENTIAL).cluster.positions, first)


def test_the_rigid_gradient_is_that_of_the_energy():
    cluster = random_cluster(MOLECULES, (2, 1), density=0.9, seed=3)
    evaluate = Evaluations(cluster, POTENTIAL)
    bodies = RigidBodies(cluster, cluster.positions)
    q = np.random.default_rng(0).normal(scale=0.3, size=len(bodies.zero))
    _, gradient = bodies.energy(q, evaluate)
    for k in range(len(q)):
        step = 1e-4 * np.eye(len(q))[k]
        slope = (bodies.energy(q + step, evaluate)[0] - bodies.energy(q - step, evaluate)[0]) / 2e-4
        assert slope == pytest.approx(gradient[k], abs=1e-5 * np.abs(gradient).max() + 1e-7)
    shapes = [np.split(x, cluster.firsts[1:]) for x in (cluster.positions, bodies.positions(q)[0])]
    for a, b in zip(*shapes):
        np.testing.assert_allclose(cdist(b, b), cdist(a, a), atol=1e-9)


def test_a_turned_start_ends_at_the_same_energy():
    start = random_cluster(MOLECULES, (2, 1), density=0.9, seed=4)
    turn = Rotation.random(random_state=0).as_matrix()
    energies = [
        relax_cluster(c, POTENTIAL, fmax=0.01).energy for c in (start, start.with_positions(start.positions @ turn.T))
    ]
    assert energies[0] == pytest.approx(energies[1], abs=0.02)


def test_too_few_steps_and_atoms_upon_each_other_are_reasons():
    start = random_cluster(MOLECULES, (3, 2), seed=1)
    short = relax_cluster(start, POTENTIAL, max_steps=10)
    assert not short.converged and "not converged" in short.reason and np.isfinite(short.energy)
    far = start.positions + 5000.0 * (start.molecule_index == 0)[:, None]
    failed = relax_cluster(start.with_positions(far), POTENTIAL)
    assert np.isnan(failed.energy) and "not finite" in failed.reason
    x = MOLECULES[1].conformers[0]
    lone = relax_cluster(MolecularCluster((MOLECULES[1],), np.array([0]), 1.02 * x), POTENTIAL)
    assert lone.converged, "one molecule is a cluster too"
