"""The force field through the real `openmmtorch.TorchForce`, beside the other backends.

The wheels of openmmtorch need a torch of their own, so these tests run in a second environment (``.ci/torchforce``
builds it) and are skipped in the first.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch

REQUIRED = os.environ.get("MOLFLOW_TORCHFORCE") == "required"
if not REQUIRED and not torch.__version__.startswith("2.9."):
    pytest.skip(f"TorchForce needs torch 2.9, here is {torch.__version__}: run .ci/torchforce", allow_module_level=True)
if not REQUIRED:
    pytest.importorskip("openmmtorch", reason="openmmtorch is not installed: run .ci/torchforce")

import openmmtorch  # noqa: E402
from molflow_openmm import CGForceField, export_torchscript  # noqa: E402

from molflow_sim.cg.student.cgnet import CGNet, CGNetSettings  # noqa: E402
from molflow_sim.units import KJ_PER_MOL  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))
from cg_examples import backbone_frames, save_model  # noqa: E402

torch.set_num_threads(1)
REFERENCE = openmm.Platform.getPlatform("Reference")


@pytest.fixture(scope="module")
def frames():
    return backbone_frames()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, frames):
    net = CGNet.from_data(frames.positions, frames.topology, 300.0, CGNetSettings())  # the full size
    return save_model(tmp_path_factory.mktemp("model"), net)


@pytest.fixture(scope="module")
def forcefield(folder):
    return CGForceField.load(folder)


def context_of(system, x, integrator=None):
    context = openmm.Context(system, integrator or openmm.VerletIntegrator(0.001), REFERENCE)
    context.setPositions(0.1 * np.asarray(x).reshape(-1, 3))
    return context


def evaluated(system, x):
    """Energy and forces in OpenMM's units."""
    state = context_of(system, x).getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


@pytest.mark.parametrize("replicas", [1, 3])
def test_both_backends_give_the_same_energy_and_forces(forcefield, frames, replicas):
    x = frames.positions[10 : 10 + replicas]
    ours = evaluated(forcefield.createSystem(replicas=replicas), x)
    theirs = evaluated(forcefield.createSystem(backend="torchforce", replicas=replicas), x)
    assert theirs[0] == pytest.approx(ours[0], rel=1e-5)
    assert np.abs(theirs[1] - ours[1]).max() < 1e-5 * np.abs(ours[1]).max()
    expected = forcefield.forcefield.energy(torch.from_numpy(x)).sum().item() / KJ_PER_MOL
    assert theirs[0] == pytest.approx(expected, rel=1e-5)


def test_single_precision_agrees_to_single_precision(forcefield, frames):
    x = frames.positions[:1]
    ours = evaluated(forcefield.createSystem(), x)
    theirs = evaluated(forcefield.createSystem(backend="torchforce", precision="single"), x)
    assert theirs[0] == pytest.approx(ours[0], rel=1e-5)
    assert np.abs(theirs[1] - ours[1]).max() < 1e-5 * np.abs(ours[1]).max()


@pytest.mark.parametrize("forces", [False, True], ids=["energy", "energy and forces"])
def test_exported_file_runs_in_torchforce(folder, forcefield, frames, tmp_path, forces):
    force = openmmtorch.TorchForce(str(export_torchscript(folder, tmp_path / "model.pt", forces=forces)))
    force.setOutputsForces(forces)
    system = openmm.System()
    for mass in forcefield.beads.masses.tolist():
        system.addParticle(mass)
    system.addForce(force)  # its kernels: OpenMM finds them if torch was imported first
    theirs, ours = (context_of(s, frames.positions[0]) for s in (system, forcefield.createSystem()))
    for x in frames.positions[5:10]:  # TorchScript rewrites a module after its first calls
        found = []
        for context in (theirs, ours):
            context.setPositions(0.1 * x)
            state = context.getState(energy=True, forces=True)
            found.append((state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value))
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
        assert np.abs(found[0][1] - found[1][1]).max() < 1e-5 * np.abs(found[1][1]).max()


def test_langevin_dynamics_runs_with_torchforce(forcefield, frames):
    integrator = openmm.LangevinMiddleIntegrator(300, 1.0, 0.002)
    context = context_of(forcefield.createSystem(backend="torchforce", replicas=4), frames.positions[:4], integrator)
    context.setVelocitiesToTemperature(300, 1)
    integrator.step(1000)
    x = context.getState(positions=True).getPositions(asNumpy=True)._value.reshape(4, 5, 3)
    bonds = 10 * np.linalg.norm(np.diff(x, axis=1), axis=-1)
    assert ((bonds > 1.0) & (bonds < 2.0)).all()


def test_python_backend_takes_at_most_half_the_time_of_torchforce(forcefield, frames):
    """One molecule, one thread; the best of several rounds taken in turn, so that other work hardly counts."""
    steps, best = 1000, {}
    integrators = {}
    for backend in ("python", "torchforce"):
        integrator = openmm.LangevinMiddleIntegrator(300, 1.0, 0.002)
        context = context_of(forcefield.createSystem(backend=backend), frames.positions[:1], integrator)
        integrator.step(200)
        integrators[backend] = integrator, context
    for _ in range(5):
        for backend, (integrator, _context) in integrators.items():
            start = time.perf_counter()
            integrator.step(steps)
            best[backend] = min(best.get(backend, np.inf), 1e6 * (time.perf_counter() - start) / steps)
    print(", ".join(f"{backend} {time:.1f} µs a step" for backend, time in best.items()))
    assert best["python"] <= 0.5 * best["torchforce"]
