"""Free-energy surfaces from samples, and how far two of them are apart.

The metrics are those of Köhler, Chen, Krämer, Clementi and Noé, J. Chem. Theory Comput. 19, 942 (2023): histograms of
the torsions φ and ψ over [−π, π]² in 60 × 60 bins, their Kullback-Leibler divergence and the mean-square difference
of their free energies, both over the bins that both histograms populate. Neither sees a basin that is missing from
one side altogether, which is why `coverage` stands beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from molflow_sim.errors import InputError, NonFiniteError
from molflow_sim.units import BOLTZMANN, KCAL_PER_MOL


def dihedral(x: np.ndarray, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Torsions of frames in radians, [−π, π], with IUPAC's sign.

    Parameters
    ----------
    x : ndarray, shape (..., B, 3)
        Positions, any unit.
    indices : array of int, shape (4,) or (n, 4)
        The beads of one torsion or of several.

    Returns
    -------
    ndarray, shape (...) or (..., n)

    Raises
    ------
    InputError
        Shapes that do not fit.
    """
    from molflow_sim.geometry.torsions import torsion_angles

    x, beads = np.asarray(x), np.asarray(indices)
    if x.ndim < 2 or x.shape[-1] != 3 or beads.shape[-1:] != (4,) or beads.dtype.kind not in "iu":
        raise InputError(f"positions of shape {x.shape} and torsions of shape {beads.shape}: (..., B, 3) and (..., 4)")
    if beads.size and not (-x.shape[-2] <= beads.min() and beads.max() < x.shape[-2]):
        raise InputError(f"a torsion names bead {beads.max()} of {x.shape[-2]}")
    return torsion_angles(x, beads)


def histogram(
    values: np.ndarray,
    bins: int | Sequence[int] = 60,
    ranges: Sequence[tuple[float, float]] | None = None,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Probabilities of samples in bins of one or more coordinates.

    Parameters
    ----------
    values : ndarray, shape (F,) or (F, d)
        Samples.
    bins : int or d ints
        Bins along each coordinate.
    ranges : d pairs, optional
        Lower and upper end of each coordinate; default: those of the samples. Samples outside are left out of the
        bins but counted in the total, so that probabilities then add up to less than 1.
    weights : ndarray, shape (F,), optional
        Weights, not negative, in any normalisation.

    Returns
    -------
    probabilities : ndarray, d-dimensional
    edges : list of d ndarrays

    Raises
    ------
    InputError
        No samples, or weights that are negative, all zero or of another length.
    NonFiniteError
        A sample or a weight that is NaN or infinite.
    """
    samples = np.asarray(values, dtype=np.float64)
    samples = samples[:, None] if samples.ndim == 1 else samples
    if samples.ndim != 2 or not len(samples):
        raise InputError(f"a histogram of samples of shape {np.shape(values)}: expected (F,) or (F, d) with F > 0")
    mass = np.ones(len(samples)) if weights is None else np.asarray(weights, dtype=np.float64)
    if mass.shape != (len(samples),):
        raise InputError(f"{len(samples)} samples but weights of shape {mass.shape}")
    if not (np.isfinite(samples).all() and np.isfinite(mass).all()):
        raise NonFiniteError("a sample or a weight is NaN or infinite")
    if (mass < 0).any() or not mass.sum() > 0:
        raise InputError("weights must not be negative and must not all be zero")
    counts, edges = np.histogramdd(samples, bins=bins, range=ranges, weights=mass)
    return counts / mass.sum(), list(edges)


def phi_psi_histogram(phi: np.ndarray, psi: np.ndarray, bins: int = 60) -> np.ndarray:
    """Probabilities of φ (axis 0) and ψ (axis 1) in equal bins over [−π, π]².

    Parameters
    ----------
    phi, psi : ndarray, shape (F,)
        Radians, in any turn.
    bins : int
        Bins along each axis.

    Returns
    -------
    ndarray, shape (bins, bins)
        Adds up to 1.

    Raises
    ------
    InputError, NonFiniteError
        As in `histogram`.
    """
    pair = np.stack([np.asarray(phi, dtype=np.float64), np.asarray(psi, dtype=np.float64)], axis=-1)
    turned = (pair + math.pi) % (2 * math.pi) - math.pi
    return histogram(turned, bins, [(-math.pi, math.pi)] * 2)[0]


def kl_divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Σ p ln(p/q) over the bins that both populate, in nats.

    The probabilities are not normalised again over the common bins: the figure is comparable with published ones,
    but it may be small (or negative) where q misses much of p. Read it together with `coverage`.

    Parameters
    ----------
    p, q : ndarray, same shape
        Probabilities of the reference and of the model.

    Returns
    -------
    float
        Infinity where no bin is common.

    Raises
    ------
    InputError
        Different shapes or negative values.
    NonFiniteError
        NaN or infinity.
    """
    p, q, common = _common(p, q)
    if not common.any():
        return math.inf
    return float(np.sum(p[common] * np.log(p[common] / q[common])))


def coverage(p: np.ndarray, q: np.ndarray) -> float:
    """Share of the reference's probability p in bins that the model q populates, 0 to 1.

    Parameters
    ----------
    p, q : ndarray, same shape
        Probabilities of the reference and of the model.

    Raises
    ------
    InputError, NonFiniteError
        As in `kl_divergence`, or p that is all zero.
    """
    p, _, common = _common(p, q)
    if not p.sum() > 0:
        raise InputError("the reference populates no bin")
    return math.fsum(p[common]) / math.fsum(p.ravel())  # exact: empty bins around the data change no digit


def free_energy(p: np.ndarray, temperature: float) -> np.ndarray:
    """−kT ln p above the most probable bin, in kcal/mol; infinite in empty bins.

    Parameters
    ----------
    p : ndarray
        Probabilities in equal bins.
    temperature : float
        K.

    Raises
    ------
    InputError, NonFiniteError
        As in `kl_divergence`, or a temperature that is not positive.
    """
    p, _, _ = _common(p, p)
    kT = _kT(temperature)
    with np.errstate(divide="ignore"):
        values = -kT * np.log(p)
    return values - values.min() if np.isfinite(values).any() else values


def free_energy_mse(p: np.ndarray, q: np.ndarray, temperature: float = 300.0) -> float:
    """Mean of (−kT ln p + kT ln q)² over the bins that both populate, in (kcal/mol)².

    Every common bin counts the same; the free energies are those of the probabilities as they are, with no
    constant fitted between them.

    Parameters
    ----------
    p, q : ndarray, same shape
        Probabilities of the reference and of the model.
    temperature : float
        K.

    Returns
    -------
    float
        Infinity where no bin is common.

    Raises
    ------
    InputError, NonFiniteError
        As in `free_energy`.
    """
    p, q, common = _common(p, q)
    kT = _kT(temperature)
    if not common.any():
        return math.inf
    return float(np.mean((kT * np.log(p[common] / q[common])) ** 2))


def _common(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    if p.shape != q.shape:
        raise InputError(f"histograms of shapes {p.shape} and {q.shape} cannot be compared")
    if not (np.isfinite(p).all() and np.isfinite(q).all()):
        raise NonFiniteError("a probability is NaN or infinite")
    if (p < 0).any() or (q < 0).any():
        raise InputError("a probability is negative")
    return p, q, (p > 0) & (q > 0)


def _kT(temperature: float) -> float:
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"the temperature is {temperature} K: it must be above zero")
    return BOLTZMANN * temperature / KCAL_PER_MOL
