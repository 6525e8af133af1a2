"""Folding in trajectories: states with hysteresis, events, and the free energy over RMSD in the report."""

import json
import math

import numpy as np
import pytest
from bead_examples import fake_frames, tree
from hypothesis import given
from hypothesis import strategies as st
from refusals import refuses

from molflow_sim.cg.frames import BeadFrames
from molflow_sim.cg.reports.numbers import rmsd
from molflow_sim.cg.reports.reporting import report
from molflow_sim.errors import InputError, MappingError, NonFiniteError
from molflow_sim.evaluate.folding import count_transitions, folding_states

CHAIN = tree(list(range(9)))


def test_a_state_lasts_until_the_other_one_is_reached():
    states = folding_states(np.array([3.0, 1.0, 3.9, 1.9, 4.1, 2.1, 1.9]))
    assert states.tolist() == [-1, 1, 1, 1, 0, 0, 1]
    assert count_transitions(states) == (1, 1)


def test_jitter_at_the_barrier_is_no_event_and_trajectories_do_not_run_into_each_other():
    jitter = np.array([1.0, *[2.1, 1.9] * 20])
    assert count_transitions(folding_states(jitter)) == (0, 0)
    assert count_transitions(folding_states(np.array([[1.0, 1.0], [5.0, 5.0]]))) == (0, 0)
    assert count_transitions(folding_states(np.array([1.0, 1.0, 5.0, 5.0]))) == (0, 1)


@given(st.lists(st.floats(0, 8), min_size=1, max_size=60), st.floats(0.5, 3), st.floats(0, 3))
def test_folding_and_unfolding_take_turns_and_frames_beyond_a_cut_off_have_its_state(values, low, gap):
    x = np.array(values)
    states = folding_states(x, low, low + gap)
    assert (states[x < low] == 1).all() and (states[x > low + gap] == 0).all()
    folding, unfolding = count_transitions(states)
    assert abs(folding - unfolding) <= 1
    # Time reversed, folding is unfolding: where every frame is beyond a cut-off, exactly.
    sharp = count_transitions(folding_states(x[(x < low) | (x > low + gap)][::-1], low, low + gap))
    assert sharp == (unfolding, folding)


def test_what_is_no_time_series_of_distances_is_refused():
    refuses(InputError, "cut-offs", folding_states, np.ones(3), 4.0, 2.0)
    with pytest.raises(NonFiniteError):
        folding_states(np.array([1.0, np.nan]))
    refuses(InputError, "time series", folding_states, np.float64(1.0))


def zigzag(pitch: float, turn: float) -> np.ndarray:
    """Ten beads 3.8 Å apart, as a strand that is bent back on itself by `turn` (0: straight)."""
    heading = np.cumsum(np.r_[0.0, np.full(8, turn)]) + pitch * (-1.0) ** np.arange(9)
    steps = 3.8 * np.stack([np.cos(heading), np.sin(heading), 0.1 * np.ones(9)], axis=1)
    return np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])


def made_up(states: np.ndarray, seed: int, lengths: tuple[int, ...] = ()) -> BeadFrames:
    """Frames that are the hairpin (1) or the strand (0), with noise and in random orientations."""
    rng = np.random.default_rng(seed)
    x = np.stack([zigzag(0.4, 0.0), zigzag(0.1, 0.4)])[states] + 0.2 * rng.normal(size=(len(states), 10, 3))
    turns = np.linalg.qr(rng.normal(size=(len(states), 3, 3)))[0]
    turns *= np.linalg.det(turns)[:, None, None]
    return BeadFrames.from_arrays(x @ turns + rng.normal(size=(len(states), 1, 3)), CHAIN, 340.0, lengths=lengths)


@pytest.fixture(scope="module")
def native():
    return BeadFrames.from_arrays(zigzag(0.1, 0.4)[None], CHAIN, 340.0)


def test_the_report_counts_native_frames_and_events(native, tmp_path):
    reference = made_up(np.random.default_rng(0).integers(2, size=2000), 1)
    model = made_up(np.r_[np.ones(50), np.zeros(50), np.ones(50), np.ones(150)].astype(int), 2, (150, 150))
    result = report(model, reference, tmp_path / "r.html", native=native)
    known, found = result.folding
    assert known.native == pytest.approx(0.5, abs=0.05) and known.folding is None and math.isnan(known.native_error)
    assert found.native == pytest.approx(250 / 300)
    assert (found.folding, found.unfolding, found.copies, found.crossed) == (1, 1, 2, 1)
    assert found.native_error == pytest.approx(np.std([2 / 3, 1.0], ddof=1) / math.sqrt(2))
    assert "1 folding and 1 unfolding events in 2 copies" in result.verdict
    assert result.coordinates == "rmsd-rg"
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    profile = data["profile"]
    f = np.array(profile["curves"][1], dtype=float)
    # kT ln(250/50) between the deepest bins, about, since the basins are of much the same width.
    far = np.array(profile["x"]) > 3.0
    assert np.nanmin(f[~far]) == 0.0 and np.nanmin(f[far]) == pytest.approx(1.09, abs=0.5)
    assert "{{" not in page.split("plotly.js")[0] and "not in time" in page


def test_samples_like_the_reference_have_its_free_energy_over_rmsd_and_the_others_do_not(native):
    rng = np.random.default_rng(0)
    reference, same, unfolded = (
        made_up((rng.random(4000) < p).astype(int), s) for p, s in ((0.5, 1), (0.5, 2), (0, 3))
    )
    _, good, bad = report({"same": same, "unfolded": unfolded}, reference, native=native).folding
    assert good.kl < 0.05 and good.coverage > 0.99
    assert bad.native == 0.0 and bad.coverage == pytest.approx(0.5, abs=0.05)


def test_a_mirror_image_is_not_native():
    shape = fake_frames(1, topology=CHAIN)
    both = BeadFrames.from_arrays(np.concatenate([shape.positions, -shape.positions]), CHAIN, 300.0)
    near, far = rmsd(both, shape)
    assert near < 0.01 < 0.5 < far


def test_no_native_structure_no_folding_on_the_page_and_one_of_other_beads_is_refused(tmp_path, native):
    chain = fake_frames(100, topology=CHAIN)
    result = report(chain, chain, tmp_path / "r.html")
    assert result.folding == () and "<h2>Folding</h2>" not in (tmp_path / "r.html").read_text(encoding="utf-8")
    chain = fake_frames(100, topology=tree([0, 1, 2, 3]))
    refuses(MappingError, "native structure: its beads", report, chain, chain, native=native)
