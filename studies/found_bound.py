"""How many pairs of different pressed packings of one molecule pass for the same form?

    python -m studies.found_bound [--candidates 60] [--packings 30] [SMILES ...]

Random packings are pressed and de-duplicated, and all pairs of a random choice of what remains are superposed. Pairs
count as different when they differ by more than 0.1 kJ/mol or 0.5 % of density (what the de-duplication left besides
are mostly the same minimum, not quite converged). Printed: the share of pairs within 1 Å, the old bound, and within
`found_rmsd`, and the lowest hundredth of RMSD15.
"""

import argparse
import itertools
import warnings

import numpy as np

from molflow_sim import Molecule, parametrize
from molflow_sim.evaluate import found_rmsd, packing_similarity, prepare
from molflow_sim.evaluate.deduplicate import deduplicate_packings
from molflow_sim.packing import press, random_packings
from molflow_sim.units import KJ_PER_MOL

MOLECULES = (
    "N#N", "O", "O=C=O", "N#CN", "NC=O", "NC(N)=O", "CC(=O)O", "C", "c1ccccc1", "N#Cc1cccc(N)c1", "OC(=O)c1ccccc1",
    "c1ccc2ccccc2c1", "CC(=O)Nc1ccc(O)cc1", "CC(=O)Oc1ccccc1C(=O)O",
)  # fmt: skip


def row(smiles: str, candidates: int, packings: int, seed: int = 0) -> str:
    """The line of one molecule."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        molecule = Molecule.from_smiles(smiles, seed=seed)
    pressed = press(random_packings(molecule, candidates, seed=seed), parametrize(molecule))
    pressed = pressed.select(pressed.ok)
    unique = np.unique(deduplicate_packings(pressed, pressed.energy))
    chosen = pressed.select(np.random.default_rng(seed).permutation(unique)[:packings])
    structures = [prepare(chosen.crystal(k)) for k in range(len(chosen))]
    energy, density = chosen.energy / KJ_PER_MOL, chosen.density
    pairs = [
        (i, j)
        for i, j in itertools.combinations(range(len(chosen)), 2)
        if abs(energy[i] - energy[j]) > 0.1 or abs(density[i] / density[j] - 1.0) > 0.005
    ]
    matches = [packing_similarity(structures[i], structures[j]) for i, j in pairs]
    rmsd = np.array([m.rmsd if m.full else np.inf for m in matches])
    n_atoms = matches[0].n_atoms
    return (
        f"| `{smiles}` | {n_atoms} | {len(pairs)} | {100 * np.mean(rmsd < 1.0):.1f} | {found_rmsd(n_atoms):.2f} "
        f"| {100 * np.mean([m.found for m in matches]):.1f} | {np.quantile(rmsd, 0.01, method='lower'):.2f} |"
    )


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("smiles", nargs="*", default=MOLECULES)
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--packings", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    print("| molecule | atoms compared | pairs | within 1 Å, % | bound, Å | within it, % | lowest hundredth, Å |")
    print("|---|---|---|---|---|---|---|")
    for smiles in args.smiles:
        print(row(smiles, args.candidates, args.packings, args.seed), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
