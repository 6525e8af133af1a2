"""A molecule's own potential against FIT: how well each ranks packings held out, by SO3LR and by the mean with FIT.

    python -m benchmarks bespoke [SMILES ...] [--teachers best so3lr] [--keep]

Both sides are judged in one run on the same pressed packings, a quarter of all, that no fit has seen. The settings
were chosen on none of the default molecules.
"""

import argparse
import os
from dataclasses import asdict

import numpy as np
import torch

from benchmarks.tables import keep
from molflow_sim import Molecule, __version__
from molflow_sim.bespoke import DistilSettings, distil
from molflow_sim.bespoke.distillation import TEACHERS

MOLECULES = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "urea": "NC(N)=O",
    "acetamide": "CC(N)=O",
    "benzoic acid": "OC(=O)c1ccccc1",
    "ibuprofen": "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "4-chlorothiobenzamide": "NC(=S)c1ccc(Cl)cc1",
    "sulfanilamide": "Nc1ccc(cc1)S(N)(=O)=O",
}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("smiles", nargs="*")
    parser.add_argument("--teachers", nargs="+", choices=TEACHERS, default=list(TEACHERS))
    parser.add_argument("--keep", action="store_true", help="keep the figures for README and docs")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, molflow-sim {__version__}")
    print("rho and rms (kJ/mol per molecule) of packings held out, in brackets in their lowest third")
    rows, lines = [], []
    for teacher in options.teachers:
        print(f"teacher {teacher}\n{'molecule':>22} {'atoms':>5} {'n':>4} {'FIT':>26} {'bespoke':>26} {'s':>6}")
        here = []
        for name, smiles in ({s: s for s in options.smiles} or MOLECULES).items():
            molecule = Molecule.from_smiles(smiles)
            told = distil(molecule, DistilSettings(teacher=teacher)).report
            sides = [f"{a.rho:.3f} {a.rms:5.2f} ({a.rho_low:5.2f} {a.rms_low:5.2f})" for a in (told.fit, told.bespoke)]
            print(
                f"{name:>22} {molecule.n_atoms:>5} {told.n_held_out:>4} {sides[0]:>26} {sides[1]:>26} "
                f"{told.seconds:>6.0f}{'' if told.kept else '  FIT stays'}",
                flush=True,
            )
            here.append({"molecule": name, "smiles": smiles, "atoms": molecule.n_atoms, **asdict(told)})
        for side in ("fit", "bespoke"):
            mean = {k: float(np.mean([row[side][k] for row in here])) for k in ("rho", "rms", "rho_low", "rms_low")}
            worst = min(row[side]["rho"] for row in here), max(row[side]["rms"] for row in here)
            what = (
                f"{'FIT' if side == 'fit' else 'bespoke'} against {teacher}, {len(here)} molecules, packings held out"
            )
            figure = (
                f"ρ {mean['rho']:.3f} (worst {worst[0]:.2f}), rms {mean['rms']:.1f} kJ/mol (worst {worst[1]:.1f}); "
                f"lowest third ρ {mean['rho_low']:.2f}, rms {mean['rms_low']:.1f}"
            )
            print(f"{what}: {figure}")
            lines.append((what, figure))
        seconds = [row["seconds"] for row in here]
        lines.append(
            (f"seconds to distil from {teacher}", f"{np.median(seconds):.0f} (median), {max(seconds):.0f} (most)")
        )
        rows += here
    if options.keep:
        keep("bespoke", lines, rows)


if __name__ == "__main__":
    main()
