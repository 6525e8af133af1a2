"""How surely a measured powder pattern finds its structure among others of the molecule.

    python -m benchmarks powder FOLDER_OF_CIFS [--patterns 5] [--others 40] [--first NAME ...] [--seed 0]

For each of some structures, those of `--first` and then drawn ones: its cell is strained at random by up to 3 %, as its
symmetry allows, and its pattern gets background, counting noise, Kα2, a zero off by 0.05° and preferred orientation
(March 0.8 along a*). These structures and `--others` more are compared with it.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from molflow_sim import MolecularCrystal
from molflow_sim.evaluate.powder import PowderTarget, reflections
from molflow_sim.io.powder_read import CU_K_ALPHA, PowderPattern


def measured(crystal: MolecularCrystal, rng: np.random.Generator) -> tuple[PowderPattern, np.ndarray]:
    """What a diffractometer would count, and the strain of the cell."""
    lines = reflections(crystal)
    strain = np.tensordot(0.03 * rng.uniform(-1.0, 1.0, len(lines.strains)), lines.strains, 1)
    along = lines.q[:, 0] ** 2 / np.sum(lines.q**2, axis=1)
    oriented = (0.8**2 * along + (1.0 - along) / 0.8) ** -1.5
    x = np.arange(4.0, 45.0, 0.02)
    peaks = np.zeros(len(x))
    for wavelength, share in ((1.54056, 1.0), (1.54439, 0.5)):
        two_theta, intensity = lines.sticks(wavelength, strain)
        for place, height in zip(two_theta + 0.05, share * intensity * oriented):
            peaks += height / (1.0 + ((x - place) / 0.1) ** 2) ** 2
    background = 200.0 + 400.0 * np.exp(-x / 6.0) + 120.0 * np.exp(-(((x - 22.0) / 8.0) ** 2))
    return PowderPattern(x, rng.poisson(3000.0 * peaks / peaks.max() + background).astype(float), CU_K_ALPHA), strain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patterns", type=int, default=5)
    parser.add_argument("--others", type=int, default=40)
    parser.add_argument("--first", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    files = sorted(args.folder.glob("*.cif"))
    order = [f for name in args.first for f in files if f.stem.startswith(name)]
    order += [files[i] for i in rng.permutation(len(files)) if files[i] not in order]
    read = {f: MolecularCrystal.from_cif(f, symprec=0.01) for f in order[: args.patterns + args.others]}
    print(
        "| pattern of | own | next | of | third | error of the strain | s a structure |\n|---|---|---|---|---|---|---|"
    )
    for own in order[: args.patterns]:
        pattern, strain = measured(read[own], rng)
        target, start = PowderTarget(pattern), time.perf_counter()
        found = {f: target.compare(crystal) for f, crystal in read.items()}
        seconds = (time.perf_counter() - start) / len(read)
        others = sorted((f for f in read if f != own), key=lambda f: -found[f].similarity)
        error = np.abs(found[own].strain - strain).max()
        best = [f"{found[f].similarity:.3f}" for f in (own, *others[:2])]
        cells = (own.stem[:6], best[0], best[1], others[0].stem[:6], best[2], f"{error:.4f}", f"{seconds:.2f}")
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
