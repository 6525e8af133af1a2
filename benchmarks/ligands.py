"""Measured ligands: how near the best of N conformers comes to the pose in the protein crystal. All sides in one run.

    python -m benchmarks ligands -o ligands.json --openconf-python PATH/TO/python3.12
    python -m benchmarks ligands -o ligands.json --counts 10,50,200 --keep

The SMILES is given with its stereochemistry. "Best of N" is the smallest RMSD over heavy atoms (`GetBestRMS` after
`RemoveHs`); a conformer of another stereoisomer does not count, and a molecule for which a side fails counts as not
found. Sides: ETKDGv3 alone, and minimised by RDKit on MMFF94 with a dielectric constant of 1 and of 4, openconf (PyPI,
preset "docking"; Python 3.12 or later, so by another interpreter in which it is installed), `Molecule.from_smiles`, and
this package's generators. Seconds: CPU time of one thread. Ligands are taken in an order shuffled by a fixed seed, so
that a run which is stopped early holds a fair sample; each result has a JSON file of its own, and the same command
goes on from there.
"""

import argparse
import gzip
import json
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdMolDescriptors

from benchmarks.conformer_metrics import heavy_atom_rmsds, right
from benchmarks.generation_tables import Table, print_tables
from benchmarks.parts import Parts, add_options
from benchmarks.tables import keep
from molflow_sim import Molecule, __version__, generate
from molflow_sim.errors import MolflowError
from molflow_sim.runs.files import write_json

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "conformers" / "ligands_measured.sdf.gz"
ORDER_SEED = 20
ROTORS = ((0, 3), (4, 6), (7, 99))
OURS: dict[str, dict[str, Any]] = {
    "ETKDGv3": {"method": "etkdg", "energy": "none"},
    "ETKDGv3 + MMFF94, ε 1": {"method": "mmff", "energy": "none", "dielectric": 1.0},
    "ETKDGv3 + MMFF94, ε 4": {"method": "mmff", "energy": "none", "dielectric": 4.0},
    "torsions (default)": {"method": "torsions"},
    "torsions, low energies": {"method": "torsions", "energy": "mmff94", "focus": 4.0},
    "CoarsenConf, raw": {"method": "coarsenconf", "energy": "none"},
    "CoarsenConf": {"method": "coarsenconf"},
    "mixed": {"method": "mixed"},
}
SIDES = (*OURS, "Molecule.from_smiles", "openconf")
DEFAULT = (*list(OURS)[:4], "Molecule.from_smiles", "openconf")
OPENCONF = """
import json, sys, time
from rdkit import Chem, RDLogger
from openconf import generate_conformers, preset_config
RDLogger.DisableLog("rdApp.*")
for line in sys.stdin:
    asked = json.loads(line)
    start, answer = time.process_time(), {}
    try:
        config = preset_config("docking")
        config.max_out, config.random_seed, config.num_threads = asked["n"], asked["seed"] + 1, 1
        mol = generate_conformers(Chem.MolFromSmiles(asked["smiles"]), config=config).mol
        answer["seconds"] = time.process_time() - start
        answer["blocks"] = [Chem.MolToMolBlock(mol, confId=c.GetId()) for c in mol.GetConformers()][: asked["n"]]
    except Exception as error:
        answer = {"seconds": time.process_time() - start, "reason": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
"""


@dataclass
class Found:
    """One ligand by one side: RMSDs of its right conformers in Å, in their order.

    ``rotors``, ``heavy``: of the ligand; ``wrong``: conformers of another stereoisomer or with atoms that are not
    finite; ``seconds``: CPU time; ``reason``: why there are none.
    """

    ligand: str
    side: str
    n: int
    rotors: int
    heavy: int
    rmsd: list[float]
    wrong: int
    seconds: float
    reason: str = ""

    @property
    def best(self) -> float:
        """Å; infinite where there is none."""
        return min(self.rmsd, default=float("inf"))


class Openconf:
    """openconf in its own interpreter, asked over a pipe."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [str(python), "-c", OPENCONF], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, smiles: str, n: int, seed: int) -> tuple[Chem.Mol, np.ndarray, float]:
        """The molecule in its atom order, conformers (K, N, 3) in Å, and seconds."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"smiles": smiles, "n": n, "seed": seed}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"reason": "the interpreter ended", "seconds": 0.0}
        if answer.get("reason") or not answer["blocks"]:
            raise RuntimeError(answer.get("reason", "no conformers"))
        mols = [Chem.MolFromMolBlock(block, removeHs=False) for block in answer["blocks"]]
        return mols[0], np.array([m.GetConformer().GetPositions() for m in mols]), answer["seconds"]


def ours(options: dict[str, Any], smiles: str, n: int, seed: int) -> tuple[Chem.Mol, np.ndarray, float]:
    """Conformers by one of this package's methods, as `Openconf`."""
    start = time.process_time()
    found = generate("conformers", smiles, n=n, seed=seed, **options)
    return found.rdmol, found.conformers, time.process_time() - start


def from_smiles(smiles: str, n: int, seed: int) -> tuple[Chem.Mol, np.ndarray, float]:
    """What `Molecule.from_smiles` searches for crystals, the first n of them, as `Openconf`."""
    start = time.process_time()
    found = Molecule.from_smiles(smiles, seed=seed)
    return found.rdmol, found.conformers[:n], time.process_time() - start


def measure(ligand: Chem.Mol, side: str, n: int, seed: int, make: Callable[..., Any]) -> Found:
    """One ligand by one side."""
    name, smiles = ligand.GetProp("_Name"), ligand.GetProp("smiles")
    facts = (name, side, n, rdMolDescriptors.CalcNumRotatableBonds(ligand), ligand.GetNumHeavyAtoms())
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rdmol, positions, seconds = make(smiles, n, seed)
    except (MolflowError, RuntimeError) as error:
        reason = getattr(error, "reason", f"{type(error).__name__}: {error}")
        return Found(*facts, [], 0, round(time.process_time() - start, 3), reason)
    good = right(stereo_of(rdmol, smiles), positions)
    known = ligand.GetConformer().GetPositions()[None]
    rmsd = heavy_atom_rmsds(ligand, known, rdmol, positions[good])[0] if good.any() else np.empty(0)
    return Found(*facts, [round(float(r), 4) for r in rmsd], int(np.sum(~good)), round(seconds, 3))


def stereo_of(rdmol: Chem.Mol, smiles: str) -> Chem.Mol:
    """`rdmol` with the stereochemistry of the SMILES, whatever its maker thinks it has."""
    template = Chem.MolFromSmiles(smiles)
    bare = Chem.Mol(rdmol)
    Chem.RemoveStereochemistry(bare)
    match = bare.GetSubstructMatch(template, useChirality=False)
    whole = Chem.RenumberAtoms(Chem.AddHs(template), list(range(Chem.AddHs(template).GetNumAtoms())))
    if len(match) != template.GetNumAtoms():
        return Chem.Mol(rdmol)
    order = [0] * whole.GetNumAtoms()
    hydrogens = {i: [n.GetIdx() for n in bare.GetAtomWithIdx(m).GetNeighbors() if n.GetAtomicNum() == 1]
                 for i, m in enumerate(match)}  # fmt: skip
    for atom in whole.GetAtoms():
        i = atom.GetIdx()
        order[i] = match[i] if i < len(match) else hydrogens[atom.GetNeighbors()[0].GetIdx()].pop(0)
    return Chem.RenumberAtoms(whole, np.argsort(order).tolist())


def read_ligands(path: Path) -> list[Chem.Mol]:
    """All ligands, shuffled by a fixed seed."""
    with gzip.open(path) as file:
        found = [m for m in Chem.ForwardSDMolSupplier(file, removeHs=False) if m is not None]
    for k, m in enumerate(found):
        m.SetProp("_Name", f"{k:03d}")
    return [found[k] for k in np.random.default_rng(ORDER_SEED).permutation(len(found))]


def parsed(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, name: str, known: Sequence[str], usual: Sequence[str]
) -> tuple[argparse.Namespace, list[str]]:
    """Arguments of a benchmark of several sides, and the sides asked for of those `known`; makes RDKit quiet."""
    parser.add_argument("-o", "--output", type=Path, default=Path(f"{name}.json"), help="JSON with all results")
    parser.add_argument("--targets", type=int, default=0, help="molecules, 0 for all")
    parser.add_argument("--sides", default="", help=f"some of: {'; '.join(known)} (with ; between them)")
    parser.add_argument("--keep", action="store_true", help=f"write benchmarks/results/{name}.json")
    add_options(parser)
    args = parser.parse_args(argv)
    sides = [s.strip() for s in args.sides.split(";") if s.strip()] or list(usual)
    if unknown := set(sides) - set(known):
        parser.error(f"unknown sides: {', '.join(unknown)}")
    rdBase.DisableLog("rdApp.*")
    return args, sides


def slug(side: str) -> str:
    """A side in a file's name."""
    return "".join(c if c.isalnum() else "-" for c in side.replace("ε", "eps"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--counts", default="50", help="N, several with commas between them")
    parser.add_argument("--openconf-python", type=Path, help="interpreter in which openconf is installed")
    args, sides = parsed(parser, argv, "ligands", SIDES, DEFAULT)
    if "openconf" in sides and not (args.openconf_python or args.print_only):
        print("openconf is left out: no --openconf-python", file=sys.stderr)
        sides.remove("openconf")
    makers: dict[str, Callable[..., Any]] = {s: partial(ours, OURS[s]) for s in sides if s in OURS}
    makers["Molecule.from_smiles"] = from_smiles
    if "openconf" in sides and not args.print_only:
        makers["openconf"] = Openconf(args.openconf_python)
    try:
        ligands = read_ligands(args.data)
    except OSError as error:
        raise SystemExit(str(error)) from None
    parts = Parts(args.output, args.max_minutes, args.print_only)
    counts = [int(n) for n in args.counts.split(",")]
    rows: list[Found] = []
    for ligand in ligands[: args.targets or None]:
        mine = [_one(parts, ligand, side, n, args.seed, makers.get(side)) for n in counts for side in sides]
        rows += [found for found in mine if found is not None]
        if None in mine and parts.out_of_time():
            break
    same = on_the_same(rows)
    if not same:
        raise SystemExit("no ligand has results of all sides")
    tables = [table(same, counts), by_rotors(same, counts), table(rows, counts)]
    tables[2].title = "Each side on all ligands that it has done"
    write_json(args.output, {"version": __version__, "seed": args.seed, "tables": [t.rows for t in tables],
                             "results": [asdict(r) for r in rows]})  # fmt: skip
    print_tables(tables)
    if args.keep:
        keep("ligands", lines(same, counts), dict(zip(("best", "rotors", "each"), (t.rows for t in tables))))
    return 0


def _one(parts: Parts, ligand: Chem.Mol, side: str, n: int, seed: int, make: Any) -> Found | None:
    return parts.result(
        f"{ligand.GetProp('_Name')}-{slug(side)}-{n}-{seed}",
        lambda row: Found(**row),
        lambda: measure(ligand, side, n, seed, make),
        lambda found: f"{found.best:.2f} Å, {found.seconds:.1f} s {found.reason}",
    )


def on_the_same(rows: Sequence[Found]) -> list[Found]:
    """Results for those ligands that, at the same N, all sides have done that have done any."""
    done = Counter((r.n, r.ligand) for r in rows)
    sides = {n: len({r.side for r in rows if r.n == n}) for n in {r.n for r in rows}}
    return [r for r in rows if done[r.n, r.ligand] == sides[r.n]]


def table(rows: Sequence[Found], counts: Sequence[int]) -> Table:
    """Each side at each N, over all ligands."""
    lines_ = []
    for n in counts:
        for side in dict.fromkeys(r.side for r in rows if r.n == n):
            mine = [r for r in rows if r.n == n and r.side == side]
            best = np.array([r.best for r in mine])
            made = sum(len(r.rmsd) + r.wrong for r in mine)
            lines_.append(
                {
                    "N": n,
                    "side": side,
                    "ligands": len(mine),
                    "median Å": round(float(np.median(best)), 3),
                    "< 0.5 Å, %": round(100 * float(np.mean(best < 0.5)), 1),
                    "< 1.0 Å, %": round(100 * float(np.mean(best < 1.0)), 1),
                    "< 1.5 Å, %": round(100 * float(np.mean(best < 1.5)), 1),
                    "failed": sum(not r.rmsd for r in mine),
                    "wrong stereo": sum(r.wrong for r in mine),
                    "conformers": round(made / len(mine), 1),
                    "s": round(float(np.mean([r.seconds for r in mine])), 2),
                }
            )
    return Table("Best of N against the measured pose", lines_, "s: CPU time a molecule, mean.")


def by_rotors(rows: Sequence[Found], counts: Sequence[int]) -> Table:
    """Median and share below 1 Å by the number of rotatable bonds."""
    lines_ = []
    for n in counts:
        for low, high in ROTORS:
            for side in dict.fromkeys(r.side for r in rows):
                best = np.array([r.best for r in rows if r.n == n and r.side == side and low <= r.rotors <= high])
                if len(best):
                    lines_.append(
                        {
                            "N": n,
                            "rotors": f"{low}–{high}" if high < 99 else f"≥ {low}",
                            "side": side,
                            "ligands": len(best),
                            "median Å": round(float(np.median(best)), 3),
                            "< 0.5 Å, %": round(100 * float(np.mean(best < 0.5)), 1),
                            "< 1.0 Å, %": round(100 * float(np.mean(best < 1.0)), 1),
                        }
                    )
    return Table("By rotatable bonds (RDKit's strict definition)", lines_, "")


def lines(rows: Sequence[Found], counts: Sequence[int]) -> list[tuple[str, str]]:
    """What is kept for the pages."""
    return [
        (
            f"{r['side']}: best of {r['N']}, median RMSD; below 0.5, 1.0 Å",
            f"{r['median Å']:.3f} Å; {r['< 0.5 Å, %']:.0f} %, {r['< 1.0 Å, %']:.0f} % of {r['ligands']}; "
            f"{r['s']:.1f} s",
        )
        for r in table(rows, counts).rows
    ]


if __name__ == "__main__":
    raise SystemExit(main())
