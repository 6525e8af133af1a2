"""The reduced cell is a property of the lattice, not of the basis it is given in."""

import numpy as np
import pytest

from molflow_sim.symmetry import cell_matrix, cell_parameters
from molflow_sim.symmetry.reduction import reduced_basis


@pytest.mark.parametrize(
    "parameters",
    [(5, 5, 5, 90, 90, 90), (7, 7, 7, 60, 60, 60), (6, 6, 6, 109.4712206, 109.4712206, 109.4712206),
     (5, 5, 9, 90, 90, 120), (5, 5, 9, 90, 90, 90), (6, 6, 6, 80, 80, 80), (5, 7, 7, 60, 90, 90)],
)  # fmt: skip
def test_degenerate_lattices_have_one_reduced_cell_whatever_the_basis(parameters):
    rng = np.random.default_rng(0)
    cell = cell_matrix(np.array(parameters, dtype=float))
    wanted = cell_parameters(reduced_basis(cell) @ cell)
    for _ in range(50):
        basis = np.eye(3)[rng.permutation(3)]
        for _ in range(rng.integers(0, 6)):
            i, j = rng.choice(3, 2, replace=False)
            basis[i] += rng.integers(-2, 3) * basis[j]
        given = cell_matrix(cell_parameters(basis * np.linalg.det(basis) @ cell))
        change = reduced_basis(given)
        assert round(np.linalg.det(change)) == 1  # handedness kept
        np.testing.assert_allclose(cell_parameters(change @ given), wanted, atol=1e-6)
