"""What `cg_speed.py` measures with: baselines, a stopwatch for steps, and what the machine is."""

import os
import platform
import statistics
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numba
import numpy as np
import openmm
import torch
from openmm import unit

from molflow_sim import __version__
from molflow_sim.units import KJ_PER_MOL

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


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


def use_cores(n: int) -> bool:
    """Keep this process and the threads it starts on the first `n` cores it may use; whether there are so many."""
    torch.set_num_threads(n)
    if not hasattr(os, "sched_setaffinity"):
        return (os.cpu_count() or 1) >= n
    if len(CORES) < n:
        return False
    os.sched_setaffinity(0, CORES[:n])
    return True


def processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of what matters here."""
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


def load() -> float:
    """Processes running or waiting, averaged over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
