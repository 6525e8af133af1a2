"""Powder patterns: intensities, the fit of the cell to a measured pattern, and files that read back."""

from pathlib import Path

import numpy as np
import pytest
from crystal_examples import crystal
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refuses

from molflow_sim import MolecularCrystal
from molflow_sim.errors import PatternError
from molflow_sim.evaluate.powder import (
    PowderTarget,
    background,
    reflections,
    simulate,
    write_xy,
)
from molflow_sim.io.powder_read import CU_K_ALPHA, PowderPattern, read_pattern

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "landscapes" / "aspirin"
FORM_I = "20ce6e221825ca0"
FORM_II = "98f018e9b2a7d8d"  # of the same layers, stacked otherwise
OTHERS = ("17c3c9", "261b33", "1425f8")  # the likest of a fifth of the landscape


def strained(target: MolecularCrystal, x: np.ndarray) -> np.ndarray:
    return np.tensordot(x, reflections(target).strains, 1)


def test_peaks_lie_where_braggs_law_puts_them_and_absences_stay_empty():
    c = crystal("urea")  # P21/c
    lines = reflections(c)
    two_theta, intensity = lines.sticks(CU_K_ALPHA)
    h = np.rint(lines.q @ c.cell.T).astype(int)
    assert np.allclose(
        np.sin(np.radians(two_theta / 2)), CU_K_ALPHA / 2 * np.linalg.norm(h @ np.linalg.inv(c.cell).T, axis=1)
    )
    absent = ((h[:, 1] == 0) & (h[:, 2] % 2 == 1)) | ((h[:, 0] == 0) & (h[:, 2] == 0) & (h[:, 1] % 2 == 1))
    assert absent.sum() > 5 and intensity[absent].max() < 1e-12 * intensity.max()


def test_forward_scattering_counts_the_electrons():
    c = crystal("acetonitrile", scale=40.0)  # its first reflections are at almost no angle
    lines = reflections(c, wavelength=60.0)
    electrons = c.unit_cell()[0].sum()
    assert np.sqrt(lines.structure_factors.max()) == pytest.approx(electrons, rel=0.02)


def test_intensities_are_those_of_pymatgen():
    xrd = pytest.importorskip("pymatgen.analysis.diffraction.xrd")
    c = crystal("glycolic")
    theirs = xrd.XRDCalculator(CU_K_ALPHA).get_pattern(c.to_pymatgen(), two_theta_range=(5, 40), scaled=False)
    x, y = reflections(c, displacement=0.0).sticks(CU_K_ALPHA)
    edges = np.arange(5.0, 40.01, 0.05)
    a, b = (np.histogram(x, edges, weights=w)[0] for x, w in ((x, y), (theirs.x, theirs.y)))
    a, b = a / a.sum(), b / b.sum()  # other tables of form factors
    assert a @ b / np.sqrt(a @ a * (b @ b)) > 0.999


@pytest.mark.parametrize(("name", "freedoms"), [("urea", 4), ("acetonitrile", 6), ("glycolic", 3)])
def test_a_crystal_fits_its_own_pattern_and_the_cell_it_was_strained_by_is_found(name, freedoms):
    c = crystal(name)
    assert len(reflections(c).strains) == freedoms
    own = PowderTarget(simulate(c)).compare(c)
    assert own.similarity == pytest.approx(1.0, abs=1e-3) and abs(own.volume_change) < 1e-3
    larger = PowderTarget(simulate(crystal(name, scale=1.02))).compare(c)
    assert larger.similarity > 0.99 > larger.as_it_is + 0.1
    assert larger.volume_change == pytest.approx(1.02**3 - 1, abs=0.002)
    assert larger.cell_parameters[:3] == pytest.approx(1.02 * c.cell_parameters[:3], rel=2e-3)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(-0.03, 0.03), min_size=4, max_size=4), st.integers(0, 5))
def test_any_small_change_of_the_cell_is_forgiven(x, seed):
    c = crystal("formamide", seed=seed)
    match = PowderTarget(simulate(c, strain=strained(c, np.array(x)))).compare(c)
    assert match.similarity > 0.95 and match.similarity >= match.as_it_is
    assert np.abs(match.strain).max() <= 0.04 + 1e-9


def test_the_slope_of_the_similarity_is_its_derivative():
    c = crystal("urea")
    target = PowderTarget(simulate(c))
    x, y = reflections(c).sticks(CU_K_ALPHA)
    x = x + 0.113
    slope = target.similarity(x, y, 1)[1]
    for k in np.argsort(-y)[:5]:
        step = np.where(np.arange(len(x)) == k, 1e-6, 0.0)
        difference = target.similarity(x + step, y, 1)[0] - target.similarity(x - step, y, 1)[0]
        assert difference / 2e-6 == pytest.approx(slope[k], rel=1e-4)


@pytest.mark.skipif(not DATA.is_dir(), reason="the landscape of aspirin is not here")
def test_a_measured_pattern_with_all_its_faults_finds_its_polymorph():
    """A cell 2 % larger, background, noise, Kα2, a shifted zero: form I of aspirin stays ahead of its rivals."""
    read = lambda name: MolecularCrystal.from_cif(next(DATA.glob(f"{name}*.cif")), symprec=0.01)  # noqa: E731
    form = read(FORM_I)
    clean = simulate(form, strain=0.02 * np.eye(3))
    x, y = clean.two_theta, clean.intensity
    second = 2 * np.degrees(np.arcsin(np.sin(np.radians(x / 2)) * 1.54439 / 1.54056))
    counts = (
        30 * (y + 0.5 * np.interp(x, second, y)) + 200 + 400 * np.exp(-x / 6) + 120 * np.exp(-(((x - 22) / 8) ** 2))
    )
    noisy = PowderPattern(x + 0.05, np.random.default_rng(0).poisson(counts).astype(float))
    target = PowderTarget(noisy)
    own = target.compare(form)
    others = [target.compare(read(name)).similarity for name in OTHERS]
    # a zero off by 0.05° is 0.3 % of d at 15°, 1 % of the volume
    assert own.similarity > 0.95 and own.volume_change == pytest.approx(0.0612, abs=0.015)
    assert max(others) < own.similarity - 0.3
    assert target.compare(read(FORM_II)).similarity < own.similarity - 0.05


def test_background_is_removed_and_peaks_stay():
    x = np.arange(5.0, 45.0, 0.02)
    peaks = sum(1000.0 * np.exp(-(((x - c) / 0.08) ** 2)) for c in (10.0, 17.0, 17.4, 30.0))
    slope = 300.0 + 500.0 * np.exp(-x / 7) + 100.0 * np.exp(-(((x - 25) / 9) ** 2))
    net = peaks + slope - background(peaks + slope, 75)
    assert net.min() >= 0.0 and np.abs(net - peaks).max() < 0.05 * peaks.max()


def test_other_wavelengths_compare_the_same_reflections():
    c = crystal("urea")
    mo = simulate(c, 0.71073)
    assert mo.two_theta[-1] == pytest.approx(20.3, abs=0.1)
    assert PowderTarget(mo).compare(c).similarity == pytest.approx(1.0, abs=1e-3)
    as_if_copper = PowderTarget(PowderPattern(mo.two_theta, mo.intensity))
    assert as_if_copper.compare(c).similarity < 0.8


def test_a_pattern_that_is_too_short_or_flat_is_refused():
    c = simulate(crystal("urea"))
    refuses(PatternError, r"10\.0° or more", PowderTarget, PowderPattern(c.two_theta[:300], c.intensity[:300]))
    refuses(PatternError, "no peak", PowderTarget, PowderPattern(c.two_theta, 0.0 * c.two_theta + 5.0))


def test_a_written_pattern_reads_back_with_its_wavelength(tmp_path):
    made = simulate(crystal("urea"), 1.5406)
    write_xy(made, tmp_path / "urea.xy", "urea, simulated")
    text = (tmp_path / "urea.xy").read_text()
    assert text.startswith("# urea, simulated\n# wavelength 1.5406 Angstrom\n# molflow-sim ")
    back = read_pattern(tmp_path / "urea.xy")
    assert back.wavelength == 1.5406 and not back.wavelength_assumed
    assert np.allclose(back.intensity, made.intensity, atol=1e-4) and back.intensity.max() == 100.0
