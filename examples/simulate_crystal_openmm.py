"""How do I run a molecular crystal in OpenMM with my own integrator, barostat and reporters?

Urea, from its published structure (S. Swaminathan, B. M. Craven, R. K. McMullan, Acta Cryst. B40, 300 (1984)),
as a supercell at 123 K and 1 bar. `crystalSystem` returns a topology, an ordinary System and positions; the rest is
plain OpenMM. For a ready-made run with restarts and a packing check, use `molflow simulate`.

    python simulate_crystal_openmm.py            # 1 ps, under a minute
    python simulate_crystal_openmm.py --ps 200
"""

from __future__ import annotations

import argparse
import sys

import openmm
from molflow_openmm import crystalSystem
from openmm import app, unit

UREA = """data_urea
_cell_length_a 5.565
_cell_length_b 5.565
_cell_length_c 4.684
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'P -4 21 m'
loop_
_space_group_symop_operation_xyz
x,y,z
-x,-y,z
y,-x,-z
-y,x,-z
1/2-x,1/2+y,-z
1/2+x,1/2-y,-z
1/2-y,1/2-x,z
1/2+y,1/2+x,z
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
C1 C 0.0000 0.5000 0.3260
O1 O 0.0000 0.5000 0.5953
N1 N 0.1459 0.6459 0.1766
H1 H 0.2575 0.7575 0.2827
H2 H 0.1441 0.6441 -0.0380
"""


def main() -> None:
    """Run a little NPT dynamics and print the log."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ps", type=float, default=1.0, help="length of the run")
    parser.add_argument("--dcd", help="also write a trajectory here")
    options = parser.parse_args()

    topology, system, positions = crystalSystem(UREA, nonbondedCutoff=0.8 * unit.nanometer)
    print(f"{topology.getNumResidues()} molecules, {topology.getNumAtoms()} atoms")

    temperature, timestep = 123 * unit.kelvin, 1 * unit.femtosecond
    system.addForce(openmm.MonteCarloFlexibleBarostat(1 * unit.bar, temperature, 10))
    integrator = openmm.LangevinMiddleIntegrator(temperature, 1 / unit.picosecond, timestep)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(topology, system, integrator)
    simulation.context.setPositions(positions)
    simulation.minimizeEnergy(maxIterations=50)
    simulation.context.setVelocitiesToTemperature(temperature, 1)

    steps = round(1000 * options.ps)
    every = max(1, steps // 10)
    columns = {"step": True, "potentialEnergy": True, "temperature": True, "density": True, "speed": True}
    simulation.reporters.append(app.StateDataReporter(sys.stdout, every, **columns))
    if options.dcd:
        simulation.reporters.append(app.DCDReporter(options.dcd, every))
    simulation.step(steps)


if __name__ == "__main__":
    main()
