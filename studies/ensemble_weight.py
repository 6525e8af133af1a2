"""How much FIT with charges from Hartree-Fock should count beside SO3LR: ranks of known forms by the weight.

    python -m studies.ensemble_weight -o FOLDER [--targets 14]

Rigid crystals of the COD that are none of the targets of ``benchmarks ranking``, nor of their molecules. Each is
screened on the mean of FIT and SO3LR, and the ranked structures, as they are, are ordered again by
``w fit-hf + (1 - w) so3lr``, with SO3LR's energy inside the molecules. Runs go on where they were stopped.
"""

import argparse
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.parts import Parts
from benchmarks.recovery import spread
from benchmarks.targets import DATA, Target, read_targets
from molflow_sim import parametrize, screen
from molflow_sim.energies import energy_model
from molflow_sim.screening import ScreenSettings
from molflow_sim.units import KJ_PER_MOL

SETTINGS = ScreenSettings(candidates=2000, top=60, relax_top=150, energy_top=150, energy="mean(fit,so3lr)")
WEIGHTS = (0.0, 0.4, 0.5, 0.6, 2 / 3, 0.75, 0.8, 0.9, 1.0)
JUDGED = 24
"""Targets of the benchmark, which are left out here."""


def main(argv: Sequence[str] | None = None) -> int:
    """Screen what is missing, then print ranks by weight."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--targets", type=int, default=14)
    args = parser.parse_args(argv)
    parts = Parts(args.output / "energies.json")
    tables = []
    for target in chosen(args.targets):
        rows = parts.result(target.name, list, partial(energies, target, args.output / target.name))
        if rows:
            tables.append({name: np.array([row[name] for row in rows]) for name in rows[0]})
            print(target.smiles, "known form at", int(np.flatnonzero(tables[-1]["known"])[0]) + 1, flush=True)
    for name in ("fit", "so3lr", "fit-hf"):
        print(summary(name, [ranked(t, t[name]) for t in tables]))
    print(summary("former best", [ranked(t, (t["fit"] + t["so3lr"]) / 2) for t in tables]))
    for w in WEIGHTS:
        print(summary(f"w = {w:.2f}", [ranked(t, w * t["fit-hf"] + (1 - w) * t["so3lr"]) for t in tables]))
    return 0


def chosen(n: int) -> list[Target]:
    """Rigid targets of 6 to 24 atoms without bromine, whose molecules the benchmark does not judge."""
    every = read_targets(DATA)[0]
    judged = {target.smiles for target in spread(every, JUDGED)}
    return spread(
        [
            t
            for t in every
            if t.smiles not in judged and 6 <= t.experimental.n_atoms <= 24 and 35 not in t.experimental.numbers
        ],
        n,
    )


def energies(target: Target, folder: Path) -> list[dict[str, float]]:
    """Energies of the ranked structures by each member, kJ/mol; an empty list where the known form is not there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = DATA / "cif" / f"{target.name}.cif"
        found = screen(target.generated(), settings=SETTINGS, reference=reference, output=folder, progress=False)
    if found.reference is None or found.reference.rank is None:
        return []
    crystals = [entry.crystal for entry in found]
    parameters = parametrize(crystals[0].molecules[0], sites=True)
    values = energy_model("mean(fit,fit-hf,so3lr)").evaluate(crystals, parameters)
    return [
        {**{name: energy / KJ_PER_MOL for name, energy in value.parts.items()}, "known": k == found.reference.rank}
        for k, value in enumerate(values, 1)
    ]


def ranked(table: dict[str, np.ndarray], energy: np.ndarray) -> tuple[int, float]:
    """Rank of the known form, and kJ/mol above the lowest."""
    known = int(np.flatnonzero(table["known"])[0])
    return 1 + int((energy < energy[known] - 1e-6).sum()), float(energy[known] - np.nanmin(energy))


def summary(name: str, places: Sequence[tuple[int, float]]) -> str:
    """A line: ranks, their geometric mean, and how far above the lowest the known forms are."""
    ranks, above = (np.array(x) for x in zip(*places))
    mean = np.exp(np.log(ranks).mean())
    line = f"{name:12s} ranks {' '.join(map(str, sorted(ranks.tolist())))}; geometric mean {mean:.2f}; "
    line += f"up to 3 {np.sum(ranks <= 3)}, up to 5 {np.sum(ranks <= 5)} of {len(ranks)}; "
    return line + f"{above.mean():.2f} kJ/mol above the lowest (mean)"


if __name__ == "__main__":
    raise SystemExit(main())
