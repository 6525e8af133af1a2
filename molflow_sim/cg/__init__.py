"""Coarse-grained force fields from trajectories: mapping, flow (teacher), force field (student) and report."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Loaded on first use: a simulation needs neither MDTraj nor the flow.
_PUBLIC = {
    "BeadTopology": "topology",
    "backbone_topology": "topology",
    "BeadMapping": "mapping",
    "parse_beads": "mapping",
    "BeadFrames": "frames",
    "read_frames": "frames",
    "InternalCoordinates": "teacher.internal",
    "TeacherSettings": "teacher",
    "BeadFlow": "teacher",
    "ForceSamples": "teacher",
    "fit_teacher": "teacher",
    "sample_with_forces": "teacher",
    "ForceField": "forcefield",
    "CGNet": "student.cgnet",
    "CGNetSettings": "student.cgnet",
    "fit_student": "student.training",
    "DistillSettings": "student.settings",
    "ModelFolder": "model",
    "distill": "pipeline",
    "export": "pipeline",
    "fit": "pipeline",
    "simulate": "pipeline",
    "report": "reports.comparison",
    "Report": "reports.reporting",
    "Score": "reports.reporting",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"molflow_sim.cg.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
