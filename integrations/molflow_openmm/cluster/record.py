"""Frames of amorphous clusters from dynamics: every box a chain of segments, resumed after the last one that was done.

A box's work folder holds ``checkpoint.json`` (segment, OpenMM state, log so far) and the frames taken; it becomes the
shard ``box_NNN.npz`` when the box is through:

================  ==============  ===================================================================================
array             shape           meaning
================  ==============  ===================================================================================
``positions``     (T, N, 3)       float32, Å; whole molecules, gathered in one image about the origin, with hydrogens
``numbers``       (N,)            atomic numbers; molecules one after another
``smiles``        ()              of the molecule, in the order of whose atoms it stands
``copies``        ()              molecules
``cell``          (T, 3, 3)       rows, Å
``split``         (T,)            0 training, 1 validation, 2 test: by frame, fixed once over all boxes
``box``           (T,)            the independent box a frame is from; leave one out for a stricter test
``density``       (T,)            g/cm³
================  ==============  ===================================================================================
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app

import molflow_sim
from molflow_openmm.cluster.drift import drift
from molflow_openmm.cluster.recipe import Recipe, split_frames, together
from molflow_openmm.cluster.system import clusterSystem
from molflow_openmm.compiled import without_gpu
from molflow_openmm.crystal.settings import find_platform
from molflow_openmm.run import explained, integrate, openmm_seed
from molflow_sim.errors import NonFiniteError
from molflow_sim.packing.clusters import PACKERS
from molflow_sim.runs.files import write_bytes_atomically, write_json
from molflow_sim.runs.folder import JobFolder
from molflow_sim.runs.store import pack_arrays, unpack_arrays
from molflow_sim.systems.cluster import MolecularCluster
from molflow_sim.systems.molecule import Molecule
from molflow_sim.units import AMU_PER_A3

OUTPUTS = ("box_*.npz", "work_*", "recipe.json")
CODE = (
    "molflow_openmm.cluster.record:_Box",
    "molflow_openmm.cluster.record:_write_shard",
    "molflow_openmm.cluster.recipe",
)
"""What decides the frames, see `molflow_sim.runs.identity.code_identity`."""
BAROSTAT_INTERVAL = 15
"""Steps between Monte Carlo changes of the volume."""
MINIMISATION_STEPS = 300
"""At most this many L-BFGS iterations from the packed start."""


def record_clusters(
    molecule: Molecule,
    output: str | Path,
    recipe: Recipe,
    *,
    platform: str | None = None,
    overwrite: bool = False,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Make the data set, or carry on with it.

    Parameters
    ----------
    molecule : Molecule
        With conformers to pack.
    output : path
        Folder of the shards, ``recipe.json`` and ``run.json``.
    recipe : Recipe
    platform : str, optional
        OpenMM's; None takes the fastest.
    overwrite : bool
        Replace what the folder holds of another data set.
    progress : callable, optional
        Called after every segment with ``{"box", "stage", "density", "step", "total"}``; steps are segments, of all
        boxes.

    Returns
    -------
    dict
        The content of ``recipe.json``: settings, versions, frames, and for every box the density, its drift, and
        whether it still drifted.

    Raises
    ------
    StoreError
        The folder belongs to another data set, or holds an unfinished one of other code.
    PackingError, MissingDependencyError
        The start could not be packed.
    ParameterError, UnsupportedElementError
        The molecule has no parameters.
    NonFiniteError
        The dynamics blew up.
    """
    folder, where = Path(output), find_platform(platform)
    identity = {"kind": "cluster dynamics", "smiles": molecule.smiles, **asdict(recipe)}
    with JobFolder(folder, identity, OUTPUTS, overwrite=overwrite, code=CODE) as job:
        job.check_code(all((folder / f"box_{box:03d}.npz").exists() for box in range(recipe.boxes)))
        split = split_frames(recipe.frames, recipe.seed)
        first, boxes = 0, []
        for box in range(recipe.boxes):
            rows = slice(first, first + recipe.frames_of(box))
            first = rows.stop
            shard = folder / f"box_{box:03d}.npz"
            if not shard.exists():
                log = _Box(molecule, recipe, box, folder / f"work_{box:03d}", where).run(progress)
                _write_shard(shard, molecule, recipe, box, split[rows], folder / f"work_{box:03d}", log)
            shutil.rmtree(folder / f"work_{box:03d}", ignore_errors=True)
            with np.load(shard) as data:
                found = drift(data["density"])
                seconds = float(data["seconds"])
            boxes.append({"box": box, "frames": recipe.frames_of(box), "cpu_seconds": seconds, **found._asdict()})
        summary = {
            "smiles": molecule.smiles, "formula": molecule.formula, "recipe": asdict(recipe), "frames": recipe.frames,
            "split": "80:10:10 by frame, over all boxes; `box` tells the independent boxes apart",
            "boxes": boxes, "drifting": any(b["drifting"] for b in boxes),
            "molflow_sim": molflow_sim.__version__, "openmm": openmm.__version__,
        }  # fmt: skip
        write_json(folder / "recipe.json", summary)
        job.write_run(status="done")
    return summary


class _Box:
    """One box on its way through the segments."""

    def __init__(
        self, molecule: Molecule, recipe: Recipe, box: int, work: Path, platform: openmm.Platform | None
    ) -> None:
        self.recipe, self.box, self.work = recipe, box, work
        self.segments = recipe.segments(box)
        self.checkpoint = work / "checkpoint.json"
        self.log: list[list[Any]] = []  # stage, temperature asked for, density, potential energy
        self.seconds = 0.0
        cluster: MolecularCluster = PACKERS[recipe.packing](
            [molecule], [recipe.copies], density=recipe.start_density, periodic=True, seed=[recipe.seed, box]
        )
        self.sizes, self.mass = cluster.sizes, float(cluster.masses.sum())
        _, system, positions = clusterSystem(
            cluster, recipe.charges, nonbondedCutoff=0.1 * recipe.cutoff, constraints=app.HBonds,
            hydrogenMass=recipe.hydrogen_mass, dispersionCorrection=True, compiled=without_gpu(platform),
        )  # fmt: skip
        self.barostat = openmm.MonteCarloBarostat(recipe.hot_pressure, recipe.hot_temperature, BAROSTAT_INTERVAL)
        system.addForce(self.barostat)
        self.integrator = openmm.LangevinMiddleIntegrator(
            recipe.hot_temperature, recipe.friction, 1e-3 * recipe.timestep
        )
        self.next = 0
        saved = json.loads(self.checkpoint.read_text()) if self.checkpoint.exists() else None
        if saved:
            self.next, self.log, self.seconds = saved["segment"], saved["log"], saved["seconds"]
        # OpenMM keeps no random state: a resumed box draws other numbers, decided by seed, box and segment
        seed = openmm_seed(recipe.seed, box, self.next)
        self.integrator.setRandomNumberSeed(seed)
        self.barostat.setRandomNumberSeed(seed)
        arguments = (system, self.integrator) + ((platform,) if platform is not None else ())
        self.context = openmm.Context(*arguments)
        if saved:
            self.context.setState(openmm.XmlSerializer.deserialize(saved["state"]))
        else:
            self.context.setPositions(positions)
            openmm.LocalEnergyMinimizer.minimize(self.context, maxIterations=MINIMISATION_STEPS)
            self.context.setVelocitiesToTemperature(recipe.hot_temperature, seed)

    def run(self, progress: Callable[[dict[str, Any]], None] | None) -> list[list[Any]]:
        """Go through what is left; returns the log."""
        self.work.mkdir(parents=True, exist_ok=True)
        self._tell(progress, "", 0.0)
        while self.next < len(self.segments):
            segment = self.segments[self.next]
            began = time.process_time()
            self.integrator.setTemperature(segment.temperature)
            self.context.setParameter(openmm.MonteCarloBarostat.Temperature(), segment.temperature)
            self.context.setParameter(openmm.MonteCarloBarostat.Pressure(), segment.pressure)
            try:
                integrate(self.context, partial(self.integrator.step, segment.steps))
                density = self._save(segment.frame, segment, began)
            except (openmm.OpenMMException, ValueError, NonFiniteError) as error:
                raise explained(error, self.recipe.timestep) from error
            self._tell(progress, segment.stage, density)
        return self.log

    def _tell(self, progress: Callable[[dict[str, Any]], None] | None, stage: str, density: float) -> None:
        """Progress over the segments of all boxes."""
        if progress is not None:
            counts = [len(self.recipe.segments(b)) for b in range(self.recipe.boxes)]
            done = sum(counts[: self.box]) + self.next
            progress({"box": self.box, "stage": stage, "density": density, "step": done, "total": sum(counts)})

    def _save(self, frame: bool, segment: Any, began: float) -> float:
        """The frame first, then the checkpoint that counts it."""
        state = self.context.getState(positions=True, velocities=True, energy=True, parameters=True)
        positions = 10.0 * state.getPositions(asNumpy=True)._value
        cell = 10.0 * state.getPeriodicBoxVectors(asNumpy=True)._value
        energy = state.getPotentialEnergy()._value
        if not (np.isfinite(positions).all() and np.isfinite(energy)):
            raise ValueError("NaN among the positions")
        density = self.mass / abs(np.linalg.det(cell)) * AMU_PER_A3
        if frame:
            taken = pack_arrays({"positions": positions.astype(np.float32), "cell": cell})
            write_bytes_atomically(self.work / f"{self.next:06d}.npz", taken)
        self.next += 1
        self.seconds += time.process_time() - began
        self.log.append([segment.stage, segment.temperature, round(density, 5), round(energy, 2)])
        text = openmm.XmlSerializer.serialize(state)
        note = {"segment": self.next, "log": self.log, "seconds": self.seconds, "state": text}
        write_bytes_atomically(self.checkpoint, json.dumps(note).encode())
        return density


def _write_shard(
    path: Path, molecule: Molecule, recipe: Recipe, box: int, split: np.ndarray, work: Path, log: list[list[Any]]
) -> None:
    """The frames of a box that is through."""
    segments = recipe.segments(box)
    taken = [work / f"{k:06d}.npz" for k, segment in enumerate(segments) if segment.frame]
    frames = [unpack_arrays(frame.read_bytes()) for frame in taken]
    sizes = [molecule.n_atoms] * recipe.copies
    cells = np.array([f["cell"] for f in frames])
    positions = np.array([together(f["positions"].astype(float), c, sizes) for f, c in zip(frames, cells)])
    arrays = {
        "positions": positions.astype(np.float32),
        "numbers": np.tile(molecule.numbers, recipe.copies).astype(np.uint8),
        "smiles": molecule.smiles,
        "copies": recipe.copies,
        "cell": cells.astype(np.float32),
        "split": split,
        "box": np.full(len(frames), box, np.uint8),
        "density": np.array([row[2] for row, segment in zip(log, segments) if segment.frame]),
        "log": json.dumps(log),
        "seconds": json.loads((work / "checkpoint.json").read_text())["seconds"],
    }
    write_bytes_atomically(path, pack_arrays(arrays))
