"""What the generation benchmark measures of one target with one generator, and who the held-out targets are."""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core.structure_matcher import StructureMatcher

from benchmarks.closeness import Poses, body_turns, close, poses
from benchmarks.deadline import TimeLimitError, time_limit
from benchmarks.parts import add_options
from benchmarks.recovery import spread
from benchmarks.search import Search, candidates_of, search
from benchmarks.targets import DATA, Target, read_targets, reason_left_out
from molflow_sim import MolecularCrystal
from molflow_sim.dataset.skeletons import skeletons_of_smiles, split_of_molecule
from molflow_sim.errors import MolflowError
from molflow_sim.evaluate import CLASH_OVERLAP, check_validity, heavy_atom_overlap, packing_similarity, prepare
from molflow_sim.packing import RigidPackings

SIDES = ("pyxtal", "pyxtal-vdw", "random", "random-3", "flow-1", "flow", "flow-10", "mol-crystal-flow", "cluster-flow")
CLASSES = ("rigid", "flexible")
HOLDOUT = DATA.parent / "molecules" / "holdout.smi"
MAX_ATOMS = 60
"""Larger molecules are no targets: beyond the range that a flow trained on molecules of up to 40 atoms is meant for."""
SITES = (0.5, 0.8, 1.0)
"""Site tolerances of pymatgen's StructureMatcher."""
MATCH_SAMPLES = 10
SOLVE_SAMPLES = 30
SOLVED_MOLECULES, SOLVED_RMSD = 8, 2.0
SOLVED_TOLERANCE = (1.0,)
"""Å, oxtalign's own per-molecule tolerance. With 2 Å, at which misses are tried again elsewhere, any two packings of
formaldehyde would share 8 molecules."""
MATCH_SECONDS = 20.0
"""A comparison by StructureMatcher that takes longer counts as no match."""


def class_of(target: Target) -> str:
    """``rigid`` (at most one rotatable bond) or ``flexible``."""
    return "rigid" if target.experimental.n_rotatable <= 1 else "flexible"


def held_out(
    folder: Path = DATA, exclude: Path | None = None, split: str = "test"
) -> tuple[list[Target], dict[str, str]]:
    """Experimental crystals that no training may see, smallest first, and why each other file is left out.

    Parameters
    ----------
    folder : Path
        Holds cif/.
    exclude : Path, optional
        A .smi file of molecules that are held out besides, as for `molflow dataset crystals --exclude`.
    split : str
        "train" gives those that training does see.
    """
    lines = exclude.read_text().splitlines() if exclude is not None else []
    excluded = skeletons_of_smiles([line.split()[0] for line in lines if line.strip() and not line.startswith("#")])

    def reason(crystal: MolecularCrystal) -> str | None:
        why = reason_left_out(crystal, MAX_ATOMS, None)
        if why is None and (side := split_of_molecule(crystal.molecules[0].rdmol, excluded)) != split:
            return f"on the {side} side of the split"
        return why

    return read_targets(folder, reason)


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """The options that `choose` reads, and those of a run that is done piece by piece."""
    parser.add_argument("--data", type=Path, default=DATA, help="folder that holds cif/")
    parser.add_argument("--exclude", type=Path, help=".smi file of molecules that are held out besides")
    parser.add_argument("--split", choices=("test", "train"), default="test", help="the side that the targets are on")
    parser.add_argument("--targets", type=int, default=0, help="how many of each class, 0 for all")
    parser.add_argument("--names", nargs="*", default=[], help="COD numbers, of those chosen")
    parser.add_argument("--classes", nargs="+", choices=CLASSES, default=list(CLASSES))
    add_options(parser)


def choose(args: argparse.Namespace) -> tuple[list[Target], dict[str, int]]:
    """The targets that a benchmark's options ask for, and how many are held out in each class, which is printed.

    Parameters
    ----------
    args : Namespace
        With ``data``, ``exclude``, ``targets`` (of each class, 0 for all), ``names`` and ``classes``.

    Raises
    ------
    SystemExit
        With a line on stderr, if the folder cannot be read or no target is left.
    """
    try:
        targets, left_out = held_out(args.data, args.exclude or (HOLDOUT if HOLDOUT.exists() else None), args.split)
    except OSError as error:
        raise SystemExit(str(error)) from None
    by_class = {name: [t for t in targets if class_of(t) == name] for name in CLASSES}
    counts = {name: len(group) for name, group in by_class.items()}
    print(f"{'held out' if args.split == 'test' else 'training side'}: {counts['rigid']} rigid, {counts['flexible']} "
          f"flexible targets of {len(targets) + len(left_out)} files")  # fmt: skip
    if args.targets:
        by_class = {name: spread(group, args.targets) for name, group in by_class.items()}
    chosen = [t for name in args.classes for t in by_class[name] if not args.names or t.name in args.names]
    if not chosen:
        raise SystemExit("no targets are left")
    return chosen, counts


@dataclass
class Raw:
    """Crystals as generated, before any press; counts, and lists over the candidates in order.

    ``matched`` has the numbers of the first `MATCH_SAMPLES` candidates that StructureMatcher takes for the experiment
    at each site tolerance, ``solved`` of the first `SOLVE_SAMPLES` with 8 of 15 molecules within 2 Å and no clash,
    ``close`` of all that lie as near as the press forgives.
    """

    n: int = 0
    clash_free: int = 0
    no_short_contact: int = 0
    volume_error: list[float] = field(default_factory=list)
    matched: dict[str, list[int]] = field(default_factory=lambda: {str(s): [] for s in SITES})
    timed_out: int = 0
    solved: list[int] = field(default_factory=list)
    close: list[int] = field(default_factory=list)


class RawJudge:
    """Judges batches of generated packings against the experimental crystal."""

    def __init__(self, target: Target) -> None:
        self.raw = Raw()
        self.crystal = target.crystal
        self.volume = target.crystal.volume / target.crystal.z
        self.reference = prepare(target.crystal)
        self.goal = poses(target.crystal)
        self.structure = target.crystal.to_pymatgen()
        self.turns: dict[int, np.ndarray] = {}

    def __call__(self, packings: RigidPackings) -> None:
        """Add a batch; of a candidate that was not generated there is nothing to judge."""
        for i, reason in enumerate(packings.reasons):
            if reason:
                self.raw.n += 1
                continue
            self._one(packings.crystal(i), int(packings.conformer[i]), int(packings.index[i]))

    def _one(self, crystal: MolecularCrystal, conformer: int, index: int) -> None:
        raw = self.raw
        raw.n += 1
        clash = heavy_atom_overlap(crystal) >= CLASH_OVERLAP
        raw.clash_free += not clash
        raw.no_short_contact += check_validity(crystal).no_clash
        raw.volume_error.append(round(crystal.volume / crystal.z / self.volume - 1.0, 4))
        if index < MATCH_SAMPLES:
            self._match(crystal, index)
        if index < SOLVE_SAMPLES and not clash:
            match = packing_similarity(self.reference, crystal, tolerances=SOLVED_TOLERANCE)
            if match.n_matched >= SOLVED_MOLECULES and match.rmsd < SOLVED_RMSD:
                raw.solved.append(index)
        if len(crystal.asymmetric_unit) != 1:
            return  # an experiment with one molecule in the asymmetric unit has no pose for each of several
        mine = poses(crystal)
        if close(mine, self.goal, self._turns(mine, conformer)):
            raw.close.append(index)

    def _turns(self, mine: Poses, conformer: int) -> np.ndarray:
        if conformer not in self.turns:
            self.turns[conformer] = body_turns(mine, self.goal)
        return self.turns[conformer]

    def _match(self, crystal: MolecularCrystal, index: int) -> None:
        structure = crystal.to_pymatgen()
        try:
            with time_limit(MATCH_SECONDS):
                for site in sorted(SITES, reverse=True):  # no match with a wide tolerance, none with a narrow one
                    matcher = StructureMatcher(ltol=0.3, stol=site, angle_tol=10.0)
                    if not matcher.fit(self.structure, structure):
                        break
                    self.raw.matched[str(site)].append(index)
        except TimeLimitError:
            self.raw.timed_out += 1


@dataclass
class Run:
    """One target searched with one generator, as stored in JSON."""

    target: str
    klass: str
    source: str
    side: str
    candidates: int
    seed: int
    weights: str
    raw: dict[str, Any]
    search: dict[str, Any]

    @property
    def result(self) -> Search:
        """The search: what the press and the relaxation found."""
        return Search(**self.search)

    @property
    def seconds_per_structure(self) -> float:
        """Generation only."""
        return self.result.seconds.get("generate", 0.0) / max(1, self.raw["n"])

    @property
    def seconds(self) -> float:
        """Generation, press, duplicates and relaxation, as a user would run them; not the judging."""
        kept = ("parameters", "generate", "press", "duplicates", "relax")
        return sum(v for k, v in self.result.seconds.items() if k in kept)


def run(
    target: Target,
    source: str,
    side: str,
    n: int,
    milestones: tuple[int, ...],
    *,
    seed: int = 0,
    weights: str | None = None,
    digest: str = "",
    n_relaxed: int = 60,
    out_of_time: Callable[[], bool] = lambda: False,
) -> Run | None:
    """Generate, judge, press, relax and look for the experimental form; None when the time is over.

    Parameters
    ----------
    target : Target
    source : str
        Whose conformers: "rdkit" or "experimental".
    side : str
        One of `SIDES`.
    n : int
        Candidates.
    milestones : tuple of int
        Numbers of candidates after which ranks are wanted.
    seed : int
    weights : str, optional
        Folder for the flow.
    digest : str
        SHA-256 of the weights, kept with the result.
    n_relaxed : int
        Lowest packings relaxed, besides those near the experiment.
    out_of_time : callable
    """
    judge = RawJudge(target)
    found = search(
        target,
        source,
        side,
        n,
        milestones,
        seed=seed,
        n_relaxed=n_relaxed,
        out_of_time=out_of_time,
        propose=lambda molecule, size, own, first: candidates_of(side, molecule, size, own, first, weights),
        judge=judge,
    )
    if found is None:
        return None
    return Run(target.name, class_of(target), source, side, n, seed, digest, asdict(judge.raw), asdict(found))


def warm_up(side: str, target: Target, weights: str | None) -> str:
    """Compile and load what a side needs, so that no target pays for it; the reason if the side cannot run."""
    try:
        candidates_of(side, target.experimental, 2, 0, 0, weights)
    except (MolflowError, ImportError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
