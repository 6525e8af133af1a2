"""A potential of one molecule's own: FIT's form with parameters distilled from a better, slower energy.

1. Random packings are pressed on FIT; some are copied with larger and smaller cells, displaced and turned molecules.
2. The teacher gives energies between the molecules, rigid-body forces and torques and the pressure of all of them.
3. exp-6 parameters and charges of every class of equivalent atoms are fitted to them.
4. New packings are pressed on the result; the lowest, and as many others, go the same way, and all are fitted again.

A quarter of the packings takes no part in the fit. Where they are not better served than by FIT, FIT stays.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr

from molflow_sim.bespoke.fit import FitSettings, fit
from molflow_sim.bespoke.lessons import Lessons, distinct, disturbed, learn
from molflow_sim.errors import InputError, StoreError
from molflow_sim.forcefield import parametrize
from molflow_sim.packing import press, random_packings
from molflow_sim.runs.files import sha256, write_bytes_atomically
from molflow_sim.so3lr.potential import SO3LR, check_elements
from molflow_sim.threads import one_blas_thread
from molflow_sim.units import KJ_PER_MOL

if TYPE_CHECKING:
    from molflow_sim.forcefield.parameters import MoleculeParameters
    from molflow_sim.packing.packings import RigidPackings
    from molflow_sim.systems.molecule import Molecule

TEACHERS = ("best", "so3lr")
"""The mean of FIT, with its charges of MMFF94, and SO3LR; SO3LR alone."""
FARTHEST = 120.0
"""kJ/mol above the lowest packing beyond which nothing is learnt."""
_ARRAYS = ("exp6_a", "exp6_b", "exp6_c", "charges")
MOST_ATOMS = 400
"""Atoms in a cell that the teacher is asked about, unless it holds no more than four molecules; larger cells cost more
than they teach."""


@dataclass(frozen=True)
class DistilSettings:
    """How much is pressed and asked.

    Attributes
    ----------
    teacher : str
        One of `TEACHERS`.
    candidates : int
        Random packings that are pressed, in each of the two rounds.
    first, second : int
        Distinct pressed packings of the two rounds that the teacher is asked about.
    disturbed : int
        Disturbed copies in each round.
    held_out : float
        Share of the packings that judge the fit.
    seed : int
    """

    teacher: str = "best"
    candidates: int = 400
    first: int = 300
    second: int = 200
    disturbed: int = 100
    held_out: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        if self.teacher not in TEACHERS:
            raise InputError(f"unknown teacher {self.teacher!r}; choose from {', '.join(TEACHERS)}")
        if min(self.candidates, self.first, self.second) < 20 or not 0.0 < self.held_out < 1.0:
            raise InputError("a bespoke potential needs at least 20 packings a round, and some of them held out")


@dataclass(frozen=True)
class Agreement:
    """How well energies agree with the teacher's on pressed packings that no fit has seen.

    Attributes
    ----------
    rho, rms, bias : float
        Spearman's rank correlation; root mean square and mean of the difference, kJ/mol per molecule. The mean
        difference is left out of `rms`: it changes no order.
    rho_low, rms_low : float
        The same for the third that is lowest for the teacher.
    """

    rho: float
    rms: float
    bias: float
    rho_low: float
    rms_low: float

    @classmethod
    def of(cls, energy: np.ndarray, teacher: np.ndarray) -> Agreement:
        """From energies (n,) in eV."""
        difference = (energy - teacher) / KJ_PER_MOL
        low = teacher <= np.quantile(teacher, 1 / 3)
        values = (
            spearmanr(energy, teacher)[0], difference.std(), difference.mean(),
            spearmanr(energy[low], teacher[low])[0], difference[low].std(),
        )  # fmt: skip
        return cls(*(round(float(v), 4) for v in values))


@dataclass(frozen=True)
class Report:
    """What became of a distillation.

    Attributes
    ----------
    teacher : str
    n_fitted, n_held_out : int
        Pressed packings that were fitted and that judge.
    fit, bespoke : Agreement
        Of FIT and of the fitted parameters with the teacher, on the packings held out.
    kept : bool
        Whether the fitted parameters are better and are used.
    seconds : float
    """

    teacher: str
    n_fitted: int
    n_held_out: int
    fit: Agreement
    bespoke: Agreement
    kept: bool
    seconds: float

    def __str__(self) -> str:
        verdict = "" if self.kept else "; no better, so FIT stays"
        return (
            f"bespoke potential against {self.teacher}, {self.n_held_out} packings held out: "
            f"ρ {self.bespoke.rho:.3f}, rms {self.bespoke.rms:.2f} kJ/mol "
            f"(FIT {self.fit.rho:.3f}, {self.fit.rms:.2f}){verdict}"
        )


@dataclass(frozen=True, eq=False)
class Bespoke:
    """A molecule's own parameters, or FIT's where these are no better, and how they were judged."""

    parameters: MoleculeParameters
    report: Report

    def to_bytes(self) -> bytes:
        """JSON with its own SHA-256; the molecule's MMFF94 terms are not in it."""
        p = self.parameters
        content: dict[str, Any] = {
            "charge_model": p.charge_model,
            "numbers": p.numbers.tolist(),
            **{name: getattr(p, name).tolist() for name in _ARRAYS},
            "report": asdict(self.report),
        }
        return json.dumps({**content, "sha256": sha256(_canonical(content))}, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes, molecule: Molecule) -> Bespoke:
        """Read what `to_bytes` wrote.

        Raises
        ------
        StoreError
            If it is damaged or of another molecule.
        """
        try:
            content = json.loads(data)
            digest = content.pop("sha256")
            if digest != sha256(_canonical(content)):
                raise ValueError("its SHA-256 is another")
            report = content["report"]
            for side in ("fit", "bespoke"):
                report[side] = Agreement(**report[side])
            numbers = content["numbers"]
            arrays: dict[str, Any] = {name: np.array(content[name], float) for name in _ARRAYS}
            told = Report(**report)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"the bespoke parameters are damaged: {error}; distil them again") from error
        if numbers != np.asarray(molecule.numbers).tolist():
            raise StoreError("the bespoke parameters are those of another molecule; distil them for this one")
        return cls(replace(parametrize(molecule), charge_model=content["charge_model"], **arrays), told)

    def save(self, path: str | Path) -> None:
        """Write to a JSON file, whole or not at all."""
        write_bytes_atomically(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | Path, molecule: Molecule) -> Bespoke:
        """Read what `save` wrote.

        Raises
        ------
        StoreError
            If the file is damaged, missing or of another molecule.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from error
        return cls.from_bytes(data, molecule)


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def distil(
    molecule: Molecule,
    settings: DistilSettings | None = None,
    *,
    start: MoleculeParameters | None = None,
    fit_settings: FitSettings | None = None,
    progress: Callable[[str], None] | None = None,
) -> Bespoke:
    """Fit a potential of the molecule's own to a teacher.

    Sums by pairs of atom classes are held of all packings: some 100 MB for 40 classes, growing with their square.

    Parameters
    ----------
    molecule : Molecule
    settings : DistilSettings, optional
    start : MoleculeParameters, optional
        What is pressed on first, and what the fit starts from; FIT with MMFF94 charges by default.
    fit_settings : FitSettings, optional
    progress : callable, optional
        Called with a line on each step.

    Returns
    -------
    Bespoke
        Same molecule, settings and version: same parameters.

    Raises
    ------
    UnsupportedElementError
        An element that SO3LR does not know.
    MissingDependencyError
        SO3LR's weights are not installed.
    InputError
        Too few packings can be pressed.
    """
    s, clock = settings or DistilSettings(), time.perf_counter()
    say = progress or (lambda line: None)
    check_elements(molecule.numbers)
    model, start = SO3LR(), start or parametrize(molecule)
    rng = np.random.default_rng([s.seed, 12])
    lessons: list[Lessons] = []
    parameters = start
    with one_blas_thread():
        for turn, wanted in enumerate((s.first, s.second)):
            say(f"pressing {s.candidates} packings on {'the fit' if turn else 'FIT'}")
            drawn = random_packings(molecule, s.candidates, seed=s.seed, first_index=turn * s.candidates)
            drawn = distinct(press(drawn, parameters))
            drawn = drawn.select(drawn.z * molecule.n_atoms <= max(MOST_ATOMS, 4 * molecule.n_atoms))
            if len(drawn) < 20:
                raise InputError(f"only {len(drawn)} of {s.candidates} packings of {molecule.smiles} could be pressed")
            order = np.argsort(drawn.energy, kind="stable")
            low = wanted // 2 if turn else 0  # the first round's lowest are FIT's choice, which is not trusted
            chosen = np.concatenate([order[:low], rng.permutation(order[low:])])[:wanted]
            lessons += _asked(drawn.select(chosen), model, turn * s.candidates, s.disturbed, rng)
            every = Lessons.concatenate(lessons)
            own = every.rows_of(start)
            target = every.teacher if s.teacher == "so3lr" else 0.5 * (every.teacher + own)
            held_out = _held_out(every.packing, s)
            lowest = np.nanmin(target[every.pressed, 0])
            usable = np.isfinite(target).all(1) & (target[:, 0] < lowest + FARTHEST * KJ_PER_MOL)
            say(f"fitting to {int((usable & ~held_out).sum())} packings")
            fitted = np.flatnonzero(usable & ~held_out)
            parameters = fit(every.select(fitted), target[fitted], start, fit_settings)
    rows = np.flatnonzero(usable & held_out & every.pressed)
    judged, truth = every.select(rows), target[rows, 0]
    before, after = (Agreement.of(e, truth) for e in (own[rows, 0], judged.rows_of(parameters)[:, 0]))
    kept = after.rho >= before.rho and after.rms <= before.rms
    n_fitted = int((usable & ~held_out & every.pressed).sum())
    report = Report(s.teacher, n_fitted, len(rows), before, after, bool(kept), round(time.perf_counter() - clock, 1))
    say(str(report))
    return Bespoke(parameters if kept else start, report)


def _asked(
    packings: RigidPackings, model: SO3LR, first: int, n_disturbed: int, rng: np.random.Generator
) -> list[Lessons]:
    """Lessons from pressed packings and from disturbed copies of some."""
    numbers = first + np.arange(len(packings))
    told = [learn(packings, model, numbers, True)]
    some = np.sort(rng.permutation(len(packings))[:n_disturbed])
    if len(some):
        told.append(learn(disturbed(packings.select(some), rng), model, numbers[some], False))
    return told


def _held_out(packing: np.ndarray, settings: DistilSettings) -> np.ndarray:
    """Boolean (n,): what comes from the packings that judge; a packing's lot depends on its number alone."""
    numbers, where = np.unique(packing, return_inverse=True)
    lots = np.array([np.random.default_rng([settings.seed, 25, n]).random() for n in numbers])
    return (lots < settings.held_out)[where]
