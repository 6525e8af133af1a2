"""Does a coarse-grained force field hold the molecule together, and does its integration conserve energy?

    python -m studies.cg_stability MODEL [--replicas 100] [--ns 5] [--temperatures 300 500] [--nve-ps 1000]

Langevin dynamics (2 fs, friction 1/ps) of many copies at each temperature: positions that are not finite, the
shortest and the longest bond of any frame against the range of the frames that the model was fitted to, the mean
kinetic temperature. Then velocity Verlet at constant energy in double precision: the slope of the total energy over
time, in kT per nanosecond and degree of freedom. The same command again carries on with interrupted dynamics.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from molflow_openmm import CGForceField, simulate_cg
from molflow_openmm.cg.model import starting_positions

from molflow_sim.cg import BeadFrames
from molflow_sim.errors import MolflowError
from molflow_sim.units import BOLTZMANN, KJ_PER_MOL


def starts(model: Path) -> BeadFrames | None:
    """The frames of the fit, where the model folder holds them; else the flow's samples are taken."""
    path = model / "frames.npz"
    return BeadFrames.load(path) if path.is_file() else None


def langevin(model: Path, temperature: float, replicas: int, ns: float, folder: Path, precision: str) -> dict[str, Any]:
    """Run, or carry on, and look at every frame."""
    row: dict[str, Any] = {"temperature": temperature, "replicas": replicas, "ns": ns, "precision": precision}
    start = time.perf_counter()
    try:
        options = {"output": folder, "start": starts(model), "precision": precision}
        options["progress"] = _tell(f"{temperature:g} K")
        run = simulate_cg(model, replicas, ns, temperature, **options)
    except MolflowError as error:
        return row | {"failed": error.reason}
    positions = run.positions()
    i, j = run.topology.bonds.T
    bonds = np.linalg.norm(positions[..., i, :] - positions[..., j, :], axis=-1)
    table = np.genfromtxt(folder / "log.csv", delimiter=",", names=True, deletechars="")
    kinetic = float(np.mean(next(table[name] for name in table.dtype.names if name.startswith("Temperature"))))
    return row | {
        "seconds": time.perf_counter() - start,
        "frames": int(positions.shape[0] * positions.shape[1]),
        "finite": bool(np.isfinite(positions).all()),
        "shortest_bond": float(bonds.min()),
        "longest_bond": float(bonds.max()),
        "bond_ranges": [[float(a), float(b)] for a, b in zip(bonds.min((0, 1)), bonds.max((0, 1)))],
        "kinetic_temperature": kinetic,
    }


def constant_energy(model: Path, temperature: float, replicas: int, ps: float, timestep_fs: float) -> dict[str, Any]:
    """Slope of the total energy under velocity Verlet.

    Returns
    -------
    dict
        "drift": |slope| of the least-squares line, kT/ns/dof; "drift_error": its standard error over the copies;
        "fluctuation": standard deviation about the line, kT/dof.
    """
    field = CGForceField.load(model)
    start = starting_positions(field.forcefield, model.resolve(), starts(model), replicas, 0)
    system = field.createSystem(replicas=replicas, removeCMMotion=False)
    platform = openmm.Platform.getPlatformByName("Reference")
    thermostat = openmm.LangevinMiddleIntegrator(temperature, 1.0, 1e-3 * timestep_fs)
    thermostat.setRandomNumberSeed(1)
    context = openmm.Context(system, thermostat, platform)
    context.setPositions(0.1 * start.reshape(-1, 3))
    context.setVelocitiesToTemperature(temperature, 1)
    thermostat.step(round(5000 / timestep_fs))
    state = context.getState(getPositions=True, getVelocities=True)
    # The plain leap-frog of OpenMM's VerletIntegrator would need velocities half a step apart.
    verlet = openmm.CustomIntegrator(1e-3 * timestep_fs)
    verlet.addUpdateContextState()
    verlet.addComputePerDof("v", "v+0.5*dt*f/m")
    verlet.addComputePerDof("x", "x+dt*v")
    verlet.addComputePerDof("v", "v+0.5*dt*f/m")
    context = openmm.Context(system, verlet, platform)
    context.setPositions(state.getPositions(asNumpy=True))
    context.setVelocities(state.getVelocities(asNumpy=True))
    masses = np.tile(field.beads.masses, replicas)
    every, energies = 100, []
    began = time.perf_counter()
    for _ in range(round(1000 * ps / timestep_fs / every)):
        verlet.step(every)
        now = context.getState(getPositions=True, getVelocities=True)
        x = 10.0 * now.getPositions(asNumpy=True)._value.reshape(replicas, -1, 3)
        v = now.getVelocities(asNumpy=True)._value  # nm/ps; amu nm²/ps² is kJ/mol
        kinetic = 0.5 * (masses[:, None] * v**2).reshape(replicas, -1).sum(axis=1) * KJ_PER_MOL
        energies.append(field.forcefield.energy_and_forces(np.ascontiguousarray(x))[0] + kinetic)
    total = np.array(energies) / (BOLTZMANN * temperature) / (3 * field.beads.n_beads)  # kT/dof, (times, copies)
    t = 1e-6 * timestep_fs * every * np.arange(len(total))  # ns
    slopes, _ = np.polyfit(t, total, 1)
    residual = total - total.mean(axis=0) - np.outer(t - t.mean(), slopes)
    return {
        "temperature": temperature,
        "replicas": replicas,
        "ps": ps,
        "timestep_fs": timestep_fs,
        "seconds": time.perf_counter() - began,
        "drift": float(abs(slopes.mean())),
        "drift_error": float(slopes.std(ddof=1) / np.sqrt(replicas)) if replicas > 1 else float("nan"),
        "fluctuation": float(residual.std()),
    }


def _tell(what: str) -> Any:
    last = [time.monotonic()]

    def progress(event: dict[str, Any]) -> None:
        if time.monotonic() - last[0] > 30.0:
            last[0] = time.monotonic()
            print(f"{what}: {event['report']} of {event['total']} frames", file=sys.stderr, flush=True)

    return progress


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="model folder with a force field")
    parser.add_argument("--replicas", type=int, default=100)
    parser.add_argument("--ns", type=float, default=5.0)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[300.0, 500.0])
    parser.add_argument("--precision", default="double", help="of the network in Langevin dynamics: double or single")
    parser.add_argument("--nve-replicas", type=int, default=100)
    parser.add_argument("--nve-ps", type=float, default=1000.0, help="length at constant energy, 0 for none")
    parser.add_argument("--nve-timestep", type=float, default=1.0, help="fs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, help="folder of the runs [default: MODEL/stability]")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = options.output or options.model / "stability"
    result: dict[str, Any] = {"langevin": [], "constant_energy": None}
    for temperature in options.temperatures:
        name = f"{temperature:g}K_{options.replicas}x{options.ns:g}ns"
        row = langevin(options.model, temperature, options.replicas, options.ns, folder / name, options.precision)
        result["langevin"].append(row)
        if "failed" in row:
            print(f"{temperature:g} K: {row['failed']}", flush=True)
            continue
        print(
            f"{temperature:g} K, {options.replicas} copies × {options.ns:g} ns: "
            f"{'no NaN' if row['finite'] else 'NOT FINITE'}, bonds {row['shortest_bond']:.3f} to "
            f"{row['longest_bond']:.3f} Å over {row['frames']} frames, kinetic temperature "
            f"{row['kinetic_temperature']:.1f} K, {row['seconds']:.0f} s",
            flush=True,
        )
    if options.nve_ps:
        row = constant_energy(
            options.model, options.temperatures[0], options.nve_replicas, options.nve_ps, options.nve_timestep
        )
        result["constant_energy"] = row
        print(
            f"constant energy, {row['replicas']} copies × {row['ps']:g} ps at {row['timestep_fs']:g} fs: drift "
            f"{row['drift']:.1e} ± {row['drift_error']:.1e} kT/ns/dof, fluctuation {row['fluctuation']:.1e} kT/dof"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stability.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
