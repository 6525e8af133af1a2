"""What free atoms win behind the rigid press: the known form among packings as pressed, freed and relaxed, in one run.

    python -m benchmarks flexible_press -o flexible_press.json --split train --targets 40
    python -m benchmarks flexible_press -o held_out.json --keep

For flexible experimental crystals (see crystal_generation.py) random candidates with the conformers of the SMILES are
pressed as rigid molecules; every distinct packing is then relaxed loosely with all atoms free, as `screen` does with
the lowest (`free_top`), and from where it was pressed to the end. The space group is the experimental one unless
--open-group is given: hits are some twenty times as many, and what is compared is the same. A hit is a candidate that
is the known form (RMSD15 as `found_rmsd` says) as measured, or as the force field relaxes it where that keeps it.
Place: of the lowest packing that is the form in the end, by the energies of each side, over the number of distinct
packings; what lies beyond the cut of a search is lost to it. Seconds are of CPU. Each target has a JSON file of its own
beside the output; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.generation import add_target_options, choose
from benchmarks.generation_tables import Table, print_tables
from benchmarks.parts import Parts
from benchmarks.tables import keep
from benchmarks.targets import Target
from molflow_sim import MolecularCrystal, __version__, parametrize
from molflow_sim.evaluate import packing_similarity, prepare
from molflow_sim.evaluate.deduplicate import deduplicate_packings
from molflow_sim.evaluate.fingerprint import Fingerprints, fingerprint
from molflow_sim.forcefield import CrystalPotential
from molflow_sim.packing import press, random_packings
from molflow_sim.relax.flexible import relax_flexible
from molflow_sim.runs.files import write_json
from molflow_sim.screening import stages
from molflow_sim.units import KJ_PER_MOL

SIDES = ("pressed", "freed", "relaxed")
CUTS = (0.05, 0.15)
"""Shares of the distinct packings: some 250 and 1,000 of the 6,000 of a default search."""
APART = 0.6, 0.3, 0.15
"""Å, Å and relative: differences of centres, contacts and density (root mean squares over the lists of the fingerprint)
beyond which a packing is not superposed: half of what benchmarks/search.py takes for twice the RMSD15."""


@dataclass
class Freed:
    """One target. Lists are over the distinct pressed packings, lowest first; times in s of CPU.

    Attributes
    ----------
    copies : list of int
        Candidates that each packing stands for.
    energy, rmsd : dict of lists
        By side: kJ/mol per molecule, and RMSD15 in Å to the known form; None without one.
    limit : float
        RMSD15 in Å below which a packing is the form.
    keeps : bool
        Whether the force field keeps the measured structure.
    """

    target: str
    smiles: str
    atoms: int
    rotatable: int
    candidates: int
    conformers: int
    limit: float
    keeps: bool = False
    copies: list[int] = field(default_factory=list)
    energy: dict[str, list[float | None]] = field(default_factory=dict)
    rmsd: dict[str, list[float | None]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def hit(self, side: str) -> np.ndarray:
        """Which distinct packings are the form on a side."""
        return np.array([r is not None and r < self.limit for r in self.rmsd[side]], bool)

    def hits(self, side: str) -> int:
        """Candidates that are the form on a side."""
        return int(np.array(self.copies, int)[self.hit(side)].sum())

    def place(self, side: str) -> float | None:
        """Share of the distinct packings that are lower than the lowest that ends as the form."""
        energy = np.array([np.inf if e is None else e for e in self.energy[side]])
        ends = self.hit(SIDES[-1])
        return float(np.mean(energy < energy[ends].min() - 0.01)) if ends.any() else None


@contextmanager
def clock(store: dict[str, float], name: str) -> Iterator[None]:
    """Adds the CPU time of a block by name."""
    start = time.process_time()
    yield
    store[name] = round(store.get(name, 0.0) + time.process_time() - start, 3)


def measure(target: Target, candidates: int, seed: int, open_group: bool) -> Freed:
    """Press candidates of one target, free and relax what comes out and look for the form.

    Raises
    ------
    MolflowError
        Where RDKit, the potential or the space group cannot take the molecule.
    """
    molecule = target.generated(seed)
    parameters = parametrize(molecule)
    out = Freed(
        target.name, target.smiles, molecule.n_atoms, target.experimental.n_rotatable, candidates,
        len(molecule.conformers), target.found_rmsd,
    )  # fmt: skip
    own = relax_flexible([target.crystal], CrystalPotential([parametrize(target.experimental)]))[0].crystal
    out.keeps = packing_similarity(target.crystal, own).found
    forms = [target.crystal, own] if out.keeps else [target.crystal]
    group = "common" if open_group else [target.crystal.space_group.name]
    with clock(out.seconds, "generated"):
        loose = random_packings(replace(molecule, racemic=target.racemic), candidates, space_groups=group, seed=seed)
    with clock(out.seconds, "pressed"):
        packings = press(loose, parameters)
    packings = packings.select(np.flatnonzero(packings.ok))
    with clock(out.seconds, "duplicates"):
        group_of = deduplicate_packings(packings, packings.energy)
    rows, copies = np.unique(group_of, return_counts=True)
    order = np.argsort(packings.energy[rows], kind="stable")
    rows, out.copies = rows[order], copies[order].tolist()
    crystals = [packings.crystal(k) for k in rows]
    out.energy["pressed"] = (packings.energy[rows] / KJ_PER_MOL).round(3).tolist()
    out.rmsd["pressed"] = distances(forms, crystals)
    for side, relax in (("freed", stages.free), ("relaxed", stages.relax)):
        with clock(out.seconds, side):
            found = relax(crystals, parameters)
        energy = [r.energy / KJ_PER_MOL for r in found]
        out.energy[side] = [round(e, 3) if np.isfinite(e) else None for e in energy]
        out.rmsd[side] = distances(forms, [r.crystal for r in found])
    return out


def distances(forms: Sequence[MolecularCrystal], crystals: Sequence[MolecularCrystal]) -> list[float | None]:
    """Smallest RMSD15 (Å) of each crystal to any of the forms, None where fewer than 15 molecules superpose."""
    known = [(prepare(form), fingerprint(form)) for form in forms]
    out: list[float | None] = []
    for crystal in crystals:
        mine = fingerprint(crystal)
        near = [packing_similarity(form, crystal) for form, print_ in known if alike(print_, mine)]
        out.append(min((round(float(match.rmsd), 3) for match in near if match.full), default=None))
    return out


def alike(a: Fingerprints, b: Fingerprints) -> bool:
    """Whether two crystals are near enough to be superposed."""
    centres, contacts = (np.sqrt(np.mean((x - y) ** 2)) for x, y in ((a.centres, b.centres), (a.contacts, b.contacts)))
    return bool(np.all(np.array([centres, contacts, abs(a.density[0] / b.density[0] - 1.0)]) < APART))


def table(runs: Sequence[Freed]) -> Table:
    """One row a side: over all targets."""
    rows = []
    n = sum(r.candidates for r in runs)
    spent = sum(r.seconds["generated"] + r.seconds["pressed"] for r in runs)
    for side in SIDES:
        hits = [r.hits(side) for r in runs]
        cpu = spent + (0.0 if side == "pressed" else sum(r.seconds[side] for r in runs))
        places = [p for r in runs if (p := r.place(side)) is not None]
        rows.append(
            {
                "packings": side,
                "targets": len(runs),
                "hits per 1000": round(1000.0 * sum(hits) / max(n, 1), 2),
                "hit": sum(h > 0 for h in hits),
                "CPU ms a candidate": round(1000.0 * cpu / max(n, 1), 1),
                "place, median %": round(100.0 * float(np.median(places)), 1) if places else None,
                **{f"in the lowest {100 * c:g} %": f"{sum(p <= c for p in places)} of {len(places)}" for c in CUTS},
            }
        )
    return Table(
        "Freed behind the press",
        rows,
        "hit: targets with a hit; place: of the lowest packing that is the form in the end, by the side's energies.",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("flexible_press.json"), help="JSON with all results")
    add_target_options(parser)
    parser.set_defaults(classes=["flexible"])
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument("--open-group", action="store_true", help="candidates in the common space groups")
    parser.add_argument("--keep", action="store_true", help="write the result to benchmarks/results")
    args = parser.parse_args(argv)
    chosen, counts = choose(args)
    parts = Parts(args.output, args.max_minutes, args.print_only)
    runs, group = [], ["open"] if args.open_group else []
    for target in chosen:
        found = parts.result(
            "-".join(map(str, [target.name, args.candidates, args.seed, *group])),
            lambda stored: Freed(**stored),
            partial(measure, target, args.candidates, args.seed, args.open_group),
            lambda made: ", ".join(f"{side} {made.hits(side)} hits, place {made.place(side)}" for side in SIDES),
        )
        if found is not None:
            runs.append(found)
    shown = table(runs)
    stored = {"split": args.split, "targets": counts, "open_group": args.open_group, "seed": args.seed}
    tables = {"version": __version__, **stored, "table": shown.rows}
    write_json(args.output, {**tables, "runs": [asdict(r) for r in runs]})
    print_tables([shown])
    if args.keep:
        lines = [(str(row["packings"]), ", ".join(f"{k} {row[k]}" for k in list(row)[1:])) for row in shown.rows]
        keep("flexible_press", lines, {"table": shown.rows, "places": places_of(runs)})
    return 0


def places_of(runs: Sequence[Freed]) -> list[dict[str, object]]:
    """Hits and places of each target, for the kept figures."""
    return [
        {
            "target": r.target, "smiles": r.smiles, "keeps": r.keeps, "distinct": len(r.copies),
            **{side: [r.hits(side), r.place(side)] for side in SIDES},
        }
        for r in runs
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
