"""The teacher of a coarse-grained force field: a normalizing flow, its fit to frames, and samples with forces."""

from __future__ import annotations

from molflow_sim.cg.teacher.flow import BeadFlow
from molflow_sim.cg.teacher.forces import (
    ForceSamples,
    ForceSampleSettings,
    instantaneous_forces,
    mean_forces,
    sample_with_forces,
)
from molflow_sim.cg.teacher.settings import TeacherSettings
from molflow_sim.cg.teacher.training import fit_teacher, teacher_training

__all__ = [
    "BeadFlow",
    "ForceSampleSettings",
    "ForceSamples",
    "TeacherSettings",
    "fit_teacher",
    "instantaneous_forces",
    "mean_forces",
    "sample_with_forces",
    "teacher_training",
]
