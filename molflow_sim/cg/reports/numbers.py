"""What a report compares: collective coordinates, their free energies, and how far a model is from the reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from molflow_sim.cg.frames import BeadFrames
from molflow_sim.cg.whole import bond_lengths
from molflow_sim.coarse.topology import BeadTopology
from molflow_sim.errors import InputError, MissingDependencyError
from molflow_sim.evaluate.free_energy import coverage, dihedral, free_energy_mse, histogram, kl_divergence

CLOSE_KL, FAIR_KL = 0.10, 0.30
CLOSE_COVERAGE, FAIR_COVERAGE = 0.98, 0.90
_PAIRS_FOR_TICA = 500


@dataclass(frozen=True)
class Score:
    """How far one set of model samples is from the reference.

    Parameters
    ----------
    label : str
        Name of the samples.
    frames : int
        Number of samples.
    temperature : float
        K.
    kl : float
        Kullback-Leibler divergence of the model from the reference over common bins, nats.
    free_energy_mse : float
        Mean-square difference of the free energies over common bins, (kcal/mol)².
    coverage : float
        Share of the reference's probability in bins that the model populates.
    rmsd_mean, rmsd_lowest : float
        RMSD of the beads to the native structure, or else the reference's first frame, after superposition, Å.
    radius_of_gyration : float
        Mean, Å.
    local_shift : float
        Largest distance of a bond's or angle's mean from the reference's, in the reference's standard deviations.
    local_worst : str
        Which bond or angle that is.
    broken : float
        Share of samples with a bond more than a fifth outside the range that it has in the reference.
    grade : str
        "close", "fair", "far", or "unclear" where the reference is too short or of another temperature.
    verdict : str
        The grade in words.
    """

    label: str
    frames: int
    temperature: float
    kl: float
    free_energy_mse: float
    coverage: float
    rmsd_mean: float
    rmsd_lowest: float
    radius_of_gyration: float
    local_shift: float
    local_worst: str
    broken: float
    grade: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Plane:
    """Two collective coordinates with a common grid of bins.

    Parameters
    ----------
    names : pair of str
        Axis titles.
    kind : str
        "phi-psi", "tica" or "rmsd-rg".
    project : callable
        Frames to values, shape (F, 2).
    ranges : pair of (low, high)
        Ends of the grid.
    bins : int
        Bins along each axis.
    """

    names: tuple[str, str]
    kind: str
    project: Callable[[BeadFrames], np.ndarray]
    ranges: tuple[tuple[float, float], tuple[float, float]]
    bins: int

    def probabilities(self, values: np.ndarray) -> np.ndarray:
        """Share of the samples in each bin, shape (bins, bins)."""
        return histogram(values, self.bins, self.ranges)[0]


def choose_plane(
    reference: BeadFrames,
    all_frames: list[BeadFrames],
    kind: str,
    bins: int | None,
    lag: int,
    native: BeadFrames | None = None,
) -> Plane:
    """The plane of a report; see `report.report` for the arguments and errors."""
    if kind not in ("auto", "phi-psi", "tica", "rmsd-rg"):
        raise InputError(f"unknown coordinates {kind!r}: use auto, phi-psi, tica or rmsd-rg")
    torsions = reference.topology.phi_psi_indices()
    if kind == "phi-psi" and torsions is None:
        raise InputError("these beads have no single pair of backbone torsions φ and ψ (C-N-CA-C-N)")
    if torsions is not None and kind in ("auto", "phi-psi"):
        ends = (-math.pi, math.pi)
        return Plane(
            ("φ (rad)", "ψ (rad)"), "phi-psi", lambda f: dihedral(f.positions, torsions), (ends, ends), bins or 60
        )
    project: Callable[[BeadFrames], np.ndarray]
    wanted = kind == "tica" or (kind == "auto" and native is None)  # who gives a native structure asks for the RMSD
    tica = _tica(reference, lag, required=kind == "tica") if wanted else None
    if tica is not None:
        names, kind, project = ("first TICA coordinate", "second TICA coordinate"), "tica", tica
    else:
        origin, named = origin_of_rmsd(reference, native)
        names, kind = (f"RMSD to {named} (Å)", "radius of gyration (Å)"), "rmsd-rg"

        def project(frames: BeadFrames) -> np.ndarray:
            return np.stack([rmsd(frames, origin), radius_of_gyration(frames)], axis=-1)

    values = np.concatenate([project(f) for f in all_frames])
    ranges = tuple((float(v.min()), float(v.max()) + 1e-9) for v in values.T)
    # About ten frames a bin if they were spread evenly, and never finer than the torsions' grid.
    fitting = int(np.clip(math.sqrt(reference.n_frames / 10), 10, 60))
    return Plane(names, kind, project, (ranges[0], ranges[1]), bins or fitting)


def _tica(reference: BeadFrames, lag: int, required: bool) -> Callable[[BeadFrames], np.ndarray] | None:
    """The two slowest coordinates of the reference (Pérez-Hernández et al., J. Chem. Phys. 139, 015102 (2013))."""
    series = np.split(reference.positions, np.cumsum(reference.lengths)[:-1]) if reference.lengths else []
    series = [s for s in series if len(s) > 10 * lag]
    beads = reference.topology.n_beads
    if not series or beads < 4 or len(reference) < 50:
        if required:
            raise InputError(
                f"TICA needs a time series of more than {10 * lag} frames and at least four beads; these frames are "
                "not in order of time, or too few"
            )
        return None
    try:
        from deeptime.decomposition import TICA
        from deeptime.util.data import TrajectoriesDataset
    except ImportError as error:
        if required:
            raise MissingDependencyError("deeptime", "tica") from error
        return None
    pairs = _spread_pairs(beads)

    def features(positions: np.ndarray) -> np.ndarray:
        distances = np.linalg.norm(positions[:, pairs[:, 0]] - positions[:, pairs[:, 1]], axis=-1)
        torsions = dihedral(positions, reference.topology.dihedrals)
        return np.concatenate([distances, np.sin(torsions), np.cos(torsions)], axis=-1).astype(np.float64)

    data = TrajectoriesDataset.from_numpy(lag, [features(s) for s in series])
    model = TICA(lagtime=lag, dim=2).fit_fetch(data)
    if np.asarray(model.transform(features(series[0][:2]))).shape[-1] < 2:
        if required:
            raise InputError("TICA found fewer than two independent coordinates")
        return None
    return lambda frames: np.asarray(model.transform(features(frames.positions)))


def _spread_pairs(beads: int) -> np.ndarray:
    """Pairs of beads at least three apart in number, thinned out evenly where there are very many."""
    i, j = np.triu_indices(beads, 3)
    keep = np.unique(np.linspace(0, len(i) - 1, min(len(i), _PAIRS_FOR_TICA)).astype(int))
    return np.stack([i, j], axis=-1)[keep]


def origin_of_rmsd(reference: BeadFrames, native: BeadFrames | None) -> tuple[BeadFrames, str]:
    """The frames whose first one RMSD is measured to, and what to call it."""
    return (reference, "the reference's first frame") if native is None else (native, "the native structure")


def rmsd(frames: BeadFrames, reference: BeadFrames) -> np.ndarray:
    """RMSD of each frame to the reference's first frame after superposition, shape (F,), Å."""
    import mdtraj

    topology = frames.topology.to_mdtraj()
    moving, fixed = (
        mdtraj.Trajectory((x - x.mean(axis=1, keepdims=True)) / 10.0, topology)
        for x in (frames.positions, reference.positions[:1])
    )
    return 10.0 * mdtraj.rmsd(moving, fixed).astype(np.float64)


def radius_of_gyration(frames: BeadFrames) -> np.ndarray:
    """Mass-weighted radius of gyration, shape (F,), Å."""
    share = frames.topology.masses / frames.topology.masses.sum()
    centred = frames.positions - np.einsum("b,fbx->fx", share, frames.positions)[:, None]
    return np.sqrt(np.einsum("b,fbx,fbx->f", share, centred, centred))


def local_coordinates(topology: BeadTopology) -> list[tuple[str, str, Callable[[np.ndarray], np.ndarray]]]:
    """Kind ("bond", "angle" or "dihedral"), label and function of each local coordinate; Å and degrees."""

    def angle(i: int, j: int, k: int) -> Callable[[np.ndarray], np.ndarray]:
        def measure(x: np.ndarray) -> np.ndarray:
            a, b = x[:, i] - x[:, j], x[:, k] - x[:, j]
            return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1)))

        return measure

    def named(beads: np.ndarray) -> str:
        return "–".join(topology.label(int(i)) for i in beads)

    found: list[tuple[str, str, Callable[[np.ndarray], np.ndarray]]] = []
    found += [("bond", named(b), lambda x, b=b: bond_lengths(x, b)[:, 0]) for b in topology.bonds]  # type: ignore[misc]
    found += [("angle", named(a), angle(*a)) for a in topology.angles]
    for t in np.concatenate([topology.dihedrals, topology.impropers]):
        found.append(("dihedral", named(t), lambda x, t=t: np.degrees(dihedral(x, t))))  # type: ignore[misc]
    return found


def score(
    label: str,
    frames: BeadFrames,
    reference: BeadFrames,
    plane: Plane,
    p: np.ndarray,
    q: np.ndarray,
    native: BeadFrames | None = None,
) -> Score:
    """Numbers of one set of samples, without the grade."""
    deviation = rmsd(frames, origin_of_rmsd(reference, native)[0])
    shift, worst = _local_shift(frames, reference)
    wild = np.zeros(len(frames), dtype=bool)
    if len(frames.topology.bonds):
        known = bond_lengths(reference.positions, frames.topology.bonds)
        ours = bond_lengths(frames.positions, frames.topology.bonds)
        wild = ((ours < 0.8 * known.min(axis=0)) | (ours > 1.2 * known.max(axis=0))).any(axis=1)
    return Score(
        label=label,
        frames=frames.n_frames,
        temperature=frames.temperature,
        kl=kl_divergence(p, q),
        free_energy_mse=free_energy_mse(p, q, reference.temperature),
        coverage=coverage(p, q),
        rmsd_mean=float(deviation.mean()),
        rmsd_lowest=float(deviation.min()),
        radius_of_gyration=float(radius_of_gyration(frames).mean()),
        local_shift=shift,
        local_worst=worst,
        broken=float(wild.mean()),
    )


def _local_shift(frames: BeadFrames, reference: BeadFrames) -> tuple[float, str]:
    shifts = []
    for kind, label, measure in local_coordinates(reference.topology):
        if kind != "dihedral":
            known = measure(reference.positions)
            apart = abs(float(measure(frames.positions).mean() - known.mean()))
            shifts.append((apart / max(float(known.std()), 1e-6), f"{kind} {label}"))
    return max(shifts, default=(0.0, ""))


def graded(own: Score, halves: Score, reference: BeadFrames) -> dict[str, Any]:
    """Grade and verdict of a score, given how far the halves of the reference are from each other.

    A model is close with a divergence up to 0.10 and coverage from 0.98, fair up to 0.30 and from 0.90. Where the
    halves of the reference differ more than that, nothing finer can be told, and the bounds follow them. A bond or
    angle that is more than one standard deviation off makes it fair at best, broken bonds far.
    """
    numbers = f"KL {own.kl:.3f}, coverage {own.coverage:.1%}"
    if abs(own.temperature - reference.temperature) > 1.0:
        return {
            "grade": "unclear",
            "verdict": f"at {own.temperature:.0f} K, the reference at {reference.temperature:.0f} K: shown, not judged",
        }
    if halves.kl > FAIR_KL or halves.coverage < 0.8:
        return {
            "grade": "unclear",
            "verdict": f"{numbers}; but the two halves of the reference themselves differ by KL {halves.kl:.2f} with "
            f"{halves.coverage:.0%} in common: the reference is too short to judge by",
        }
    missing = f"{1 - own.coverage:.1%} of the reference lies where the model never goes"
    if own.kl <= max(CLOSE_KL, halves.kl) and own.coverage >= min(CLOSE_COVERAGE, halves.coverage):
        grade, text = "close", f"reproduces the reference's free energies ({numbers})"
    elif own.kl <= max(FAIR_KL, 2 * halves.kl) and own.coverage >= min(FAIR_COVERAGE, halves.coverage - 0.05):
        grade, text = "fair", f"has the right basins, with populations or barriers off ({numbers})"
    elif own.coverage < FAIR_COVERAGE:
        grade, text = "far", f"misses part of the reference's states: {missing} ({numbers})"
    else:
        grade, text = "far", f"does not reproduce the reference's free energies ({numbers})"
    if own.local_shift > 1.0:
        grade = "fair" if grade == "close" else grade
        text += f"; the mean of the {own.local_worst} is {own.local_shift:.1f} standard deviations off"
    if own.broken > 0.001:
        grade = "far"
        text += f"; {own.broken:.1%} of its frames have a bond outside the physical range: do not use it"
    return {"grade": grade, "verdict": text}
