"""Powder patterns of crystals, and how well they agree with a measured one.

Intensities are |F|² of independent atoms (form factors of the International Tables, isotropic displacements) with the
Lorentz and polarisation factors of a diffractometer without monochromator, on a pseudo-Voigt profile.

The similarity is the weighted cross-correlation of de Gelder, Wehrens & Hageman, J. Comput. Chem. 22, 273 (2001): 1 for
equal patterns, with a triangle that forgives small shifts. A computed cell is that of 0 K or of a force field, some per
cent off, so the cell is strained, as its symmetry allows, until the similarity is highest, with a triangle that narrows
on the way: the ideas of FIDEL (Habermehl et al., Acta Cryst. B70, 347, 2014; B78, 195, 2022) and of the variable-cell
powder differences VC-PWDF and VC-GPWDF (Mayo, Marczenko & Johnson, Chem. Sci. 14, 4777, 2023; Otero-de-la-Roza,
J. Appl. Cryst. 57, 1401, 2024), without indexing. Molecules keep their fractional coordinates, so |F|² stays.

The background of the measured pattern is clipped away by SNIP (Ryan et al., Nucl. Instrum. Methods B34, 396, 1988).
Not modelled: preferred orientation, Kα2, sample displacement, mixtures; all of them lower the similarity.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from scipy.fft import next_fast_len

import molflow_sim
from molflow_sim.errors import PatternError
from molflow_sim.io.powder_read import CU_K_ALPHA, PowderPattern
from molflow_sim.runs.files import write_bytes_atomically
from molflow_sim.symmetry import cell_parameters

RANGE = (3.0, 45.0)
"""Degrees at Cu Kα: what is simulated, and compared; for other wavelengths the same range of λ/sin θ."""
STEP = 0.02
"""Degrees between points."""
WIDTH = 0.15
"""Full width (degrees) of a simulated peak at half maximum, half Gaussian, half Lorentzian."""
DISPLACEMENT = 3.0
"""Å²: B of all atoms; organic crystals at room temperature have 2 to 5."""
MAX_STRAIN = 0.04
"""Largest change of a cell length, relative; angles change by at most 2.3°."""
TRIANGLES = (3.0, 1.2, 0.4)
"""Degrees: half widths of the triangle while the cell is fitted; the last one scores."""
BACKGROUND = 1.5
"""Degrees: SNIP removes what is wider than twice this."""
_STARTS, _KEPT = 256, 4


@dataclass(frozen=True, eq=False)
class Reflections:
    """Reflections of a crystal, one of each Friedel pair.

    Attributes
    ----------
    q : ndarray (n, 3)
        Reciprocal vectors in 1/Å, without 2π.
    structure_factors : ndarray (n,)
        |F|² of the cell.
    strains : ndarray (m, 3, 3)
        Symmetric strains that keep the crystal's symmetry; largest component 1, 0.5 of shears.
    cell : ndarray (3, 3)
        Rows in Å.
    """

    q: np.ndarray
    structure_factors: np.ndarray
    strains: np.ndarray
    cell: np.ndarray

    def sticks(self, wavelength: float, strain: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """2θ (degrees) and intensity (n,) of each reflection of the crystal in the cell ``cell @ (1 + strain)``."""
        q = self.q if strain is None else self.q @ np.linalg.inv(np.eye(3) + strain)
        sine = np.clip(0.5 * wavelength * np.linalg.norm(q, axis=-1), 0.0, 0.999)
        cos2 = 1.0 - 2.0 * sine**2
        lorentz = (1.0 + cos2**2) / (sine**2 * np.sqrt(1.0 - sine**2))
        return np.degrees(2.0 * np.arcsin(sine)), self.structure_factors * lorentz


@dataclass(frozen=True, eq=False)
class PowderMatch:
    """How a crystal agrees with a measured pattern.

    Attributes
    ----------
    similarity : float
        0 to 1, after the cell was fitted.
    as_it_is : float
        The same without a change of the cell.
    strain : ndarray (3, 3)
        The fitted strain: the cell becomes ``cell @ (1 + strain)``.
    cell_parameters : ndarray (6,)
        Å and degrees, of the fitted cell.
    volume_change : float
        Relative, of the fitted cell.
    """

    similarity: float
    as_it_is: float
    strain: np.ndarray
    cell_parameters: np.ndarray
    volume_change: float


def reflections(crystal: Any, wavelength: float = CU_K_ALPHA, displacement: float = DISPLACEMENT) -> Reflections:
    """Reflections of a `MolecularCrystal` in the range that is simulated, with room for strains.

    Parameters
    ----------
    crystal : MolecularCrystal
    wavelength : float
        Å.
    displacement : float
        Isotropic displacement parameter B of all atoms in Å².
    """
    cell, group = np.asarray(crystal.cell), crystal.space_group
    numbers, positions = crystal.unit_cell()[:2]
    inverse = np.linalg.inv(cell)
    q_max = 2.0 * np.sin(np.radians(limits(wavelength)[1] / 2.0)) / wavelength * (1.0 + 2.0 * MAX_STRAIN)
    limit = np.floor(q_max * np.linalg.norm(cell, axis=1)).astype(int)
    grid = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in limit), indexing="ij"), axis=-1).reshape(-1, 3)
    h = grid[len(grid) // 2 + 1 :]  # half of the lattice: the other has the same |F|
    q = h @ inverse.T
    inside = np.linalg.norm(q, axis=1) <= q_max
    h, q = h[inside], q[inside]
    stol2, fractional = np.sum(q**2, axis=1) / 4.0, np.asarray(positions) @ inverse
    amplitude = np.zeros(len(h), dtype=complex)
    for z in np.unique(numbers):
        factor = gemmi.Element(int(z)).it92
        own = fractional[numbers == z].T
        for part in np.array_split(np.arange(len(h)), 1 + len(h) * own.shape[1] // 1_000_000):  # bounds the memory
            f = factor.c + np.exp(-np.outer(stol2[part], factor.b)) @ np.array(factor.a)
            amplitude[part] += f * np.exp(2j * np.pi * (h[part] @ own)).sum(axis=1)
    squared = np.abs(amplitude) ** 2 * np.exp(-2.0 * displacement * stol2)
    return Reflections(q, squared, _symmetric_strains(group), cell)


def simulate(crystal: Any, wavelength: float = CU_K_ALPHA, *, strain: np.ndarray | None = None) -> PowderPattern:
    """Simulated powder pattern of a crystal, highest point 100.

    Parameters
    ----------
    crystal : MolecularCrystal
    wavelength : float
        Å.
    strain : ndarray (3, 3), optional
        Strain of the cell, such as that of a `PowderMatch`.
    """
    scale = _Scale(wavelength, *limits(wavelength))
    heights = scale.histogram(*scale.shares(*reflections(crystal, wavelength).sticks(wavelength, strain)))
    intensity = np.fft.irfft(np.fft.rfft(heights, scale.size) * scale.profile, scale.size)[: len(scale.grid)]
    return PowderPattern(scale.grid, 100.0 * intensity / max(intensity.max(), 1e-30), wavelength, "simulated")


def peaks(crystal: Any, wavelength: float = CU_K_ALPHA, strain: np.ndarray | None = None) -> list[tuple[float, int]]:
    """2θ (degrees) and height of a crystal's peaks in `RANGE`, those of one hundredth of a degree together.

    Heights are whole numbers, the highest 1000; lower ones than 1 are left out.
    """
    two_theta, intensity = reflections(crystal, wavelength).sticks(wavelength, strain)
    lower, upper = limits(wavelength)
    inside = (two_theta >= lower) & (two_theta <= upper)
    place, member = np.unique(np.round(100.0 * two_theta[inside]).astype(int), return_inverse=True)
    heights = np.bincount(member, intensity[inside], len(place))
    heights = np.round(1000.0 * heights / max(heights.max(initial=0.0), 1e-30)).astype(int)
    return [(p / 100.0, int(h)) for p, h in zip(place.tolist(), heights) if h > 0]


def write_xy(pattern: PowderPattern, path: str | Path, title: str = "") -> None:
    """Write two columns, 2θ in degrees and intensity, under a header with wavelength and version."""
    head = (
        f"# {title or pattern.name}\n# wavelength {pattern.wavelength:g} Angstrom\n"
        f"# molflow-sim {molflow_sim.__version__}\n# two-theta (degree)  intensity (arbitrary unit)\n"
    )
    rows = "".join(f"{x:.3f} {y:.4f}\n" for x, y in zip(pattern.two_theta, pattern.intensity))
    write_bytes_atomically(Path(path), (head + rows).encode())


class PowderTarget:
    """A measured pattern, ready to be compared with many crystals.

    Parameters
    ----------
    pattern : PowderPattern

    Raises
    ------
    PatternError
        If it covers less than 10° of the range that is compared, or holds nothing but background there.
    """

    def __init__(self, pattern: PowderPattern) -> None:
        factor = pattern.wavelength / CU_K_ALPHA
        bounds = limits(pattern.wavelength)
        lower, upper = max(bounds[0], float(pattern.two_theta[0])), min(bounds[1], float(pattern.two_theta[-1]))
        if upper - lower < 10.0 * factor:
            raise PatternError(
                f"{pattern.name}: the pattern runs from {pattern.two_theta[0]:g} to {pattern.two_theta[-1]:g}°; at "
                f"{pattern.wavelength:g} Å, {10.0 * factor:.1f}° or more between {bounds[0]:.1f} and {bounds[1]:.1f}° "
                "are needed"
            )
        self.pattern = pattern
        self.scale = _Scale(pattern.wavelength, lower, upper)
        y = np.interp(self.scale.grid, pattern.two_theta, pattern.intensity)
        self.net = y - background(y, round(BACKGROUND * factor / self.scale.step))
        if not self.net.max() > 0.0:
            raise PatternError(f"{pattern.name} holds no peak between {lower:g} and {upper:g}°")
        transform = np.fft.rfft(self.net, self.scale.size)
        self._weights = [self.scale.triangle(width * factor) for width in TRIANGLES]
        fold = lambda weights: np.fft.irfft(transform * weights, self.scale.size)  # noqa: E731
        # the pattern folded with triangle and profile, and its own norm
        self._correlations = [
            (fold(w * self.scale.profile), float(self.net @ fold(w)[: len(y)])) for w in self._weights
        ]

    def similarity(self, two_theta: np.ndarray, intensity: np.ndarray, level: int = -1) -> tuple[float, np.ndarray]:
        """Similarity with sticks (n,) of another pattern, by the triangle of a level of `TRIANGLES`, and its slope.

        Returns
        -------
        similarity : float
        slope : ndarray (n,)
            Its derivative by each 2θ, per degree.
        """
        scale, (correlation, own) = self.scale, self._correlations[level]
        left, right, heights = scale.shares(two_theta, intensity)
        transform = np.fft.rfft(scale.histogram(left, right, heights), scale.size) * scale.profile
        folded = np.fft.irfft(transform * scale.profile * self._weights[level], scale.size)
        between = lambda y: (heights * (y[left] * (1.0 - right) + y[left + 1] * right)).sum()  # noqa: E731
        cross, other = between(correlation), between(folded)
        if not other > 0.0:
            return 0.0, np.zeros(len(two_theta))
        norm = np.sqrt(own * other)
        slope = correlation / norm - folded * cross / (norm * other)
        return float(cross / norm), heights * (slope[left + 1] - slope[left]) / scale.step

    def compare(self, crystal: Any) -> PowderMatch:
        """Fit the cell of a crystal to the pattern, within `MAX_STRAIN`, and score.

        Deterministic: starts from a fixed set of strains, the best of which are refined with each triangle in turn.
        """
        from scipy.optimize import minimize
        from scipy.stats import qmc

        wavelength = self.pattern.wavelength
        lines = reflections(crystal, wavelength)
        intensity, m = lines.sticks(wavelength)[1], len(lines.strains)

        def loss(x: np.ndarray, level: int) -> tuple[float, np.ndarray]:
            """Intensities stay those of the unstrained cell, as the slope assumes."""
            inverse = np.linalg.inv(np.eye(3) + np.tensordot(MAX_STRAIN * x, lines.strains, 1))
            q = lines.q @ inverse
            length = np.linalg.norm(q, axis=1)
            sine = np.minimum(0.5 * wavelength * length, 0.999)
            value, slope = self.similarity(np.degrees(2.0 * np.arcsin(sine)), intensity, level)
            slope *= np.degrees(wavelength / np.sqrt(1.0 - sine**2)) / length
            by_strain = (q * slope[:, None]).T @ q @ inverse.T  # of d|q| = -(q · dε · inverse · q) / |q|
            return -value, MAX_STRAIN * np.tensordot(lines.strains, by_strain, 2)

        isotropic = np.linspace(-1.0, 1.0, 17)[:, None] * np.array([np.trace(s) > 0.5 for s in lines.strains])
        starts = np.concatenate([isotropic, 2.0 * qmc.Sobol(m, seed=0).random(_STARTS) - 1.0])
        values = np.array([loss(x, 0)[0] for x in starts])
        best = [np.zeros(m), *starts[np.argsort(values, kind="stable")[:_KEPT]]]
        for level in range(len(TRIANGLES)):
            options = {"bounds": [(-1.0, 1.0)] * m, "options": {"maxiter": 50}}
            best = [minimize(loss, x, (level,), "L-BFGS-B", True, **options).x for x in best]
        strains = np.tensordot(MAX_STRAIN * np.array([np.zeros(m), *best]), lines.strains, 1)
        scores = [self.similarity(*lines.sticks(wavelength, strain))[0] for strain in strains]
        strain = strains[int(np.argmax(scores))]
        return PowderMatch(
            similarity=max(scores),
            as_it_is=scores[0],
            strain=strain,
            cell_parameters=cell_parameters(lines.cell @ (np.eye(3) + strain)),
            volume_change=float(np.linalg.det(np.eye(3) + strain) - 1.0),
        )


def background(intensity: np.ndarray, half_width: int) -> np.ndarray:
    """Background of a pattern on an even grid by SNIP with a falling window, on doubly logarithmic intensities.

    Parameters
    ----------
    intensity : ndarray (n,)
    half_width : int
        Points; features narrower than twice this are peaks.
    """
    low = float(intensity.min())
    scale = 1e4 / max(float(intensity.max()) - low, 1e-30)  # counts of a usual measurement
    smooth = np.convolve(np.pad(intensity - low, 2, "edge"), np.full(5, 0.2), "valid") * scale
    v = np.log(np.log(np.sqrt(smooth + 1.0) + 1.0) + 1.0)
    for p in range(min(half_width, (len(v) - 1) // 2), 0, -1):
        v[p:-p] = np.minimum(v[p:-p], 0.5 * (v[: -2 * p] + v[2 * p :]))
    return np.minimum(((np.exp(np.exp(v) - 1.0) - 1.0) ** 2 - 1.0) / scale + low, intensity)


class _Scale:
    """An even grid of 2θ, and what patterns on it are folded with: Fourier transforms over twice its length."""

    def __init__(self, wavelength: float, lower: float, upper: float) -> None:
        self.step = STEP * wavelength / CU_K_ALPHA
        self.lower = lower
        self.grid = lower + self.step * np.arange(int((upper - lower) / self.step + 1e-6) + 1)
        self.size = 2 * next_fast_len(len(self.grid), real=True)
        self._offsets = self.step * np.fft.fftfreq(self.size, 1.0 / self.size)  # from the first point, both ways
        x = self._offsets / (0.5 * WIDTH * wavelength / CU_K_ALPHA)
        shape = 0.5 / (1.0 + x**2) + 0.5 * np.sqrt(np.pi * np.log(2.0)) * np.exp(-np.log(2.0) * x**2)
        self.profile = np.fft.rfft(shape / shape.sum()).real

    def triangle(self, half_width: float) -> np.ndarray:
        return np.fft.rfft(np.maximum(0.0, 1.0 - np.abs(self._offsets) / half_width)).real

    def shares(self, two_theta: np.ndarray, intensity: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Point at the left of each stick, the share of the point at its right, and its height: 0 outside the grid."""
        place = (two_theta - self.lower) / self.step
        left = np.floor(place).astype(int)
        inside = (left >= 0) & (left < len(self.grid) - 1)
        return np.where(inside, left, 0), np.where(inside, place - left, 0.0), np.where(inside, intensity, 0.0)

    def histogram(self, left: np.ndarray, right: np.ndarray, heights: np.ndarray) -> np.ndarray:
        """Sticks shared by the two points next to them, (n,)."""
        n = len(self.grid)
        return np.bincount(left, heights * (1.0 - right), n) + np.bincount(left + 1, heights * right, n)


def limits(wavelength: float) -> tuple[float, float]:
    """`RANGE` at another wavelength, in degrees."""
    sines = np.sin(np.radians(np.array(RANGE) / 2.0)) * wavelength / CU_K_ALPHA
    lower, upper = np.degrees(2.0 * np.arcsin(np.clip(sines, 0.0, 0.98)))
    return float(lower), float(upper)


def _symmetric_strains(group: Any) -> np.ndarray:
    """Strains (m, 3, 3) that the point group leaves unchanged, 6 if triclinic; largest component 1, 0.5 of shears."""
    rotations, found = group.cartesian_rotations, np.empty((0, 3, 3))
    for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)):
        strain = np.zeros((3, 3))
        strain[i, j] = strain[j, i] = 1.0 if i == j else 0.5
        mean = np.einsum("gij,jk,glk->il", rotations, strain, rotations) / len(rotations)
        more = np.concatenate([found, mean[None]])
        if np.linalg.matrix_rank(more.reshape(-1, 9), tol=1e-6) > len(found):
            found = np.concatenate([found, mean[None] / np.abs(mean).max() * (1.0 if i == j else 0.5)])
    return found
