"""Speared rings, and overlaps of clusters."""

import numpy as np
import pytest
from special_positions import molecule

from molflow_sim import MolecularCluster
from molflow_sim.evaluate import CLASH_OVERLAP, heavy_atom_overlap, speared_rings

BENZENE, ETHYNE = molecule("c1ccccc1"), molecule("C#C")


def flat(x: np.ndarray) -> np.ndarray:
    """Positions with their thinnest axis along z, their longest along x."""
    return (x - x.mean(0)) @ np.linalg.svd(x - x.mean(0))[2].T


def threaded(offset: float, cell=None, shift=(0.0, 0.0, 0.0)) -> MolecularCluster:
    """Ethyne through the plane of benzene, `offset` Å beside the middle of the ring."""
    needle = flat(ETHYNE.conformers[0])[:, [2, 1, 0]] + [offset, 0.0, 0.0] + np.array(shift)
    return MolecularCluster(
        (BENZENE, ETHYNE), np.array([0, 1]), np.concatenate([flat(BENZENE.conformers[0]), needle]), cell
    )


def test_a_bond_through_the_middle_spears_and_one_beside_the_ring_does_not():
    ((ring, bond),) = speared_rings(threaded(0.0))
    assert len(ring) == 6 and set(ring) <= set(range(12)) and set(threaded(0.0).numbers[list(bond)]) == {6}
    assert len(speared_rings(threaded(0.9))) == 1, "still inside"
    assert speared_rings(threaded(2.0)) == [] == speared_rings(threaded(8.0))


@pytest.mark.parametrize("image", [(0, 0, 0), (1, 0, 0), (0, -2, 1)])
def test_images_of_a_periodic_box_spear_too(image):
    cell = np.array([[9.0, 0, 0], [1.0, 10.0, 0], [0, 2.0, 11.0]])
    assert len(speared_rings(threaded(0.0, cell, np.array(image) @ cell))) == 1
    assert speared_rings(threaded(0.0, None, np.array([1, 0, 0]) @ cell)) == []


def test_a_turned_pair_is_speared_as_before():
    from scipy.spatial.transform import Rotation

    for seed in range(5):
        turn = Rotation.random(random_state=seed).as_matrix()
        pair = threaded(0.5)
        assert len(speared_rings(pair.with_positions(pair.positions @ turn.T + seed))) == 1


def test_molecules_without_rings_are_never_speared():
    x = ETHYNE.conformers[0]
    assert speared_rings(MolecularCluster((ETHYNE,), np.array([0, 0]), np.concatenate([x, x + 0.5]))) == []


def test_a_speared_pair_overlaps_and_one_apart_does_not():
    assert heavy_atom_overlap(threaded(0.0)) > CLASH_OVERLAP
    assert heavy_atom_overlap(threaded(12.0)) == 0.0
    box = np.diag([14.0, 14.0, 14.0])
    assert heavy_atom_overlap(threaded(12.0, box)) > CLASH_OVERLAP, "an image is near"
