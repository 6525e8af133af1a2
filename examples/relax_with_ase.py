"""How do I relax a molecular crystal, cell and atoms together, with ASE?

Benzene at 138 K (G. E. Bacon, N. A. Curry, S. A. Wilson, Proc. R. Soc. A 279, 98 (1964)), or a CIF of yours, goes
through `CrystalCalculator` into ASE's optimiser; the result is written as a CIF in its space group.

    python relax_with_ase.py
    python relax_with_ase.py my_crystal.cif -o relaxed.cif
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from molflow_ase import CrystalCalculator

from molflow_sim import MolecularCrystal
from molflow_sim.units import GPA, KJ_PER_MOL

BENZENE = """data_benzene
_cell_length_a 7.39
_cell_length_b 9.42
_cell_length_c 6.81
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'P b c a'
loop_
_space_group_symop_operation_xyz
x,y,z
-x,-y,-z
1/2-x,-y,1/2+z
1/2+x,y,1/2-z
-x,1/2+y,1/2-z
x,1/2-y,1/2+z
1/2+x,1/2-y,-z
1/2-x,1/2+y,z
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
C1 C -0.0569 0.1387 -0.0054
C2 C -0.1335 0.0460 0.1264
C3 C -0.0774 -0.0925 0.1295
H1 H -0.0976 0.2447 -0.0177
H2 H -0.2409 0.0794 0.2218
H3 H -0.1371 -0.1631 0.2312
"""


def main() -> None:
    """Relax, and print what changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cif", nargs="?", help="crystal to relax (default: benzene)")
    parser.add_argument("-o", "--output", help="write the relaxed crystal here")
    parser.add_argument("--fmax", type=float, default=0.01, help="eV/Å; forces, and the cell's gradient")
    options = parser.parse_args()

    crystal = MolecularCrystal.from_cif(options.cif or BENZENE)
    atoms = crystal.to_ase()
    atoms.calc = CrystalCalculator(crystal)

    def report(label: str) -> None:
        energy = atoms.get_potential_energy() / crystal.z / KJ_PER_MOL
        density = crystal.density * crystal.volume / atoms.get_volume()
        stress = np.abs(atoms.get_stress()).max() / GPA
        print(f"{label:8s} {energy:10.2f} kJ/mol per molecule  {density:.3f} g/cm³  largest stress {stress:.3f} GPa")

    report("start")
    start = time.perf_counter()
    warnings.filterwarnings("ignore", "logm result may be inaccurate")  # SciPy, on errors of 1e-13
    optimiser = BFGS(FrechetCellFilter(atoms), logfile=None)
    # FrechetCellFilter divides the cell's gradient by the number of atoms, so the stress is looked at as well.
    converged = optimiser.run(fmax=options.fmax, steps=500)
    report("relaxed" if converged else "stopped")
    change = 100.0 * (atoms.get_volume() / crystal.volume - 1.0)
    print(f"{optimiser.nsteps} steps, {time.perf_counter() - start:.1f} s; volume changed by {change:+.1f} %")

    relaxed = crystal.with_geometry(atoms.cell.array, atoms.positions)
    print(
        f"space group {crystal.space_group.name} → {relaxed.space_group.name}; cell {relaxed.cell_parameters.round(3)}"
    )
    if options.output:
        relaxed.write(options.output)
        print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
