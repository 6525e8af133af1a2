"""Dynamics of a cluster in OpenMM: an open droplet (NVT), or a periodic box (NPT), pressed to a density if asked."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import openmm
import pandas as pd
from openmm import app, unit

from molflow_openmm.cluster.drift import drift
from molflow_openmm.cluster.settings import ClusterSettings
from molflow_openmm.cluster.system import clusterSystem
from molflow_openmm.crystal.settings import find_platform
from molflow_openmm.run import (
    BAROSTAT_INTERVAL,
    STARTED,
    Built,
    advance,
    fingerprint,
    in_folder,
    integrate,
    note,
    prepare,
    summary_head,
    system_options,
    write_pdb,
)
from molflow_sim.errors import MolflowError, NonFiniteError
from molflow_sim.runs.figures import new_figure, write_figure
from molflow_sim.runs.files import write_bytes_atomically
from molflow_sim.systems.cluster import MolecularCluster
from molflow_sim.units import AMU_PER_A3

OUTPUTS = (*STARTED, "final.pdb", "final.extxyz", "run.svg", "summary.json")
"""Every file a run writes, beside ``run.json`` and ``lock``."""
CODE = (
    "molflow_openmm.cluster.simulate:_run",
    "molflow_openmm.cluster.simulate:in_a_cube",
    "molflow_openmm.cluster.settings:ClusterSettings",
)
"""What decides a trajectory, see `molflow_sim.runs.identity.code_identity`."""
MARGIN = 1.5
"""Å; between an open cluster and the faces of the cube it is put into."""
PRESS_STEPS = 500
"""Steps between looks at the density while it is pressed."""


def simulate_cluster(
    cluster: MolecularCluster,
    output: str | PathLike[str],
    settings: ClusterSettings | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Run a cluster and say what became of it.

    Calling it again with the same arguments carries on from the last checkpoint; a longer `picoseconds` extends a
    finished run. A cluster in open space without a `density` is a droplet at constant temperature; else the box is
    periodic, with isotropic changes of its volume unless `pressure` is None.

    Parameters
    ----------
    cluster : MolecularCluster
    output : path
        Folder for ``trajectory.dcd``, ``log.csv``, ``state.xml`` (checkpoint), ``initial.pdb``, ``system.xml`` (stock
        forces; in a small box with the cutoff that OpenMM's nearest-image rule allows), and at the end ``final.pdb``,
        ``final.extxyz``, ``run.svg`` (density and energy), ``summary.json``.
    settings : ClusterSettings, optional
    overwrite : bool
        Replace whatever run the folder holds.
    progress : callable, optional
        Called before the first step and after each report with ``{"step", "total", ...}``.

    Returns
    -------
    dict
        The content of ``summary.json``. ``drifting`` says whether the density (a droplet: the energy) still drifts in
        the second half of the run.

    Raises
    ------
    InputError, ParameterError, UnsupportedElementError
        Something about the cluster or the settings.
    StoreError
        The folder belongs to another run, or holds one of other code that is to be carried on.
    MolflowError
        The density asked for was not reached.
    NonFiniteError
        The dynamics blew up.
    """
    settings = settings or ClusterSettings()
    folder, where = Path(output), find_platform(settings.platform)
    asked = cluster
    if settings.density is not None and cluster.cell is None:
        cluster = in_a_cube(cluster)
    identity = {
        "kind": "cluster",
        "cluster": fingerprint(asked.numbers, asked.positions, asked.cell),
        **settings.identity(),
    }

    def work() -> dict[str, Any]:
        simulation, speed = _run(cluster, settings, where, folder, progress)
        return _finish(simulation, cluster, settings, folder, speed)

    return in_folder(folder, identity, settings, OUTPUTS, CODE, overwrite, work)


def _run(
    cluster: MolecularCluster,
    settings: ClusterSettings,
    platform: openmm.Platform | None,
    folder: Path,
    progress: Callable[[dict[str, Any]], None] | None,
) -> tuple[app.Simulation, float | None]:
    """The dynamics, begun or carried on, and its speed in ns/day."""

    def build(compiled: bool) -> Built:
        cutoff = settings.box_cutoff
        if cluster.cell is not None and not compiled:
            cutoff = min(cutoff, 0.49 * float(np.linalg.norm(cluster.cell, axis=1).min()))
        return clusterSystem(cluster, nonbondedCutoff=0.1 * cutoff, compiled=compiled, **system_options(settings))

    barostat = None
    if cluster.cell is not None and (settings.pressure is not None or settings.density is not None):
        barostat = openmm.MonteCarloBarostat(settings.pressure or 1.0, settings.temperature, BAROSTAT_INTERVAL)
    simulation, carry_on = prepare(build, barostat, settings, platform, folder)
    name = simulation.context.getPlatform().getName()
    note(progress, step=simulation.currentStep, total=settings.total_steps, cluster=cluster, platform=name)
    begin = None
    if settings.density is not None and not carry_on:
        begin = partial(press, simulation, float(cluster.masses.sum()), settings, progress)
    if barostat is not None and settings.pressure is None and carry_on:
        barostat_off(simulation)
    return simulation, advance(simulation, settings, folder, carry_on, progress, begin=begin)


def in_a_cube(cluster: MolecularCluster) -> MolecularCluster:
    """An open cluster in the smallest periodic cube that holds it with `MARGIN` Å around."""
    edge = float(np.ptp(cluster.positions, axis=0).max()) + 2.0 * MARGIN
    return replace(cluster, cell=edge * np.eye(3))


def press(
    simulation: app.Simulation,
    mass: float,
    settings: ClusterSettings,
    progress: Callable[[dict[str, Any]], None] | None,
) -> None:
    """Press the box together to the density asked for; a denser one is left as it is.

    Raises
    ------
    MolflowError
        It was not reached in `press_ps`.
    """
    context, wanted = simulation.context, settings.density or 0.0
    context.setParameter(openmm.MonteCarloBarostat.Pressure(), settings.press_pressure)
    steps = 0
    while (found := density_of(simulation, mass)) < wanted:
        if steps * settings.timestep * 1e-3 >= settings.press_ps:
            raise MolflowError(
                f"{settings.press_ps:g} ps at {settings.press_pressure:g} bar pressed the box to {found:.3f} g/cm³, "
                f"not to the {wanted:g} asked for: ask for less, or press longer or harder"
            )
        integrate(context, partial(simulation.integrator.step, PRESS_STEPS))
        steps += PRESS_STEPS
        note(progress, step=0, total=settings.total_steps, density=found)
    if settings.pressure is None:
        barostat_off(simulation)
    else:
        context.setParameter(openmm.MonteCarloBarostat.Pressure(), settings.pressure)
    simulation.currentStep = 0
    context.setTime(0.0)


def barostat_off(simulation: app.Simulation) -> None:
    """Keep the box as it is from now on (NVT)."""
    system = simulation.context.getSystem()
    for force in system.getForces():
        if isinstance(force, openmm.MonteCarloBarostat):
            force.setFrequency(0)
    simulation.context.reinitialize(preserveState=True)


def density_of(simulation: app.Simulation, mass: float) -> float:
    """g/cm³; `mass` in amu."""
    return mass / (1e3 * simulation.context.getState().getPeriodicBoxVolume()._value) * AMU_PER_A3


def _finish(
    simulation: app.Simulation, cluster: MolecularCluster, settings: ClusterSettings, folder: Path, speed: float | None
) -> dict[str, Any]:
    """Look at the second half of the run; write the last frame and the picture; returns the summary."""
    log = pd.read_csv(folder / "log.csv")
    late = log.iloc[len(log) // 2 :]
    periodic = cluster.cell is not None
    state = simulation.context.getState(positions=True)
    positions = 10.0 * state.getPositions(asNumpy=True)._value
    cell = 10.0 * state.getPeriodicBoxVectors(asNumpy=True)._value if periodic else None
    if not np.isfinite(positions).all():
        raise NonFiniteError("the last frame is not finite")
    last = cluster.with_positions(positions, cell)
    data = io.StringIO()
    ase.io.write(data, last.to_ase(), format="extxyz")
    write_bytes_atomically(folder / "final.extxyz", data.getvalue().encode())
    if periodic:
        simulation.topology.setPeriodicBoxVectors(state.getPeriodicBoxVectors())
    write_pdb(folder / "final.pdb", simulation.topology, unit.Quantity(0.1 * positions, unit.nanometer))
    energy = late["Potential Energy (kJ/mole)"].to_numpy(float)
    watched = late["Density (g/mL)"].to_numpy(float) if periodic else energy
    found = drift(watched)
    _picture(log, periodic, folder / "run.svg")
    return {
        **summary_head(simulation, settings, speed, late),
        "molecules": cluster.n_molecules,
        "atoms": len(cluster.numbers),
        "periodic": periodic,
        "energy_mean_kj_mol": float(energy.mean()),
        "density_mean_g_cm3": found.density if periodic else None,
        "density_std_g_cm3": float(watched.std()) if periodic else None,
        "drift_of": "density" if periodic else "potential energy",
        "drift_percent": 100.0 * found.change,
        "drift_error_percent": 100.0 * found.error,
        "drifting": found.drifting and not (periodic and settings.pressure is None),
    }


def _picture(log: pd.DataFrame, periodic: bool, path: Path) -> None:
    """Density and potential energy over time; what the means are taken over is shaded."""
    columns = [("Density (g/mL)", "density / g cm⁻³")] if periodic else []
    columns += [("Potential Energy (kJ/mole)", "potential energy / kJ mol⁻¹")]
    figure = new_figure(6.0, 2.2 * len(columns))
    time = log["Time (ps)"].to_numpy(float)
    for axis, (column, label) in zip(np.atleast_1d(figure.subplots(len(columns), 1, sharex=True)), columns):
        axis.plot(time, log[column].to_numpy(float), lw=0.8)
        axis.axvspan(time[len(time) // 2], time[-1], color="0.92", zorder=0)
        axis.set_ylabel(label)
    axis.set_xlabel("time / ps")
    write_figure(figure, path)
