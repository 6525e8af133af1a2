"""Measured powder patterns in: columns of numbers from instruments' text exports, with every defect named.

Read are two columns (2θ in degrees, intensity) or three (with standard deviations, which are not used) separated by
blanks, tabs, commas or semicolons, with decimal points or commas: ``.xy``, ``.xye``, ``.dat``, ``.csv``, ``.ras``.
Lines before the first number, and those that begin with one of ``# ; ! ' " * / _ [``, are headers; a wavelength or an
anode that a header states is held against the one that is assumed.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from molflow_sim.errors import PatternError

CU_K_ALPHA = 1.54184
"""Å; Cu Kα, mean of Kα1 (1.54056) and Kα2 (1.54439) by their weights."""
ANODES = {"cu": CU_K_ALPHA, "mo": 0.71073, "co": 1.79026, "fe": 1.93735, "cr": 2.29100, "ag": 0.56087}
"""Å; Kα of usual anodes."""
SAME_WAVELENGTH = 0.005
"""Relative difference within which wavelengths are one: Kα1 and the mean of Kα1 and Kα2 differ by 0.1 %."""
MIN_POINTS = 50
"""Fewest points of a pattern."""
MAX_BYTES = 50_000_000
"""Largest file read."""

_COMMENTS = tuple("#;!'\"*/_[")
_WAVELENGTH = re.compile(r"(?:wave[\s_-]*length|lambda|λ|_WL)[^\n]*?(\d*\.\d+)\W*(nm\b)?", re.I)
_METALS = r"\b(cu|mo|co|fe|cr|ag)"
_ANODE = re.compile(rf"(?:anode|target|tube)[^\n]*?{_METALS}\b|{_METALS}[\s_-]*k[\s_-]*(?:a|α)", re.I)
_OTHER_AXIS = re.compile(
    r"\bd[\s_-]*(?:spacing|value)|\bd\s*[(\[/]\s*(?:å|a\b|nm)|^\W*d[\s,;]+i|\bq\b|(?:å|\ba|nm|angstroms?)\s*\^?-1"
    r"|\b1/(?:å|a\b|nm)|scattering vector|momentum transfer",
    re.I | re.M,
)


@dataclass(frozen=True, eq=False)
class PowderPattern:
    """Intensity against scattering angle.

    Attributes
    ----------
    two_theta : ndarray (n,)
        Degrees, rising.
    intensity : ndarray (n,)
        Any unit.
    wavelength : float
        Å.
    name : str
        Where it comes from.
    wavelength_assumed : bool
        Whether neither the file nor the caller stated the wavelength.
    """

    two_theta: np.ndarray
    intensity: np.ndarray
    wavelength: float = CU_K_ALPHA
    name: str = ""
    wavelength_assumed: bool = False


def read_pattern(path: str | Path, wavelength: float | None = None) -> PowderPattern:
    """Read a measured powder pattern.

    Parameters
    ----------
    path : path
    wavelength : float, optional
        Å; Cu Kα by default. A header that states another one is an error, so that none is assumed in silence.

    Returns
    -------
    PowderPattern

    Raises
    ------
    PatternError
        An empty or unreadable file, no numbers, other than two or three columns, 2θ that does not rise or leaves
        (0, 180), an axis of d or q, negative intensities beyond noise, no signal, another wavelength.
    """
    path = Path(path)
    check_wavelength(wavelength)
    header, rows = _parse(_text(path), path)
    _check_axis(header, path)
    two_theta, intensity = rows[:, 0], rows[:, 1]
    _check_numbers(two_theta, intensity, path)
    stated = _stated_wavelength(header)
    used = wavelength or CU_K_ALPHA
    if stated is not None and abs(stated - used) > SAME_WAVELENGTH * used:
        other = f"--wavelength says {used:g} Å" if wavelength else f"Cu Kα, {used:g} Å, would be assumed"
        raise PatternError(f"{path} states a wavelength of {stated:g} Å; {other}: give --wavelength {stated:g}")
    assumed = stated is None and wavelength is None
    if assumed and two_theta[-1] < 20.0:
        raise PatternError(
            f"{path} ends at {two_theta[-1]:.1f} and states no wavelength: at Cu Kα too little to compare. "
            "Give --wavelength if it is another, and 2θ in degrees if this is q or d"
        )
    return PowderPattern(two_theta, intensity, stated or used, path.name, assumed)


def check_wavelength(wavelength: float | None) -> None:
    """Refuse a wavelength (Å) that no diffractometer has.

    Raises
    ------
    PatternError
    """
    if wavelength is not None and not 0.05 < wavelength < 10.0:
        raise PatternError(f"a wavelength of {wavelength:g} Å makes no powder pattern; give it in Å, such as 1.5406")


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PatternError(f"{path} has more than {MAX_BYTES // 1_000_000} MB; no powder pattern has")
        data = path.read_bytes()
    except OSError as error:
        raise PatternError(f"pattern {path} cannot be read: {error.strerror}") from error
    if not data.strip():
        raise PatternError(f"pattern {path} is empty")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data:
        raise PatternError(f"{path} is a binary file; export the pattern as text, two columns: 2θ and intensity")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _parse(text: str, path: Path) -> tuple[str, np.ndarray]:
    """Header text and rows (n, 2 or 3)."""
    header: list[str] = []
    rows: list[list[float]] = []
    first = 0
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line:
            continue
        bare = line.replace('"', "")  # numbers in quotes are numbers
        values = None if bare.startswith(_COMMENTS) else _numbers(bare)
        if values is None:
            if rows and not line.startswith(_COMMENTS):
                raise PatternError(f"{path}, line {number}: {line[:60]!r} among the numbers")
            header.append(line)
            continue
        first = first or number
        if len(values) not in (2, 3) or (rows and len(values) != len(rows[0])):
            raise PatternError(
                f"{path}, line {number}: {len(values)} columns"
                + (f", {len(rows[0])} in line {first}" if rows else "")
                + "; a pattern has two, 2θ in degrees and intensity, or three with standard deviations"
            )
        rows.append(values)
    if not rows:
        raise PatternError(f"{path} holds no numbers; a pattern has two columns, 2θ in degrees and intensity")
    return "\n".join(header), np.array(rows, dtype=float)


def _numbers(line: str) -> list[float] | None:
    """The numbers of a line, None if it is text."""
    decimal_comma = "." not in line and re.search(r"\d,\d", line) and re.search(r"\d[\s;]+[-+\d]", line)
    fields = re.split(r"[\s;]+", line.replace(",", ".")) if decimal_comma else re.split(r"[\s;,]+", line)
    try:
        return [float(field) for field in fields if field]
    except ValueError:
        return None


def _check_axis(header: str, path: Path) -> None:
    if (found := _OTHER_AXIS.search(header)) and not re.search(r"theta|θ|angle", header, re.I):
        raise PatternError(
            f"{path}: the header speaks of {found.group(0)!r}, an axis of d or q; convert it to 2θ in degrees "
            "(2θ = 2 asin(λ/2d) = 2 asin(qλ/4π)) and give --wavelength"
        )


def _check_numbers(two_theta: np.ndarray, intensity: np.ndarray, path: Path) -> None:
    bad = ~(np.isfinite(two_theta) & np.isfinite(intensity))
    if bad.any():
        raise PatternError(f"{path}: point {int(bad.argmax()) + 1} is no finite number")
    if len(two_theta) < MIN_POINTS:
        raise PatternError(f"{path} has {len(two_theta)} points; a pattern needs {MIN_POINTS}: a list of peaks is none")
    fall = np.flatnonzero(np.diff(two_theta) <= 0)
    if len(fall):
        k, everywhere = int(fall[0]), len(fall) == len(two_theta) - 1
        hint = "an axis of d falls: convert it to 2θ" if everywhere else "sort it, and give one range only"
        raise PatternError(
            f"{path}: 2θ does not rise at point {k + 2} ({two_theta[k]:g}, then {two_theta[k + 1]:g}); {hint}"
        )
    if two_theta[0] < 0.0 or two_theta[-1] > 180.0:
        raise PatternError(f"{path}: 2θ from {two_theta[0]:g} to {two_theta[-1]:g}; it lies between 0 and 180 degrees")
    if intensity.max() <= 0.0 or np.ptp(intensity) == 0.0:
        raise PatternError(f"{path} holds no signal: intensities from {intensity.min():g} to {intensity.max():g}")
    noise = np.median(np.abs(np.diff(intensity))) / 0.954  # of a difference of two normal errors
    if intensity.min() < -max(0.02 * intensity.max(), 6.0 * noise):
        raise PatternError(
            f"{path}: an intensity of {intensity.min():g} at {two_theta[intensity.argmin()]:.2f}° is negative beyond "
            f"noise ({noise:.3g}); give counts, or take no more than the background from them"
        )


def _stated_wavelength(header: str) -> float | None:
    """Å; the first wavelength of the header, or its anode's."""
    for number, nanometres in _WAVELENGTH.findall(header):
        value = float(number) * (10.0 if nanometres else 1.0)
        if 0.05 < value < 10.0:
            return value
    anode = _ANODE.search(header)
    return ANODES[(anode.group(1) or anode.group(2)).lower()] if anode else None
