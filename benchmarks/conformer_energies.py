"""How well energies order the conformers of a molecule, against DLPNO-CCSD(T).

    python -m benchmarks conformer_energies -o conformers.json [--keep]

Data: shared/data/conformers/conformers_dft.sdf.gz beside the repository: up to ten conformers of each molecule on
B3LYP-D3(BJ) geometries (Folmsbee and Hutchison, 2021), with energies of DLPNO-CCSD(T), ωB97X-D and GFN2-xTB. Single
points on these, and on what the force field makes of them with torsions held, since that is what a screening sees;
the reference stays that of the B3LYP geometry. Spearman's rho and the mean absolute error (median error of the molecule
taken off) within each molecule that all methods can do, then means. The same command goes on where it was stopped.
"""

import argparse
import gzip
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem

from benchmarks.landscapes import DATA, LOWEST, scores
from benchmarks.parts import Parts
from benchmarks.tables import keep
from molflow_sim import Molecule
from molflow_sim.chemistry.conformers import mmff_energies
from molflow_sim.errors import MolflowError
from molflow_sim.forcefield.aimnet2 import AIMNet2
from molflow_sim.forcefield.gfn2_energy import GFN2Energy
from molflow_sim.relax.intramolecular import intramolecular
from molflow_sim.so3lr.potential import SO3LR, check_elements
from molflow_sim.units import KCAL_PER_MOL, KJ_PER_MOL

GEOMETRIES = ("B3LYP", "MMFF94, torsions held")
MEANS = (("SO3LR", "MMFF94"), ("SO3LR", "GFN2-xTB"), ("SO3LR", "AIMNet2"), ("GFN2-xTB", "AIMNet2"))


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("conformers.json"), help="JSON with all results")
    parser.add_argument("--molecules", type=int, help="so many of them, in a random order (fixed seed)")
    parser.add_argument("--max-minutes", type=float, default=float("inf"), help="begin nothing after this time")
    parser.add_argument("--print-only", action="store_true", help="the table of what there is")
    parser.add_argument("--keep", action="store_true", help="keep the figures for README and docs")
    args = parser.parse_args(argv)
    parts = Parts(args.output, args.max_minutes, args.print_only)
    found = [
        parts.result(name, dict, partial(evaluated, mols), lambda row: f"{row['conformers']} conformers")
        for name, mols in molecules()[: args.molecules]
    ]
    table = [row for geometry in GEOMETRIES for row in scored([r for r in found if r and geometry in r], geometry)]
    for row in table:
        print("  ".join(f"{k} {v}" for k, v in row.items()))
    if args.keep:
        lines = [
            (
                f"conformers of {row['molecules']} molecules, {row['energy']}",
                f"ρ {row['ρ']}, {row['MAE, kJ/mol']} kJ/mol",
            )
            for row in table
            if row["geometry"] == GEOMETRIES[0] and row["energy"] in ("MMFF94", "SO3LR", "GFN2-xTB", "AIMNet2")
        ]
        keep("conformer_energies", lines, {"conformers": table})
    return 0


def molecules() -> list[tuple[str, list[Chem.Mol]]]:
    """Conformers by molecule, of those with five or more, in a random order that is always the same."""
    with gzip.open(DATA / "conformers" / "conformers_dft.sdf.gz") as file:
        groups = defaultdict(list)
        for mol in Chem.ForwardSDMolSupplier(file, removeHs=False):
            if mol is not None and all(mol.HasProp(f"{method}_kcal") for method in ("dlpno_ccsdt", "wb97x_d", "gfn2")):
                groups[mol.GetProp("_Name")].append(mol)
    names = sorted(name for name, mols in groups.items() if len(mols) >= LOWEST)
    return [(name, groups[name]) for name in np.random.default_rng(0).permutation(names)]


def evaluated(mols: Sequence[Chem.Mol]) -> dict[str, Any]:
    """Energies (kJ/mol) of every method by geometry; none of a molecule that one of them cannot do."""
    kcal = KCAL_PER_MOL / KJ_PER_MOL
    row: dict[str, Any] = {"conformers": len(mols)}
    numbers = np.array([atom.GetAtomicNum() for atom in mols[0].GetAtoms()])
    given = np.array([mol.GetConformer().GetPositions() for mol in mols])
    stored = {name: f"{key}_kcal" for name, key in (("GFN2-xTB", "gfn2"), ("ωB97X-D", "wb97x_d"))}
    known = {name: [mol.GetDoubleProp(key) * kcal for mol in mols] for name, key in stored.items()}
    reference = [mol.GetDoubleProp("dlpno_ccsdt_kcal") * kcal for mol in mols]
    try:
        check_elements(numbers)
        relaxed, _ = intramolecular("restrained", Molecule.from_rdkit(mols[0])).relax(given)
        surfaces: dict[str, Callable[[np.ndarray], float]] = {
            "MMFF94": lambda x: float(mmff_energies(mols[0], x[None])[0]) / KJ_PER_MOL,
            "SO3LR": lambda x: float(SO3LR().evaluate([numbers], [x], gradients=False)[0][0]) / KJ_PER_MOL,
            "AIMNet2": lambda x: AIMNet2(numbers)(x)[0] / KJ_PER_MOL,
        }
        found = {name: [surface(x) for x in given] for name, surface in surfaces.items()}
        surfaces["GFN2-xTB"] = lambda x: GFN2Energy(numbers)(x)[0] / KJ_PER_MOL
        again = {name: [surface(x) for x in relaxed] for name, surface in surfaces.items()}
    except MolflowError:
        return row
    for geometry, energies in zip(GEOMETRIES, (found | known, again)):
        if np.isfinite([reference, *energies.values()]).all():
            row[geometry] = {"reference": reference, **energies}
    return row


def scored(rows: Sequence[dict[str, Any]], geometry: str) -> list[dict[str, Any]]:
    """Means over molecules of rho and the mean absolute error, of the methods and of means of two."""
    out = []
    methods = [name for name in rows[0][geometry] if name != "reference"] if rows else []
    for parts in [*((name,) for name in methods), *MEANS]:
        each = [
            scores(np.array(row[geometry]["reference"]), np.mean([row[geometry][name] for name in parts], axis=0))[::2]
            for row in rows
        ]
        if each:
            rho, mae = np.nanmean(each, axis=0)
            name = parts[0] if len(parts) == 1 else f"mean of {' and '.join(parts)}"
            figures = {"ρ": f"{rho:.2f}", "MAE, kJ/mol": f"{mae:.1f}"}
            out.append({"geometry": geometry, "energy": name, "molecules": len(rows), **figures})
    return out


if __name__ == "__main__":
    raise SystemExit(main())
