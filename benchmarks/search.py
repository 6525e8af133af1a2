"""One search of the recovery benchmark: candidates, press, duplicates, and where the experimental form turns up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from rdkit import Chem

from benchmarks.targets import Target
from molflow_sim import MolecularCrystal, Molecule
from molflow_sim.errors import MolflowError
from molflow_sim.evaluate import packing_similarity, prepare
from molflow_sim.evaluate.deduplicate import deduplicate_packings
from molflow_sim.evaluate.fingerprint import fingerprint, fingerprints
from molflow_sim.forcefield import MoleculeParameters, parametrize
from molflow_sim.generators.protocol import CrystalRequest, make_generator
from molflow_sim.packing import PressSettings, RigidPackings, press, random_packings
from molflow_sim.packing.candidates import packings_of
from molflow_sim.packing.packings import OVERLAP_FREE
from molflow_sim.packing.selection import lowest_rows
from molflow_sim.systems.crystal import RigidMolecule
from molflow_sim.units import KJ_PER_MOL

CENTRES_APART = 1.0
"""Å: root mean square difference of the sorted distances between molecular centres beyond which a candidate is not
superposed on the experiment. The 227 hits of ten targets looked at differ by at most 0.65 Å."""
CONTACTS_APART = 0.5
"""Å: the same for the shortest distances between atoms of different molecules; those hits differ by at most 0.27 Å."""
VOLUME_APART = 0.25
"""Relative difference of the volume per molecule beyond which a candidate is not superposed on the experiment;
those hits differ by at most 0.17."""
NEAR_RMSD = 1.5
"""Å: pressed packings this close to the experiment are relaxed, since flexible molecules may bring them home."""
BATCH = 500
RANDOM_EVALUATIONS = 10
"""Evaluations of the potential after which the control of the flow's selection selects."""
MINIMA = 10
"""Vacuum minima, as the lowest of RDKit's conformers are usually taken."""


@dataclass
class Minimum:
    """Where the press goes from the experimental structure; `limit` is the RMSD15 in Å that counted as found."""

    rmsd: float
    n_matched: int
    energy: float
    density: float
    status: str
    limit: float = 1.0

    @property
    def kept(self) -> bool:
        """Whether the experimental packing is (close to) a minimum of the potential with this conformer."""
        return self.n_matched == 15 and self.rmsd < self.limit


@dataclass
class Search:
    """Result of one search, as stored in JSON. Energies in kJ/mol per molecule, times in seconds.

    ``first`` is the number (from 1) of the first candidate that is the experimental form, None if there is none;
    ``rank`` maps each milestone to the form's rank by energy among the different packings found until then. Names with
    ``relaxed`` are the same after relaxation with flexible molecules: of the packings near the experiment, and of the
    lowest others, which the rank counts; ``relaxed_gap`` is the form's energy above the lowest of them.
    """

    target: str
    smiles: str
    source: str
    generator: str
    candidates: int
    conformers: int = 0
    converged: int = 0
    unique: int = 0
    hits: int = 0
    first: int | None = None
    rmsd: float | None = None
    rank: dict[str, int | None] = field(default_factory=dict)
    relaxed_first: int | None = None
    relaxed_rmsd: float | None = None
    relaxed_rank: int | None = None
    relaxed_gap: float | None = None
    hit_energy: float | None = None
    lowest_energy: float | None = None
    minimum: dict[str, Any] | None = None
    stays_with_experimental_conformer: bool | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    error: str = ""

    def found(self, n: int) -> bool:
        """Whether the form is among the first n candidates."""
        return self.first is not None and self.first <= n

    def found_relaxed(self, n: int) -> bool:
        """Whether the form is among the first n candidates once they are relaxed."""
        return self.relaxed_first is not None and self.relaxed_first <= n

    @property
    def fault(self) -> str:
        """What a miss is due to: "", "potential", "conformer", "search" or "error"."""
        if self.relaxed_first is not None:
            return ""
        if self.error or not self.minimum:
            return "error"
        if Minimum(**self.minimum).kept:
            return "search"
        if self.source != "experimental" and self.stays_with_experimental_conformer:
            return "conformer"
        return "potential"


def molecule_of(target: Target, source: str, seed: int) -> Molecule:
    """The molecule with conformers from its SMILES, or the crystal's ("experimental").

    From the SMILES: "rdkit", "minima" alone, or another source of `generators.crystal_conformers`.
    """
    if source == "experimental":
        return replace(target.experimental, racemic=target.racemic)
    if source not in ("rdkit", "minima"):
        from molflow_sim.generators.crystal_conformers import with_conformers_of

        return replace(with_conformers_of(target.generated(seed), source, seed=seed), racemic=target.racemic)
    return replace(target.generated(seed, MINIMA if source == "minima" else None), racemic=target.racemic)


def pressed_experiment(target: Target, molecule: Molecule, parameters: MoleculeParameters) -> RigidPackings:
    """Press the experimental packing with each of the molecule's conformers laid over the measured one."""
    starts = [with_conformer(target, molecule, x) for x in molecule.conformers]
    settings = PressSettings(soft_evaluations=0, squeeze_evaluations=0, max_evaluations=300)
    return press(RigidPackings.from_crystals(starts), parameters, settings)


def nearest_minimum(target: Target, pressed: RigidPackings) -> Minimum:
    """Of the packings that `pressed_experiment` gives, the one that is most like the experiment."""
    reference = prepare(target.crystal)
    best: Minimum | None = None
    for k in range(len(pressed)):
        match = packing_similarity(reference, pressed.crystal(k))
        this = Minimum(
            match.rmsd,
            match.n_matched,
            float(pressed.energy[k]) / KJ_PER_MOL,
            float(pressed.density[k]),
            pressed.STATUS[pressed.status[k]],
            target.found_rmsd,
        )
        if best is None or (this.n_matched, -this.rmsd) > (best.n_matched, -best.rmsd):
            best = this
    assert best is not None
    return best


def with_conformer(target: Target, molecule: Molecule, conformer: np.ndarray) -> MolecularCrystal:
    """The experimental crystal with another conformer in place of the measured one, in the molecule's atom order."""
    site = target.crystal.asymmetric_unit[0]
    best: tuple[float, np.ndarray] | None = None
    measured = np.asarray(site.conformer)
    masses = molecule.masses / molecule.masses.sum()
    heavy = molecule.numbers > 1
    for match in _mappings(molecule.rdmol, target.experimental.rdmol):
        goal = measured[match]
        for hand in (1.0, -1.0) if target.racemic or not molecule.is_chiral else (1.0,):
            shape = conformer * hand
            weights = np.where(heavy, 1.0, 0.1)
            rotation = _align(shape, goal - masses @ goal, weights)
            misfit = float(np.sum(weights * np.sum((shape @ rotation.T - (goal - masses @ goal)) ** 2, axis=1)))
            if best is None or misfit < best[0] - 1e-9:
                best = (misfit, shape @ rotation.T)
    if best is None:
        raise MolflowError("the two forms of the molecule do not map on each other")
    unit = RigidMolecule(0, best[1], site.centroid, site.orientation, site.images)
    return MolecularCrystal((molecule,), (unit,), target.crystal.space_group, target.crystal.cell, {})


def _mappings(a: Chem.Mol, b: Chem.Mol) -> list[list[int]]:
    """Ways to lay a on b: lists m with atom i of a on atom m[i] of b; bond orders and stereo are ignored."""
    from molflow_sim.chemistry.bonds import skeleton

    matches = skeleton(b).GetSubstructMatches(skeleton(a), uniquify=False, maxMatches=500)
    return [list(m) for m in matches]


def _align(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    u, _, vt = np.linalg.svd((x * weights[:, None]).T @ y)
    d = np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T))])
    return vt.T @ d @ u.T


def candidates_of(
    generator: str, molecule: Molecule, n: int, seed: int, first: int, weights: str | None = None
) -> RigidPackings:
    """Packings of ours ("random", "flow", "mixed", "mol-crystal-flow" ...) or PyXtal's ("pyxtal", "pyxtal-vdw").

    A number says how many are drawn for each one proposed: "flow-1" proposes all that the flow draws, "random-3" puts
    random packings through the first two stages of the press and `RANDOM_EVALUATIONS` of the third, and keeps the lower
    third.
    """
    if generator.startswith("pyxtal"):
        from benchmarks.pyxtal import pyxtal_packings

        return pyxtal_packings(molecule, n, seed=seed, first_index=first, vdw=generator == "pyxtal-vdw")
    kind, _, draws = generator.partition("-") if generator[-1].isdigit() else (generator, "", "")
    if kind == "random" and draws:
        return _selected_random(molecule, n, int(draws), seed, first)
    options: dict[str, Any] = {"draws": int(draws)} if draws else {}
    if weights is not None:
        options["weights"] = str(weights)
    made = make_generator("crystals", kind, **options)
    return packings_of(made.sample(CrystalRequest(molecule), n, seed=seed, first_index=first), molecule)


def _selected_random(molecule: Molecule, n: int, draws: int, seed: int, first: int) -> RigidPackings:
    loose = random_packings(molecule, n * draws, seed=seed)
    settings = PressSettings(
        max_evaluations=RANDOM_EVALUATIONS, polish_evaluations=0, accept=np.inf, reduce_cells=False
    )
    moved = press(loose, parametrize(molecule), settings)
    kept = moved.select(lowest_rows(moved, n))
    return replace(
        kept, index=first + np.arange(n), status=np.full(n, OVERLAP_FREE, np.int8), energy=np.full(n, np.nan)
    )


def search(
    target: Target,
    source: str,
    generator: str,
    n: int,
    milestones: tuple[int, ...],
    *,
    seed: int = 0,
    n_relaxed: int = 60,
    stop_when_found: bool = False,
    out_of_time: Callable[[], bool] = lambda: False,
    propose: Callable[[Molecule, int, int, int], RigidPackings] | None = None,
    judge: Callable[[RigidPackings], None] | None = None,
) -> Search | None:
    """Run one search; None when the time is over before it ends.

    With `stop_when_found` the search looks after the first batch and at each milestone, and ends once the form is
    there after relaxation: what it says of the milestones is the same, the rest of the candidates are saved.

    `propose(molecule, n, seed, first_index)` makes the candidates instead of `generator`, which is then a name only;
    `judge` sees each batch as it is generated.
    """
    result = Search(target.name, target.smiles, source, generator, n)
    clock = _Clock(result.seconds)
    make = propose or partial(candidates_of, generator)
    try:
        with clock("parameters"):
            molecule = molecule_of(target, source, seed)
            parameters = parametrize(molecule)
        result.conformers = len(molecule.conformers)
        with clock("minimum"):
            minimum = nearest_minimum(target, pressed_experiment(target, molecule, parameters))
            result.minimum = asdict(minimum)
            if source != "experimental" and not minimum.kept:
                own = molecule_of(target, "experimental", seed)
                measured = pressed_experiment(target, own, parametrize(own))
                result.stays_with_experimental_conformer = nearest_minimum(target, measured).kept
        parts = []
        for first in range(0, n, BATCH):
            size = min(BATCH, n - first)
            with clock("generate"):
                loose = make(molecule, size, seed + 7919 * (first // BATCH), first)
            if judge is not None:
                with clock("judge"):
                    judge(loose)
            with clock("press"):
                parts.append(press(loose, parameters))
            if out_of_time():
                return None
            pressed = first + size
            last = pressed == n
            if last or (stop_when_found and (len(parts) == 1 or pressed in milestones)):
                result.candidates = pressed
                assess(result, clock, target, parameters, RigidPackings.concatenate(parts), milestones, n_relaxed)
                if stop_when_found and result.relaxed_first is not None:
                    break
    except (MolflowError, RuntimeError) as error:
        result.error = f"{type(error).__name__}: {error}"
    return result


def assess(
    result: Search,
    clock: _Clock,
    target: Target,
    parameters: MoleculeParameters,
    packings: RigidPackings,
    milestones: tuple[int, ...],
    n_relaxed: int,
) -> None:
    """Look for the experimental form among pressed packings and write what is found into `result`."""
    result.converged = int(packings.ok.sum())
    good = packings.select(packings.ok)
    if not len(good):
        return
    with clock("duplicates"):
        group = deduplicate_packings(good, good.energy)
    unique, first_of = np.unique(group), np.full(len(good), np.iinfo(np.int64).max)
    np.minimum.at(first_of, group, good.index)
    result.unique = len(unique)
    result.lowest_energy = float(good.energy.min()) / KJ_PER_MOL
    with clock("compare"):
        near = matches(target, good, unique, limit=NEAR_RMSD)
    matched = {k: rmsd for k, rmsd in near.items() if rmsd < target.found_rmsd}
    if matched:
        members = np.isin(group, list(matched))
        result.hits = int(members.sum())
        result.first = int(good.index[members].min()) + 1
        lowest = min(matched, key=lambda k: good.energy[k])
        result.rmsd = min(matched.values())
        result.hit_energy = float(good.energy[lowest]) / KJ_PER_MOL
        for m in milestones:
            known = [k for k in matched if first_of[k] < m]
            seen = unique[first_of[unique] < m]
            result.rank[str(m)] = (
                1 + int(np.sum(good.energy[seen] < min(good.energy[k] for k in known) - 1e-9)) if known else None
            )
    with clock("relax"):
        relaxed = relaxed_matches(target, parameters, good, unique, sorted(near, key=lambda k: near[k])[:12], n_relaxed)
    if relaxed:
        result.relaxed_first = int(good.index[np.isin(group, list(relaxed))].min()) + 1
        result.relaxed_rmsd = min(rmsd for rmsd, _, _ in relaxed.values())
        result.relaxed_rank = min(rank for _, rank, _ in relaxed.values())
        result.relaxed_gap = min(gap for _, _, gap in relaxed.values())


def matches(
    target: Target, packings: RigidPackings, rows: np.ndarray, prefilter: bool = True, limit: float | None = None
) -> dict[int, float]:
    """Rows whose packing is the experimental form (15 of 15 molecules within `limit` Å, else as found), with RMSD15."""
    reference = prepare(target.crystal)
    if prefilter:
        known, prints = fingerprint(target.crystal), fingerprints(packings.select(rows))
        apart = np.sqrt(np.mean((prints.centres - known.centres) ** 2, axis=1))
        contacts = np.sqrt(np.mean((prints.contacts - known.contacts) ** 2, axis=(1, 2)))
        volume = np.abs(known.density / prints.density - 1.0)
        rows = rows[(apart < CENTRES_APART) & (contacts < CONTACTS_APART) & (volume < VOLUME_APART)]
    found = {}
    for k in rows.tolist():
        match = packing_similarity(reference, packings.crystal(k))
        if match.found if limit is None else match.same(limit):
            found[k] = match.rmsd
    return found


def relaxed_matches(
    target: Target, parameters: MoleculeParameters, packings: RigidPackings, unique: np.ndarray, near: list[int], n: int
) -> dict[int, tuple[float, int, float]]:
    """Relax the packings `near` the experiment and the n lowest others.

    Returns hits -> (RMSD15 in Å, rank by energy, kJ/mol above the lowest).
    """
    from molflow_sim.forcefield import CrystalPotential
    from molflow_sim.relax.flexible import relax_flexible

    lowest = unique[np.argsort(packings.energy[unique], kind="stable")][:n].tolist()
    rows = list(dict.fromkeys([*near, *lowest]))
    results = relax_flexible([packings.crystal(k) for k in rows], CrystalPotential([parameters]))
    energies = np.array([r.energy if np.isfinite(r.energy) else np.inf for r in results])
    reference = prepare(target.crystal)
    found = {}
    for row, result in zip(rows, results):
        if row in near and np.isfinite(result.energy):
            match = packing_similarity(reference, result.crystal)
            if match.found:
                # Duplicates of the hit itself do not push it down.
                rank = 1 + int(np.sum(energies < result.energy - 0.05 * KJ_PER_MOL))
                found[row] = (match.rmsd, rank, float(result.energy - energies.min()) / KJ_PER_MOL)
    return found


class _Clock:
    """Adds up wall time by name."""

    def __init__(self, store: dict[str, float]) -> None:
        self.store, self.name, self.start = store, "", 0.0

    def __call__(self, name: str) -> _Clock:
        self.name = name
        return self

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.store[self.name] = round(self.store.get(self.name, 0.0) + time.perf_counter() - self.start, 3)
