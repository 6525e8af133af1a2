"""The crystal that a cluster implies: it comes back from the crystal's own molecules, also from disturbed ones."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from molflow_sim import MolecularCluster, Molecule
from molflow_sim.evaluate import packing_similarity
from molflow_sim.packing import RigidPackings, random_packings
from molflow_sim.packing.implied import implied_crystal
from molflow_sim.packing.random_packing import placements_for
from molflow_sim.symmetry.placements import general_placement

MOLECULE = Molecule.from_smiles("CC(N)=O", n_conformers=1)
GROUPS = ["P -1", "P 1 21 1", "P 1 21/c 1", "C 1 2/c 1", "P 1 c 1", "P 21 21 21", "P 21 21 2", "P n a 21", "P b c a"]


def crystal_in(group, seed=1, molecule=MOLECULE):
    """A crystal of the usual density with axes of like lengths; whether molecules overlap does not matter here."""
    return random_packings(molecule, 1, space_groups=[group], seed=seed, packing_coefficient=(0.7, 0.74)).crystal(0)


def cluster_of(crystal, seed=0, angle=0.0, shift=0.0):
    """Its 17 molecules (17, N, 3) in any order and frame, turned by about `angle` rad and moved by `shift` Å."""
    rng = np.random.default_rng(seed)
    x = MolecularCluster.from_crystal(crystal, n=17).positions.reshape(17, -1, 3)[rng.permutation(17)]
    middle = x.mean(1, keepdims=True)
    turns = Rotation.from_rotvec(angle / 3**0.5 * rng.normal(size=(17, 3))).as_matrix()
    x = (x - middle) @ turns + middle + shift / 3**0.5 * rng.normal(size=(17, 1, 3))
    return x @ Rotation.random(random_state=seed).as_matrix() + [3.0, -2.0, 1.0]


def implied(x, molecule=MOLECULE, space_groups="common"):
    """The crystal of a cluster, and its misfit in Å."""
    packed = random_packings(molecule, 1)
    symmetry = molecule.point_group_operations()[0]
    found = implied_crystal(packed.conformers[0], x, symmetry, molecule.volume, *placements_for(molecule, space_groups))
    made = RigidPackings.proposed(
        molecule, packed.conformers, [general_placement(found.space_group)], [0], [0], found.cell[None],
        found.centroid[None, None], found.rotation[None, None],
    )  # fmt: skip
    return made.crystal(0), found.misfit


@pytest.mark.parametrize("group", GROUPS)
def test_a_crystals_own_molecules_give_it_back(group):
    crystal = crystal_in(group)
    found, misfit = implied(cluster_of(crystal))
    match = packing_similarity(crystal, found)
    assert match.n_matched == 15 and match.rmsd < 0.05 and misfit < 0.1, (found, match)
    assert found.space_group.number == crystal.space_group.number and found.z == crystal.z


@pytest.mark.parametrize("group", ["P -1", "P 1 21/c 1", "P 21 21 21"])
def test_disturbed_molecules_give_it_back_closer_than_they_are(group):
    crystal = crystal_in(group)
    found, misfit = implied(cluster_of(crystal, angle=np.radians(10.0), shift=0.3))
    match = packing_similarity(crystal, found)
    assert match.n_matched == 15 and match.rmsd < 0.3 < misfit < 0.8


def test_an_enantiopure_crystal_keeps_its_hand():
    halide = Molecule.from_smiles("C[C@H](F)Cl", n_conformers=1)
    crystal = crystal_in("P 21 21 2", molecule=halide)
    found, _ = implied(cluster_of(crystal), halide)
    match = packing_similarity(crystal, found, allow_inversion=False)
    assert match.n_matched == 15 and match.rmsd < 0.05
    assert np.linalg.det(found.asymmetric_unit[0].orientation) > 0


def test_a_molecule_on_an_inversion_centre_is_found_in_a_subgroup():
    ethene = Molecule.from_smiles("C=C", n_conformers=1)
    packings = random_packings(ethene, 40, space_groups=["P 1 21/c 1"], packing_coefficient=(0.72, 0.72))
    special = next(i for i, p in enumerate(packings.placement) if not packings.placements[p].is_general)
    crystal = packings.crystal(special)
    found, misfit = implied(cluster_of(crystal), ethene)
    assert packing_similarity(crystal, found).n_matched == 15 and misfit < 0.1 and found.z == crystal.z == 2


def test_molecules_at_random_lie_near_no_crystal():
    rng = np.random.default_rng(0)
    centres = 7.0 * rng.uniform(-1.0, 1.0, (17, 1, 3))
    x = MOLECULE.conformers[0] @ Rotation.random(17, random_state=0).as_matrix() + centres
    assert implied(x)[1] > 2.0


def test_only_groups_that_are_asked_for_are_found():
    found, misfit = implied(cluster_of(crystal_in("P 1 21/c 1")), space_groups=["P -1", "P 21 21 21"])
    assert found.space_group.name in ("P -1", "P 21 21 21") and misfit > 0.5
