"""The coarse-graining report: its numbers, its verdict, and a page that is whole and safe."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from bead_examples import fake_frames, tree
from pages import Page
from refusals import refuses

from molflow_sim.cg.frames import BeadFrames
from molflow_sim.cg.reports.reporting import report
from molflow_sim.errors import InputError, MappingError, MissingDependencyError, TrajectoryError
from molflow_sim.evaluate.free_energy import coverage, dihedral, kl_divergence, phi_psi_histogram

NASTY = '</script><script>alert(1)</script><!-- & "quotes" @@DATA@@'
CHAIN = tree([0, 1, 2, 3, 4, 5])


def in_time(frames: BeadFrames, parts: int = 1) -> BeadFrames:
    """The same frames said to be `parts` equal stretches of time."""
    return replace(frames, lengths=(len(frames) // parts,) * parts)


@pytest.fixture(scope="module")
def reference():
    return fake_frames(20_000, seed=1, sharpness=8.0)


def test_the_numbers_are_those_of_the_free_energy_module(reference):
    model = fake_frames(3000, seed=2, sharpness=5.0)
    (score,) = report(model, reference).scores
    p, q = (phi_psi_histogram(*dihedral(f.positions, f.topology.phi_psi_indices()).T) for f in (reference, model))
    assert score.kl == pytest.approx(kl_divergence(p, q))
    assert score.coverage == pytest.approx(coverage(p, q))
    assert (score.label, score.frames, score.temperature) == ("model", 3000, 300.0)


def test_samples_of_the_same_distribution_are_close_and_another_one_is_far(reference):
    rotated = fake_frames(20_000, seed=3, sharpness=8.0)
    mirrored = replace(rotated, positions=rotated.positions * np.array([1, 1, -1], dtype=np.float32))
    result = report({"good": rotated, "mirror image": mirrored}, reference)
    assert [s.grade for s in result.scores] == ["close", "far"]
    assert "mirror image: misses part of the reference's states" in result.verdict


def test_a_shifted_bond_is_told_and_a_broken_one_condemns(reference):
    good = fake_frames(20_000, seed=3, sharpness=8.0)
    direction = good.positions[:, 4] - good.positions[:, 3]
    stretched, broken = good.positions.copy(), good.positions.copy()
    stretched[:, 4] += 0.05 * direction
    broken[::100, 4] += 2.0 * direction[::100]
    result = report({"a": replace(good, positions=stretched), "b": replace(good, positions=broken)}, reference)
    assert [s.grade for s in result.scores] == ["fair", "far"]
    assert "bond ALA2-C–NME3-N is 2." in result.scores[0].verdict
    assert result.scores[1].broken == pytest.approx(0.01)
    assert "outside the physical range" in result.scores[1].verdict


def test_a_reference_too_short_or_at_another_temperature_gives_no_verdict(reference):
    good = fake_frames(2000, seed=3, sharpness=8.0)
    assert report(good, fake_frames(100, sharpness=0.1)).scores[0].grade == "unclear"
    assert "too short to judge" in report(good, fake_frames(100, sharpness=0.1)).verdict
    assert "at 500 K" in report(replace(good, temperature=500.0), reference).verdict


def test_longer_chains_use_tica_of_a_time_series_and_else_rmsd_and_gyration(tmp_path):
    pytest.importorskip("deeptime")
    chain = fake_frames(1000, topology=CHAIN)
    model = fake_frames(500, seed=5, topology=CHAIN)
    assert report(model, in_time(chain, 2)).coordinates == "tica"
    plain = report(model, chain, tmp_path / "r.html")
    assert plain.coordinates == "rmsd-rg" and plain.bins == 10
    assert "RMSD to the reference" in (tmp_path / "r.html").read_text(encoding="utf-8")
    refuses(InputError, "time series", report, model, chain, coordinates="tica")


def test_without_deeptime_the_report_goes_on_and_says_how_to_get_it_when_it_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "deeptime.decomposition", None)
    chain, model = in_time(fake_frames(1000, topology=CHAIN)), fake_frames(500, seed=5, topology=CHAIN)
    assert report(model, chain).coordinates == "rmsd-rg"
    refuses(MissingDependencyError, "deeptime is not installed", report, model, chain, coordinates="tica")


@pytest.mark.parametrize("parents", [[0], [0, 1], [0, 0, 0]])
def test_the_smallest_molecules_and_stars_have_a_report(parents, tmp_path):
    topology = tree(parents)
    rng = np.random.default_rng(0)
    base = 1.5 * rng.normal(size=(topology.n_beads, 3))
    frames = BeadFrames.from_arrays(base + 0.1 * rng.normal(size=(300, *base.shape)), topology, 300.0)
    result = report(frames, frames, tmp_path / "r.html")
    assert result.scores[0].kl == 0.0 and result.scores[0].coverage == pytest.approx(1.0)


def test_the_page_is_one_file_without_a_network_and_safe_with_any_text(reference, tmp_path):
    model = replace(fake_frames(500), source=NASTY)
    result = report(
        {NASTY: model, "flow": model}, reference, tmp_path / "r.html", title=NASTY, provenance={"seed": 7, NASTY: NASTY}
    )
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.links == [] and page.tags.count("script") == 3 and "img" not in page.tags
    assert NASTY in page.text and "7" in page.text and "molflow-sim" in page.text
    data = json.loads(page.data)
    assert data["labels"] == ["reference", NASTY, "flow"]
    assert np.shape(data["surfaces"]["maps"][0]["f"]) == (60, 60)
    assert [p["kind"] for p in data["panels"]] == ["bond"] * 4 + ["angle"] * 3 + ["dihedral"] * 2 + ["shape"] * 2
    assert result.path == tmp_path / "r.html"


def test_a_heat_map_has_psi_along_its_rows(reference, tmp_path):
    report(reference, reference, tmp_path / "r.html")
    surface = json.loads(Page((tmp_path / "r.html").read_text(encoding="utf-8")).data)["surfaces"]
    f = np.array(surface["maps"][0]["f"], dtype=float)
    row, column = np.unravel_index(np.nanargmin(f), f.shape)
    phi, psi = dihedral(reference.positions, reference.topology.phi_psi_indices()).T
    assert surface["x"][column] == pytest.approx(np.median(phi), abs=0.4)
    assert surface["y"][row] == pytest.approx(np.median(psi), abs=0.4)


def test_of_very_many_coordinates_only_those_that_differ_most_are_drawn(tmp_path):
    long = tree(list(range(29)))
    report(fake_frames(100, seed=1, topology=long), fake_frames(100, topology=long), tmp_path / "r.html")
    panels = json.loads(Page((tmp_path / "r.html").read_text(encoding="utf-8")).data)["panels"]
    assert sum(p["kind"] == "bond" for p in panels) == 12 and panels[0]["of"] == 29


@pytest.mark.parametrize(
    "samples, options, error, message",
    [
        ({}, {}, InputError, "no samples"),
        ({"m": fake_frames(5)}, {}, TrajectoryError, "m: 5 frames are too few"),
        ({"m": fake_frames(50, topology=CHAIN)}, {}, MappingError, "m: its beads are not those"),
        (fake_frames(50), {"coordinates": "pca"}, InputError, "unknown coordinates 'pca'"),
        (fake_frames(50), {"bins": 1}, InputError, "two bins"),
    ],
)
def test_what_cannot_be_compared_is_refused(samples, options, error, message):
    refuses(error, message, report, samples, fake_frames(100), **options)


def test_phi_and_psi_are_refused_for_beads_that_have_none():
    chain = fake_frames(100, topology=CHAIN)
    refuses(InputError, "no single pair of backbone torsions", report, chain, chain, coordinates="phi-psi")
