"""The press's energy: compiled = torch, gradients = finite differences, and the symmetry it rests on."""

import functools

import numpy as np
import pytest
import roma
import torch
from refusals import refuses

from molflow_sim.errors import InputError
from molflow_sim.forcefield.exp6 import GUARD_RADIUS
from molflow_sim.packing import pair_torch
from molflow_sim.packing.lattice_energy import LatticeEnergy, choose_backend
from molflow_sim.packing.neighbours import Geometry
from molflow_sim.packing.tables import GUARD, PressTables, contact_distances
from molflow_sim.symmetry import SpaceGroup, cell_matrix
from molflow_sim.symmetry.placements import general_placement

GROUPS = ["P 1", "P -1", "P 1 21/c 1", "C 1 2/c 1", "P n a 21", "P 41 21 2", "R -3:H"]
N = 7


@pytest.fixture(scope="module")
def tables() -> PressTables:
    rng = np.random.default_rng(4)
    positions = rng.normal(size=(2, N, 3)) * 1.2
    positions -= positions.mean(1, keepdims=True)
    charges = rng.normal(size=N) * 0.3
    numbers = np.array([6, 1, 8, 7, 1, 6, 9])
    bonds = np.array([[0, 1], [0, 2], [3, 4], [5, 6]])
    a, b, c = rng.uniform(500, 3000, N), rng.uniform(3.4, 4.0, N), rng.uniform(2, 25, N)
    placements = [general_placement(name) for name in GROUPS]
    return PressTables(numbers, positions, a, b, c, charges - charges.mean(), bonds, placements)


def geometry(tables: PressTables, n: int, molecules: int, seed: int = 0) -> Geometry:
    """Random cells of every group, dense enough for contacts and loose enough for finite numbers."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % len(GROUPS)
    cells = []
    for k in group:
        sg = SpaceGroup.from_name(GROUPS[k])
        p = sg.constrain(np.r_[np.exp(0.3 * rng.normal(size=3)), rng.uniform(70, 110, 3)])
        volume = np.linalg.det(cell_matrix(p))
        p[:3] *= np.cbrt(sg.order * molecules * 130.0 / volume)
        cells.append(cell_matrix(p))
    torch.manual_seed(seed)
    return Geometry(
        torch.tensor(np.array(cells)),
        torch.rand(n, molecules, 3, dtype=torch.float64),
        roma.random_rotmat((n, molecules), dtype=torch.float64),
        torch.tensor(np.arange(n) % 2),
        torch.tensor(group),
    )


@pytest.mark.parametrize("molecules", [1, 2])
def test_lists_weigh_the_images_as_a_search_of_all_cells_around_does(tables, molecules):
    """Entries with their weights sum functions of the distance to half of what all images together give."""
    geo, cutoff = geometry(tables, 14, molecules), 11.0
    found = LatticeEnergy(tables, "numba").neighbours(geo, cutoff)
    offsets = np.stack(np.meshgrid(*[np.arange(-6.0, 7.0)] * 3), -1).reshape(-1, 3)
    for k in range(len(geo)):
        cell, centre, place = geo.cell[k].numpy(), geo.centroid[k].numpy(), general_placement(GROUPS[geo.group[k]])
        images = (place.frac_rot @ centre.T).mT + place.frac_tran[:, None]  # (G, M, 3)

        def distance(i, j, g, n, images=images, centre=centre, cell=cell):
            return np.linalg.norm((images[g, j] + n - centre[i]) @ cell, axis=-1)

        i, j, g = (x.ravel() for x in np.indices((molecules, molecules, len(images))))
        everywhere = distance(i[:, None], j[:, None], g[:, None], offsets[None])
        everywhere = everywhere[(everywhere < cutoff) & (everywhere > 1e-9)]
        rows = slice(found.start_np[k], found.start_np[k + 1])
        listed = distance(found.i_np[rows], found.j_np[rows], found.g_np[rows], found.n_np[rows])
        assert listed.max() < cutoff
        assert 2 * found.weight_np[rows].sum() == len(everywhere)
        assert 2 * found.weight_np[rows] @ listed**2 == pytest.approx((everywhere**2).sum(), rel=1e-12)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("molecules", [1, 2])
def test_compiled_and_torch_energies_and_gradients_agree_to_1e_5(tables, molecules, soft):
    geo = geometry(tables, 30, molecules)
    a, b = LatticeEnergy(tables, "numba"), LatticeEnergy(tables, "torch")
    neighbours = a.neighbours(geo, 11.0)
    for x, y in zip(a(geo, neighbours, soft=soft, pressure=0.01), b(geo, neighbours, soft=soft, pressure=0.01)):
        scale = y.flatten(1).norm(dim=1) if y.dim() > 1 else y.abs()
        error = (x - y).flatten(1).norm(dim=1) if y.dim() > 1 else (x - y).abs()
        assert bool((error <= 1e-5 * scale.clamp_min(scale.median())).all())


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("molecules", [1, 2])
def test_gradients_equal_finite_differences(tables, molecules, soft):
    n = 21
    geo = geometry(tables, n, molecules)
    energy = LatticeEnergy(tables, "torch")
    energy._pairs = functools.partial(pair_torch.evaluate, pair_dtype=torch.float64)
    neighbours = energy.neighbours(geo, 11.0)
    _, g_cell, g_centroid, g_rotation = energy(geo, neighbours, soft=soft, pressure=0.01)
    torch.manual_seed(1)
    d_cell = torch.einsum("bkxy,k->bxy", tables.cell_basis[geo.group], torch.randn(6, dtype=torch.float64))
    d_centroid = 0.1 * torch.randn(n, molecules, 3, dtype=torch.float64)
    d_rotation = torch.randn(n, molecules, 3, dtype=torch.float64)

    def moved(h):
        return Geometry(
            geo.cell + h * d_cell, geo.centroid + h * d_centroid,
            roma.rotvec_to_rotmat(h * d_rotation) @ geo.rotation, geo.conformer, geo.group,
        )  # fmt: skip

    h = 1e-5
    up, down = (energy(moved(s), neighbours, soft=soft, pressure=0.01)[0] for s in (h, -h))
    expected = (
        (g_cell * d_cell).sum((1, 2)) + (g_centroid * d_centroid).sum((1, 2)) + (g_rotation * d_rotation).sum((1, 2))
    )
    torch.testing.assert_close((up - down) / (2 * h), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().median()))


def test_half_list_counts_every_pair_once(tables):
    """P 2₁ with one molecule has half the energy of the same cell written as P 1 with two."""
    geo = geometry(tables, len(GROUPS), 1, seed=3).select(torch.tensor([2]))
    place = general_placement("P 1 21 1")
    p21 = _with_placements(tables, [place])
    p1 = _with_placements(tables, [general_placement("P 1")])
    zero = torch.zeros(1, dtype=torch.long)
    symmetric = Geometry(geo.cell, geo.centroid, geo.rotation, zero, zero)
    copies = torch.tensor(place.frac_rot) @ geo.centroid[0, 0] + torch.tensor(place.frac_tran)
    expanded = Geometry(geo.cell, copies[None], torch.tensor(place.cart_rot)[None] @ geo.rotation, zero, zero)

    def value(t, g):
        e = LatticeEnergy(t, "torch")
        e._pairs = functools.partial(pair_torch.evaluate, pair_dtype=torch.float64)
        return float(e(g, e.neighbours(g, 11.0))[0])

    assert value(p1, expanded) == pytest.approx(2 * value(p21, symmetric), rel=1e-10)


def _with_placements(tables: PressTables, placements) -> PressTables:
    n = tables.n_atoms
    new = PressTables(
        np.full(n, 6), tables.conformers_np[:, :n], np.ones(n), np.ones(n), np.ones(n), np.zeros(n),
        np.empty((0, 2), int), placements,
    )  # fmt: skip
    for name in ("pa", "pb", "pc", "pq", "contact", "dipoles"):
        setattr(new, name, getattr(tables, name))
    return new


def test_overlapping_atoms_have_finite_energy_and_force(tables):
    geo = geometry(tables, 7, 1)
    squashed = Geometry(geo.cell * 0.05, geo.centroid, geo.rotation, geo.conformer, geo.group)
    for backend in ("numba", "torch"):
        energy = LatticeEnergy(tables, backend)
        for x in energy(squashed, energy.neighbours(geo, 11.0)):
            assert bool(torch.isfinite(x).all())


def test_the_press_and_the_potential_have_one_guard():
    assert GUARD == GUARD_RADIUS**6


def test_polar_hydrogens_may_touch_acceptors():
    numbers, bonds = np.array([8, 1, 6, 1]), np.array([[0, 1], [2, 3]])
    d = contact_distances(numbers, bonds)
    assert d[1, 0] == 1.75 and d[3, 0] == pytest.approx(0.92 * (1.10 + 1.52))


def test_unknown_backend_is_refused_by_name():
    refuses(InputError, "unknown backend 'gpu'", choose_backend, "gpu", torch.device("cpu"))
