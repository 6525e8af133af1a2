"""How well energies order crystals, against PBE+MBD and measured lattice energies.

    python -m benchmarks landscapes -o landscapes.json [--relax 40] [--keep]

Data: shared/data/landscapes and x23 beside the repository (their READMEs name the sources).
Landscapes: generated crystals relaxed by PBE+MBD; energies of all as they are, and of a random part (fixed seed)
relaxed on the force field and on the potential of ``best``. Spearman's rho within a molecule; top: share of the true
five lowest among the predicted ten; MAE: mean absolute error after the median of the errors of the molecule is taken
off, since zeros differ. Lattice energies: crystal minus free molecule, both as given. Each crystal has a JSON file of
its own; the same command goes on from there.
"""

import argparse
import csv
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read
from scipy.optimize import minimize
from scipy.stats import spearmanr

from benchmarks.parts import Parts
from benchmarks.tables import keep
from molflow_sim import CrystalPotential, MolecularCrystal, parametrize
from molflow_sim.energies import EnsemblePotential, best_potential, energy_model
from molflow_sim.evaluate import packing_similarity
from molflow_sim.forcefield.aimnet2 import AIMNet2
from molflow_sim.forcefield.parameters import MoleculeParameters
from molflow_sim.relax.flexible import relax_flexible
from molflow_sim.runs.files import write_json
from molflow_sim.so3lr.potential import SO3LR
from molflow_sim.units import KJ_PER_MOL

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MOLECULES = ("aspirin", "DNI", "HMX")
LOWEST, PREDICTED = 5, 10
SEED = 0
ON_SO3LR = 16
"""How many are relaxed on SO3LR alone, which is slow."""
SYMPREC = 0.01
"""Å, for the symmetry of structures that declare none."""
ENERGIES = {
    "potential": "potential",
    "fit": "fit",
    "fit-hf": "fit-hf",
    "so3lr": "so3lr",
    "plain": "mean(fit,so3lr)",
    "former": "mean(2*fit-hf,so3lr), the former best",
    "best": "best",
}
"""Energies of a landscape as they are kept, and what tables call them."""


class _SO3LRAlone(EnsemblePotential):
    """SO3LR with the interface that the relaxation wants."""

    def __init__(self, parameters: Sequence[MoleculeParameters]) -> None:
        super().__init__(parameters, "mean(fit,so3lr)")

    def forward(self, state: Any, **_: Any) -> dict[str, Any]:
        self.fit(state)  # sees where molecules break
        return self.so3lr(state)


POTENTIALS = {"potential": CrystalPotential, "so3lr": _SO3LRAlone, "best": best_potential}


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("landscapes.json"), help="JSON with all results")
    parser.add_argument("--relax", type=int, default=0, metavar="N", help="relax N random crystals of each molecule")
    parser.add_argument("--max-minutes", type=float, default=float("inf"), help="begin nothing after this time")
    parser.add_argument("--print-only", action="store_true", help="tables of what there is")
    parser.add_argument("--keep", action="store_true", help="keep the figures for README and docs")
    args = parser.parse_args(argv)
    parts = Parts(args.output, args.max_minutes, args.print_only)
    crystals = {name: _rows(parts, name) for name in MOLECULES}
    relaxed = {name: _relaxed_rows(parts, name, args.relax) for name in MOLECULES} if args.relax else {}
    lattices = {"as given": _lattices(parts, relax=False)}
    if args.relax:
        lattices["relaxed on best"] = _lattices(parts, relax=True)
    tables = {
        "single": landscape_table(crystals, ENERGIES),
        "relaxed": relaxed_table(crystals, relaxed),
        "drift": drift_table(relaxed),
        "error_bar": error_bar_table(crystals, relaxed),
        "x23": lattice_table(lattices),
    }
    write_json(args.output, {"tables": tables, "lattices": lattices})
    for title, table in tables.items():
        print(f"\n{title}")
        for row in table:
            print("  ".join(f"{k} {v}" for k, v in row.items()))
    for where, rows in lattices.items():
        print(f"\nx23, {where}:", *[f"{r['name']}: {r['reason']}" for r in rows if r["reason"]])
    if args.keep:
        keep("landscapes", kept_lines(tables), tables)
    return 0


# -- landscapes ------------------------------------------------------------------------------------------------------


def _energies(crystal: MolecularCrystal) -> dict[str, Any]:
    """kJ/mol per molecule by name; zeros are the models' own."""
    # The order of a molecule's atoms differs from file to file, so parameters belong to one crystal.
    parameters = parametrize(crystal.molecules[0], sites=True)
    best = energy_model("best").evaluate([crystal], parameters)[0]
    potential = energy_model("potential").evaluate([crystal], parameters)[0]
    net = energy_model("so3lr").evaluate([crystal], parameters)[0]
    fit, hf = potential.between, best.intermolecular["fit-hf"]
    found = {
        "potential": potential.energy,
        "fit": fit,
        "fit-hf": hf,
        "so3lr": net.energy,
        "plain": (fit + net.between) / 2 + net.inside,
        "former": (2 * hf + net.between) / 3 + net.inside,
        "best": best.energy,
        "between": best.between,
        "inside": best.inside,
        "so3lr inside": net.inside,
        "mmff inside": potential.inside,
    }
    return {name: energy / KJ_PER_MOL for name, energy in found.items()} | {"reason": best.reason}


def _reference(name: str) -> dict[str, float]:
    """eV per cell by structure."""
    with (DATA / "landscapes" / name / "energies.csv").open(encoding="utf-8") as file:
        return {row["id"]: float(row["PBE+MBD(eV)"]) for row in csv.DictReader(file)}


def _read(name: str, id: str) -> MolecularCrystal:
    return MolecularCrystal.from_cif(DATA / "landscapes" / name / f"{id}.cif")


def _rows(parts: Parts, name: str) -> list[dict[str, Any]]:
    """Energies of all structures of a molecule as they are."""

    def evaluate(id: str) -> dict[str, Any]:
        crystal = _read(name, id)
        return {"reference": cells[id] / crystal.z / KJ_PER_MOL, **_energies(crystal)}

    cells = _reference(name)
    rows = []
    for id in sorted(cells):
        row = parts.result(f"{name}-{id}", dict, partial(evaluate, id), lambda r: f"best {r['best']:.1f}")
        rows += [row | {"id": id}] if row else []
    return rows


def _relaxed_rows(parts: Parts, name: str, n: int) -> list[dict[str, Any]]:
    """The same of a random part, relaxed on each of the potentials."""
    rows = []
    for k, id in enumerate(np.random.default_rng(SEED).permutation(sorted(_reference(name)))[:n]):
        asked = [on for on in POTENTIALS if on != "so3lr" or k < ON_SO3LR]
        found = {on: parts.result(f"{name}-{id}-{on}", dict, partial(_relax, name, id, on), _moved) for on in asked}
        if all(found.values()):
            rows.append({"id": id, **found})
    return rows


def _relax(name: str, id: str, on: str) -> dict[str, Any]:
    crystal, start = _read(name, id), time.process_time()
    found = relax_flexible([crystal], POTENTIALS[on]([parametrize(crystal.molecules[0], sites=on == "best")]))[0]
    seconds = time.process_time() - start
    match = packing_similarity(crystal, found.crystal, n=15)
    return {
        "reference": _reference(name)[id] / crystal.z / KJ_PER_MOL,
        **_energies(found.crystal),
        "rmsd": match.rmsd if match.n_matched == 15 else None,
        "density": found.crystal.density / crystal.density,
        "evaluations": found.n_steps,
        "converged": found.converged,
        "seconds": seconds,
    }


def _moved(row: dict[str, Any]) -> str:
    return f"{row['evaluations']} evaluations, RMSD15 {row['rmsd']}"


def scores(reference: Sequence[float], energies: Sequence[float]) -> tuple[float, float, float]:
    """Spearman's rho, share of the true lowest among the predicted lowest, and MAE less the median, kJ/mol."""
    truth, found = np.asarray(reference), np.asarray(energies)
    error = found - truth
    low = set(np.argsort(truth, kind="stable")[:LOWEST].tolist())
    mine = set(np.argsort(found, kind="stable")[:PREDICTED].tolist())
    rho = float(spearmanr(truth, found)[0])
    return rho, len(low & mine) / LOWEST, float(np.abs(error - np.median(error)).mean())


def _scored(name: str, samples: dict[str, tuple[list[float], list[float]]]) -> dict[str, Any]:
    """A row: scores of one energy on every molecule, and their means."""
    found = {molecule: scores(*sample) for molecule, sample in samples.items()}
    row = {"energy": name}
    for molecule, (rho, top, mae) in found.items():
        row[f"{molecule}: ρ / top / MAE"] = f"{rho:.2f} / {top:.1f} / {mae:.1f}"
    rho, top, mae = np.mean(list(found.values()), axis=0)
    return row | {"mean": f"{rho:.2f} / {top:.2f} / {mae:.1f}"}


def landscape_table(crystals: dict[str, list[dict[str, Any]]], names: dict[str, str]) -> list[dict[str, Any]]:
    """Scores of every energy on structures as they are."""
    return [
        _scored(
            title,
            {m: ([r["reference"] for r in rows], [r[key] for r in rows]) for m, rows in crystals.items() if rows},
        )
        for key, title in names.items()
    ]


def relaxed_table(crystals: dict[str, list[dict[str, Any]]], relaxed: dict[str, list[dict[str, Any]]]) -> list[Any]:
    """The same for a part: as it is, and relaxed; all, and those whose packing force field and ``best`` both keep.

    What has moved to another packing is another structure, of which the reference says nothing.
    """
    used = {m: rows for m, rows in relaxed.items() if rows}
    kept = {
        m: [row for row in rows if all(row[on]["rmsd"] is not None for on in ("potential", "best"))]
        for m, rows in used.items()
    }
    table = []
    for which, part in (("all", used), ("packing kept", kept)) if used else ():
        ids = {m: {row["id"] for row in rows} for m, rows in part.items()}
        here = {m: [row for row in crystals[m] if row["id"] in ids[m]] for m in part}
        on = {key: {m: [row[key] for row in rows] for m, rows in part.items()} for key in ("potential", "best")}
        for where, rows, keys in (
            ("as they are", here, ("potential", "so3lr", "former", "best")),
            ("relaxed on potential", on["potential"], ("potential", "best")),
            ("relaxed on best", on["best"], ("fit-hf", "so3lr", "former", "best")),
        ):
            head = {"structures": f"{which}: {' + '.join(str(len(r)) for r in here.values())}", "geometry": where}
            table += [{**head, **row} for row in landscape_table(rows, {k: ENERGIES[k] for k in keys})]
    return table


def drift_table(relaxed: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What relaxation does to geometries, and costs."""
    table = []
    for on in POTENTIALS:
        for molecule, rows in relaxed.items():
            mine = [row[on] for row in rows if on in row]
            rmsd = [row["rmsd"] for row in mine if row["rmsd"] is not None]
            table.append(
                {
                    "relaxed on": on,
                    "molecule": molecule,
                    "structures": len(mine),
                    "converged": sum(row["converged"] for row in mine),
                    "15 of 15 molecules kept": len(rmsd),
                    "RMSD15, median Å": f"{np.median(rmsd):.2f}",
                    "density, %": f"{100 * (np.mean([row['density'] for row in mine]) - 1):+.1f}",
                    "evaluations, median": int(np.median([row["evaluations"] for row in mine])),
                    "CPU s": f"{np.mean([row['seconds'] for row in mine]):.1f}",
                }
            )
    return table


def error_bar_table(crystals: dict[str, list[dict[str, Any]]], relaxed: dict[str, list[dict[str, Any]]]) -> list[Any]:
    """How the error bar of ΔE above rank 1 compares with the error of that ΔE."""
    table = []
    for geometry in ("as they are", "relaxed on best") if relaxed else ("as they are",):
        for molecule, single in crystals.items():
            rows = single if geometry == "as they are" else [row["best"] for row in relaxed[molecule]]
            if not rows:
                continue
            fit, so3lr, best, truth = (
                np.array([row[key] for row in rows]) for key in ("fit-hf", "so3lr", "best", "reference")
            )
            first = int(np.argmin(best))
            # The energy inside is that of the mean for all its members.
            fit = fit + np.array([row["inside"] for row in rows])
            so3lr = so3lr + np.array([row["inside"] - row["so3lr inside"] for row in rows])
            bar = np.abs((fit - fit[first]) - (so3lr - so3lr[first])) / 2
            error = np.abs((best - best[first]) - (truth - truth[first]))
            bar, error = (np.delete(x, first) for x in (bar, error))
            table.append(
                {
                    "geometry": geometry,
                    "molecule": molecule,
                    "±, median kJ/mol": f"{np.median(bar):.1f}",
                    "error of ΔE, median kJ/mol": f"{np.median(error):.1f}",
                    "error within ±, %": round(100 * np.mean(error <= bar)),
                    "within 2 ±, %": round(100 * np.mean(error <= 2 * bar)),
                    "ρ(±, error)": f"{spearmanr(bar, error)[0]:.2f}",
                }
            )
    return table


# -- lattice energies ------------------------------------------------------------------------------------------------


def _x23() -> dict[str, float]:
    with (DATA / "x23" / "reference.csv").open(encoding="utf-8") as file:
        return {row["name"]: float(row["lattice_energy_kj_per_mol"]) for row in csv.DictReader(file)}


def _lattices(parts: Parts, *, relax: bool) -> list[dict[str, Any]]:
    rows = []
    for name in sorted(_x23()):
        id = f"x23-{name}" + "-relaxed" * relax
        row = parts.result(id, dict, partial(_lattice, name, relax=relax), lambda r: f"best {r['best']:.1f}")
        rows += [row] if row else []
    return rows


def _lattice(name: str, *, relax: bool) -> dict[str, Any]:
    """Lattice energies of one crystal, kJ/mol per molecule, by the strain of its molecules too."""
    solid, free = (
        MolecularCrystal.from_ase(read(DATA / "x23" / name / f"POSCAR_{what}", format="vasp"), symprec=symprec)
        for what, symprec in (("solid", SYMPREC), ("molecule", None))
    )
    alone, gain = _energies(free), 0.0
    row: dict[str, Any] = {"name": name, "reference": _x23()[name]}
    if relax:
        potential = best_potential([parametrize(solid.molecules[0], sites=True)])
        found = relax_flexible([solid], potential)[0]
        row |= {"density": found.crystal.density / solid.density, "converged": found.converged}
        solid, gain = found.crystal, _gain(free)
    bound = _energies(solid)
    strain = bound["inside"] - alone["inside"] + gain
    return row | {
        "fit": bound["fit"],
        "fit-hf": bound["fit-hf"],
        "potential": None if relax else bound["fit"] + bound["mmff inside"] - alone["mmff inside"],
        "so3lr": None if relax else bound["so3lr"] - alone["so3lr"],
        "best": bound["between"] + strain,
        "between": bound["between"],
        "strain": strain,
        "reason": bound["reason"],
    }


def _gain(free: MolecularCrystal) -> float:
    """What a free molecule gains by relaxing on the networks of ``best``, kJ/mol."""
    numbers, positions, _, _ = free.unit_cell()
    model, other = SO3LR(dtype="float64"), AIMNet2(numbers)

    def energy(x: np.ndarray) -> tuple[float, np.ndarray]:
        a, b = model.evaluate([numbers], [x.reshape(-1, 3)])[0], other(x.reshape(-1, 3))
        return (a[0] + b[0]) / 2, (a[1] + b[1]).ravel() / 2

    lowest = minimize(energy, positions.ravel(), jac=True, method="L-BFGS-B", options={"gtol": 3e-3, "ftol": 1e-12})
    return float(energy(positions.ravel())[0] - lowest.fun) / KJ_PER_MOL


def lattice_table(lattices: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Errors of all lattice energies and of those whose members agree."""
    titles = {name: name for name in ("fit", "fit-hf", "potential", "so3lr", "best")}
    titles |= {"between": "best, without strain"}
    table = []
    for where, rows in lattices.items():
        agreeing = [row for row in rows if not row["reason"]]
        for key, title in titles.items():
            if not agreeing or agreeing[0][key] is None:
                continue
            every, some = (np.array([r[key] - r["reference"] for r in group]) for group in (rows, agreeing))
            table.append(
                {
                    "structures": where,
                    "energy": title,
                    f"MAE, all {len(every)}": f"{np.abs(every).mean():.1f}",
                    f"MAE, {len(some)} not refused": f"{np.abs(some).mean():.1f}",
                    "mean error of these": f"{some.mean():+.1f}",
                }
            )
    return table


def kept_lines(tables: dict[str, list[dict[str, Any]]]) -> list[tuple[str, str]]:
    """For the README."""
    means = {row["energy"]: row["mean"] for row in tables["single"]}
    lattice = {row["energy"]: list(row.values())[3] for row in tables["x23"] if row["structures"] == "as given"}
    shown = ("potential", "so3lr", "best")
    return [
        (
            "PBE+MBD landscapes of aspirin, DNI and HMX as they are: ρ / five lowest in ten / MAE in kJ/mol, "
            "force field, SO3LR, best",
            "; ".join(means[name] for name in shown) + " ([tables](docs/methods/energies.md#what-was-measured))",
        ),
        (
            "X23 lattice energies, those whose members agree: MAE in kJ/mol, force field, FIT, FIT with HF charges, "
            "SO3LR, best without strain",
            "; ".join(lattice[name] for name in ("potential", "fit", "fit-hf", "so3lr", "best, without strain")),
        ),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
