"""Runs `molflow screen` with its default settings on six molecules and prints what each stage took and found.

    python -m benchmarks default_runs -o FOLDER [--only NAME ...] [--references FOLDER_OF_CIFS] [--table FILE]

One fresh process per molecule, as a user would start it; the figures are read from the run.json and ranking.csv it
writes. `--references` names a folder of experimental CIFs; those of the molecules below are used if they are there.
A molecule whose folder is finished is not run again.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from benchmarks.tables import keep

# name, SMILES, number of the room- or low-temperature structure in the Crystallography Open Database (if it is in use)
MOLECULES = [
    ("urea", "NC(N)=O", "2019369"),
    ("benzene", "c1ccccc1", "2100348"),
    ("naphthalene", "c1ccc2ccccc2c1", "2100603"),
    ("paracetamol", "CC(=O)Nc1ccc(O)cc1", None),
    ("aspirin", "CC(=O)Oc1ccccc1C(=O)O", None),
    ("celecoxib", "Cc1ccc(cc1)-c1cc(C(F)(F)F)nn1-c1ccc(cc1)S(N)(=O)=O", None),
]


def run(name: str, smiles: str, reference: Path | None, folder: Path) -> float:
    """Screen one molecule in its own process; seconds of wall time."""
    command = [sys.executable, "-m", "molflow_sim", "screen", smiles, "-o", str(folder / name), "--name", name]
    if reference is not None:
        command += ["--reference", str(reference)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def row(name: str, folder: Path, wall: float) -> dict[str, object]:
    """What the table says of one finished run."""
    record = json.loads((folder / name / "run.json").read_text())
    ranking = pd.read_csv(folder / name / "ranking.csv")
    out: dict[str, object] = {"molecule": name, "formula": record["molecule"]["formula"]}
    out["candidates"] = record["settings"]["candidates"]
    out |= {f"{stage}, s": round(seconds) for stage, seconds in record["timings_s"].items()}
    out["in all, s"] = round(wall)
    out["structures"] = len(ranking)
    out["within 5 kJ/mol"] = int((ranking["relative_energy_kj_per_mol"] < 5).sum())
    hits = ranking[ranking["reference_rmsd15_angstrom"] < 1.0]
    if len(hits):
        best = hits.iloc[0]
        out["experiment"] = (
            f"rank {best['rank']}, {best['relative_energy_kj_per_mol']:.1f} kJ/mol, "
            f"RMSD15 {best['reference_rmsd15_angstrom']:.2f} Å"
        )
    else:
        out["experiment"] = "not found" if record.get("reference") else "no reference"
    return out


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="names of the molecules to run")
    parser.add_argument("--references", type=Path, help="folder with experimental CIFs, NUMBER.cif")
    parser.add_argument("--table", type=Path, help="write the table there as Markdown")
    parser.add_argument("--keep", action="store_true", help="keep the figures for the README")
    options = parser.parse_args()
    rows = []
    for name, smiles, number in MOLECULES:
        if options.only and name not in options.only:
            continue
        reference = options.references / f"{number}.cif" if options.references and number else None
        if reference is not None and not reference.exists():
            reference = None
        seconds = options.output / f"{name}.seconds"
        if not seconds.exists():
            options.output.mkdir(parents=True, exist_ok=True)
            seconds.write_text(str(run(name, smiles, reference, options.output)))
        rows.append(row(name, options.output, float(seconds.read_text())))
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows).set_index("molecule").T
    lines = ["| | " + " | ".join(table.columns) + " |", "|---" * (len(table.columns) + 1) + "|"]
    lines += [f"| {i} | " + " | ".join("" if v != v else str(v) for v in r) + " |" for i, r in table.iterrows()]
    text = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores\n\n" + "\n".join(lines) + "\n"
    print("\n" + text)
    if options.keep:
        lines = [
            (f"`molflow screen`, default settings, {r['molecule']}: in all; the experimental form",
             f"{float(str(r['in all, s'])) / 60:.1f} min; {r['experiment']}")
            for r in rows
        ]  # fmt: skip
        keep("default_runs", lines, rows)
    if options.table:
        options.table.write_text(text)


if __name__ == "__main__":
    main()
