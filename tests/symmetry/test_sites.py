"""Special positions against the International Tables, and orientations that really carry the site symmetry."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from molflow_sim.symmetry import SpaceGroup
from molflow_sim.symmetry.sites import _sites, site_orientations, special_placements

BODY = Rotation.random(random_state=1).as_matrix()


def point_group(*generators) -> np.ndarray:
    """Closure of the generators, turned into an arbitrary body frame."""
    ops = [np.eye(3)]
    while True:
        new = [a @ b for a in ops for b in map(np.asarray, generators)]
        fresh = []
        for x in new:
            if not any(np.allclose(x, y, atol=1e-6) for y in ops + fresh):
                fresh.append(x)
        if not fresh:
            return BODY @ np.array(ops) @ BODY.T
        ops += fresh


D2H = point_group(np.diag([-1.0, 1, 1]), np.diag([1.0, -1, 1]), np.diag([1.0, 1, -1]))
C2V = point_group(np.diag([-1.0, 1, 1]), np.diag([1.0, -1, 1]))
CI = point_group(-np.eye(3))
C3V = point_group(np.diag([-1.0, 1, 1]), Rotation.from_rotvec([0, 0, 2 * np.pi / 3]).as_matrix())


# Numbers of Wyckoff positions with site symmetry, International Tables for Crystallography, vol. A.
@pytest.mark.parametrize(
    "name, count",
    [
        ("P -1", 8), ("P 1 21/c 1", 4), ("C 1 2/c 1", 5), ("P b c a", 2), ("P n m a", 3), ("P -4 21 m", 5),
        ("C 1 2/m 1", 9), ("R -3:H", 5), ("I 41/a:2", 5), ("F d d 2", 1), ("P c c n", 4), ("P b c n", 3),
        ("P 41 21 2", 1), ("P 21 21 2", 2), ("P 21 21 21", 0),
    ],
)  # fmt: skip
def test_special_positions_are_as_many_as_the_tables_list(name, count):
    assert len(_sites(name)) == count


@pytest.mark.parametrize(
    "name, molecule, z_primes",
    [
        ("P -1", CI, {0.5}),
        ("P -1", C2V, set()),
        ("P n m a", C2V, {0.5}),
        ("P -4 21 m", C2V, {0.5, 0.25}),  # urea's site is 2c, mm2
        ("P b c a", D2H, {0.5}),  # benzene's and many others' inversion centre
        ("C 1 2/m 1", D2H, {0.5, 0.25}),
        ("R -3:H", C3V, {1 / 3}),  # the threefold axis
    ],
)
def test_a_molecule_reaches_the_sites_its_point_group_allows(name, molecule, z_primes):
    found = special_placements(SpaceGroup.from_name(name), [molecule])
    assert {p.z_prime_per_molecule for p in found} == z_primes


@pytest.mark.parametrize("name", ["C 1 2/c 1", "P n m a", "P -4 21 m", "C 1 2/m 1", "P b c n"])
def test_orientations_put_molecular_symmetry_on_the_site(name):
    group = SpaceGroup.from_name(name)
    for place in special_placements(group, [D2H]):
        centre = place.site_centroid
        delta = group.rotations @ centre + group.translations - centre
        stabiliser = np.abs(delta - np.rint(delta)).max(1) < 1e-6
        for rotation in place.orientations[0]:
            for w in group.cartesian_rotations[stabiliser]:
                image = rotation.T @ w @ rotation
                # Moving along the site keeps a subgroup only, so ask for those operations that fix every direction.
                if np.allclose(w @ place.translation_projector, place.translation_projector, atol=1e-9):
                    assert np.abs(image - D2H).max((1, 2)).min() < 1e-6


def test_a_site_without_axis_leaves_the_orientation_free():
    (rotation,) = site_orientations(np.array([np.eye(3), -np.eye(3)]), CI)
    assert np.allclose(rotation, np.eye(3))


def test_a_molecule_without_the_symmetry_gets_no_orientation():
    assert len(site_orientations(np.array([np.eye(3), np.diag([1.0, 1, -1])]), CI)) == 0
