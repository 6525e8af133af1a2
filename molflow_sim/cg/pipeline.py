"""Trajectory to force field in one folder: the functions behind `molflow cg fit` and `distill`.

A model folder fills up stage by stage: ``frames.npz``, ``topology.*`` (a copy of the all-atom topology, for reading
references), ``teacher.*`` (the flow), ``student.*`` (the force field), ``simulation/`` (by an engine such as
`molflow_openmm.simulate_cg`) and ``report.html``; ``fit.json`` and ``distill.json`` say what each was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molflow_sim.cg.inputs import FRAMES, check_model, load_frames
from molflow_sim.errors import InputError, StoreError, TrajectoryError
from molflow_sim.runs.files import write_bytes_atomically
from molflow_sim.runs.folder import JobFolder, read_run
from molflow_sim.training.weights import files_of

if TYPE_CHECKING:
    from molflow_sim.cg.forcefield import ForceField
    from molflow_sim.cg.student.training import DistillSettings
    from molflow_sim.cg.teacher import BeadFlow, TeacherSettings
    from molflow_sim.training import TrainSettings

TRAINING = "training"
"""Sub-folder with the checkpoints and metrics of the trainings."""
_STUDENT = (*files_of("student"), f"{TRAINING}/student")
OUTPUTS = {
    "fit": (FRAMES, *files_of("teacher"), f"{TRAINING}/teacher", "distill.json", *_STUDENT),
    "distill": _STUDENT,
}
"""What a stage writes, a fit its copy of the topology besides; a fit of something else takes the student with it."""
CODE = {
    "fit": ("molflow_sim.cg.teacher.training:fit_teacher",),
    "distill": (
        "molflow_sim.cg.teacher.flow",
        "molflow_sim.cg.teacher.forces:sample_with_forces",
        "molflow_sim.cg.student.training:fit_student",
    ),
}
"""What decides the numbers of a stage, see `molflow_sim.runs.identity.code_identity`."""
Progress = Callable[[str], None]


def fit(
    trajectory: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    topology: str | Path | None = None,
    beads: str | None = None,
    temperature: float | None = None,
    stride: int = 1,
    settings: TeacherSettings | None = None,
    train: TrainSettings | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> BeadFlow:
    """Fit the flow (teacher) to a trajectory; calling it again carries on, or gives back a finished one.

    Parameters
    ----------
    trajectory, topology, beads, temperature, stride
        As in `load_frames`.
    output : path
        The model folder, made if absent.
    settings : TeacherSettings, optional
        The flow's architecture.
    train : TrainSettings, optional
        How long and how it is trained; by default `teacher_training`, with `steps`, `seed` and `device`.
    steps, seed, device
        Training steps (by default as many as the number of frames asks for), random seed; "auto", "cpu",
        "cuda" or None for what suits the network.
    overwrite : bool
        Replace the model of the folder, its student included.
    progress : callable, optional
        Called with a line of text at each step of the way; None for silence, that of the training included.

    Returns
    -------
    BeadFlow

    Raises
    ------
    TrajectoryError, MappingError, InputError
        Something about the trajectory or the mapping; nothing has been written.
    StoreError
        The folder holds another model, an unfinished one of other code, or other files.
    TrainingError
        The training broke down.
    """
    from molflow_sim.cg.frames import BeadFrames
    from molflow_sim.cg.model import ModelFolder
    from molflow_sim.cg.teacher import TeacherSettings, fit_teacher, teacher_training

    folder = Path(output)
    frames = load_frames(trajectory, topology, beads, temperature, stride)
    settings = settings or TeacherSettings()
    frames.validate(settings.min_frames)
    train = train or _asked(teacher_training(frames.n_frames), steps, seed, device)
    identity = {"frames": frames.fingerprint, "flow": asdict(settings), "training": train.identity()}
    try:  # before the folder is cleared, which may hold it
        atoms = None if topology is None else Path(topology).read_bytes()
    except OSError as error:
        raise TrajectoryError(f"{topology} cannot be read: {error.strerror}") from None
    copied = None if topology is None else f"topology{Path(topology).suffix}"
    outputs = (*OUTPUTS["fit"], *(escape(name) for name in {copied, _copied_before(folder)} if name))
    with JobFolder(folder, identity, outputs, overwrite=overwrite, name="fit", code=CODE["fit"]) as stage:
        stage.check_code(stage.done)
        if stage.done:
            _say(progress, f"{folder} holds this model already")
            return ModelFolder(folder).load_teacher()
        frames.save(folder / FRAMES)
        if copied is not None and atoms is not None:
            write_bytes_atomically(folder / copied, atoms)
        about = {"frames": f"{frames.n_frames} of {frames.source}", "beads": beads, "topology": copied}
        stage.write_run(status="running", **about)
        _say(
            progress,
            f"{frames.n_frames} frames of {frames.topology.n_beads} beads at {frames.temperature:g} K; "
            f"{train.max_steps} training steps",
        )
        # Read back, so that an interrupted and an undisturbed fit see the same numbers.
        flow = fit_teacher(
            BeadFrames.load(folder / FRAMES),
            settings,
            train,
            folder / TRAINING / "teacher",
            progress=progress is not None,
        )
        ModelFolder(folder).save_teacher(
            flow, {"frames": identity["frames"], "source": frames.source, "training": asdict(train)}
        )
        stage.write_run(status="done", **about)
    return flow


def distill(
    model: str | Path,
    *,
    method: str = "flow-forces",
    samples: int = 200_000,
    settings: DistillSettings | None = None,
    train: TrainSettings | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ForceField:
    """Train the force field (student) of a model folder; calling it again carries on, or gives back a finished one.

    Parameters
    ----------
    model : path
        Model folder that `fit` made.
    method : str
        "flow-forces" (eq. 11 of Köhler et al.), or one of the baselines "force-matching" (eq. 3; the frames of the
        fit need forces) and "density" (the frames alone).
    samples : int
        Configurations drawn from the flow, for "flow-forces".
    settings : DistillSettings, optional
        The force field's size and bounds, and how the flow is sampled.
    train, steps, seed, device, progress
        As in `fit`.
    overwrite : bool
        Replace the student that the folder holds.

    Returns
    -------
    ForceField

    Raises
    ------
    WeightsError
        No flow in the folder, or a damaged one.
    InputError
        An unknown method, too few samples, or frames without forces for "force-matching".
    StoreError
        The folder holds another student, or an unfinished one of other code.
    """
    from molflow_sim.cg.frames import BeadFrames
    from molflow_sim.cg.model import ModelFolder
    from molflow_sim.cg.student.training import METHODS, DistillSettings, fit_student, student_train_settings
    from molflow_sim.cg.teacher import sample_with_forces
    from molflow_sim.training.weights import read_card

    folder = Path(model)
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if samples < 1000:
        raise InputError(f"{samples} samples are too few to distil from: at least 1000 are needed")
    check_model(folder)
    settings = settings or DistillSettings()
    identity: dict[str, Any] = {"method": method, "force field": asdict(settings.force_field), "seed": seed}
    if method == "flow-forces":
        flow = ModelFolder(folder).load_teacher()
        identity |= {"flow": read_card(folder, "teacher")["sha256"], "samples": samples}
        identity |= {"sampling": asdict(settings.sampling), "energy weight": settings.energy_weight}
        n = samples
    else:
        frames = BeadFrames.load(folder / FRAMES)
        if method == "force-matching" and frames.forces is None:
            raise InputError(f"the frames of {folder} hold no forces; force-matching needs them, flow-forces does not")
        identity |= {"frames": frames.fingerprint}
        n = frames.n_frames
    train = train or _asked(student_train_settings(n, method), steps, seed, device)
    identity |= {"training": train.identity()}
    with JobFolder(
        folder, identity, OUTPUTS["distill"], overwrite=overwrite, name="distill", among=True, code=CODE["distill"]
    ) as stage:
        stage.check_code(stage.done)
        if stage.done:
            _say(progress, f"{folder} holds this force field already")
            return ModelFolder(folder).load_student()
        data: Any
        about = {}
        if method == "flow-forces":
            _say(progress, f"drawing {samples} configurations with forces from the flow")
            data = sample_with_forces(flow, samples, seed, settings.sampling)
            _say(progress, data.summary)
            about["drawn"] = data.summary
        else:
            data = frames
        student = fit_student(
            data,
            method,
            settings.force_field,
            train,
            folder / TRAINING / "student",
            energy_weight=settings.energy_weight,
            progress=progress is not None,
        )
        ModelFolder(folder).save_student(student, {**identity, "training": asdict(train)})
        stage.write_run(status="done", **about)
    return student


def _copied_before(folder: Path) -> str | None:
    """The copy of a topology that a former fit says it has left here."""
    try:
        name = read_run(folder, "fit").get("topology")
    except StoreError:
        return None
    return Path(name).name if isinstance(name, str) else None


def _asked(train: TrainSettings, steps: int | None, seed: int, device: str | None) -> TrainSettings:
    changed = replace(train, seed=seed, device=device or train.device)
    if steps is not None:
        changed = replace(changed, max_steps=steps, warmup_steps=min(train.warmup_steps, max(0, steps // 5)))
    return changed


def _say(progress: Progress | None, text: str) -> None:
    if progress is not None:
        progress(text)
