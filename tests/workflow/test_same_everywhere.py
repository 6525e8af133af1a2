"""What becomes of a candidate follows from its seed and its number: not from its batch, threads, workers or a kill."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from crystal_flow_examples import flow

from molflow_sim import CrystalPotential, Molecule, parametrize
from molflow_sim.packing import PressSettings, RigidPackings, press, random_packings
from molflow_sim.packing.relief import relieve
from molflow_sim.relax.flexible import relax_flexible
from molflow_sim.runs.scheduler import DaskExecutor
from molflow_sim.screening import ScreenSettings
from molflow_sim.screening import stages as steps
from molflow_sim.screening.stages import Shared, Stages

N = 500


def rows(packings: RigidPackings) -> list[tuple]:
    """Each packing by the bytes of its numbers."""
    arrays = [getattr(packings, name) for name in ("conformer", "cell", "centroid", "rotation", "energy", "status")]
    return [(group, *(a[i].tobytes() for a in arrays)) for i, group in enumerate(packings.space_groups)]


def in_pieces(packings: RigidPackings, size: int, work) -> list[tuple]:
    parts = [packings.select(slice(first, first + size)) for first in range(0, len(packings), size)]
    return [row for part in parts for row in rows(work(part))]


@pytest.fixture(scope="module")
def molecule() -> Molecule:
    return Molecule.from_smiles("NC=O", n_conformers=1)


@pytest.fixture(scope="module")
def parameters(molecule):
    return parametrize(molecule)


@pytest.fixture(scope="module")
def pressed(molecule, parameters) -> RigidPackings:
    return press(random_packings(molecule, N, seed=4), parameters)


@pytest.mark.parametrize(("size", "n"), [(1, 16), (7, 63), (64, 192)])
def test_the_press_of_a_candidate_is_the_same_in_any_company(molecule, parameters, pressed, size, n):
    start = random_packings(molecule, n, seed=4)
    assert rows(press(start, parameters, PressSettings(batch_size=size))) == rows(pressed)[:n]


def test_the_press_of_a_candidate_is_the_same_on_two_threads(molecule, parameters, pressed):
    start = random_packings(molecule, N, seed=4)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(before, 2))
        assert rows(press(start, parameters)) == rows(pressed)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [7, 64])
def test_the_press_of_a_candidate_is_the_same_on_two_workers(molecule, parameters, pressed, workers, size):
    n = 4 * size
    settings = ScreenSettings(candidates=n, batch_size=size, generator="random", seed=4)
    shared = Shared(Stages(), molecule, parameters, settings)
    executor = DaskExecutor(workers)
    try:
        results = {k: data for k, data, _ in executor.run(steps.press_batch, (shared,), range(settings.n_batches))}
    finally:
        executor.close()
    made = RigidPackings.concatenate([steps.read_packings(shared, results[k]) for k in range(settings.n_batches)])
    assert rows(made) == rows(pressed)[:n]
    assert made.index.tolist() == list(range(n))


@pytest.fixture(scope="module")
def workers():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, memory_limit=None) as cluster:
        yield cluster.scheduler_address


@pytest.mark.parametrize("size", [1, 7])
def test_relief_and_flow_of_a_candidate_are_the_same_in_any_company(molecule, size):
    start = random_packings(molecule, 21, seed=1)
    assert in_pieces(start, size, relieve) == rows(relieve(start))
    model = flow(0)
    carried = model.integrate(start, steps=2)
    assert in_pieces(start, size, lambda part: model.integrate(part, steps=2)) == rows(carried)
    assert rows(model.integrate(start.select(np.arange(21)[::-1]), steps=2)) == rows(carried)[::-1]


def test_the_relaxation_of_a_crystal_is_the_same_in_any_company_and_order(molecule, parameters, pressed):
    crystals = [pressed.crystal(int(i)) for i in np.argsort(np.where(pressed.ok, pressed.energy, 9.0))[:9]]
    potential = CrystalPotential([parameters])

    def numbers(found):
        return [(r.energy, r.n_steps, r.crystal.cell.tobytes(), r.crystal.unit_cell()[1].tobytes()) for r in found]

    together = numbers(relax_flexible(crystals, potential))
    assert numbers(relax_flexible(crystals[::-1], potential, batch_size=4)) == together[::-1]
    assert numbers(relax_flexible(crystals[:3], potential, batch_size=1)) == together[:3]
    energies = steps.evaluate(crystals, parameters)
    assert [float(steps.evaluate([c], parameters)[0]) for c in crystals] == energies.tolist()


COMPILED = """
import hashlib
import numpy as np, torch, torch_sim
from crystal_examples import crystal
from molflow_sim import CrystalPotential, parametrize
from molflow_sim.forcefield.dynamics import DynamicsPotential
from molflow_sim.so3lr.potential import SO3LR
c = crystal("glycolic")
out = CrystalPotential([parametrize(c.molecules[0])])(torch_sim.initialize_state([c.to_ase()], "cpu", torch.float64))
numbers, positions, _, _ = c.unit_cell()
energy, gradient, virial, _ = SO3LR().evaluate([numbers], [positions], [c.cell])[0]
step = DynamicsPotential([parametrize(c.molecules[0])], [0] * c.z, cutoff=8.0, alpha=0.3)(positions, c.cell)
for array in (*(out[k].numpy() for k in sorted(out)), np.array(energy), gradient, virial, np.array(step[0]), step[1]):
    print(hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_the_process_that_compiles_the_loops_gets_the_bits_of_those_that_load_them(tmp_path):
    found = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": found}
    runs = [
        subprocess.run([sys.executable, "-c", COMPILED], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout and runs[0].stdout.count("\n") == 10
