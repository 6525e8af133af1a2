"""Conformers docked to the pocket they were measured in, rigid and with free torsions: source against source.

    pip install ".[dock]"
    python -m benchmarks docking RECEPTOR.pdb LIGAND.sdf [RECEPTOR LIGAND ...] -o docking.json --seeds 3

A RECEPTOR is a PDB or PDBQT without the ligand, the LIGAND an SDF where it lies in the crystal; several pairs by turns.
The wheel of posebusters (PyPI, BSD-3-Clause) holds some under posebusters/datasets/pdb, those with a cofactor are
prepared by Meeko's mk_prepare_receptor.py. From the ligand's SMILES alone each source gives N conformers, the control
is the measured conformer itself with hydrogens added, once.

Rigid: every conformer is docked as it is by AutoDock Vina, the best score of all is the source's. Free: the first
``--starts`` conformers are docked with free torsions. Vina draws the torsions itself then, at random, so that only
bonds, angles and rings of a start are left to matter. RMSDs are of the best-scored pose to the measured one, over heavy
atoms and symmetric names, nothing laid over. Seeds are those of conformers and of Vina's search at once: a difference
between sources that is not larger than that between seeds says nothing. A conformer that cannot be docked is counted
and left out; a source that fails has no score. Each result has a JSON file of its own; the same command goes on.
"""

import argparse
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem

from benchmarks.conformer_metrics import heavy_atom_rmsds
from benchmarks.generation_tables import Table, print_tables
from benchmarks.ligands import OURS, parsed, slug
from benchmarks.parts import Parts
from benchmarks.pocket import DockingError, Pocket, libraries, read_ligand, receptor_pdbqt
from benchmarks.tables import keep
from molflow_sim import __version__, generate
from molflow_sim.errors import InputError, MolflowError
from molflow_sim.runs.files import write_json
from molflow_sim.runs.identity import digest

CONTROL = "measured conformer"
SIDES = (*OURS, CONTROL)
DEFAULT = ("ETKDGv3", "ETKDGv3 + MMFF94, ε 4", "torsions (default)", "CoarsenConf", CONTROL)
FOUND = 2.0
"""Å; what the field calls a pose that was found."""
KINDS = {"rigid": True, "free": False}


@dataclass(frozen=True)
class Complex:
    """A receptor as PDBQT and its ligand as measured."""

    name: str
    receptor: str
    ligand: Chem.Mol

    @property
    def smiles(self) -> str:
        """Of the ligand, with stereochemistry."""
        return str(Chem.MolToSmiles(self.ligand))


@dataclass
class Docked:
    """What a source's conformers reach in one complex with one seed.

    ``score`` in kcal/mol and ``rmsd`` in Å: of the best-scored pose, None where there is none; ``nearest``: smallest
    RMSD of a conformer to the measured one, laid over it, Å; ``docked``, ``failed``: conformers; ``seconds``: CPU time
    of docking.
    """

    complex: str
    side: str
    kind: str
    seed: int
    score: float | None
    rmsd: float | None
    nearest: float | None
    docked: int
    failed: int
    seconds: float
    reason: str = ""


def conformers(ligand: Chem.Mol, side: str, n: int, seed: int) -> tuple[Chem.Mol, np.ndarray]:
    """The molecule with hydrogens and a source's conformers (K, N, 3) in Å."""
    if side == CONTROL:
        rdmol = Chem.AddHs(ligand, addCoords=True)
        return rdmol, rdmol.GetConformer().GetPositions()[None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = generate("conformers", Chem.MolToSmiles(ligand), n=n, seed=seed, **OURS[side])
    return found.rdmol, found.conformers


@lru_cache(maxsize=1)
def pocket(of: Complex, seed: int) -> Pocket:
    """Its maps take seconds, so that the last one is kept."""
    return Pocket(of.receptor, of.ligand, seed)


def measure(of: Complex, side: str, n: int, starts: int, exhaustiveness: int, seed: int) -> list[Docked]:
    """Rigid and free docking of one source."""
    try:
        rdmol, positions = conformers(of.ligand, side, n, seed)
    except MolflowError as error:
        return [Docked(of.name, side, kind, seed, None, None, None, 0, n, 0.0, error.reason) for kind in KINDS]
    known = of.ligand.GetConformer().GetPositions()[None]
    nearest = round(float(heavy_atom_rmsds(of.ligand, known, rdmol, positions).min()), 3)
    rows = []
    for kind, rigid in KINDS.items():
        begun, poses, reasons = time.process_time(), [], []
        asked = positions if rigid else positions[:starts]
        for x in asked:
            try:
                poses.append(pocket(of, seed).dock(rdmol, x, rigid=rigid, exhaustiveness=exhaustiveness))
            except DockingError as error:
                reasons.append(error.reason)
        score, rmsd = min(((p.score, p.rmsd) for p in poses), default=(None, None))
        seconds, reason = round(time.process_time() - begun, 2), next(iter(reasons), "")
        rows.append(Docked(of.name, side, kind, seed, score, rmsd, nearest, len(poses), len(reasons), seconds, reason))
    return rows


def read(files: Sequence[Path]) -> list[Complex]:
    """Complexes of receptors and ligands by turns.

    Raises
    ------
    InputError
        A file that cannot be used, a ligand without its receptor, or one that lies elsewhere.
    """
    if not files or len(files) % 2:
        raise InputError("give a receptor and its ligand, by turns: RECEPTOR.pdb LIGAND.sdf ...")
    found = []
    for receptor, ligand in zip(files[::2], files[1::2]):
        one = Complex(receptor.stem, receptor_pdbqt(receptor), read_ligand(ligand))
        atoms = np.array([[float(line[k : k + 8]) for k in (30, 38, 46)] for line in one.receptor.splitlines()
                          if line.startswith(("ATOM", "HETATM"))])  # fmt: skip
        gaps = np.linalg.norm(one.ligand.GetConformer().GetPositions()[:, None] - atoms, axis=2)
        if not 1.0 < gaps.min() < 6.0:
            raise InputError(
                f"{ligand}: its nearest atom is {gaps.min():.1f} Å from {receptor}: it is not measured in that pocket, "
                "or still part of the receptor"
            )
        found.append(one)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="receptor (PDB, PDBQT) and measured ligand (SDF), by turns")
    parser.add_argument("-n", type=int, default=10, help="conformers of a source")
    parser.add_argument("--starts", type=int, default=2, help="of them docked with free torsions")
    parser.add_argument("--seeds", type=int, default=3, help="as many, from --seed on")
    parser.add_argument("--exhaustiveness", type=int, default=4, help="runs of Vina's search for each")
    args, sides = parsed(parser, argv, "docking", SIDES, DEFAULT)
    if min(args.n, args.starts, args.seeds, args.exhaustiveness) < 1:
        parser.error("-n, --starts, --seeds and --exhaustiveness must be 1 at least")
    try:
        libraries()
        complexes = read(args.files)
    except MolflowError as error:
        raise SystemExit(str(error)) from None
    parts = Parts(args.output, args.max_minutes, args.print_only)
    rows: list[Docked] = []
    for seed in range(args.seed, args.seed + args.seeds):
        for one in complexes[: args.targets or None]:
            for side in sides:
                settings = f"{args.n}-{args.starts}-{args.exhaustiveness}-{seed}"
                made = parts.result(
                    f"{one.name}-{digest(one.receptor + one.smiles)[:8]}-{slug(side)}-{settings}",
                    lambda found: [Docked(**row) for row in found],
                    partial(measure, one, side, args.n, args.starts, args.exhaustiveness, seed),
                    lambda found: ", ".join(f"{d.kind} {d.score} kcal/mol {d.rmsd} Å" for d in found),
                )
                rows += made or []
    rows = on_the_same(rows, sides)
    if not rows:
        raise SystemExit("no complex has results of all sides")
    tables = [overall(rows), each(rows)]
    write_json(args.output, {"version": __version__, "seed": args.seed, "tables": [t.rows for t in tables],
                             "results": [asdict(r) for r in rows]})  # fmt: skip
    print_tables(tables)
    if args.keep:
        keep("docking", lines(tables[0].rows), {"all": tables[0].rows, "each": tables[1].rows})
    return 0


def on_the_same(rows: Sequence[Docked], sides: Sequence[str]) -> list[Docked]:
    """Results of those complexes and seeds that all sides have done."""
    done: dict[tuple[str, int], set[str]] = {}
    for row in rows:
        done.setdefault((row.complex, row.seed), set()).add(row.side)
    return [row for row in rows if done[row.complex, row.seed] == set(sides)]


def overall(rows: Sequence[Docked]) -> Table:
    """Each source over all complexes."""
    lines_ = []
    for kind in KINDS:
        for side in dict.fromkeys(r.side for r in rows):
            mine = [r for r in rows if (r.kind, r.side) == (kind, side)]
            good = [r for r in mine if r.score is not None and r.rmsd is not None]
            scores = [[r.score for r in good if r.complex == name] for name in dict.fromkeys(r.complex for r in good)]
            spread = [np.var(of_one, ddof=1) for of_one in scores if len(of_one) > 1]
            lines_.append(
                {
                    "docking": kind,
                    "source": side,
                    "complexes": len({r.complex for r in mine}),
                    "runs": len(mine),
                    "score, kcal/mol": _mean(r.score for r in good),
                    "± seeds": round(float(np.sqrt(np.mean(spread))), 2) if spread else None,
                    "RMSD, median Å": round(float(np.median([r.rmsd for r in good])), 2) if good else None,
                    "< 2 Å, %": round(100 * sum(r.rmsd < FOUND for r in good if r.rmsd is not None) / len(mine)),
                    "nearest conformer, Å": _mean(r.nearest for r in good),
                    "failed": sum(r.failed for r in mine),
                    "s": _mean(r.seconds for r in mine),
                }
            )
    return Table(
        "Docked conformers", lines_,
        "runs: complexes and seeds, all sources on the same; score: of the best pose, mean; ± seeds: standard\n"
        "deviation between seeds of one complex: sources that differ by less are not told apart; s: CPU time, mean.",
    )  # fmt: skip


def each(rows: Sequence[Docked]) -> Table:
    """Each complex by itself."""
    lines_: list[dict[str, Any]] = []
    for kind in KINDS:
        for name in dict.fromkeys(r.complex for r in rows):
            for side in dict.fromkeys(r.side for r in rows):
                mine = [r for r in rows if (r.kind, r.complex, r.side) == (kind, name, side)]
                scores = [r.score for r in mine if r.score is not None]
                lines_.append(
                    {
                        "docking": kind,
                        "complex": name,
                        "source": side,
                        "score, kcal/mol": ", ".join(f"{s:.1f}" for s in scores) or None,
                        "RMSD, Å": ", ".join(f"{r.rmsd:.1f}" for r in mine if r.rmsd is not None) or None,
                        "nearest conformer, Å": _mean(r.nearest for r in mine),
                    }
                )
    return Table("Each complex", lines_, "Scores and RMSDs: one for each seed.")


def _mean(values: Any) -> float | None:
    there = [v for v in values if v is not None]
    return round(float(np.mean(there)), 2) if there else None


def lines(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """What is kept for the pages."""
    return [
        (
            f"{r['source']}, docked {r['docking']}: score; best-scored pose within 2 Å",
            f"{r['score, kcal/mol']} ± {r['± seeds']} (seeds) kcal/mol; {r['< 2 Å, %']} % of {r['runs']}",
        )
        for r in rows
    ]


if __name__ == "__main__":
    raise SystemExit(main())
