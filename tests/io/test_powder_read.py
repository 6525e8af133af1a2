"""Measured powder patterns: what instruments export is read, what cannot be a pattern is refused with a reason."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refuses

from molflow_sim.errors import PatternError
from molflow_sim.io.powder_read import CU_K_ALPHA, read_pattern

ANGLES = np.arange(5.0, 40.0, 0.1)
COUNTS = 100.0 + 900.0 * np.exp(-(((ANGLES - 20.0) / 0.2) ** 2))


def lines(x=ANGLES, y=COUNTS, form="{:.4f} {:.3f}", rows=None) -> str:
    return "".join(form.format(a, b) + "\n" for a, b in zip(x, y))


def read(tmp_path, text, wavelength=None):
    path = tmp_path / "measured.xy"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_pattern(path, wavelength)


@pytest.mark.parametrize(
    "text",
    [
        lines(),
        '# made by hand\n; two\n! three\n\'Id: "sample 3" Anode: "Cu" Scantype: "Coupled"\n' + lines(),
        '[Measurement conditions]\n"K-Alpha1 wavelength",1.540598\n[Scan points]\nAngle,Intensity\n'
        + lines(form="{:.4f},{:.3f}"),
        '*RAS_HEADER_START\n*MEAS_COND_XG_WAVE_LENGTH_ALPHA1 "1.540593"\n*RAS_INT_START\n'
        + lines(form="{:.4f} {:.3f} 1.0000")
        + "*RAS_INT_END\n",
        "2theta;counts\n" + lines(form="{:.4f};{:.3f}").replace(".", ","),
        lines(form="{:.4f}\t{:.3f}\t10.0"),
        lines(form='"{:.4f}","{:.3f}"'),
        lines().replace("\n", "\r\n").encode("utf-16"),
        "Messung bei 25 °C\n".encode("latin-1") + lines().encode(),
        "# wavelength 0.15406 nm\n" + lines(),
    ],
    ids=["xy", "comments", "csv", "ras", "decimal comma", "xye", "quoted", "utf-16", "latin-1", "nm"],
)
def test_text_exports_of_instruments_are_read(tmp_path, text):
    pattern = read(tmp_path, text)
    assert np.allclose(pattern.two_theta, ANGLES, atol=1e-4) and np.allclose(pattern.intensity, COUNTS, atol=1e-3)
    assert pattern.wavelength == pytest.approx(CU_K_ALPHA, rel=1e-3) and pattern.name == "measured.xy"


def test_it_is_known_whether_a_wavelength_was_stated(tmp_path):
    assert read(tmp_path, lines()).wavelength_assumed
    assert not read(tmp_path, lines(), 1.5406).wavelength_assumed
    assert read(tmp_path, "# Mo Kα\n" + lines(), 0.7107).wavelength == pytest.approx(0.71073)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        ("# nothing here\nreally\n", "holds no numbers"),
        (b"RAW4.00\0\0\1\0", "binary"),
        (lines(form="{:.3f}"), "1 columns"),
        (lines(form="{:.3f} {:.2f} 1 2"), "4 columns"),
        (lines() + "41 3 5\n", "3 columns, 2 in line 1"),
        (lines() + "the end\n", "line 351: 'the end' among the numbers"),
        (lines() + "41 nan\n", "no finite number"),
        (lines(ANGLES[:20]), "20 points"),
        (lines(ANGLES[::-1]), "an axis of d falls"),
        (lines(np.r_[ANGLES[:100], ANGLES[90:-10]]), "does not rise at point 101"),
        (lines(5.0 * ANGLES), "between 0 and 180"),
        (lines(y=COUNTS - 300.0), "negative beyond noise"),
        (lines(y=0.0 * COUNTS), "no signal"),
        (lines(y=0.0 * COUNTS + 7.0), "no signal"),
        ("# d-spacing (Å)  intensity\n" + lines(), "an axis of d or q"),
        ("# q (1/Å)  I\n" + lines(ANGLES / 10.0), "an axis of d or q"),
        (lines(ANGLES / 10.0), "states no wavelength"),
        ("# wavelength: 0.7093 Å\n" + lines(), "give --wavelength 0.7093"),
        ("*WAVE_LENGTH1 = 1.78897\n" + lines(), "give --wavelength 1.78897"),
        ("# anode Mo\n" + lines(), "0.71073"),
    ],
)  # fmt: skip
def test_what_is_no_pattern_is_named(tmp_path, text, said):
    with pytest.raises(PatternError) as error:
        read(tmp_path, text)
    assert said in str(error.value) and "measured.xy" in str(error.value)


def test_a_stated_wavelength_other_than_the_one_given_is_an_error(tmp_path):
    with pytest.raises(PatternError, match=r"states a wavelength of 0\.7093 Å; --wavelength says 1\.5406"):
        read(tmp_path, "# lambda = 0.7093\n" + lines(), 1.5406)
    refuses(PatternError, "makes no powder pattern", read, tmp_path, lines(), 154.0)
    refuses(PatternError, "No such file", read_pattern, tmp_path / "absent.xy")


@given(st.binary(max_size=400) | st.text("0123456789.,;-+eE \t\n#", max_size=400).map(str.encode))
def test_any_bytes_are_read_or_refused_by_name(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "measured.xy"
    path.write_bytes(data)
    try:
        pattern = read_pattern(path)
    except PatternError:
        return
    assert np.all(np.diff(pattern.two_theta) > 0) and np.isfinite(pattern.intensity).all()
