"""Interaction energies of the dimers of S22, S66 and ADIM6 at our own minima, by each energy.

    python -m benchmarks dimers -o dimers.json [--sets S22 S66 ADIM6] [--starts 20] [--max-minutes 30] [--keep]

The lowest of minima on the force field from random starts, the five lowest of which are relaxed again on `best`, the
mean of SO3LR and the force field with charges of its own. The interaction energy is that of the molecules as they stand
in the dimer, in kcal/mol. The geometries of the reference are not ours: a dimer with several entries is compared with
the lowest one, and one with an entry in an earlier set is left out of the later. References: CCSD(T)/CBS,
S22 (Jurečka et al., Phys. Chem. Chem. Phys. 8, 1985 (2006)) and S66 (Řezáč et al., J. Chem. Theory Comput. 7, 2427
(2011)); for ADIM6, alkanes, W1-F12 (Grimme et al., J. Chem. Phys. 132, 154104 (2010), as GMTKN55 gives them).
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parts import Parts, add_options
from benchmarks.tables import keep
from molflow_sim import Molecule, __version__, generate
from molflow_sim.relax.clusters import relax_cluster, single_point
from molflow_sim.runs.files import write_json
from molflow_sim.screening.clusters import potentials_of
from molflow_sim.systems.cluster import MolecularCluster
from molflow_sim.units import KCAL_PER_MOL

SMILES = {
    "ammonia": "N",
    "water": "O",
    "formic acid": "OC=O",
    "formamide": "NC=O",
    "uracil": "O=c1cc[nH]c(=O)[nH]1",
    "2-pyridone": "O=c1cccc[nH]1",
    "2-aminopyridine": "Nc1ccccn1",
    "ethene": "C=C",
    "ethyne": "C#C",
    "benzene": "c1ccccc1",
    "pyrazine": "c1cnccn1",
    "indole": "c1ccc2[nH]ccc2c1",
    "hydrogen cyanide": "C#N",
    "phenol": "Oc1ccccc1",
    "methanol": "CO",
    "methylamine": "CN",
    "N-methylacetamide": "CC(=O)NC",
    "pyridine": "c1ccncc1",
    "acetic acid": "CC(=O)O",
    "acetamide": "CC(N)=O",
    "neopentane": "CC(C)(C)C",
    "cyclopentane": "C1CCCC1",
    "ethane": "CC",
    "propane": "CCC",
    "butane": "CCCC",
    "pentane": "CCCCC",
    "hexane": "CCCCCC",
    "heptane": "CCCCCCC",
}
SETS = {
    "S22": {
        "ammonia": -3.17,
        "water": -5.02,
        "formic acid": -18.61,
        "formamide": -15.96,
        "uracil": -20.65,
        "2-pyridone, 2-aminopyridine": -16.71,
        "ethene": -1.51,
        "benzene": -2.74,
        "pyrazine": -4.42,
        "indole, benzene": -5.73,
        "ethene, ethyne": -1.53,
        "benzene, water": -3.28,
        "benzene, ammonia": -2.35,
        "benzene, hydrogen cyanide": -4.46,
        "phenol": -7.05,
    },
    "S66": {
        "water, methanol": -5.59,
        "water, methylamine": -7.27,
        "water, N-methylacetamide": -8.10,
        "methanol": -5.76,
        "methanol, methylamine": -7.55,
        "methanol, N-methylacetamide": -8.23,
        "methylamine": -4.16,
        "methylamine, N-methylacetamide": -7.45,
        "N-methylacetamide": -8.63,
        "water, pyridine": -6.86,
        "methanol, pyridine": -7.41,
        "acetic acid": -19.09,
        "acetamide": -16.26,
        "acetic acid, uracil": -19.49,
        "acetamide, uracil": -19.19,
        "pyridine": -4.15,
        "benzene, pyridine": -3.44,
        "benzene, uracil": -5.71,
        "pyridine, uracil": -6.82,
        "benzene, ethene": -1.43,
        "uracil, ethene": -3.38,
        "uracil, ethyne": -3.74,
        "pyridine, ethene": -1.87,
        "pentane": -3.78,
        "neopentane, pentane": -2.61,
        "neopentane": -1.78,
        "cyclopentane, neopentane": -2.40,
        "cyclopentane": -3.00,
        "benzene, cyclopentane": -3.58,
        "benzene, neopentane": -2.90,
        "uracil, pentane": -4.85,
        "uracil, cyclopentane": -4.14,
        "uracil, neopentane": -3.71,
        "ethene, pentane": -2.01,
        "ethyne, pentane": -1.75,
        "N-methylacetamide, pentane": -4.26,
        "benzene, ethyne": -2.87,
        "ethyne": -1.52,
        "benzene, acetic acid": -4.71,
        "benzene, acetamide": -4.36,
        "benzene, methanol": -4.19,
        "benzene, methylamine": -3.23,
        "benzene, N-methylacetamide": -5.28,
        "ethyne, water": -2.85,
        "ethyne, acetic acid": -4.87,
        "pentane, acetic acid": -2.91,
        "pentane, acetamide": -3.53,
        "N-methylacetamide, ethene": -3.00,
        "pyridine, ethyne": -3.99,
        "methylamine, pyridine": -3.97,
    },
    "ADIM6": {
        "ethane": -1.34,
        "propane": -1.99,
        "butane": -2.89,
        "hexane": -4.60,
        "heptane": -5.55,
    },
}
"""kcal/mol; one name for two of a kind. Lower ones of several entries, none that an earlier set has."""
REFINED = 5
"""Dimers that are relaxed again on `best`."""
ENERGIES = ("force field", "SO3LR", "best")


@dataclass
class Dimer:
    """Interaction energies in kcal/mol."""

    potential: float
    so3lr: float
    best: float


def main() -> None:
    """Print a table for each set, and keep them if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--starts", type=int, default=20, help="random starts of each dimer")
    parser.add_argument("--keep", action="store_true")
    add_options(parser)
    options = parser.parse_args()
    print(f"molflow-sim {__version__}")
    parts = Parts(options.output, options.max_minutes, options.print_only)
    tables = {name: list(_rows(name, parts, options.starts, options.seed)) for name in options.sets}
    tables = {name: rows for name, rows in tables.items() if rows}
    write_json(options.output, tables)
    lines = [
        (f"{len(rows)} of {len(SETS[name])} dimers of {name} at our own minima: MAE (mean error) in kcal/mol, "
         f"{' / '.join(ENERGIES)}", " / ".join(_error(rows, e) for e in ENERGIES))
        for name, rows in tables.items()
    ]  # fmt: skip
    for what, figure in lines:
        print(f"{what}: {figure}")
    if options.keep:
        keep("dimers", lines, rows=tables)


@cache
def molecule(smiles: str) -> Molecule:
    """Of a SMILES, one conformer."""
    return Molecule.from_smiles(smiles, n_conformers=1)


def _error(rows: list[dict[str, Any]], energy: str) -> str:
    off = np.array([row[energy] - row["reference"] for row in rows])
    return f"{np.abs(off).mean():.2f} ({off.mean():+.2f})"


def _rows(which: str, parts: Parts, starts: int, seed: int) -> Iterator[dict[str, Any]]:
    for name, reference in SETS[which].items():
        one, _, other = name.partition(", ")
        pair = SMILES[one], SMILES[other or one]
        found = parts.result(
            f"{name}-{starts}-{seed}", lambda data: Dimer(**data), lambda pair=pair: dimer(pair, starts, seed)
        )
        if found is not None:
            values = (found.potential, found.so3lr, found.best)
            row = {"dimer": name, "reference": reference, **{e: round(v, 2) for e, v in zip(ENERGIES, values)}}
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            yield row


def dimer(smiles: tuple[str, str], starts: int, seed: int = 0) -> Dimer:
    """Interaction energies at the lowest minimum of two molecules."""
    pair = [molecule(s) for s in dict.fromkeys(smiles)]
    copies = [smiles.count(m) for m in dict.fromkeys(smiles)]
    force_field, best = potentials_of(pair, "best", "mmff94")
    loose = generate("clusters", pair, starts, method="random", copies=copies, density=0.1, seed=seed)
    minima = sorted((relax_cluster(c, force_field) for c in loose), key=lambda m: m.energy)[:REFINED]
    refined = [relax_cluster(m.cluster, best, rigid=False) for m in minima]
    lowest = min(refined, key=lambda m: m.energy).cluster
    energies = []
    for kind in ("potential", "so3lr", "best"):
        model = potentials_of(pair, kind, "mmff94")[1]
        total = 2.0 * single_point(lowest, model)[0]
        alone = 0.0
        for k, species in enumerate(lowest.order):
            one = MolecularCluster((pair[species],), np.zeros(1, int), lowest.positions[lowest.molecule_index == k])
            alone += single_point(one, potentials_of([pair[species]], kind, "mmff94")[1])[0]
        energies.append((total - alone) / KCAL_PER_MOL)
    return Dimer(*energies)


if __name__ == "__main__":
    main()
