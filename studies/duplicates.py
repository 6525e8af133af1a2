"""Do energy, density and fingerprint merge the pressed packings that a superposition of molecules calls equal?

    python -m studies.duplicates [--candidates 500] [SMILES ...]

For every molecule random packings are pressed, then all pairs closer than 1 kJ/mol and 3 % in density are superposed
with oxtalign (RMSD15 < 0.3 Å is "the same"). Printed: pairs merged wrongly and pairs missed by the fingerprint's
thresholds, and how far apart equal minima end.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from molflow_sim import Molecule, parametrize
from molflow_sim.evaluate import DUPLICATE_RMSD, packing_similarity, prepare
from molflow_sim.evaluate.deduplicate import PackingDuplicates, deduplicate_packings
from molflow_sim.evaluate.fingerprint import fingerprints
from molflow_sim.packing import RigidPackings, press, random_packings
from molflow_sim.units import KJ_PER_MOL

MOLECULES = ("c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "NC(N)=O", "N#Cc1cccc(N)c1")


def compare(packings: RigidPackings, settings: PackingDuplicates | None = None) -> dict[str, float]:
    """Counts of pairs on which the fast de-duplication and the superposition differ."""
    s = settings or PackingDuplicates()
    energy, density = packings.energy / KJ_PER_MOL, packings.density
    prints = fingerprints(packings)
    start = time.perf_counter()
    group = deduplicate_packings(packings, packings.energy, s)
    seconds = time.perf_counter() - start
    i, j = np.triu_indices(len(packings), 1)
    near = (np.abs(energy[i] - energy[j]) < 1.0) & (np.abs(density[i] / density[j] - 1.0) < 0.03)
    i, j = i[near], j[near]
    prepared = [prepare(packings.crystal(k)) for k in range(len(packings))]
    match = [packing_similarity(prepared[a], prepared[b]) for a, b in zip(i, j)]
    same = np.array([m.same(DUPLICATE_RMSD) for m in match], dtype=bool)
    merged = group[i] == group[j]
    apart = prints.vectors[i] - prints.vectors[j]
    rms, largest = np.sqrt(np.mean(apart**2, axis=1)), np.abs(apart).max(axis=1)
    de, dd = np.abs(energy[i] - energy[j]), np.abs(density[i] / density[j] - 1.0)
    out: dict[str, float] = {
        "packings": len(packings),
        "groups": len(np.unique(group)),
        "pairs": len(i),
        "same": int(same.sum()),
        "merged": int(merged.sum()),
        "wrongly": int(np.sum(merged & ~same)),
        "missed": int(np.sum(~merged & same)),
        "seconds": seconds,
    }
    for name, value in (("dE", de), ("dD", dd), ("rms", rms), ("largest", largest)):
        for label, mask in (("same", same), ("other", ~same)):
            q = (0.5, 0.9, 0.99) if label == "same" else (0.0, 0.01, 0.1)
            for p in q:
                out[f"{name} {label} {p:g}"] = float(np.quantile(value[mask], p)) if mask.any() else float("nan")
    return out


def main(argv: list[str] | None = None) -> int:
    """Print the comparison for a few molecules."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("smiles", nargs="*", default=MOLECULES)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--space-groups", nargs="*", help="named groups: more duplicates than the common ones give")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    for smiles in args.smiles:
        molecule = Molecule.from_smiles(smiles, seed=args.seed)
        loose = random_packings(molecule, args.candidates, seed=args.seed, space_groups=args.space_groups or "common")
        pressed = press(loose, parametrize(molecule))
        print(smiles, flush=True)
        for name, value in compare(pressed.select(pressed.ok)).items():
            print(f"  {name:>20} {value:.4g}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
