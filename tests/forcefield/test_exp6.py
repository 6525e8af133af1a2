"""Intermolecular exp-6 parameters: the published numbers, sensible sizes, no collapse."""

import itertools

import numpy as np
import pytest
from rdkit import Chem
from refusals import refuses
from scipy.optimize import minimize_scalar

from molflow_sim.errors import UnsupportedElementError
from molflow_sim.forcefield import EXP6_TYPES, GUARD_RADIUS, exp6_parameters, exp6_types
from molflow_sim.forcefield import exp6 as module
from molflow_sim.units import KJ_PER_MOL


def with_hydrogens(smiles: str) -> Chem.Mol:
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


def combined(first: str, second: str) -> tuple[float, float, float]:
    """Pair parameters in kJ/mol, 1/Å and kJ/mol·Å⁶."""
    i, j = EXP6_TYPES[first], EXP6_TYPES[second]
    return np.sqrt(i.a * j.a), (i.b + j.b) / 2, np.sqrt(i.c * j.c)


def exp6_energy(r, a, b, c):
    """Guarded exp-6 energy of pairs (combined parameters) at distances r in Å."""
    inverse6 = 1 / r**6
    return a * np.exp(-b * r) + c * inverse6 * (GUARD_RADIUS**6 * inverse6 - 1)


def bare_minimum(name: str) -> float:
    """Distance in Å of the like pair's minimum without the guard."""
    kind = EXP6_TYPES[name]
    energy = lambda r: kind.a * np.exp(-kind.b * r) - kind.c / r**6  # noqa: E731
    return minimize_scalar(energy, bounds=(2, 7), method="bounded").x


def minimum(first: str, second: str) -> tuple[float, float]:
    """Distance in Å and depth in kJ/mol of the pair's minimum."""
    found = minimize_scalar(exp6_energy, bounds=(2, 7), args=combined(first, second), method="bounded")
    return found.x, -found.fun


@pytest.mark.parametrize(
    ("name", "a", "b", "c"),
    [
        ("C", 369743, 3.60, 2439.8), ("HC", 11971, 3.74, 136.4), ("HX", 5029.68, 4.66, 21.50),
        ("N", 254529, 3.78, 1378.4), ("O", 230064, 3.96, 1123.59),
    ],
)  # fmt: skip
def test_fit_parameters_are_the_published_ones(name, a, b, c):
    assert (EXP6_TYPES[name].a, EXP6_TYPES[name].b, EXP6_TYPES[name].c) == (a, b, c)


@pytest.mark.parametrize(
    ("first", "second", "a", "rho", "c"),
    [  # unlike pairs of the published tables, in eV, Å and eV·Å⁶
        ("C", "N", 3179.514586, 0.271003, 19.006711),
        ("O", "HX", 352.560285, 0.232018, 1.610890),
        ("N", "F", 3153.533331, 0.251889, 11.178951),
        ("Cl", "S", 6311.420597, 0.293654, 69.388909),
        ("HC", "Cl", 1090.440278, 0.275862, 10.649602),
    ],
)
def test_combining_rules_reproduce_published_unlike_pairs(first, second, a, rho, c):
    pair_a, pair_b, pair_c = combined(first, second)
    assert pair_a * KJ_PER_MOL == pytest.approx(a, rel=1e-5)
    assert 1 / pair_b == pytest.approx(rho, rel=2e-4)  # the tables round S's steepness
    assert pair_c * KJ_PER_MOL == pytest.approx(c, rel=5e-5)


@pytest.mark.parametrize("name", EXP6_TYPES)
def test_like_pairs_are_as_large_as_van_der_waals_radii_say(name):
    distance, depth = minimum(name, name)
    diameter = 2 * EXP6_TYPES[name].radius
    low, high = (1.0, 1.45) if name.startswith("H") else (1.08, 1.22)
    assert low < distance / diameter < high
    assert 0.03 < depth < 2.0


@pytest.mark.parametrize("name", EXP6_TYPES)
def test_the_table_of_the_documentation_holds_the_computed_minima(name):
    row = next(line.split() for line in module.__doc__.splitlines() if line.split()[:1] == [name])
    distance, depth = minimum(name, name)
    assert float(row[1]) == pytest.approx(distance, abs=0.006)
    assert float(row[2]) == pytest.approx(depth, abs=0.006)
    assert float(row[3]) == pytest.approx(2 * EXP6_TYPES[name].radius, abs=0.006)


def test_derived_elements_follow_the_mean_of_the_fitted_ones():
    fitted = {"C": 1750, "N": 1230, "O": 700, "F": 750, "S": 5570, "Cl": 5070}  # DFT-D2's C6 in kJ/mol·Å⁶
    distance, steepness, dispersion = [], [], []
    for name, c6 in fitted.items():
        kind = EXP6_TYPES[name]
        r = bare_minimum(name)
        distance.append(r / (2 * kind.radius))
        steepness.append(kind.b * r)
        dispersion.append(np.log(kind.c / c6))
    rule = module._Rule()
    assert rule.distance_ratio == pytest.approx(np.mean(distance), abs=1e-3)
    assert rule.steepness == pytest.approx(np.mean(steepness), abs=5e-3)
    assert rule.dispersion_ratio == pytest.approx(np.exp(np.mean(dispersion)), abs=1e-3)


@pytest.mark.parametrize(("first", "second"), itertools.combinations_with_replacement(EXP6_TYPES, 2))
def test_every_pair_repels_from_its_minimum_inwards(first, second):
    distance, _ = minimum(first, second)
    energies = exp6_energy(np.linspace(0.3, distance, 4000), *combined(first, second))
    assert (np.diff(energies) < 0).all()


def test_without_the_guard_the_carbon_pair_collapses():
    a, b, c = combined("C", "C")
    r = 0.6
    bare = a * np.exp(-b * r) - c / r**6
    assert bare < 0 < exp6_energy(r, a, b, c)
    assert exp6_energy(r, a, b, c) - bare == pytest.approx(c * GUARD_RADIUS**6 / r**12)


def test_the_guard_hardly_moves_the_minima():
    for name in EXP6_TYPES:
        assert abs(minimum(name, name)[0] - bare_minimum(name)) < 0.01


def test_hydrogen_on_nitrogen_and_oxygen_differs_from_the_others():
    assert exp6_types(with_hydrogens("CO")) == ["C", "O", "HC", "HC", "HC", "HX"]
    assert exp6_types(with_hydrogens("N")) == ["N", "HX", "HX", "HX"]
    for smiles in ("S", "P", "[SiH4]", "B"):
        assert set(exp6_types(with_hydrogens(smiles))[1:]) == {"HC"}


def test_parameters_come_in_electronvolts():
    a, b, c = exp6_parameters(with_hydrogens("C"))
    assert a[0] == pytest.approx(3832.147, rel=1e-5)
    assert b.tolist() == [3.60] + [3.74] * 4
    assert c[0] == pytest.approx(25.28695, rel=1e-5)


def test_elements_without_parameters_are_refused_by_name():
    refuses(UnsupportedElementError, "Se", exp6_parameters, with_hydrogens("C[Se]C"))
