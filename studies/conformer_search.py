"""How complete is the search of molflow dataset conformers? Against what others found, relaxed by GFN2-xTB.

    python -m studies.conformer_search dft/ -o search.json --molecules 10 --max-atoms 32 --searches 24,12,150 100,60,150

Molecules are those of a data set made with --from-sdf, evenly spread over the sizes. Its conformers are minimised by
GFN2-xTB as the search minimises its own; those that keep their stereochemistry and lie within 25 kJ/mol of the lowest
that anybody found are to be found again, each once: heavy atoms within 0.3 Å, also as a mirror image where that is the
molecule. A search is EMBEDDINGS,KICKS,EVALUATIONS.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem

from benchmarks.conformer_metrics import heavy_atom_rmsds
from molflow_sim.chemistry.checks import mirror_image, same_stereo
from molflow_sim.chemistry.conformers import keeps_stereo
from molflow_sim.dataset import ConformerEnsemble, ConformerSettings, read_ensembles
from molflow_sim.dataset.conformer_search import MAX_STEPS, search_conformers
from molflow_sim.forcefield.gfn2_energy import GFN2Energy
from molflow_sim.forcefield.mmff import extract_mmff
from molflow_sim.forcefield.mmff_compiled import mmff_hessian, mmff_molecules
from molflow_sim.relax.guided import guided
from molflow_sim.runs.files import write_json
from molflow_sim.units import KJ_PER_MOL

SAME = 0.3
"""Å."""
WINDOWS = (5.0, 12.0, 25.0)
"""kJ/mol."""


def relaxed(ensemble: ConformerEnsemble, rdmol: Chem.Mol) -> tuple[np.ndarray, np.ndarray]:
    """Those conformers (K, N, 3) in Å, at minima of GFN2-xTB, that are still this molecule, and energies (K,) in eV."""
    terms, surface = extract_mmff(rdmol), GFN2Energy(ensemble.numbers)

    def guide(x: np.ndarray) -> tuple[float, np.ndarray]:
        energy, gradient, _ = mmff_molecules(terms, x, np.zeros(1, int))
        return float(energy[0]), gradient[0]

    ends = [
        guided(surface, guide, x, mmff_hessian(terms, x), force=0.03, evaluations=MAX_STEPS)
        for x in ensemble.positions.astype(float)
    ]
    positions = np.array([end.positions for end in ends])
    good = keeps_stereo(rdmol, positions) & np.array([end.converged for end in ends])
    return positions[good], np.array([end.energy for end in ends])[good]


def judged(ensemble: ConformerEnsemble, searches: Sequence[str]) -> dict[str, Any]:
    """What each search finds of a molecule's conformers."""
    rdmol = Chem.AddHs(Chem.MolFromSmiles(ensemble.smiles))
    known, energies = relaxed(ensemble, rdmol)
    if len(known):  # several may have come to one minimum
        same = heavy_atom_rmsds(rdmol, known, rdmol, known) < SAME
        first = same.argmax(1) == np.arange(len(known))
        known, energies = known[first], energies[first]
    found, seconds = [], []
    for search in searches:
        embeddings, kicks, evaluations = map(int, search.split(","))
        settings = ConformerSettings(embeddings=embeddings, kicks=kicks, evaluations=evaluations)
        start = time.process_time()
        found.append(search_conformers(rdmol, settings, seed=1))
        seconds.append(time.process_time() - start)
    lowest = min(energies.min(initial=np.inf), *(f.energies[0] for f in found))
    mirrored = same_stereo(rdmol, mirror_image(rdmol))
    row: dict[str, Any] = {"smiles": ensemble.smiles, "atoms": ensemble.n_atoms, "searches": {}}
    height = (energies - lowest) / KJ_PER_MOL
    for search, f, spent in zip(searches, found, seconds):
        positions = np.concatenate([f.positions, -f.positions]) if mirrored else f.positions
        near = heavy_atom_rmsds(rdmol, known, rdmol, positions).min(1) < SAME if len(known) else np.zeros(0, bool)
        row["searches"][search] = {
            "conformers": len(f.energies), "above_lowest": float(f.energies[0] - lowest) / KJ_PER_MOL, "seconds": spent,
            "found": {f"{w:g}": [int(near[height <= w].sum()), int((height <= w).sum())] for w in WINDOWS},
        }  # fmt: skip
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge, print a line for each molecule and the sums, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--molecules", type=int, default=10)
    parser.add_argument("--max-atoms", type=int, default=32)
    parser.add_argument("--searches", nargs="+", default=["24,12,150", "100,60,150"])
    args = parser.parse_args(arguments)
    ensembles = sorted((e for e in read_ensembles(args.folder) if e.n_atoms <= args.max_atoms), key=lambda e: e.n_atoms)
    chosen = np.unique(np.linspace(0, len(ensembles) - 1, min(args.molecules, len(ensembles))).astype(int))
    rows = []
    for k in chosen:
        rows.append(judged(ensembles[k], args.searches))
        print(rows[-1], flush=True)
        write_json(args.output, {"molecules": rows, "total": totals(rows)})
    print(totals(rows))
    return 0


def totals(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums over the molecules, for each search."""
    out = {}
    for search in rows[0]["searches"]:
        parts = [row["searches"][search] for row in rows]
        out[search] = {
            "conformers": sum(p["conformers"] for p in parts),
            "cpu_seconds": sum(p["seconds"] for p in parts),
            "missed_the_lowest_by_0.5": sum(bool(p["above_lowest"] > 0.5) for p in parts),
            "found": {w: [sum(p["found"][w][k] for p in parts) for k in (0, 1)] for w in parts[0]["found"]},
        }
    return out


if __name__ == "__main__":
    sys.exit(main())
