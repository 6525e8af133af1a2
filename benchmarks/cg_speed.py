"""What a step of coarse-grained dynamics costs in OpenMM: five beads, Reference platform, microseconds.

    python benchmarks/cg_speed.py [--model FOLDER] [--depth 3 5] [--threads 1] [-o speed.json]

All in one run, with the same integrator (LangevinMiddleIntegrator, 2 fs) and the same network: no force at all, an
empty `PythonForce`, a `PythonForce` around torch's autograd, openmmtorch's `TorchForce` where it is installed, and
the backend "python" with 1, 10 and 100 copies of the molecule in one context. Each figure is the least of several
repeats, the median beside it. Without --model the network is untrained: it costs the same.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import openmm
import torch
from molflow_openmm import CGForceField
from openmm import unit

from molflow_sim import __version__
from molflow_sim.cg import BeadFrames, CGNet, CGNetSettings
from molflow_sim.data import alanine_frames
from molflow_sim.errors import MissingDependencyError
from molflow_sim.units import KJ_PER_MOL


class Empty:
    """No energy, no forces: what the way through Python costs."""

    def __init__(self, n: int, reads: bool) -> None:
        self.forces, self.reads = np.zeros((n, 3)), reads

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        """Zeros; the positions are read as OpenMM's documentation does it, where asked for."""
        if self.reads:
            state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        return 0.0, self.forces


class Autograd:
    """The network by torch's autograd, as a `PythonForce` is usually written."""

    def __init__(self, network: torch.nn.Module, dtype: torch.dtype) -> None:
        self.network, self.dtype = network, dtype

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        """Energy in kJ/mol, forces in kJ/mol/nm."""
        nanometres = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        x = torch.tensor(10.0 * nanometres, dtype=self.dtype).unsqueeze(0).requires_grad_()
        energy = self.network(x).sum()
        (gradient,) = torch.autograd.grad(energy, x)
        return energy.item() / KJ_PER_MOL, (-10.0 / KJ_PER_MOL * gradient[0]).numpy().astype(float)


def time_steps(system: openmm.System, positions: np.ndarray, seconds: float, repeats: int) -> tuple[float, float]:
    """Least and median time of a step in µs over some repeats.

    Parameters
    ----------
    system : openmm.System
    positions : ndarray, shape (n, 3)
        Å.
    seconds : float
        Length of a repeat.
    repeats : int
    """
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(0.1 * positions)
    context.setVelocitiesToTemperature(300.0, 1)
    integrator.step(50)  # compiles
    start = time.perf_counter()
    integrator.step(50)
    n = max(20, round(50 * seconds / (time.perf_counter() - start)))
    each = []
    for _ in range(repeats):
        start = time.perf_counter()
        integrator.step(n)
        each.append(1e6 * (time.perf_counter() - start) / n)
    if not np.isfinite(context.getState(getEnergy=True).getPotentialEnergy()._value):
        print("  (the energy is not finite: this figure counts nothing)", file=sys.stderr)
    return min(each), statistics.median(each)


def bare(masses: list[float], force: openmm.Force | None = None) -> openmm.System:
    """A System of some particles and at most one force."""
    system = openmm.System()
    for mass in masses:
        system.addParticle(mass)
    if force is not None:
        system.addForce(force)
    return system


def measure(network: CGNet, frames: BeadFrames, seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Every way of evaluating one network: rows with name, copies, µs per step and per copy and step."""
    rows: list[dict[str, Any]] = []
    field = CGForceField(network)
    masses = network.topology.masses.tolist()
    start = frames.positions.astype(float)
    start -= start.mean(axis=1, keepdims=True)

    def add(name: str, make: Callable[[], openmm.System], copies: int = 1) -> None:
        try:
            system = make()
        except MissingDependencyError as error:
            rows.append({"what": name, "copies": copies, "missing": str(error)})
            print(f"{name:<44} not measured: {str(error).split(';')[0]}", flush=True)
            return
        x = start[np.arange(copies) * len(start) // copies].reshape(-1, 3)
        least, median = time_steps(system, x, seconds, repeats)
        rows.append({"what": name, "copies": copies, "us_per_step": least, "median": median, "each": least / copies})
        print(f"{name:<44}{copies:>5}{least:>10.1f}{median:>10.1f}{least / copies:>12.2f}", flush=True)

    add("no force", lambda: bare(masses))
    for reads, name in ((False, "PythonForce, empty"), (True, "PythonForce, empty, positions read")):
        add(name, lambda r=reads: bare(masses, openmm.PythonForce(Empty(len(masses), r))))
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        module = CGNet.from_state(*network.state()).to(dtype).eval().requires_grad_(False)
        add(f"PythonForce, autograd {name}", lambda m=module, d=dtype: bare(masses, openmm.PythonForce(Autograd(m, d))))
    for precision in ("single", "double"):
        add(
            f"TorchForce {precision}",
            lambda p=precision: field.createSystem(backend="torchforce", precision=p, removeCMMotion=False),
        )
    for copies in (1, 10, 100):
        add(
            f"backend python, {network.settings.precision}",
            lambda n=copies: field.createSystem(replicas=n, removeCMMotion=False),
            copies,
        )
    for copies in (1, 100):
        x = np.ascontiguousarray(start[:copies])
        network.energy_and_forces(x)
        each = []
        for _ in range(repeats):
            begin, n = time.perf_counter(), 0
            while time.perf_counter() - begin < seconds / 2:
                network.energy_and_forces(x)
                n += 1
            each.append(1e6 * (time.perf_counter() - begin) / n)
        rows.append({"what": "energy and forces alone", "copies": copies, "us_per_step": min(each)})
        least, median = min(each), statistics.median(each)
        print(
            f"{'energy and forces alone':<44}{copies:>5}{least:>10.1f}{median:>10.1f}{least / copies:>12.2f}",
            flush=True,
        )
    return rows


def processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of what matters here."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        plugin = version("openmmtorch")
    except PackageNotFoundError:
        plugin = "not installed"
    return {
        "molflow-sim": __version__,
        "openmm": openmm.__version__,
        "torch": torch.__version__,
        "openmmtorch": plugin,
        "numba": numba.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="model folder with a trained force field")
    parser.add_argument("--depth", type=int, nargs="+", default=[3, 5], help="layers of untrained networks")
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--precision", nargs="+", choices=("double", "single"), default=["double", "single"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, help="also write the figures there (JSON)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if hasattr(os, "sched_setaffinity"):  # one core means one core
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    frames = alanine_frames()
    load = f"load {os.getloadavg()[0]:.1f}"
    print(f"{processor()}, {os.cpu_count()} cores, {options.threads} used, {load}; "
          + ", ".join(f"{k} {v}" for k, v in versions().items()))  # fmt: skip
    result: dict[str, Any] = {
        "processor": processor(),
        "threads": options.threads,
        "versions": versions(),
        "networks": [],
    }
    networks = []
    if options.model:
        forcefield = CGForceField.load(options.model).forcefield
        networks.append(forcefield)
    else:
        for depth in options.depth:
            for precision in options.precision:
                settings = CGNetSettings(width=options.width, depth=depth, precision=precision)
                networks.append(CGNet.from_data(frames.positions, frames.topology, frames.temperature, settings).fold())
    for network in networks:
        s = network.settings
        print(f"\n{s.depth} layers of {s.width}, {s.precision}")
        print(f"{'':<44}{'copies':>5}{'µs/step':>10}{'median':>10}{'µs/copy/step':>12}")
        rows = measure(network, frames, options.seconds, options.repeats)
        result["networks"].append({"depth": s.depth, "width": s.width, "precision": s.precision, "rows": rows})
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
