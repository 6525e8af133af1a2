"""A model folder's simulation and flow against a reference: the function behind `molflow cg report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from molflow_sim.cg.inputs import FRAMES, check_model, is_npz, load_frames
from molflow_sim.errors import InputError, MappingError
from molflow_sim.runs.folder import read_run

if TYPE_CHECKING:
    from molflow_sim.cg.frames import BeadFrames
    from molflow_sim.cg.reports.reporting import Report

FLOW_SAMPLES = 50_000
"""Configurations drawn from the flow for a report."""


def report(
    model: str | Path,
    reference: str | Path | Sequence[str | Path] | None = None,
    *,
    topology: str | Path | None = None,
    beads: str | None = None,
    native: str | Path | None = None,
    simulation: str | Path | None = None,
    discard_ps: float = 0.0,
    flow_samples: int = FLOW_SAMPLES,
    output: str | Path | None = None,
) -> Report:
    """Compare the simulation of a model, and samples of its flow, with a reference, in one HTML file.

    Parameters
    ----------
    model : path
        Model folder.
    reference, topology, beads
        As in `reference_frames`.
    native : path, optional
        File with the folded structure (PDB, ..., or .npz of bead frames; its first frame counts): adds the free energy
        over the RMSD to it, the share of native frames and the number of folding and unfolding events.
    simulation : path, optional
        Folder of the run; ``simulation`` in the model folder by default. Its frames at the temperature nearest to the
        reference's are taken.
    discard_ps : float
        Left out at the start of each copy.
    flow_samples : int
        Configurations drawn from the flow; 0 leaves it out.
    output : path, optional
        The HTML file; ``report.html`` in the model folder by default.

    Returns
    -------
    Report

    Raises
    ------
    WeightsError
        No model in the folder, or a damaged one.
    InputError
        Neither simulation nor flow to report on.
    StoreError
        The folder named as simulation holds none.
    TrajectoryError, MappingError
        As `reference_frames`.
    """
    from molflow_sim.cg.reports.reporting import report as compare
    from molflow_sim.cg.simulation import CGSimulation

    folder = Path(model)
    record = check_model(folder)
    known = reference_frames(folder, reference, topology, beads)
    structure = None if native is None else reference_frames(folder, native, Path(native), beads)
    samples: dict[str, BeadFrames] = {}
    about: dict[str, object] = {"frames of the fit": record.get("frames", "")}
    run = Path(simulation) if simulation is not None else folder / "simulation"
    if simulation is not None or (run / "summary.json").exists():
        done = CGSimulation.load(run)
        nearest = min(done.temperatures, key=lambda t: abs(t - known.temperature))
        samples["simulation"] = done.samples(nearest, discard_ps)
        seed = done.summary["settings"]["seed"]
        about |= {
            "simulation": f"{done.replicas} copies × {done.summary['ns']:g} ns, seed {seed}",
            "kinetic temperature": ", ".join(f"{t:.0f} K at {bath:.0f} K" for bath, t in done.kinetic_temperatures()),
        }
    if flow_samples and (folder / "teacher.json").exists():
        samples["flow"] = _drawn(folder, flow_samples)
    if not samples:
        raise InputError(f"{folder} holds no simulation; run one with: molflow cg simulate {folder}")
    if (folder / "distill.json").exists():
        distilled = read_run(folder, "distill")
        about |= {"samples": distilled["drawn"]} if "drawn" in distilled else {}
        about["method"] = distilled["identity"]["method"]
    path = Path(output) if output is not None else folder / "report.html"
    if native is not None:
        about["native structure"] = Path(native).name
    return compare(
        samples, known, path, native=structure, title=f"Coarse-grained model {folder.resolve().name}", provenance=about
    )


def reference_frames(
    model: str | Path,
    reference: str | Path | Sequence[str | Path] | None = None,
    topology: str | Path | None = None,
    beads: str | None = None,
) -> BeadFrames:
    """Frames to compare a model with, mapped as those that it was fitted to.

    Parameters
    ----------
    model : path
        Model folder.
    reference : path or paths, optional
        All-atom trajectory, or .npz of bead frames; by default the frames of the fit.
    topology, beads : optional
        By default those of the fit.

    Returns
    -------
    BeadFrames

    Raises
    ------
    TrajectoryError, MappingError
        As `load_frames`, or a reference of other beads.
    WeightsError
        No model in the folder.
    """
    from molflow_sim.cg.frames import BeadFrames

    folder = Path(model)
    record = check_model(folder)
    own = BeadFrames.load(folder / FRAMES)
    if not reference:
        return own
    if topology is None and record.get("topology"):
        topology = folder / str(record["topology"])
    frames = load_frames(
        reference, topology, beads or record.get("beads"), None if is_npz(reference) else own.temperature
    )
    if not frames.topology.has_beads_of(own.topology):
        raise MappingError(
            f"the reference has {frames.topology.n_beads} beads that are not those of the model in {folder} "
            f"({own.topology.n_beads}); give its --topology and the --beads of the fit"
        )
    return frames


def _drawn(folder: Path, n: int) -> BeadFrames:
    import torch

    from molflow_sim.cg.frames import BeadFrames
    from molflow_sim.cg.model import ModelFolder

    flow = ModelFolder(folder).load_teacher()
    x, _ = flow.sample(n, torch.Generator().manual_seed(0))
    return BeadFrames.from_arrays(x.numpy(), flow.topology, flow.temperature, source="samples of the flow")
