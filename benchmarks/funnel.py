"""At which cut of the default screening is the known form lost?

    python -m benchmarks funnel -o FOLDER [--flexible] --targets 24

Reads the runs that `python -m benchmarks ranking` with the same options has left in FOLDER (what is missing there is
computed). For each target: pressed packings that are the form, those among them that are compared, those that are
relaxed, relaxed structures that still are the form, and its rank. A pressed packing counts as the form within
`AS_PRESSED` times the bound that counts as found: molecules are rigid there. A structure relaxed counts as in the
screening: as measured, or as that structure relaxed with the same potential.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ranking import over_targets
from benchmarks.search import matches
from benchmarks.targets import Target
from molflow_sim.errors import MolflowError
from molflow_sim.evaluate import packing_similarity
from molflow_sim.evaluate.deduplicate import deduplicate_packings
from molflow_sim.forcefield import CrystalPotential, parametrize
from molflow_sim.relax.flexible import relax_flexible
from molflow_sim.runs.store import unpack_arrays
from molflow_sim.screening import ScreenSettings
from molflow_sim.screening.reference import read_reference
from molflow_sim.screening.search import Search
from molflow_sim.screening.stages import Stages

AS_PRESSED = 2.0
VOLUME_APART = 0.2
"""Relative difference of the density beyond which a relaxed structure is not superposed on the form."""


@dataclass
class Funnel:
    """Structures that are the form after each cut; `place` is its rank by press energy among the distinct packings."""

    target: str
    smiles: str
    packings: int
    pressed: int
    place: int | None
    compared: int
    chosen: int
    relaxed: int
    rank: int | None
    keeps: bool
    lost: str


class Watched(Search):
    """A run that remembers what its steps gave."""

    def _compare(self, pool: Any, tally: Any) -> Any:
        self.pool, self.chosen = pool, super()._compare(pool, tally)
        return self.chosen

    def _relax(self, *args: Any, **options: Any) -> Any:
        self.rows = super()._relax(*args, **options)
        return self.rows


def main(argv: Sequence[str] | None = None) -> int:
    """Look at every target, then print where forms are lost."""

    def rows(results: Sequence[Funnel]) -> Any:
        return [asdict(r) for r in results]

    return over_targets(argv, __doc__, "funnel", "funnel.json", Funnel, look, line, summarise, rows)


def look(target: Target, data: Path, folder: Path, candidates: int) -> Funnel:
    """Follow one target's form through its run."""
    molecule, settings = target.generated(), ScreenSettings(candidates=candidates, top=0)
    experiment = read_reference(data / "cif" / f"{target.name}.cif", molecule)
    run = Watched(molecule, settings, Stages(), folder, False, False)
    landscape = run.run(None, experiment)
    packings = run.pool.packings
    good = packings.select(np.flatnonzero((packings.status == 0) & np.isfinite(packings.energy)))
    group = deduplicate_packings(good, good.energy)
    found = list(matches(target, good, np.unique(group), limit=AS_PRESSED * target.found_rmsd))
    near = set(good.index[np.isin(group, found)].tolist())
    table = unpack_arrays(run.store.path("compare/distinct.npz").read_bytes())
    distinct, lowest = packings.index[table["index"]], min(good.energy[found], default=np.nan)
    if (freed := run.store.path("compare/freed.npz")).exists():  # the lowest once their molecules are flexible
        distinct = distinct[unpack_arrays(freed.read_bytes())["row"]]
    relaxed = [row.crystal for row in run.rows if row.valid]
    forms = [target.crystal]
    try:
        own = relax_flexible([target.crystal], CrystalPotential([parametrize(target.experimental)]))[0].crystal
        keeps = own is not None and packing_similarity(target.crystal, own).full
    except MolflowError:
        keeps = False
    forms += [own] if keeps else []
    kept = sum(any(_is(crystal, form) for form in forms) for crystal in relaxed)
    rank = landscape.reference.rank if landscape.reference else None
    out = Funnel(
        target=target.name, smiles=target.smiles, packings=len(packings), pressed=len(near),
        place=1 + int(np.sum(table["energy"] < lowest - 1e-9)) if near else None,
        compared=len(near & set(distinct.tolist())), chosen=len(near & set(packings.index[run.chosen.index].tolist())),
        relaxed=kept, rank=rank, keeps=bool(keeps), lost="",
    )  # fmt: skip
    out.lost = _lost(out)
    return out


def _is(crystal: Any, form: Any) -> bool:
    return abs(crystal.density / form.density - 1.0) < VOLUME_APART and packing_similarity(form, crystal).found


def _lost(f: Funnel) -> str:
    """The step that lost the form; empty where it is among the ranked."""
    if f.rank is not None:
        return ""
    if not f.keeps and not f.relaxed:
        return "not kept by the potential"
    if not f.pressed:
        return "search"
    if not f.compared:
        return "cut of the press energy"
    if not f.chosen:
        return "choice to relax"
    return "relaxation" if not f.relaxed else "ranking"


def line(f: Funnel) -> str:
    """One target in words."""
    return (
        f"{f.smiles}: {f.pressed} of {f.packings} pressed (place {f.place}), {f.compared} compared, {f.chosen} chosen, "
        f"{f.relaxed} relaxed, rank {f.rank}{'; lost: ' + f.lost if f.lost else ''}"
    )


def summarise(results: Sequence[Funnel]) -> list[tuple[str, str]]:
    """How many forms are left after each cut, and where the others went."""
    n = len(results)
    alive = {
        "kept by the potential": sum(r.keeps for r in results),
        "among the pressed packings": sum(r.pressed > 0 for r in results),
        "among those compared": sum(r.compared > 0 for r in results),
        "chosen to relax": sum(r.chosen > 0 for r in results),
        "among the relaxed": sum(r.relaxed > 0 for r in results),
        "among the ranked": sum(r.rank is not None for r in results),
        "rank ≤ 40": sum((r.rank or 41) <= 40 for r in results),
        "rank ≤ 10": sum((r.rank or 41) <= 10 for r in results),
        "rank ≤ 5": sum((r.rank or 41) <= 5 for r in results),
        "rank 1": sum(r.rank == 1 for r in results),
    }
    reasons = [r.lost for r in results if r.lost]
    lost = ", ".join(f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons))
    return [*((what, f"{count} of {n}") for what, count in alive.items()), ("lost at", lost or "none")]


if __name__ == "__main__":
    sys.exit(main())
