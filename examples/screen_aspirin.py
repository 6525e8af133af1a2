"""Which crystal structures can this molecule form, and which is the most stable?

Searches random packings of aspirin, relaxes the best with flexible molecules and ranks them. Give a number of
candidates to make it shorter or longer: ``python screen_aspirin.py 200 aspirin/``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from molflow_sim import Molecule, screen


def main(candidates: int | None, output: Path) -> None:
    """Search, relax, rank, and print the ten best."""
    aspirin = Molecule.from_smiles("CC(=O)Oc1ccccc1C(=O)O", name="aspirin")
    landscape = screen(aspirin, candidates=candidates, seed=0, output=output)

    columns = ["rank", "relative_energy_kj_per_mol", "density_g_per_cm3", "space_group", "z", "converged", "copies"]
    print(landscape.to_dataframe()[columns].head(10).to_string(index=False))

    best = landscape[0]
    atoms = best.to_ase()  # and best.to_pymatgen(), best.to_cif()
    print(f"best: {best.space_group}, {best.density:.3f} g/cm³, {len(atoms)} atoms in the cell")
    print(f"open {output / 'report.html'}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None, Path(sys.argv[2] if len(sys.argv) > 2 else "aspirin"))
