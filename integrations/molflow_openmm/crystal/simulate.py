"""NPT molecular dynamics of a crystal in OpenMM: does it stay, and at which density?

Langevin dynamics (LangevinMiddleIntegrator; Zhang et al., J. Phys. Chem. A 123, 6056 (2019)) with a Monte Carlo
barostat that changes all six cell parameters (MonteCarloFlexibleBarostat; Vandenhaute et al., J. Phys. Chem. Lett.
13 (2022)), molecules scaled as rigid bodies.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase
import ase.io
import numpy as np
import openmm
import pandas as pd
from openmm import app, unit

from molflow_openmm.crystal.analysis import mean_structure, nearest_images, packing_kept, read_frames
from molflow_openmm.crystal.box import box_like
from molflow_openmm.crystal.settings import SimulationSettings, choose_box, find_platform
from molflow_openmm.crystal.system import CrystalBox, as_crystal, crystal_box, crystalSystem
from molflow_openmm.run import (
    BAROSTAT_INTERVAL,
    STARTED,
    Built,
    advance,
    fingerprint,
    in_folder,
    note,
    prepare,
    summary_head,
    system_options,
    write_pdb,
)
from molflow_sim.runs.files import write_bytes_atomically
from molflow_sim.symmetry.spacegroup import cell_parameters
from molflow_sim.units import AMU_PER_A3

if TYPE_CHECKING:
    from molflow_sim.systems.crystal import MolecularCrystal

KEPT_RMSD = 1.0
"""Å: below this RMSD15 with 15 of 15 molecules the mean structure of a run still is the packing it started from; wider
than what counts as found, for heat moves molecules but seldom from one packing to another."""
OUTPUTS = (*STARTED, "average.cif", "final.cif", "final.pdb", "summary.json")
"""Every file a run writes, beside ``run.json`` and ``lock``."""
CODE = ("molflow_openmm.crystal.simulate:_run", "molflow_openmm.crystal.settings:SimulationSettings")
"""What decides a trajectory, see `molflow_sim.runs.identity.code_identity`."""


def simulate(
    crystal: MolecularCrystal | ase.Atoms | str | PathLike[str],
    output: str | PathLike[str],
    settings: SimulationSettings | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Run NPT dynamics of a crystal's supercell and say whether its packing stayed.

    Calling it again with the same arguments carries on from the last checkpoint; a longer `picoseconds` extends a
    finished run.

    Parameters
    ----------
    crystal : MolecularCrystal, ase.Atoms, CIF path or CIF text
        The starting crystal.
    output : path
        Folder for the results: ``trajectory.dcd``, ``log.csv``, ``state.xml`` (checkpoint), ``initial.pdb``,
        ``system.xml``, and at the end ``average.cif`` (mean of the second half), ``final.cif``, ``final.pdb``,
        ``summary.json``.
    settings : SimulationSettings, optional
    overwrite : bool
        Replace whatever run the folder holds.
    progress : callable, optional
        Called before the first step and after each report with ``{"step", "total", "start", ...}``.

    Returns
    -------
    dict
        The content of ``summary.json``.

    Raises
    ------
    InputError, CrystalError, ParameterError
        Something about the crystal or the settings.
    StoreError
        The folder belongs to another run, or holds one of other code that is to be carried on.
    NonFiniteError
        The dynamics blew up.
    """
    settings = settings or SimulationSettings()
    crystal, folder = as_crystal(crystal), Path(output)
    supercell, cutoff, warning = choose_box(crystal, settings)
    platform = find_platform(settings.platform)
    box = crystal_box(crystal, supercell, cutoff)
    identity = {
        "kind": "npt",
        "crystal": fingerprint(box.numbers, box.cell, box.positions),
        "cutoff_used": cutoff,
        **settings.identity(),
    }

    def work() -> dict[str, Any]:
        about = {"box": box, "cutoff": cutoff, "warning": warning}
        simulation, speed = _run(crystal, supercell, settings, platform, folder, progress, about)
        return _finish(simulation, box, settings, cutoff, warning, folder, speed)

    return in_folder(folder, identity, settings, OUTPUTS, CODE, overwrite, work)


def _run(
    crystal: MolecularCrystal,
    supercell: tuple[int, int, int],
    settings: SimulationSettings,
    platform: openmm.Platform | None,
    folder: Path,
    progress: Callable[[dict[str, Any]], None] | None,
    about: dict[str, Any],
) -> tuple[app.Simulation, float | None]:
    """The dynamics, begun or carried on, and its speed in ns/day; `about` is told before the first step."""

    def build(compiled: bool) -> Built:
        return crystalSystem(
            crystal, supercell, nonbondedCutoff=0.1 * about["cutoff"], compiled=compiled, **system_options(settings)
        )

    barostat = None
    if settings.pressure is not None:
        barostat = openmm.MonteCarloFlexibleBarostat(settings.pressure, settings.temperature, BAROSTAT_INTERVAL)
    simulation, carry_on = prepare(build, barostat, settings, platform, folder)
    name = simulation.context.getPlatform().getName()
    note(progress, step=simulation.currentStep, total=settings.total_steps, platform=name, **about)
    return simulation, advance(simulation, settings, folder, carry_on, progress)


def _frame(simulation: app.Simulation, box: CrystalBox) -> tuple[np.ndarray, np.ndarray]:
    """The current cell (3, 3) and positions (n, 3), Å, in the starting lattice basis and images."""
    state = simulation.context.getState(positions=True)
    vectors = 10.0 * state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
    positions = 10.0 * state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    cell = box_like(vectors, box.cell)
    return cell, nearest_images(box, cell, positions)


def _write_cif(path: Path, box: CrystalBox, cell: np.ndarray, positions: np.ndarray) -> None:
    """A supercell as P1 CIF."""
    data = io.BytesIO()
    ase.io.write(data, ase.Atoms(box.numbers, positions, cell=cell, pbc=True), format="cif")
    write_bytes_atomically(path, data.getvalue())


def _finish(
    simulation: app.Simulation,
    box: CrystalBox,
    settings: SimulationSettings,
    cutoff: float,
    warning: str,
    folder: Path,
    speed: float | None,
) -> dict[str, Any]:
    """Analyse the second half of the run, write the structures; returns the summary."""
    log = pd.read_csv(folder / "log.csv")
    half = len(log) // 2
    log = log.iloc[half:]
    mean_cell, mean_positions = mean_structure(*read_frames(box, folder / "trajectory.dcd", first=half))
    cell, positions = _frame(simulation, box)
    masses = np.array([simulation.system.getParticleMass(i)._value for i in range(len(box.numbers))])
    start = float(masses.sum() / abs(np.linalg.det(box.cell)) * AMU_PER_A3)
    late = log["Density (g/mL)"].to_numpy(float)
    mean_match = packing_kept(box, mean_cell, mean_positions)
    final_match = packing_kept(box, cell, positions)
    _write_cif(folder / "average.cif", box, mean_cell, mean_positions)
    _write_cif(folder / "final.cif", box, cell, positions)
    simulation.topology.setPeriodicBoxVectors(simulation.context.getState().getPeriodicBoxVectors())
    write_pdb(folder / "final.pdb", simulation.topology, unit.Quantity(0.1 * positions, unit.nanometer))
    repeats = np.asarray(box.supercell, dtype=float)[:, None]
    return {
        **summary_head(simulation, settings, speed, log),
        "supercell": list(box.supercell),
        "molecules": len(box.order),
        "atoms": len(box.numbers),
        "cutoff_A": cutoff,
        "warning": warning,
        "density_start_g_cm3": start,
        "density_mean_g_cm3": float(late.mean()),
        "density_std_g_cm3": float(late.std()),
        "density_drift_percent": 100.0 * (float(late.mean()) / start - 1.0),
        "cell_start_A_deg": cell_parameters(box.crystal.cell).tolist(),
        "cell_mean_A_deg": cell_parameters(mean_cell / repeats).tolist(),
        "rmsd15_average_A": mean_match.rmsd if mean_match.n_matched else None,
        "rmsd15_average_matched": mean_match.n_matched,
        "rmsd15_final_A": final_match.rmsd if final_match.n_matched else None,
        "rmsd15_final_matched": final_match.n_matched,
        "packing_kept": bool(mean_match.same(KEPT_RMSD)),
    }
