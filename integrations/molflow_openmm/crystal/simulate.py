"""NPT molecular dynamics of a crystal in OpenMM: does it stay, and at which density?

Langevin dynamics (LangevinMiddleIntegrator; Zhang et al., J. Phys. Chem. A 123, 6056 (2019)) with a Monte Carlo
barostat that changes all six cell parameters (MonteCarloFlexibleBarostat; Vandenhaute et al., J. Phys. Chem. Lett.
13 (2022)), molecules scaled as rigid bodies.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform as host
import time
from collections.abc import Callable
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase
import ase.io
import numpy as np
import openmm
import pandas as pd
from openmm import app, unit

import molflow_sim
from molflow_openmm.crystal.analysis import mean_structure, nearest_images, packing_kept, read_frames
from molflow_openmm.crystal.box import box_like
from molflow_openmm.crystal.settings import SimulationSettings, choose_box, find_platform
from molflow_openmm.crystal.system import CrystalBox, as_crystal, crystal_box, crystalSystem
from molflow_sim.errors import MolflowError, NonFiniteError
from molflow_sim.io.dcd import truncate_dcd, truncate_log
from molflow_sim.runs.files import write_bytes_atomically, write_json
from molflow_sim.runs.folder import JobFolder
from molflow_sim.symmetry.spacegroup import cell_parameters
from molflow_sim.units import AMU_PER_A3

if TYPE_CHECKING:
    from molflow_sim.systems.crystal import MolecularCrystal

KEPT_RMSD = 1.0
"""Å: below this RMSD15 with 15 of 15 molecules the mean structure of a run still is the packing it started from; wider
than what counts as found, for heat moves molecules but seldom from one packing to another."""
OUTPUTS = (
    "system.xml", "initial.pdb", "trajectory.dcd", "log.csv", "state.xml", "average.cif", "final.cif", "final.pdb",
    "summary.json",
)  # fmt: skip
"""Every file a run writes, beside ``run.json`` and ``lock``."""
BAROSTAT_INTERVAL = 10
"""Steps between Monte Carlo changes of the cell."""
MINIMISATION_STEPS = 100
"""At most this many L-BFGS iterations before the first step."""


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
        The folder belongs to another run.
    NonFiniteError
        The dynamics blew up.
    """
    settings = settings or SimulationSettings()
    crystal, folder = as_crystal(crystal), Path(output)
    supercell, cutoff, warning = choose_box(crystal, settings)
    platform = find_platform(settings.platform)
    box = crystal_box(crystal, supercell, cutoff)
    topology, system, positions = crystalSystem(
        crystal,
        supercell,
        settings.charges,
        nonbondedCutoff=0.1 * cutoff,
        constraints=app.HBonds if settings.constrain_hydrogens else None,
        hydrogenMass=settings.hydrogen_mass,
        dispersionCorrection=settings.dispersion_correction,
    )
    identity = {"kind": "npt", "crystal": fingerprint(box), "cutoff_used": cutoff, **settings.identity()}
    with JobFolder(folder, identity, OUTPUTS, overwrite=overwrite):
        carry_on = (folder / "state.xml").exists()
        if carry_on and (done := finished(folder, settings)):
            return done
        simulation = _prepare(topology, system, positions, settings, platform, folder, carry_on)
        start = simulation.currentStep
        total = settings.total_steps
        name = simulation.context.getPlatform().getName()
        _note(progress, step=start, total=total, box=box, cutoff=cutoff, warning=warning, platform=name)
        seconds = 0.0
        try:
            if not carry_on:
                _begin(simulation, settings)
            _reporters(simulation, settings, folder, carry_on)
            began = time.perf_counter()
            while simulation.currentStep < total:
                simulation.step(settings.report_steps)
                _save_state(simulation, folder)
                seconds = time.perf_counter() - began
                _note(progress, step=simulation.currentStep, total=total)
        except (openmm.OpenMMException, ValueError) as error:  # reporters raise ValueError on NaN
            raise _explained(error, settings) from error
        steps = simulation.currentStep - start
        speed = 86400.0 * 1e-6 * settings.timestep * steps / seconds if steps else None
        return _finish(simulation, box, settings, cutoff, warning, folder, speed)


def fingerprint(box: CrystalBox) -> str:
    """Hash of the starting supercell, insensitive to rounding below 1e-4 Å."""
    digest = hashlib.sha256(np.asarray(box.numbers, dtype="<i8").tobytes())
    for array in (box.cell, box.positions):
        digest.update((np.rint(array * 1e4) + 0.0).astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def finished(folder: Path, settings: SimulationSettings) -> dict[str, Any] | None:
    """The summary of a run that already has the length asked for."""
    try:
        summary = json.loads((folder / "summary.json").read_text())
        return summary if summary["time_ps"] >= settings.total_steps * settings.timestep * 1e-3 - 1e-6 else None
    except (OSError, ValueError, KeyError):
        return None


def _prepare(
    topology: app.Topology,
    system: openmm.System,
    positions: unit.Quantity,
    settings: SimulationSettings,
    platform: openmm.Platform | None,
    folder: Path,
    carry_on: bool,
) -> app.Simulation:
    """A Simulation at its starting point: the crystal, or the checkpoint."""
    integrator = openmm.LangevinMiddleIntegrator(settings.temperature, settings.friction, 1e-3 * settings.timestep)
    # OpenMM keeps no random state in state.xml: a resumed run draws other numbers, decided by seed and step.
    state = openmm.XmlSerializer.deserialize((folder / "state.xml").read_text()) if carry_on else None
    entropy = [settings.seed, state.getStepCount() if state else 0]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0] % (2**31 - 2)) + 1  # OpenMM draws one if it is 0
    integrator.setRandomNumberSeed(seed)
    if settings.pressure is not None:
        barostat = openmm.MonteCarloFlexibleBarostat(settings.pressure, settings.temperature, BAROSTAT_INTERVAL)
        barostat.setRandomNumberSeed(seed)
        system.addForce(barostat)
    simulation = app.Simulation(topology, system, integrator, platform)
    simulation.context.setPositions(positions)
    if state is not None:
        simulation.context.setState(state)
    else:
        _write_pdb(folder / "initial.pdb", topology, positions)
        write_bytes_atomically(folder / "system.xml", openmm.XmlSerializer.serialize(system).encode())
    return simulation


def _write_pdb(path: Path, topology: app.Topology, positions: Any) -> None:
    text = io.StringIO()
    app.PDBFile.writeFile(topology, positions, text)
    write_bytes_atomically(path, text.getvalue().encode())


def _begin(simulation: app.Simulation, settings: SimulationSettings) -> None:
    """A short minimisation in the given cell, then velocities.

    Velocities are drawn at twice the temperature: from a minimum, half of the kinetic energy goes into the
    potential, and the crystal starts near the temperature asked for.
    """
    simulation.minimizeEnergy(maxIterations=MINIMISATION_STEPS)
    simulation.context.setVelocitiesToTemperature(2.0 * settings.temperature, settings.seed + 1)


def _reporters(simulation: app.Simulation, settings: SimulationSettings, folder: Path, append: bool) -> None:
    """OpenMM's own reporters, after cutting off what they wrote past the checkpoint."""
    trajectory, log = folder / "trajectory.dcd", folder / "log.csv"
    if append:
        truncate_dcd(trajectory, simulation.currentStep // settings.report_steps)
        truncate_log(log, simulation.currentStep)
    every = settings.report_steps
    simulation.reporters.append(app.DCDReporter(str(trajectory), every, append=append, enforcePeriodicBox=False))
    columns = (
        "step", "time", "potentialEnergy", "kineticEnergy", "temperature", "volume", "density", "progress",
        "remainingTime", "speed",
    )  # fmt: skip
    what = dict.fromkeys(columns, True)
    reporter = app.StateDataReporter(str(log), every, totalSteps=settings.total_steps, append=append, **what)
    simulation.reporters.append(reporter)


def _save_state(simulation: app.Simulation, folder: Path) -> None:
    text = io.StringIO()
    simulation.saveState(text)
    write_bytes_atomically(folder / "state.xml", text.getvalue().encode())


def _explained(error: Exception, settings: SimulationSettings) -> MolflowError:
    """An OpenMM failure in the user's terms."""
    text = str(error)
    if "NaN" in text or "infinite" in text:
        return NonFiniteError(
            f"the dynamics blew up (time step {settings.timestep:g} fs): use a shorter one, or relax the crystal first"
        )
    if "periodic box size" in text:
        return MolflowError("the box shrank below twice the cutoff: use a larger supercell or a smaller cutoff")
    return MolflowError(f"OpenMM: {text}")


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
    """Analyse the second half of the run, write the structures and the summary."""
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
    _write_pdb(folder / "final.pdb", simulation.topology, unit.Quantity(0.1 * positions, unit.nanometer))
    repeats = np.asarray(box.supercell, dtype=float)[:, None]
    summary = {
        "molflow_sim": molflow_sim.__version__,
        "openmm": openmm.__version__,
        "python": host.python_version(),
        "platform": simulation.context.getPlatform().getName(),
        "settings": asdict(settings),
        "supercell": list(box.supercell),
        "molecules": len(box.order),
        "atoms": len(box.numbers),
        "cutoff_A": cutoff,
        "warning": warning,
        "time_ps": simulation.currentStep * settings.timestep * 1e-3,
        "speed_ns_per_day": speed,
        "temperature_mean_K": float(log["Temperature (K)"].mean()),
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
        "averages_over": "second half of the run",
    }
    summary = json.loads(json.dumps(summary))  # tuples to lists: the same dict that a later call reads back
    write_json(folder / "summary.json", summary)
    return summary


def _note(progress: Callable[[dict[str, Any]], None] | None, **event: Any) -> None:
    if progress is not None:
        progress(event)
