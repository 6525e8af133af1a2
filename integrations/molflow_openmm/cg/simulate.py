"""Langevin dynamics and replica exchange of a coarse-grained molecule in OpenMM, many copies in one context.

Langevin: LangevinMiddleIntegrator (Zhang et al., J. Phys. Chem. A 123, 6056 (2019)), one context per temperature.
Exchange: between neighbouring temperatures, copy by copy, accepted with probability
min(1, exp[(1/kT_a − 1/kT_b)(E_a − E_b)]), velocities scaled by sqrt(T_new/T_old) (Sugita and Okamoto, Chem. Phys.
Lett. 314, 141 (1999)). OpenMM's `ReplicaExchangeSampler` works with these Systems too; with several copies in a
context it would exchange all of them at once, which is hardly ever accepted.
"""

from __future__ import annotations

import json
import platform as host
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm

import molflow_sim
from molflow_openmm.cg.forcefield import CGForceField
from molflow_openmm.cg.model import starting_positions
from molflow_openmm.cg.replicas import Replicas
from molflow_openmm.cg.run import BOND_RANGE, RunFiles, check_frames
from molflow_openmm.cg.settings import CGSimulationSettings
from molflow_openmm.crystal.settings import find_platform
from molflow_sim.cg.simulation import CGSimulation, dcd_name
from molflow_sim.cg.whole import bond_lengths
from molflow_sim.errors import InputError, MolflowError, NonFiniteError
from molflow_sim.runs.files import write_json
from molflow_sim.runs.folder import JobFolder

if TYPE_CHECKING:
    from molflow_sim.cg.frames import BeadFrames

OUTPUTS = ("state.npz", "topology.pdb", "log.csv", "walkers.csv", "*K.dcd", "summary.json")
"""Every file a run writes, beside ``run.json`` and ``lock``."""
CODE = ("molflow_openmm.cg.simulate:_run",)
"""What decides a trajectory, see `molflow_sim.runs.identity.code_identity`."""
HOTTER = 0.03
"""Share by which a kinetic temperature may exceed the bath's before the run is called too hot."""


def simulate_cg(
    model: str | Path | CGForceField,
    replicas: int = 100,
    ns: float = 1.0,
    temperatures: float | str | Sequence[float] | None = None,
    *,
    output: str | Path | None = None,
    start: BeadFrames | None = None,
    overwrite: bool = False,
    progress: Callable[[dict[str, Any]], None] | None = None,
    **settings: Any,
) -> CGSimulation:
    """Simulate copies of a coarse-grained molecule, at one temperature or by replica exchange over several.

    Calling it again with the same arguments carries on from the last checkpoint; more `ns` extends a finished run.

    Parameters
    ----------
    model : path or CGForceField
        Model folder, or a force field.
    replicas : int
        Independent copies at each temperature; they share a context and see nothing of each other.
    ns : float
        Length per copy.
    temperatures : float, str or sequence of float, optional
        K; ``"300:500:4"`` is a geometric ladder of four. Default: the force field's own. A coarse-grained potential
        is a free energy at its own temperature: others are there to cross barriers faster.
    output : path, optional
        Folder for the results; default: ``simulation`` in the model folder. It gets a DCD file per temperature (such
        as ``300K.dcd``: without a box, all copies of one time one after another, so frame f is copy f mod N at time
        f div N; centres of mass at the origin), ``topology.pdb``, ``log.csv``, ``walkers.csv`` (which walker was
        where, with several temperatures), ``state.npz`` (checkpoint) and ``summary.json``.
    start : BeadFrames, optional
        Frames to start from. Default: samples of the model folder's flow, or without one the frames of its fit.
    overwrite : bool
        Replace whatever run the folder holds.
    progress : callable, optional
        Called before the first step and after each report with ``{"report", "total", ...}``.
    **settings
        Others of `CGSimulationSettings`: timestep_fs, friction_per_ps, report_every_ps, exchange_every_ps, seed,
        backend, precision, platform, checkpoint_seconds.

    Returns
    -------
    CGSimulation
        ``.samples(temperature)`` gives `BeadFrames`. With a warning where it ran hotter than its thermostat.

    Raises
    ------
    WeightsError
        No model, or a damaged one.
    InputError
        Something about the settings, or nothing to start from.
    MissingDependencyError
        The backend's library is not installed.
    StoreError
        The folder belongs to another run, or holds one of other code that is to be carried on.
    NonFiniteError
        Positions that are not finite: the copy and the time are named.
    TrajectoryError
        A bond beyond its physical range (half to one and a half times its mean length at the start): the copy, the
        bond and the time are named.
    """
    forcefield = model if isinstance(model, CGForceField) else CGForceField.load(model)
    kelvin: Any = forcefield.temperature if temperatures is None else temperatures
    plan = CGSimulationSettings(replicas, ns, kelvin, **settings)
    source = Path(forcefield.origin[0]) if forcefield.origin else None
    if output is None:
        if source is None:
            raise InputError("say where the results shall go (output=...)")
        output = source / "simulation"
    folder = Path(output)
    chosen = find_platform(plan.platform)
    weights = forcefield.origin[1] if forcefield.origin else None
    identity = {"kind": "coarse-grained", "model": weights, **plan.identity()}
    with JobFolder(folder, identity, OUTPUTS, overwrite=overwrite, code=CODE) as job:
        done = _finished(folder, plan)
        job.check_code(done is not None)
        if done is not None:
            return done
        try:
            _run(forcefield, source, start, folder, plan, chosen, progress)
        except openmm.OpenMMException as error:
            raise _explained(error, "at the start") from error
        job.write_run(status="done")
    done = CGSimulation.load(folder)
    _warn_if_hot(done)
    return done


def _run(
    forcefield: CGForceField,
    source: Path | None,
    start: BeadFrames | None,
    folder: Path,
    plan: CGSimulationSettings,
    platform: openmm.Platform | None,
    progress: Callable[[dict[str, Any]], None] | None,
) -> None:
    """Begin, or carry on from the checkpoint, and go to the end."""
    files = RunFiles(folder, forcefield.beads, plan)
    state = files.carry_on() if (folder / "state.npz").exists() else None
    reports = int(state["report"]) if state else 0
    copies = Replicas(forcefield, plan, platform, reports)
    if state:
        copies.restore(state)
        bonds = state["bonds"]
    else:
        n = plan.replicas * len(plan.temperatures)
        first = starting_positions(forcefield.forcefield, source, start, n, plan.seed)
        files.begin(first[0])
        copies.set(first.reshape(copies.shape), copies.draw_velocities())
        bonds = bond_lengths(first, forcefield.beads.bonds).mean(axis=0)
    _steps(forcefield, copies, files, plan, reports, bonds, progress)


def _warn_if_hot(run: CGSimulation) -> None:
    for bath, kinetic in run.kinetic_temperatures():
        # Three standard errors, at the least: short runs are noisy.
        noise = bath * (2.0 / (3 * run.topology.n_beads * run.replicas * max(1.0, 0.5e3 * run.summary["ns"]))) ** 0.5
        if kinetic > bath + max(HOTTER * bath, 3.0 * noise):
            warnings.warn(
                f"the kinetic temperature is {kinetic:.0f} K at {bath:.0f} K: the time step is too long for this force "
                "field, and its ensemble was not sampled; use a shorter one (--timestep 1)",
                stacklevel=3,
            )


def _steps(
    forcefield: CGForceField,
    replicas: Replicas,
    files: RunFiles,
    settings: CGSimulationSettings,
    first: int,
    bonds: np.ndarray,
    progress: Callable[[dict[str, Any]], None] | None,
) -> None:
    """Steps, exchanges, checks, frames and checkpoints, from report `first` to the last."""
    beads, temperatures = forcefield.beads, settings.temperatures
    limits = np.outer(BOND_RANGE, bonds)
    labels = [f"{beads.label(int(i))} to {beads.label(int(j))}" for i, j in beads.bonds]
    if progress:
        progress({"report": first, "total": settings.reports, "platform": settings.platform, "beads": beads.n_beads})
    began = saved = time.perf_counter()
    for report in range(first + 1, settings.reports + 1):
        moment = f"report {report} ({report * settings.report_steps * settings.timestep_fs * 1e-3:g} ps)"
        try:
            for steps in settings.chunks:
                replicas.step(steps)
                replicas.exchange()
        except (openmm.OpenMMException, NonFiniteError) as error:
            raise _explained(error, moment) from error
        positions, kinetic = replicas.frames()
        where = [f"{moment}, {t:g} K, copy {n}" for t in temperatures for n in range(settings.replicas)]
        check_frames(positions.reshape(-1, beads.n_beads, 3), beads.bonds, limits, where, labels)
        now = time.perf_counter()
        speed = 86.4e-6 * settings.timestep_fs * settings.report_steps * (report - first) / (now - began)
        files.report(report, replicas, positions, kinetic, 1e3 * speed)
        if now - saved >= settings.checkpoint_seconds or report == settings.reports:
            files.checkpoint(report, replicas, bonds)
            saved = time.perf_counter()
        if progress:
            progress({"report": report, "total": settings.reports})
    steps = settings.report_steps * (settings.reports - first)
    seconds = time.perf_counter() - began
    summary = {
        "molflow_sim": molflow_sim.__version__,
        "openmm": openmm.__version__,
        "python": host.python_version(),
        "settings": asdict(settings),
        "model": forcefield.origin,
        "topology": json.loads(beads.to_json()),
        "reports": settings.reports,
        "report_every_ps": settings.report_steps * settings.timestep_fs * 1e-3,
        "ns": settings.reports * settings.report_steps * settings.timestep_fs * 1e-6,
        "files": [dcd_name(t) for t in temperatures],
        "acceptance": replicas.acceptance(),
        "microseconds_per_step": 1e6 * seconds / steps / len(temperatures) if steps else None,
    }
    write_json(files.folder / "summary.json", summary)


def _finished(folder: Path, settings: CGSimulationSettings) -> CGSimulation | None:
    """A run that already has the length asked for."""
    if not (folder / "state.npz").exists():
        return None
    try:
        done = CGSimulation.load(folder)
    except MolflowError:
        return None
    return done if done.reports >= settings.reports else None


def _explained(error: Exception, moment: str) -> MolflowError:
    """A failure inside OpenMM in the user's terms."""
    text = str(error)
    if isinstance(error, NonFiniteError) or "finite" in text or "NaN" in text:
        return NonFiniteError(f"the dynamics blew up before {moment} ({text}); use a shorter time step")
    return MolflowError(f"OpenMM, before {moment}: {text}")
