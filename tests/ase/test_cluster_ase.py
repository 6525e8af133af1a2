"""The ASE calculator of clusters: the potential of crystals without its lattice, forces that are its derivatives."""

import numpy as np
import pytest
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet
from ase.units import fs
from molflow_ase import ClusterCalculator, CrystalCalculator
from refusals import refuses
from scipy.spatial.transform import Rotation

from molflow_sim import Molecule, parametrize
from molflow_sim.errors import ClusterError, CrystalError, NonFiniteError
from molflow_sim.packing.clusters import random_cluster
from molflow_sim.units import COULOMB

MOLECULES = [Molecule.from_smiles("CC(N)=O", n_conformers=1), Molecule.from_smiles("O")]
CLUSTER = random_cluster(MOLECULES, (3, 2), density=0.6, seed=1)


def with_calculator(cluster=CLUSTER, **options):
    atoms = cluster.to_ase()
    atoms.calc = ClusterCalculator(cluster, **options)
    return atoms


# at 160 Å the repulsion underflows
@pytest.mark.parametrize("spread", [1.0, 40.0, 150.0])
def test_an_open_cluster_is_the_plain_sum_over_its_pairs_and_molecules_however_far_they_are_apart(spread):
    table = [parametrize(m) for m in MOLECULES]
    a, b, c, q = (
        np.concatenate([getattr(table[s], name) for s in CLUSTER.order])
        for name in ("exp6_a", "exp6_b", "exp6_c", "charges")
    )
    cluster = CLUSTER.with_positions(
        CLUSTER.positions + (spread - 1.0) * np.repeat(CLUSTER.centres, CLUSTER.sizes, axis=0)
    )
    i, j = np.nonzero(np.triu(cluster.molecule_index[:, None] != cluster.molecule_index, 1))
    r = np.linalg.norm(cluster.positions[i] - cluster.positions[j], axis=1)
    dispersion = np.sqrt(c[i] * c[j]) / r**6
    pairs = np.sqrt(a[i] * a[j]) * np.exp(-0.5 * (b[i] + b[j]) * r) - dispersion * (1.0 - 1.1**6 / r**6)
    between = float(np.sum(pairs + COULOMB * q[i] * q[j] / r))
    inside = sum(_alone(k) for k in range(5))
    atoms = cluster.to_ase()
    atoms.calc = ClusterCalculator(CLUSTER)
    assert atoms.get_potential_energy() == pytest.approx(between + inside, abs=1e-6)
    assert atoms.calc.results["intermolecular_energy"] == pytest.approx(between, abs=1e-8)
    assert np.abs(atoms.get_forces()).max() < 100.0


def _alone(k: int) -> float:
    """MMFF94 energy of one molecule, by RDKit."""
    from molflow_sim.chemistry.conformers import mmff_energies

    x = np.split(CLUSTER.positions, CLUSTER.firsts[1:])[k]
    return float(mmff_energies(MOLECULES[CLUSTER.order[k]].rdmol, x[None])[0])


# SO3LR's network, half of "best", computes in single precision
@pytest.mark.parametrize("energy, tolerance", [("potential", 1e-6), ("best", 2e-3)])
def test_forces_are_minus_the_gradient(energy, tolerance):
    atoms = with_calculator(energy=energy)
    atoms.rattle(0.05, seed=2)
    forces, rng = atoms.get_forces(), np.random.default_rng(0)
    assert np.abs(forces.sum(0)).max() < tolerance
    for _ in range(4):
        k, d = rng.integers(len(atoms)), rng.integers(3)
        energies = []
        for step in (-2e-3, -1e-3, 1e-3, 2e-3):
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.positions[k, d] += step
            energies.append(moved.get_potential_energy())
        slope = (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / 12e-3
        assert -slope == pytest.approx(forces[k, d], abs=tolerance * np.abs(forces).max())


def test_a_turned_and_moved_cluster_has_the_same_energy_and_turned_forces():
    atoms = with_calculator()
    turn = Rotation.random(random_state=0).as_matrix()
    other = with_calculator(CLUSTER.with_positions(CLUSTER.positions @ turn.T + [700.0, 0.0, -300.0]))
    assert other.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    np.testing.assert_allclose(other.get_forces(), atoms.get_forces() @ turn.T, atol=1e-7)


def test_a_wide_box_is_nearly_open_space_and_a_box_is_a_crystal():
    alone = with_calculator().get_potential_energy()
    box = with_calculator(CLUSTER.with_positions(CLUSTER.positions, 80.0 * np.eye(3)), cutoff=30.0)
    assert box.get_potential_energy() == pytest.approx(alone, abs=2e-3)
    packed = random_cluster(MOLECULES, (4, 3), density=0.5, periodic=True)
    atoms, crystal = with_calculator(packed), packed.to_ase()
    crystal.calc = CrystalCalculator()
    assert atoms.get_potential_energy() == pytest.approx(crystal.get_potential_energy(), abs=1e-7)
    np.testing.assert_allclose(atoms.get_forces(), crystal.get_forces(), atol=1e-6)


def test_molecules_are_read_from_atoms_in_any_order():
    shuffled = CLUSTER.to_ase()[np.random.default_rng(1).permutation(len(CLUSTER.positions))]
    shuffled.calc = ClusterCalculator()
    assert shuffled.get_potential_energy() == pytest.approx(with_calculator().get_potential_energy(), abs=1e-8)
    order = [int(np.argmin(np.linalg.norm(CLUSTER.positions - x, axis=1))) for x in shuffled.positions]
    np.testing.assert_allclose(shuffled.get_forces(), with_calculator().get_forces()[order], atol=1e-7)


def test_open_and_periodic_take_turns_on_one_calculator():
    calculator = ClusterCalculator(CLUSTER)
    box = CLUSTER.with_positions(CLUSTER.positions, 25.0 * np.eye(3)).to_ase()
    first = [calculator.get_potential_energy(atoms) for atoms in (CLUSTER.to_ase(), box)]
    assert [calculator.get_potential_energy(atoms) for atoms in (CLUSTER.to_ase(), box)] == first
    assert abs(first[0] - first[1]) > 1e-6


def test_a_droplet_keeps_its_energy():
    atoms = with_calculator()
    MaxwellBoltzmannDistribution(atoms, temperature_K=100, rng=np.random.default_rng(0))
    Stationary(atoms)
    totals = []
    with VelocityVerlet(atoms, 0.25 * fs) as run:
        run.attach(lambda: totals.append(atoms.get_total_energy()), interval=5)
        run.run(300)
    kinetic = atoms.get_kinetic_energy()
    assert np.std(totals) < 5e-3 * kinetic and abs(totals[-1] - totals[1]) < 1e-2 * kinetic


def test_atoms_that_are_no_cluster_are_refused():
    atoms = with_calculator()
    atoms.pbc = [True, False, False]
    refuses(ClusterError, "some directions", atoms.get_potential_energy)
    far = with_calculator(CLUSTER.with_positions(CLUSTER.positions + 3000.0 * (CLUSTER.molecule_index == 0)[:, None]))
    refuses(NonFiniteError, "not finite", far.get_potential_energy)
    other = CLUSTER.to_ase()
    other.calc = ClusterCalculator(MOLECULES[0])
    refuses(CrystalError, "whole molecules", other.get_potential_energy)
    assert "stress" not in ClusterCalculator.implemented_properties
