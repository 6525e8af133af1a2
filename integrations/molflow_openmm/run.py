"""What runs of crystals and of clusters share: start and resumption, reporters, checkpoints, errors in words."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import platform as host
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
from openmm import app, unit

import molflow_sim
from molflow_openmm.compiled import without_gpu
from molflow_sim.errors import MolflowError, NonFiniteError
from molflow_sim.io.dcd import truncate_dcd, truncate_log
from molflow_sim.runs.files import write_bytes_atomically, write_json
from molflow_sim.runs.folder import JobFolder

if TYPE_CHECKING:
    import pandas as pd

    from molflow_openmm.crystal.settings import RunSettings

STARTED = ("system.xml", "initial.pdb", "trajectory.dcd", "log.csv", "state.xml")
"""What a run writes from its first step on."""
BAROSTAT_INTERVAL = 10
"""Steps between Monte Carlo changes of the cell."""
NO_BOX = ("periodic box size", "periodic box vector must be parallel to x")
"""In OpenMM's words: a box has become too small; its volume would be negative."""
MINIMISATION_STEPS = 100
"""At most this many L-BFGS iterations before the first step."""
Built = tuple[app.Topology, openmm.System, unit.Quantity]


def finished(folder: Path, settings: RunSettings) -> dict[str, Any] | None:
    """The summary of a run that already has the length asked for."""
    if not (folder / "state.xml").exists():
        return None
    try:
        summary = json.loads((folder / "summary.json").read_text())
        return summary if summary["time_ps"] >= settings.total_steps * settings.timestep * 1e-3 - 1e-6 else None
    except (OSError, ValueError, KeyError):
        return None


def prepare(
    build: Callable[[bool], Built],
    barostat: openmm.Force | None,
    settings: RunSettings,
    platform: openmm.Platform | None,
    folder: Path,
) -> tuple[app.Simulation, bool]:
    """A Simulation at its starting point, or at the folder's checkpoint, and whether it carries on from there.

    Parameters
    ----------
    build : callable
        ``build(compiled)`` gives topology, System and positions.
    barostat : openmm.Force or None
    settings : RunSettings
    platform : openmm.Platform or None
        None for the fastest. Without a GPU the System is that of the compiled loops.
    folder : Path
        Gets ``initial.pdb`` and ``system.xml``; the latter of stock forces, for a PythonForce would tie it to us.
    """
    compiled = without_gpu(platform)
    topology, system, positions = build(compiled)
    carry_on = (folder / "state.xml").exists()
    integrator = openmm.LangevinMiddleIntegrator(settings.temperature, settings.friction, 1e-3 * settings.timestep)
    # OpenMM keeps no random state in state.xml: a resumed run draws other numbers, decided by seed and step.
    state = openmm.XmlSerializer.deserialize((folder / "state.xml").read_text()) if carry_on else None
    seed = openmm_seed(settings.seed, state.getStepCount() if state else 0)
    integrator.setRandomNumberSeed(seed)
    if barostat is not None:
        barostat.setRandomNumberSeed(seed)  # type: ignore[attr-defined]  # every barostat has it, their base has not
    if state is None:
        plain = build(False)[1] if compiled else system
        if barostat is not None:
            plain.addForce(copy.deepcopy(barostat))
        write_pdb(folder / "initial.pdb", topology, positions)
        write_bytes_atomically(folder / "system.xml", openmm.XmlSerializer.serialize(plain).encode())
    if barostat is not None and (compiled or state is not None):
        system.addForce(barostat)
    simulation = app.Simulation(topology, system, integrator, platform)
    simulation.context.setPositions(positions)
    if state is not None:
        simulation.context.setState(state)
    return simulation, carry_on


def fingerprint(numbers: np.ndarray, *lengths: np.ndarray | None) -> str:
    """Hash of a start from its atomic numbers, its positions and its cell in Å (None: none), to 1e-4 Å."""
    digest = hashlib.sha256(np.asarray(numbers, dtype="<i8").tobytes())
    for array in lengths:
        if array is not None:
            digest.update((np.rint(array * 1e4) + 0.0).astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def system_options(settings: RunSettings) -> dict[str, Any]:
    """What the settings of a run say to `crystalSystem` and `clusterSystem`."""
    return {
        "charges": settings.charges,
        "constraints": app.HBonds if settings.constrain_hydrogens else None,
        "hydrogenMass": settings.hydrogen_mass,
        "dispersionCorrection": settings.dispersion_correction,
    }


def in_folder(
    folder: Path,
    identity: Mapping[str, Any],
    settings: RunSettings,
    outputs: Sequence[str],
    code: Sequence[str],
    overwrite: bool,
    work: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """The summary of a run that is done, or the one that `work` makes of it, written last; see `JobFolder`."""
    with JobFolder(folder, identity, outputs, overwrite=overwrite, code=code) as job:
        done = finished(folder, settings)
        job.check_code(done is not None)
        if done is None:
            try:
                done = json.loads(json.dumps(work()))  # tuples to lists: the same dict that a later call reads back
            except openmm.OpenMMException as error:  # a platform without its device, a checkpoint that is damaged
                raise explained(error, settings.timestep) from error
            write_json(folder / "summary.json", done)
            job.write_run(status="done")
        return done


def summary_head(
    simulation: app.Simulation, settings: RunSettings, speed: float | None, late: pd.DataFrame
) -> dict[str, Any]:
    """What every summary says; the temperature is that of the `late` rows of the log."""
    return {
        "molflow_sim": molflow_sim.__version__,
        "openmm": openmm.__version__,
        "python": host.python_version(),
        "platform": simulation.context.getPlatform().getName(),
        "settings": asdict(settings),
        "time_ps": simulation.currentStep * settings.timestep * 1e-3,
        "speed_ns_per_day": speed,
        "temperature_mean_K": float(late["Temperature (K)"].mean()),
        "averages_over": "second half of the run",
    }


def openmm_seed(*entropy: int) -> int:
    """A seed for OpenMM, decided by some whole numbers; never 0, for which OpenMM would draw one."""
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] % (2**31 - 2)) + 1


def write_pdb(path: Path, topology: app.Topology, positions: Any) -> None:
    """A PDB file, whole or not at all."""
    text = io.StringIO()
    app.PDBFile.writeFile(topology, positions, text)
    write_bytes_atomically(path, text.getvalue().encode())


def advance(
    simulation: app.Simulation,
    settings: RunSettings,
    folder: Path,
    append: bool,
    progress: Callable[[dict[str, Any]], None] | None,
    *,
    begin: Callable[[], None] | None = None,
) -> float | None:
    """Run to the length asked for, with reports and a checkpoint after each interval; returns ns/day.

    `begin` is what else comes before the first step of a run that does not carry on.

    Raises
    ------
    MolflowError
        OpenMM failed.
    NonFiniteError
        The dynamics blew up.
    """
    start, seconds = simulation.currentStep, 0.0
    try:
        if not append:
            _begin(simulation, settings)
            if begin is not None:
                begin()
        _reporters(simulation, settings, folder, append)
        began = time.perf_counter()
        while simulation.currentStep < settings.total_steps:
            integrate(simulation.context, partial(simulation.step, settings.report_steps))  # reports come last
            _save_state(simulation, folder)
            seconds = time.perf_counter() - began
            note(progress, step=simulation.currentStep, total=settings.total_steps)
    except (openmm.OpenMMException, ValueError, NonFiniteError) as error:  # reporters raise ValueError on NaN
        raise explained(error, settings.timestep) from error
    steps = simulation.currentStep - start
    return 86400.0 * 1e-6 * settings.timestep * steps / seconds if steps else None


def integrate(context: openmm.Context, piece: Callable[[], None]) -> None:
    """Do a piece of dynamics in which a box may collapse.

    OpenMM's barostats scale their moves to the volume that was: where a thin box condenses within a few of them, the
    next asks for a box smaller than nothing. Such a piece is done again with moves that begin small, as at first.

    Raises
    ------
    openmm.OpenMMException
        It failed otherwise, or again.
    """
    before = context.getState(positions=True, velocities=True, parameters=True)
    try:
        piece()
    except openmm.OpenMMException as error:
        if not any(words in str(error) for words in NO_BOX):
            raise
        context.getSystem().setDefaultPeriodicBoxVectors(*before.getPeriodicBoxVectors())  # moves begin at 1 % of it
        context.reinitialize()
        context.setState(before)
        piece()


def _begin(simulation: app.Simulation, settings: RunSettings) -> None:
    """A short minimisation in the given cell, then velocities.

    Velocities are drawn at twice the temperature: from a minimum, half of the kinetic energy goes into the
    potential, and the run starts near the temperature asked for.
    """
    simulation.minimizeEnergy(maxIterations=MINIMISATION_STEPS)
    simulation.context.setVelocitiesToTemperature(2.0 * settings.temperature, settings.seed + 1)


def _reporters(simulation: app.Simulation, settings: RunSettings, folder: Path, append: bool) -> None:
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
    if not simulation.system.usesPeriodicBoundaryConditions():  # OpenMM would report a box of its own
        what |= {"volume": False, "density": False}
    reporter = app.StateDataReporter(str(log), every, totalSteps=settings.total_steps, append=append, **what)
    simulation.reporters.append(reporter)


def _save_state(simulation: app.Simulation, folder: Path) -> None:
    text = io.StringIO()
    simulation.saveState(text)
    write_bytes_atomically(folder / "state.xml", text.getvalue().encode())


def explained(error: Exception, timestep: float) -> MolflowError:
    """An OpenMM failure in the user's terms."""
    text = str(error)
    if "NaN" in text or "infinite" in text or "torn apart" in text:
        return NonFiniteError(
            f"the dynamics blew up (time step {timestep:g} fs): use a shorter one, or relax the start first"
        )
    if any(words in text for words in NO_BOX):
        return MolflowError("the box shrank below twice the cutoff: use a larger one or a smaller cutoff")
    return MolflowError(f"OpenMM: {text}")


def note(progress: Callable[[dict[str, Any]], None] | None, **event: Any) -> None:
    """Tell whoever watches."""
    if progress is not None:
        progress(event)
