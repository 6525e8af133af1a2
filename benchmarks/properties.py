"""Properties of held-out ensembles by GFN2-xTB: energy, lowest energy, dipole and gap of generated conformers.

    python -m benchmarks properties DATA -o properties.json
    python -m benchmarks properties DATA -o properties.json --relax

DATA holds ensembles at minima of GFN2-xTB as `molflow dataset conformers` makes them; its test molecules are taken. For
L known conformers min(2 L, 32) are asked for, as the field does. The energy, dipole moment and gap of an ensemble are
Boltzmann means at 298.15 K; errors are against the same of the known ensemble, whose own search is not complete, so
that a lowest energy may lie below it. ``--relax``: every conformer is taken to its minimum of GFN2-xTB first; without,
energies are those of geometries as a side gives them. A molecule for which a side fails is left out of the means and
counted. Each result has a JSON file of its own; the same command goes on from there.
"""

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase.units import Debye
from tblite.exceptions import TBLiteRuntimeError
from tblite.interface import Calculator

from benchmarks.generation_tables import Table, print_tables
from benchmarks.ligands import OURS, parsed, slug
from benchmarks.parts import Parts
from benchmarks.tables import keep
from molflow_sim import __version__, generate
from molflow_sim.dataset.conformers import ConformerEnsemble, read_ensembles
from molflow_sim.errors import MolflowError
from molflow_sim.io.ensembles import boltzmann_shares
from molflow_sim.relax.intramolecular import intramolecular
from molflow_sim.runs.files import write_json
from molflow_sim.runs.identity import digest
from molflow_sim.threads import one_openmp_thread
from molflow_sim.units import BOHR, HARTREE, KJ_PER_MOL

DEFAULT = (*list(OURS)[:5], "CoarsenConf")
MOST = 32
KNOWN = "known"
"""Stands for a side."""
NAMES = {"energy": "E, kJ/mol", "lowest": "lowest E, kJ/mol", "dipole": "dipole, D", "gap": "gap, eV"}


@dataclass
class Properties:
    """One molecule by one side, or as known: see the module; energies in kJ/mol, dipole in D, gap in eV."""

    molecule: str
    side: str
    gave: int
    energy: float
    lowest: float
    dipole: float
    gap: float
    reason: str = ""


def single_point(numbers: np.ndarray, positions: np.ndarray) -> tuple[float, float, float]:
    """Energy in kJ/mol, dipole moment in D and gap between the frontier orbitals in eV at positions (N, 3) in Å."""
    calculator = Calculator("GFN2-xTB", numbers, positions / BOHR)
    calculator.set("verbosity", 0)
    with one_openmp_thread():
        result = calculator.singlepoint()
    levels, filled = result.get("orbital-energies"), result.get("orbital-occupations")
    gap = levels[filled < 1.0].min() - levels[filled > 1.0].max()
    dipole = float(np.linalg.norm(result.get("dipole"))) * BOHR / Debye
    return float(result.get("energy")) * HARTREE / KJ_PER_MOL, dipole, float(gap) * HARTREE


def of_ensemble(name: str, side: str, numbers: np.ndarray, positions: np.ndarray) -> Properties:
    """Boltzmann means over conformers (K, N, 3) in Å, and the lowest energy."""
    energies, dipoles, gaps = np.array([single_point(numbers, x) for x in positions]).T
    shares = boltzmann_shares(energies * KJ_PER_MOL)
    means = [float(shares @ values) for values in (energies, dipoles, gaps)]
    return Properties(name, side, len(positions), means[0], float(energies.min()), *means[1:])


def measure(ensemble: ConformerEnsemble, side: str, seed: int, relax: bool) -> Properties:
    """What a side's conformers have, or the known ones where the side is `KNOWN`."""
    name = ensemble.name or ensemble.smiles
    if side == KNOWN:
        return of_ensemble(name, side, ensemble.numbers, ensemble.positions)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = generate("conformers", ensemble.smiles, min(2 * len(ensemble), MOST), seed=seed, **OURS[side])
        positions = found.conformers
        if relax:
            positions, energies = intramolecular("gfn2-xtb", found).relax(positions)
            positions = positions[np.isfinite(energies)]
        return of_ensemble(name, side, found.numbers, positions)
    except (MolflowError, TBLiteRuntimeError) as error:
        return Properties(name, side, 0, *[0.0] * 4, f"{type(error).__name__}: {error}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of a data set of ensembles")
    parser.add_argument("--relax", action="store_true", help="take conformers to minima of GFN2-xTB first")
    args, sides = parsed(parser, argv, "properties", tuple(OURS), DEFAULT)
    try:
        ensembles = [e for e in read_ensembles(args.data) if e.split == "test"]
    except (OSError, MolflowError) as error:
        raise SystemExit(str(error)) from None
    parts = Parts(args.output, args.max_minutes, args.print_only)
    rows: list[list[Properties]] = []
    for ensemble in ensembles[: args.targets or None]:
        mine = [
            parts.result(
                f"{digest(ensemble.smiles)}-{slug(side)}{'-relaxed' * (args.relax and side != KNOWN)}-{args.seed}",
                lambda row: Properties(**row),
                partial(measure, ensemble, side, args.seed, args.relax),
                lambda p: f"{p.gave} conformers {p.reason}",
            )
            for side in (KNOWN, *sides)
        ]
        if None not in mine:
            rows.append([p for p in mine if p is not None])
    if not rows:
        raise SystemExit("no molecule has results of all sides")
    found = table(rows, args.relax)
    write_json(args.output, {"version": __version__, "seed": args.seed, "relaxed": args.relax, "table": found.rows,
                             "results": [asdict(p) for mine in rows for p in mine]})  # fmt: skip
    print_tables([found])
    if args.keep:
        name = "properties" + "_relaxed" * args.relax
        keep(name, [(f"{r['side']}: {NAMES['lowest']}, mean absolute error", r[NAMES["lowest"]].split()[0])
                    for r in found.rows], {"errors": found.rows})  # fmt: skip
    return 0


def table(rows: Sequence[Sequence[Properties]], relaxed: bool) -> Table:
    """Absolute errors of each side; a row is one molecule, as known and then by all sides."""
    known, *sides = zip(*rows)
    out = []
    for mine in sides:
        pairs = [(k, p) for k, p in zip(known, mine) if not p.reason]
        row: dict[str, Any] = {"side": mine[0].side, "molecules": len(pairs)}
        for key, name in NAMES.items():
            errors = np.array([getattr(p, key) - getattr(k, key) for k, p in pairs])
            row[name] = f"{np.abs(errors).mean():.2f} ({np.median(np.abs(errors)):.2f})" if pairs else None
        below = [p.lowest - k.lowest for k, p in pairs]
        row["lower than known, %"] = round(100 * float(np.mean(np.array(below) < -1.0)), 1) if pairs else None
        row["failed"] = len(mine) - len(pairs)
        out.append(row)
    geometry = "at their minima of GFN2-xTB" if relaxed else "as given"
    return Table(
        f"Properties of ensembles by GFN2-xTB against the known ones, conformers {geometry}", out,
        "mean (median) absolute errors; lower than known: lowest energy by more than 1 kJ/mol.",
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
