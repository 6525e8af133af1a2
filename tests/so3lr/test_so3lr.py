"""SO3LR through the package's own loops: the wheel's numbers, true derivatives, and crystals by their symmetry."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch_sim
from crystal_examples import crystal
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refuses
from scipy.special import erfc
from special_positions import special

from molflow_sim.errors import InputError, UnsupportedElementError, WeightsError
from molflow_sim.relax.symmetry import atom_permutations
from molflow_sim.runs.files import sha256
from molflow_sim.so3lr import long_range, weights
from molflow_sim.so3lr.harmonics import harmonics, harmonics_gradient, rotation_matrix
from molflow_sim.so3lr.potential import SO3LR, Orbits
from molflow_sim.testing import validate_potential


@pytest.fixture(scope="module")
def exact() -> SO3LR:
    return SO3LR(dtype="float64")


def cell_of(name: str, **changes):
    c = crystal(name, **changes)
    numbers, positions, _, _ = c.unit_cell()
    return c, numbers, positions


def orbits_of(c) -> Orbits:
    return Orbits.from_permutations(atom_permutations(c), c.space_group.rotations)


def test_it_passes_the_conformance_kit_for_potentials(exact):
    validate_potential(exact, [crystal("formamide"), crystal("urea")])


WHEEL = """
import json, sys
import numpy as np, torch
from importlib.util import find_spec
from so3krates_torch.calculator.so3 import TorchkratesCalculator
from ase import Atoms
path = find_spec("so3krates_torch").submodule_search_locations[0] + "/pretrained/so3lr/so3lr.model"
model = torch.load(path, map_location="cpu", weights_only=False).double()
task = json.load(sys.stdin)
atoms = Atoms(task["numbers"], task["positions"], cell=task["cell"], pbc=task["cell"] is not None)
atoms.info.update(charge=0, total_spin=0)
reach = 12.0 if task["cell"] else 60.0
calculator = TorchkratesCalculator(models=[model], default_dtype="float64", r_max_lr=reach,
                                   dispersion_energy_cutoff_lr_damping=2.0, compute_stress=task["cell"] is not None)
if task["cell"]:
    model.electrostatic_energy_bool = False  # its Coulomb sum of crystals is cut off; ours is exact
else:
    model.r_max_lr = None
atoms.calc = calculator
print(json.dumps({"energy": float(atoms.get_potential_energy()), "forces": atoms.get_forces().tolist(),
                  "stress": atoms.get_stress(voigt=False).tolist() if task["cell"] else None}))
"""


def of_the_wheel(numbers, positions, cell=None):
    """Energy, forces and stress by the wheel's own calculator, in a process of its own: it changes global settings."""
    cell = None if cell is None else cell.tolist()
    task = {"numbers": numbers.tolist(), "positions": positions.tolist(), "cell": cell}
    done = subprocess.run([sys.executable, "-c", WHEEL], input=json.dumps(task), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return found["energy"], np.array(found["forces"]), found["stress"]


def test_molecules_have_the_energy_and_forces_of_the_wheel(exact):
    _, numbers, positions = cell_of("formamide")
    n = len(crystal("formamide").molecules[0].numbers)
    x = positions[:n] + np.random.default_rng(0).normal(scale=0.03, size=(n, 3))
    energy, forces, _ = of_the_wheel(numbers[:n], x)
    ours = exact.evaluate([numbers[:n]], [x])[0]
    assert ours[0] == pytest.approx(energy, abs=1e-5)
    assert -ours[1] == pytest.approx(forces, abs=1e-5)


def test_crystals_have_the_wheel_s_energy_forces_and_stress_but_for_its_truncated_coulomb_sum(monkeypatch):
    c, numbers, positions = cell_of("urea")
    energy, forces, stress = of_the_wheel(numbers, positions, c.cell)
    monkeypatch.setattr(long_range, "coulomb_reciprocal", lambda *_: 0.0)
    ours = SO3LR(cutoff=12.0, dtype="float64", tail=False).evaluate([numbers], [positions], [c.cell])[0]
    assert ours[0] == pytest.approx(energy, abs=1e-5)
    assert -ours[1] == pytest.approx(forces, abs=1e-5)
    assert ours[2] / c.volume == pytest.approx(np.array(stress), abs=1e-6)


def test_the_reciprocal_sum_is_the_ewald_sum_of_point_charges_less_its_short_range_part(exact):
    c, numbers, positions = cell_of("urea")
    charges = exact.evaluate([numbers], [positions], [c.cell])[0][3]
    n = len(numbers)
    atoms = np.arange(n)
    grad, virial, g_charge = np.zeros((n, 3)), np.zeros((3, 3)), np.zeros(n)
    inverse = np.linalg.inv(c.cell)
    ours = long_range.coulomb_reciprocal(
        atoms, atoms, positions, c.cell, inverse, c.volume, charges, 1.0, grad, virial, g_charge
    )
    # Point charges: Ewald with a splitting of its own (real part in a large sphere), minus erfc(r/σ)/r of all pairs.
    alpha, reach = 0.45, 24.0
    shifts = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3, indexing="ij"), -1).reshape(-1, 3) @ c.cell
    d = positions[None, :, None] + shifts - positions[:, None, None]
    r = np.linalg.norm(d, axis=-1)
    r[(r < 1e-6) | (r > reach)] = np.inf
    qq = charges[:, None, None] * charges[None, :, None]
    real = 0.5 * long_range.COULOMB * np.sum(qq * (erfc(alpha * r) - erfc(r / long_range.SIGMA)) / r)
    k = 2 * np.pi * (np.stack(np.meshgrid(*[np.arange(-14, 15)] * 3, indexing="ij"), -1).reshape(-1, 3)) @ inverse.T
    k2 = np.sum(k * k, 1)
    k, k2 = k[k2 > 1e-9], k2[k2 > 1e-9]
    s = np.abs(np.exp(1j * k @ positions.T) @ charges) ** 2
    wave = 2 * np.pi * long_range.COULOMB / c.volume * np.sum(np.exp(-k2 / (4 * alpha**2)) / k2 * s)
    own = -long_range.COULOMB * alpha / np.sqrt(np.pi) * np.sum(charges**2)
    assert ours == pytest.approx(real + wave + own, abs=1e-5)


@pytest.mark.parametrize("name", ["glycolic", "aspirin"])
def test_a_crystal_costs_its_asymmetric_unit_and_has_the_energy_forces_and_stress_of_the_whole_cell(exact, name):
    c, numbers, positions = cell_of(name)
    orbits = orbits_of(c)
    assert len(orbits.own) * c.space_group.order == len(numbers)
    whole = exact.evaluate([numbers], [positions], [c.cell])[0]
    unit = exact.evaluate([numbers], [positions], [c.cell], [orbits])[0]
    assert unit[0] == pytest.approx(whole[0], abs=1e-8)
    for a, b in zip(unit[1:], whole[1:]):
        assert a == pytest.approx(b, abs=1e-7)


def test_half_a_molecule_on_an_inversion_centre_is_enough(exact):
    c = special("inversion")
    numbers, positions, _, _ = c.unit_cell()
    orbits = orbits_of(c)
    assert 2 * len(orbits.own) == len(numbers)
    whole, half = (exact.evaluate([numbers], [positions], [c.cell], o)[0] for o in (None, [orbits]))
    assert half[0] == pytest.approx(whole[0], abs=1e-8)
    assert half[1] == pytest.approx(whole[1], abs=1e-7)


def test_a_crystal_with_atoms_on_a_mirror_is_taken_without_symmetry():
    c = special("mirror")
    assert len(orbits_of(c).own) == len(c.unit_cell()[0])


def test_single_precision_loses_less_than_a_hundredth_of_a_kilojoule(exact):
    c, numbers, positions = cell_of("formamide")
    single, double = (p.evaluate([numbers], [positions], [c.cell])[0] for p in (SO3LR(), exact))
    assert abs(single[0] - double[0]) / c.z < 1e-5
    assert single[1] == pytest.approx(double[1], abs=2e-4)


def test_a_large_box_holds_a_free_molecule(exact):
    _, numbers, positions = cell_of("formamide")
    n = len(crystal("formamide").molecules[0].numbers)
    free = exact.evaluate([numbers[:n]], [positions[:n]])[0]
    boxed = exact.evaluate([numbers[:n]], [positions[:n]], [np.eye(3) * 60.0])[0]
    assert boxed[0] == pytest.approx(free[0], abs=2e-4)  # dipoles of the images


def test_a_result_depends_on_nothing_else_in_the_batch_and_not_on_threads():
    potential = SO3LR()
    cells = [cell_of(name) for name in ("urea", "glycolic", "aspirin")]
    alone = [potential.evaluate([n], [x], [c.cell])[0] for c, n, x in cells]
    together = potential.evaluate([n for _, n, _ in cells], [x for _, _, x in cells], [c.cell for c, _, _ in cells])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        shared = potential.evaluate([n for _, n, _ in cells], [x for _, _, x in cells], [c.cell for c, _, _ in cells])
    finally:
        torch.set_num_threads(before)
    for a, b, c in zip(alone, together, shared):
        assert a[0] == b[0] == c[0]
        assert np.array_equal(a[1], b[1]) and np.array_equal(a[1], c[1])


def test_what_is_not_finite_or_has_collapsed_is_nan_and_the_others_are_not():
    potential = SO3LR()
    c, numbers, positions = cell_of("urea")
    lost = positions.copy()
    lost[0, 0] = np.nan
    found = potential.evaluate([numbers] * 3, [lost, positions, positions * 0.2], [c.cell, c.cell, c.cell * 0.2])
    assert np.isnan(found[0][0]) and np.isfinite(found[1][0]) and np.isnan(found[2][0])


def test_elements_it_was_not_trained_on_are_named():
    from ase import Atoms

    state = torch_sim.initialize_state([Atoms("BrCSi", np.eye(3) * 2, cell=[9, 9, 9], pbc=True)], "cpu", torch.float64)
    refuses(UnsupportedElementError, "Si, Br", SO3LR(), state)


def test_an_impossible_cutoff_is_refused():
    refuses(InputError, "6 Å", SO3LR, cutoff=3.0)


def test_loading_leaves_the_default_dtype_of_torch_alone():
    before = torch.get_default_dtype()
    weights.load_weights.cache_clear()
    weights.load_weights()
    assert torch.get_default_dtype() == before
    assert "so3krates_torch" not in sys.modules


def test_another_file_than_the_pinned_one_is_refused(tmp_path):
    (tmp_path / "so3lr.model").write_bytes(b"not the weights")
    refuses(WeightsError, "SHA-256", weights.read_state, tmp_path / "so3lr.model")


def test_weights_that_ask_for_code_are_refused(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"x": Evil()}, tmp_path / "evil.model")
    monkeypatch.setattr(weights, "SHA256", sha256((tmp_path / "evil.model").read_bytes()))
    refuses(WeightsError, r"print.*not on the list", weights.read_state, tmp_path / "evil.model")


unit_vectors = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1)


@given(unit_vectors, st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_harmonics_turn_with_the_vector_and_have_the_gradient_of_differences(v, seed):
    rng = np.random.default_rng(seed)
    v = np.array(v) / np.linalg.norm(v)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    at, turned, up, down = np.empty((4, 24))
    harmonics(*v, at)
    harmonics(*(q @ v), turned)
    assert rotation_matrix(q) @ at == pytest.approx(turned, abs=1e-10)
    w = rng.normal(size=24)
    for i in range(3):
        harmonics(*(v + 1e-6 * np.eye(3)[i]), up)
        harmonics(*(v - 1e-6 * np.eye(3)[i]), down)
        assert harmonics_gradient(*v, w)[i] == pytest.approx(w @ (up - down) / 2e-6, abs=1e-6)
